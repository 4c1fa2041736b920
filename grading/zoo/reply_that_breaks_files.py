"""Sends text that no file can hold and no terminal should show."""

import os


def send(line):
    """Write a line to every pipe that leads out of this process."""
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
                os.write(int(number), line)
        except OSError:
            continue


text = r"\ud800\u001b[2J\u0000"  # half a character, a command to the terminal, nothing
error = '{"kind": "' + text + '", "message": "' + text * 50 + '", "line": 1e400}'
send(('{"output": "' + text * 5000 + '", "error": ' + error + "}\n").encode())
raise ValueError("\ud800\x1b[2J")
