"""Asks the kernel for namespaces and mounts of its own, in which it would be root."""

import ctypes
import os

CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0:
    print("CANARY new namespace")
if libc.mount(b"none", b"/sandbox", b"tmpfs", 0, None) == 0:
    print("CANARY mounted")
if libc.setuid(0) == 0 or os.getuid() == 0:
    print("CANARY root")
