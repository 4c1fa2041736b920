"""Takes memory that no limit of one process counts: shared, in several processes."""

import mmap
import os
import time

for _ in range(8):
    if os.fork() == 0:
        kept = []
        while True:
            kept.append(mmap.mmap(-1, 32 * 2**20))
            kept[-1].write(b"x" * (32 * 2**20))
time.sleep(60)
