"""Reads one byte of every 2 MB of a huge empty mapping: the tables that lead to nothing fill the memory."""

import mmap

STEP = 2 * 2**20
while True:
    empty = mmap.mmap(-1, 2**43, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    for place in range(0, len(empty), STEP):
        empty[place]
