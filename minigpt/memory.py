"""Freed memory stays with the process while it trains on a processor."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The numbers of these parameters in glibc's malloc.h. Source  mallopt(3)."""

KEEPING = {MMAP_THRESHOLD: 128 << 20, TRIM_THRESHOLD: 2**31 - 1}
USUAL = {MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
"""Bytes. The second are those that glibc reaches by itself in a process with large tensors.

Larger tensors go back even while we keep: glibc cannot always reuse the place of an aligned tensor for one of the same
size, and takes several such places before it settles. Measured: up to ten, for one tensor of 160 MB.
"""


@contextmanager
def keep_memory(device: torch.device) -> Iterator[str]:
    """A sentence on what happens to freed memory in this block: on Linux, malloc keeps it for the next step.

    By default glibc takes each tensor above 32 MB from the kernel and gives it back at once, and gives back what is
    free at the end of its heap. A step does so with hundreds of megabytes, and the kernel clears each page every
    time. Here that holds for tensors above 128 MB alone. When the block ends, what is free goes back.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield "freed memory is the allocator's affair"
        return
    libc = ctypes.CDLL(None)
    kept = [libc.mallopt(parameter, value) for parameter, value in KEEPING.items()]  # 1 each, 0 if glibc refuses
    try:
        yield "malloc keeps freed memory for the next step" if all(kept) else "malloc gives freed memory back"
    finally:
        for parameter, value in USUAL.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)
