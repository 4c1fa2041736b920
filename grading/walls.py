"""What every sandbox holds back, whichever program builds it: files, system calls, memory, rights.

Inside there are no network, no capabilities and no files but Python, its packages, minigpt and the worker's own
modules, all read-only. What can be written is a small disk in memory, emptied after every submission.
"""

import glob
import importlib.util
import os
import re
import secrets
import site
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

DISK = "/sandbox"  # the one place inside that can be written, beside a quarter as much of shared memory
DISK_BYTES = 512 * 2**20
MOST_FILES = 20_000  # on that disk
NOBODY = 65534  # the group of everything inside

ENGINE = Path(__file__).resolve().parent
INSIDE = ("__init__.py", "guard.py", "wire.py", "worker.py")  # of the judge, no more than this is visible inside

# Calls that reach deep into the kernel, leave memory behind that belongs to no process, or weaken another process.
REFUSED = {
    "x86_64": (0xC000003E, 56, 435, {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "unshare": 272, "setns": 308,
        "mount": 165, "umount2": 166, "pivot_root": 155, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
        "add_key": 248, "request_key": 249, "keyctl": 250, "io_uring_setup": 425, "memfd_create": 319,
        "memfd_secret": 447, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "personality": 135,
        "setpriority": 141, "ioprio_set": 251,
    }),
    "aarch64": (0xC00000B7, 220, 435, {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "unshare": 97, "setns": 268,
        "mount": 40, "umount2": 39, "pivot_root": 41, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
        "add_key": 217, "request_key": 218, "keyctl": 219, "io_uring_setup": 425, "memfd_create": 279,
        "memfd_secret": 447, "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180, "personality": 92,
        "setpriority": 140, "ioprio_set": 30,
    }),
}  # fmt: skip
# Calls that may change nothing but the process itself, which is number 0 to them.
FOR_ITSELF = {
    "x86_64": {"prlimit64": 302, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setaffinity": 203,
               "sched_setattr": 314},
    "aarch64": {"prlimit64": 261, "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122,
                "sched_setattr": 274},
}  # fmt: skip
MMAP = {"x86_64": 9, "aarch64": 222}
SHARED_MEMORY = 0x21  # the flags MAP_SHARED and MAP_ANONYMOUS of mmap: what it gives stays when no process shows it
NEW_NAMESPACES = 0x7E020000  # the flags CLONE_NEW* of clone
MEMORY = re.compile(rb"^(?:RssAnon|RssShmem|VmPTE):\s+(\d+) kB$", re.M)  # in /proc/PID/status


def seccomp_filter(machine: str) -> bytes:
    """The program by which the kernel refuses these calls, in classic BPF.

    Source  Linux, Documentation/userspace-api/seccomp_filter.rst
    """
    architecture, clone, clone3, refused = REFUSED[machine]
    load, equal, at_least, any_bit, answer, keep = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
    allow, kill, not_permitted, no_such_call = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, kill), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (answer, 0, 0, not_permitted)]  # x86_64's second table of calls
    for number in refused.values():
        program += [(equal, 0, 1, number), (answer, 0, 0, not_permitted)]
    for number in FOR_ITSELF[machine].values():
        program += [(equal, 0, 4, number), (load, 0, 0, 16), (equal, 0, 1, 0)]
        program += [(answer, 0, 0, allow), (answer, 0, 0, not_permitted)]
    program += [(equal, 0, 5, MMAP[machine]), (load, 0, 0, 40), (keep, 0, 0, SHARED_MEMORY)]
    program += [(equal, 0, 1, SHARED_MEMORY), (answer, 0, 0, not_permitted), (answer, 0, 0, allow)]
    program += [(equal, 0, 1, clone3), (answer, 0, 0, no_such_call)]  # its flags cannot be read; libc takes clone
    program += [(equal, 0, 3, clone), (load, 0, 0, 16), (any_bit, 0, 1, NEW_NAMESPACES)]
    program += [(answer, 0, 0, not_permitted), (answer, 0, 0, allow)]
    return b"".join(struct.pack("=HBBI", *line) for line in program)


def nobody() -> int:
    """The number of a user who is nobody else: the kernel counts processes by user, and sandboxes run side by side."""
    return 60_000 + secrets.randbelow(5_000)


def visible() -> list[Path]:
    """The folders and files of the host that can be read inside."""
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    packages = [path for path in packages if path != site.getusersitepackages()]
    python = [sys.base_prefix, str(Path(sys.executable).resolve().parents[1])]
    system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/fonts"]
    minigpt = Path(importlib.util.find_spec("minigpt").origin).parent
    mine = [ENGINE / name for name in INSIDE]
    return sorted({Path(p) for p in [*system, *python, sys.prefix, *packages, minigpt, *mine] if os.path.exists(p)})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one submission may use."""

    cell_seconds: float = 20
    total_seconds: float = 240  # of all cells, and as much again of all questions
    grace_seconds: float = 2  # between the alarm inside and the kill from outside
    memory_bytes: int = 4 * 2**30  # of one process
    sandbox_bytes: int = 6 * 2**30  # of all processes in the sandbox
    file_bytes: int = 256 * 2**20
    n_open_files: int = 256
    n_processes: int = 256
    output_characters: int = 4000


@dataclass(frozen=True)
class Sandbox:
    """A running sandbox, as the judge holds it."""

    process: subprocess.Popen  # ends when the sandbox has ended
    control: socket.socket  # leads to the process inside
    first: Callable[[], str]  # the number, outside, of the first process inside
    kill: Callable[[], object]  # ends all that runs inside

    def used(self) -> tuple[int, int]:
        """Bytes of memory that belong to the processes inside, and the number of files on their disk."""
        family, n_bytes = [self.first()], 0
        for member in family:
            n_bytes += _bytes_of(member)
            family += children_of(member)
        try:
            disk = os.statvfs(f"/proc/{family[0]}/root{DISK}")
        except OSError:
            return n_bytes, 0
        return n_bytes, disk.f_files - disk.f_ffree

    def end(self) -> None:
        """Kill everything inside and wait until it is gone."""
        self.control.close()
        self.kill()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Backend(Protocol):
    """A program that builds sandboxes."""

    def fault(self) -> str:
        """Why it builds none here; empty if it does."""

    def start(self, inner: list[str], environment: dict[str, str], limits: Limits, log: int) -> Sandbox:
        """Run `inner` in a sandbox, with the number of the control channel's descriptor as one more word.

        Raises  OSError if it ended before it could run.
        """


def last_line(said: bytes) -> str:
    """The end of what a program said, which is where it gives its reason."""
    return said.decode(errors="replace").strip().rsplit("\n", 1)[-1]


def children_of(pid: str) -> list[str]:
    return [child.decode() for path in glob.glob(f"/proc/{pid}/task/*/children") for child in _read(path).split()]


def _bytes_of(pid: str) -> int:
    """What a process holds, with the tables by which it is found; its name, in the same file, is any bytes."""
    return sum(int(n) * 1024 for n in MEMORY.findall(_read(f"/proc/{pid}/status")))


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
