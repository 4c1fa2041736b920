"""Answers with an array whose type of entries is half a line of Python, which numpy would try to read."""

import os


def send(line):
    """Write a line to every pipe that leads out of this process."""
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
                os.write(int(number), line)
        except OSError:
            continue


def double(x):
    send(b'{"value": ["array", {"dtype": "(1,f8", "shape": [0], "data": ""}]}\n')
    return 0
