"""Takes files, time and cores away from the warm parent, from which the next student's worker is forked."""

import ctypes
import os
import resource

libc, parent = ctypes.CDLL(None, use_errno=True), os.getppid()


def refused(number):
    if number < 0:
        raise OSError(ctypes.get_errno())


ATTEMPTS = {
    "files": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (100, 100)),
    "seconds": lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (5, 5)),
    "memory": lambda: resource.prlimit(parent, resource.RLIMIT_DATA, (2**28, 2**28)),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
    "everybody's priority": lambda: os.setpriority(os.PRIO_USER, 0, 19),
    "idle": lambda: os.sched_setscheduler(parent, os.SCHED_IDLE, os.sched_param(0)),
    "batch": lambda: os.sched_setscheduler(parent, os.SCHED_BATCH, os.sched_param(0)),
    "cores": lambda: os.sched_setaffinity(parent, {max(os.sched_getaffinity(0))}),
    "disk": lambda: refused(libc.syscall(251, 1, parent, 3 << 13)),  # ioprio_set on x86_64
}
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        print("CANARY", name)
    except OSError:
        continue
