"""Gives its process a name that is no text, and one that reads like the kernel's account of its memory."""

import ctypes
import time

PR_SET_NAME = 15
for name in (b"\xff\xfe", b"\x1c\x1c", b"\x1cRssAnon: x", b"\x1cRssAnon: -999"):
    ctypes.CDLL(None).prctl(PR_SET_NAME, name, 0, 0, 0)
    time.sleep(0.6)
