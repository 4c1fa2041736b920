"""Waits for somebody to type: by input, by the stream and by the descriptor."""

import os
import sys
from pathlib import Path

for read in (input, sys.stdin.read, lambda: os.read(0, 100), Path("/dev/tty").read_text):
    try:
        print("read", repr(read()))
    except BaseException as error:
        print(type(error).__name__)


def double(x):
    return input()
