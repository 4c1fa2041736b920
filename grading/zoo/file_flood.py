"""Makes files without end, each of them empty."""

n = 0
while True:
    n += 1
    open(f"empty-{n}", "w").close()
