"""Sandboxes by bubblewrap: the first choice, because it needs neither an image nor a service."""

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from grading.walls import (
    DISK,
    DISK_BYTES,
    ENGINE,
    NOBODY,
    Limits,
    Sandbox,
    children_of,
    last_line,
    nobody,
    seccomp_filter,
    visible,
)

BECOME_NOBODY = f"""
import os, sys
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid(*[int(sys.argv[1])] * 3)
os.execv(sys.argv[2], sys.argv[2:])
"""


def command(inner: list[str], seccomp: int, environment: dict[str, str]) -> list[str]:
    """The command line that runs `inner` in the sandbox; the filter is read from the descriptor `seccomp`."""
    words = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL"]
    if os.geteuid() == 0:  # a user namespace would leave the files of root to it; so it becomes nobody for good
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        inner = [sys.executable, "-I", "-c", BECOME_NOBODY, str(nobody()), *inner]
    else:
        words += ["--unshare-user", "--disable-userns", "--uid", str(nobody()), "--gid", str(NOBODY)]
    words += _files()
    for name, value in environment.items():
        words += ["--setenv", name, value]
    return [shutil.which("bwrap") or "bwrap", *words, "--chdir", DISK, "--seccomp", str(seccomp), "--", *inner]


def _files() -> list[str]:
    course, words = ENGINE.parent, []
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
    words += ["--ro-bind", "/dev/null", "/dev/zero"]  # it gives the memory that the filter refuses (SHARED_MEMORY)
    for path, size in ((DISK, DISK_BYTES), ("/dev/shm", DISK_BYTES // 4)):
        words += ["--perms", "1777", "--size", str(size), "--tmpfs", path]
    for path in (course, ENGINE, "/dev", "/"):
        words += ["--remount-ro", str(path)]
    return words


def kill(pid: int) -> None:
    """End a process that this one or the one from which it was forked has started."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Bubblewrap:
    """The backend; what is inside inherits two descriptors and nothing else."""

    def start(self, inner: list[str], environment: dict[str, str], limits: Limits, log: int) -> Sandbox:
        control, theirs = socket.socketpair()
        read, write = os.pipe()
        os.write(write, seccomp_filter(platform.machine()))
        os.close(write)
        try:
            process = subprocess.Popen(
                command([*inner, str(theirs.fileno())], read, environment),
                pass_fds=[read, theirs.fileno()],
                env={},  # whatever bubblewrap itself were given could be read inside as /proc/1/environ
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the judge, who would take the end of the sandbox for a mistake
            )
        finally:
            os.close(read)
            theirs.close()
        return Sandbox(process, control, lambda: "".join(children_of(str(process.pid))[:1]), lambda: kill(process.pid))

    def fault(self) -> str:
        if not shutil.which("bwrap"):
            return "bubblewrap is not installed"
        with tempfile.TemporaryFile() as log:
            running = self.start([sys.executable, "-I", "-c", ""], {}, Limits(), log.fileno())
            failed = running.process.wait()
            running.control.close()
            log.seek(0)
            return f"bubblewrap does not work here ({last_line(log.read())})" if failed else ""
