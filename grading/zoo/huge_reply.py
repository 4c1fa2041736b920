"""Answers with two hundred megabytes, with a line and without."""

import os


def send(line):
    """Write a line to every pipe that leads out of this process."""
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
                os.write(int(number), line)
        except OSError:
            continue


send(b'{"value": ["list", [' + b'["none", null],' * 1_000_000 + b'["none", null]]]}\n')
for _ in range(200):
    send(b"9" * 2**20)
