"""The sandbox of the students' code: bubblewrap around the warm parent of the workers.

Inside there are no network, no capabilities and no files but Python, its packages, minigpt and the worker's own
modules, all read-only. What can be written is a small disk in memory, emptied after every submission.
"""

import glob
import importlib.util
import os
import platform
import shutil
import site
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

DISK = "/sandbox"  # the one place inside that can be written, beside a quarter as much of shared memory
DISK_BYTES = 512 * 2**20
MOST_FILES = 20_000  # on that disk
NOBODY = 65534

ENGINE = Path(__file__).resolve().parent
INSIDE = ("__init__.py", "wire.py", "worker.py")  # of the judge, no more than this is visible inside

# Calls that reach deep into the kernel, or leave memory behind that belongs to no process.
REFUSED = {
    "x86_64": (0xC000003E, 56, 435, {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "unshare": 272, "setns": 308,
        "mount": 165, "umount2": 166, "pivot_root": 155, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
        "add_key": 248, "request_key": 249, "keyctl": 250, "io_uring_setup": 425, "memfd_create": 319,
        "memfd_secret": 447, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "personality": 135,
    }),
    "aarch64": (0xC00000B7, 220, 435, {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "unshare": 97, "setns": 268,
        "mount": 40, "umount2": 39, "pivot_root": 41, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
        "add_key": 217, "request_key": 218, "keyctl": 219, "io_uring_setup": 425, "memfd_create": 279,
        "memfd_secret": 447, "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180, "personality": 92,
    }),
}  # fmt: skip
NEW_NAMESPACES = 0x7E020000  # the flags CLONE_NEW* of clone


def seccomp_filter(machine: str) -> bytes:
    """The program by which the kernel refuses these calls, in classic BPF.

    Source  Linux, Documentation/userspace-api/seccomp_filter.rst
    """
    architecture, clone, clone3, refused = REFUSED[machine]
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, not_permitted, no_such_call = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, kill), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (answer, 0, 0, not_permitted)]  # x86_64's second table of calls
    for number in refused.values():
        program += [(equal, 0, 1, number), (answer, 0, 0, not_permitted)]
    program += [(equal, 0, 1, clone3), (answer, 0, 0, no_such_call)]  # its flags cannot be read; libc takes clone
    program += [(equal, 0, 3, clone), (load, 0, 0, 16), (any_bit, 0, 1, NEW_NAMESPACES)]
    program += [(answer, 0, 0, not_permitted), (answer, 0, 0, allow)]
    return b"".join(struct.pack("=HBBI", *line) for line in program)


BECOME_NOBODY = f"""
import os, sys
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
os.execv(sys.argv[1], sys.argv[1:])
"""


def visible() -> list[Path]:
    """The folders and files of the host that can be read inside."""
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    packages = [path for path in packages if path != site.getusersitepackages()]
    python = [sys.base_prefix, str(Path(sys.executable).resolve().parents[1])]
    system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/fonts"]
    minigpt = Path(importlib.util.find_spec("minigpt").origin).parent
    mine = [ENGINE / name for name in INSIDE]
    return sorted({Path(p) for p in [*system, *python, sys.prefix, *packages, minigpt, *mine] if os.path.exists(p)})


def command(inner: list[str], descriptors: list[int], environment: dict[str, str]) -> list[str]:
    """The command line that runs `inner` in the sandbox; the filter is read from the first descriptor."""
    words = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL"]
    if os.geteuid() == 0:  # a user namespace would leave the files of root to it; so it becomes nobody for good
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        inner = [sys.executable, "-I", "-c", BECOME_NOBODY, *inner]
    else:
        words += ["--unshare-user", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    course = ENGINE.parent
    places = sorted([*visible(), course, ENGINE], key=lambda path: len(path.parts))
    if not any(path.is_relative_to("/tmp") for path in places):
        words += ["--symlink", DISK, "/tmp"]
    for path in places:  # outer folders first: the course's own hides what an outer one would show of it
        above = [folder for folder in path.parents if not any(folder.is_relative_to(place) for place in places)]
        for folder in reversed(above[:-1]):
            words += ["--perms", "0755", "--dir", str(folder)]
        if path in (course, ENGINE):
            words += ["--tmpfs", str(path)]
        elif path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        else:
            words += ["--ro-bind", str(path), str(path)]
    words += ["--proc", "/proc", "--dev", "/dev"]
    for path, size in ((DISK, DISK_BYTES), ("/dev/shm", DISK_BYTES // 4)):
        words += ["--perms", "1777", "--size", str(size), "--tmpfs", path]
    for path in (course, ENGINE, "/dev", "/"):
        words += ["--remount-ro", str(path)]
    for name, value in environment.items():
        words += ["--setenv", name, value]
    return [shutil.which("bwrap") or "bwrap", *words, "--chdir", DISK, "--seccomp", str(descriptors[0]), "--", *inner]


def start(inner: list[str], descriptors: list[int], environment: dict[str, str], log: int) -> subprocess.Popen:
    """Run `inner` in the sandbox; it inherits the descriptors and nothing else."""
    read, write = os.pipe()
    os.write(write, seccomp_filter(platform.machine()))
    os.close(write)
    try:
        return subprocess.Popen(
            command(inner, [read], environment),
            pass_fds=[read, *descriptors],
            env={},  # whatever bubblewrap itself were given could be read inside as /proc/1/environ
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    finally:
        os.close(read)


@cache
def fault() -> str:
    """Why there can be no sandbox here; empty if there can be one."""
    if sys.platform != "linux":
        return "bubblewrap runs on Linux alone"
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed"
    if platform.machine() not in REFUSED:
        return f"no list of refused system calls is known for {platform.machine()}"
    read, write = os.pipe()
    with open(read, "rb") as said:
        process = start([sys.executable, "-I", "-c", ""], [], {}, write)
        os.close(write)
        reason = said.read(2000).decode(errors="replace").strip().rsplit("\n", 1)[-1]
    return f"bubblewrap does not work here ({reason})" if process.wait() else ""


def used(pid: int) -> tuple[int, int]:
    """Bytes of memory that belong to the processes below `pid`, and the number of files on their disk."""
    family, n_bytes = [str(pid)], 0
    for member in family:
        n_bytes += _bytes_of(member)
        family += _children_of(member)
    try:
        disk = os.statvfs(f"/proc/{family[1]}/root{DISK}")
    except (OSError, IndexError):
        return n_bytes, 0
    return n_bytes, disk.f_files - disk.f_ffree


def _children_of(pid: str) -> list[str]:
    return [child for path in glob.glob(f"/proc/{pid}/task/*/children") for child in _read(path).split()]


def _bytes_of(pid: str) -> int:
    lines = (line.split() for line in _read(f"/proc/{pid}/status").splitlines())
    return sum(int(words[1]) * 1024 for words in lines if words[0] in ("RssAnon:", "RssShmem:"))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # it has ended meanwhile
        return ""
