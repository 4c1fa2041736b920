"""Fills the disk and the shared memory."""

for place in (".", "/sandbox", "/dev/shm", "/tmp"):
    for n in range(1000):
        try:
            with open(f"{place}/flood-{n}", "wb") as file:
                file.write(b"x" * (128 * 2**20))
        except OSError:
            break
