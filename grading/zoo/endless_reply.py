"""Answers without ever ending the line."""

import os


def send(line):
    """Write a line to every pipe that leads out of this process."""
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
                os.write(int(number), line)
        except OSError:
            continue


while True:
    send(b" " * 4096)
