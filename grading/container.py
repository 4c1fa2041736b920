"""Sandboxes by podman or docker, where there is no bubblewrap.

The image is empty and made on the spot; the folders that bubblewrap would show are mounted into it. A container
inherits no descriptor, so the process inside calls back through a socket that is mounted into it as well.
"""

import io
import platform
import secrets
import select
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from grading.walls import (
    DISK,
    DISK_BYTES,
    ENGINE,
    MOST_FILES,
    NOBODY,
    Limits,
    Sandbox,
    last_line,
    nobody,
    seccomp_filter,
    visible,
)

CONTROL = "/control"  # the socket, inside
START_SECONDS = 60
OWN = {"podman": ["--read-only-tmpfs=false", "--http-proxy=false", "--passwd=false"], "docker": []}  # options
DISKS = {"podman": "notmpcopyup", "docker": f"nr_inodes={MOST_FILES}"}  # of the disks in memory

ENTER = f"""
import ctypes, os, socket, sys
with socket.socket(socket.AF_UNIX) as control:
    control.connect({CONTROL!r})
    descriptor = os.dup(control.fileno())
os.chdir({DISK!r})
os.set_inheritable(descriptor, True)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
class Program(ctypes.Structure):
    _fields_ = [("n_lines", ctypes.c_ushort), ("lines", ctypes.c_char_p)]
lines = bytes.fromhex(sys.argv[1])
if ctypes.CDLL(None).prctl(22, 2, ctypes.byref(Program(len(lines) // 8, lines)), 0, 0):  # PR_SET_SECCOMP
    sys.exit("the kernel did not take the list of refused system calls")
n = 3 + int(sys.argv[2])
os.execve(sys.argv[n], [*sys.argv[n:], str(descriptor)], dict(word.split("=", 1) for word in sys.argv[3:n]))
"""


@dataclass(frozen=True)
class Container:
    """The backend; podman and docker take the same words but for a few."""

    engine: str  # podman or docker

    def command(self, name: str, control: Path, inner: list[str], environment: dict[str, str], limits: Limits) -> list:
        """The command line that runs `inner` in a new container of that name."""
        memory = str(limits.sandbox_bytes + DISK_BYTES * 5 // 4)  # the disks count as memory
        words = ["--rm", "--name", name, "--pull", "never", "--log-driver", "none", *OWN[self.engine]]
        words += ["--network", "none", "--ipc", "none", "--hostname", "sandbox", "--read-only"]
        words += ["--user", f"{nobody()}:{NOBODY}", "--cap-drop", "ALL"]
        words += ["--security-opt", "no-new-privileges", "--security-opt", "label=disable"]
        words += ["--memory", memory, "--memory-swap", memory, "--pids-limit", str(limits.n_processes + 8)]
        words += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        words += [*self._files(), *_bind(control, CONTROL), self.image]
        settings = [f"{key}={value}" for key, value in environment.items()]
        program = seccomp_filter(platform.machine()).hex()
        words += [sys.executable, "-I", "-c", ENTER, program, str(len(settings)), *settings, *inner]
        return [self.engine, "run", *words]

    def _files(self) -> list[str]:
        places, course, words = visible(), ENGINE.parent, []
        if any(course.is_relative_to(place) for place in places):
            words += self._disk(course, "ro,mode=755,size=64k")
        for path in places:
            words += _bind(path, path)
        for path in ("/etc/hosts", "/etc/resolv.conf"):  # else the engine shows what the host knows of its network
            words += _bind("/dev/null", path)
        for path, size in ((DISK, DISK_BYTES), ("/dev/shm", DISK_BYTES // 4)):
            words += self._disk(path, f"rw,exec,mode=1777,size={size}")
        return words + self._disk("/dev/mqueue", "ro,mode=755,size=4k")

    def _disk(self, place: Path | str, options: str) -> list[str]:
        return ["--tmpfs", f"{place}:{options},{DISKS[self.engine]}"]

    @cached_property
    def image(self) -> str:
        """The name of an image that holds nothing, or a link from /tmp to the disk if nothing has to lie there.

        Raises  OSError with the engine's reason if it cannot be made.
        """
        taken = any(path.is_relative_to("/tmp") for path in visible())
        name = f"seed-class-sandbox:{'empty' if taken else 'tmp'}"
        if self._call("image", "inspect", name).returncode:
            made = self._call("import", "-", name, content=_archive(not taken))
            if made.returncode:
                raise OSError(last_line(made.stderr))
        return name

    def _call(self, *words: str, content: bytes = b"") -> subprocess.CompletedProcess:
        return subprocess.run([self.engine, *words], input=content, capture_output=True, timeout=START_SECONDS)

    def start(self, inner: list[str], environment: dict[str, str], limits: Limits, log: int) -> Sandbox:
        name = f"grading-{secrets.token_hex(8)}"
        with tempfile.TemporaryDirectory(prefix="grading-") as folder, socket.socket(socket.AF_UNIX) as listener:
            place = Path(folder) / "control"
            listener.bind(str(place))
            place.chmod(0o777)  # of use to nobody else: the folder is the judge's alone
            listener.listen(1)
            words = self.command(name, place, inner, environment, limits)
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": log}
            process = subprocess.Popen(words, **quiet, start_new_session=True)  # Ctrl-C is for the judge
            control = _first_call(listener, process)
        credentials = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        first = str(struct.unpack("3i", credentials)[0])
        return Sandbox(process, control, lambda: first, lambda: self._call("kill", name))

    def fault(self) -> str:
        if not shutil.which(self.engine):
            return f"{self.engine} is not installed"
        try:
            with tempfile.TemporaryFile() as log:
                return self._trial(log)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{self.engine} does not work here ({error})"

    def _trial(self, log: io.IOBase) -> str:
        try:
            running = self.start([sys.executable, "-I", "-c", ""], {}, Limits(), log.fileno())
        except ConnectionError:
            log.seek(0)
            return f"{self.engine} does not work here ({last_line(log.read())})"
        running.control.close()
        return f"{self.engine} does not run Python here" if running.process.wait() else ""


def _bind(source: Path | str, target: Path | str) -> list[str]:
    return ["--mount", f"type=bind,source={source},target={target},readonly"]


def _archive(with_tmp: bool) -> bytes:
    """A tar file with nothing in it, or with the link /tmp."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        if with_tmp:
            link = tarfile.TarInfo("tmp")
            link.type, link.linkname = tarfile.SYMTYPE, DISK
            archive.addfile(link)
    return file.getvalue()


def _first_call(listener: socket.socket, process: subprocess.Popen) -> socket.socket:
    """The connection that the process inside opens.

    Raises  ConnectionError if the container ends before, or takes too long.
    """
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([listener], [], [], 0.05)[0]:
            return listener.accept()[0]
    process.kill()
    process.wait()
    raise ConnectionError("the container did not start")
