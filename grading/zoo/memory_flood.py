"""Takes memory in one process."""

kept = []
while True:
    kept.append(bytearray(64 * 2**20))
