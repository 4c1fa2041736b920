"""Leaves a process behind that has left its session and ignores all that can be ignored."""

import os
import signal

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 32):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_IGN)
        os.execvp("sleep", ["sleep", "43.21"])
    os._exit(0)
