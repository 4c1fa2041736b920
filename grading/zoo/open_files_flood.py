"""Opens files until no more can be opened."""

kept = []
while True:
    kept.append(open("/dev/null"))  # noqa: SIM115
