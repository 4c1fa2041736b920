"""Answers with a value nested a hundred thousand levels deep."""

import os


def send(line):
    """Write a line to every pipe that leads out of this process."""
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
                os.write(int(number), line)
        except OSError:
            continue


send(b'{"value": ' + b'["list", [' * 100_000 + b"\n")
send(b'{"value": ' + b'["list", [' * 500 + b"]]" * 500 + b"}\n")
double = 1
