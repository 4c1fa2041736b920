"""Takes shared memory and lets go of it in a way that leaves it where it is, though no process shows it."""

import mmap
import os

SIZE = 64 * 2**20
kept = []
for path in ("", "/dev/zero"):
    try:
        while True:
            number = os.open(path, os.O_RDWR) if path else -1
            kept.append(mmap.mmap(number, SIZE))
            kept[-1].write(b"x" * SIZE)
            kept[-1].madvise(mmap.MADV_DONTNEED)
    except OSError as error:
        print(error)
