"""Answers with arrays whose shapes cannot be: negative, enormous, too short, of objects."""

import os


def send(line):
    """Write a line to every pipe that leads out of this process."""
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
                os.write(int(number), line)
        except OSError:
            continue


for array in (
    '{"dtype": "<f8", "shape": [-1, -3], "data": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}',
    '{"dtype": "<f8", "shape": [4000000000, 4000000000], "data": "AAAAAAAAAAA="}',
    '{"dtype": "<f8", "shape": [3], "data": ""}',
    '{"dtype": "O", "shape": [1], "data": "AAAAAAAAAAA="}',
    '{"dtype": "f8,f8", "shape": 1, "data": null}',
):
    send(b'{"value": ["array", ' + array.encode() + b"]}\n")
