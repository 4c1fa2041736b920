"""Kills the warm parent, the sandbox's first process and everything it can name."""

import os
import signal

for pid in (os.getppid(), 1, 2, -1):
    os.kill(pid, signal.SIGKILL)
