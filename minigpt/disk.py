"""Files and folders that are written whole or not at all, and folders that one process at a time may write to."""

import _thread
import hashlib
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

BEAT, LIMIT = 10.0, 60.0
"""Seconds between two signs of life in a lease, and after how many without one its holder is taken for dead."""


def write_text(path: Path, text: str) -> None:
    """Write aside and rename, so that no half of a file is ever seen under its name."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the name of `folder` at the end; if writing fails, what was there stays."""
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


class Lost(ValueError):
    """Another process has taken the folder that this one worked in."""


@dataclass(frozen=True)
class Lease:
    """A file that names the process that works in its folder."""

    path: Path
    mine: dict

    @property
    def lost(self) -> bool:
        """Whether the file names somebody else by now, as far as the disk can tell."""
        with suppress(OSError):
            return read_lease(self.path) != self.mine
        return False


def taken(folder: Path) -> Lost:
    return Lost(f"another process has taken {folder}, because this one gave no sign of life for a minute; "
                "see to it that one of them goes on alone")


@contextmanager
def locked(folder: Path) -> Iterator[Lease]:
    """While this lasts, no other process works in the folder, on this machine or on another that shares the disk.

    The kernel keeps a lock for the processes of one machine; a process that dies, however it dies, lets go of it.
    A lease tells the other machines. That of a dead process runs out after a minute. A Slurm job that comes back
    gives its own earlier start that minute to end; anybody else is refused.
    Raises  ValueError if another process holds the folder. Lost if another has taken it and Ctrl-C, or the lease
            itself, ends the block; a block that catches signals asks the lease before it writes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    theirs, job = read_lease(folder / "lease.json"), os.environ.get("SLURM_JOB_ID")
    patience = LIMIT if job and theirs and theirs["job"] == job else 0.0
    try:
        lock = FileLock(folder / "lock").acquire(timeout=patience)
    except Timeout:
        raise ValueError(f"another process is at work in {folder}; wait for it, stop it, "
                         "or name another folder") from None
    except NotImplementedError:  # a disk without such locks
        lock = None
    with lock or nullcontext(), leased(folder, alone_here=lock is not None) as lease:
        yield lease


@contextmanager
def leased(folder: Path, alone_here: bool) -> Iterator[Lease]:
    """While this lasts, lease.json names this process and is touched every few seconds."""
    path = folder / "lease.json"
    mine = {"host": socket.gethostname(), "kernel": kernel(), "process": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID", ""), "token": secrets.token_hex(8)}
    before = outlive(path, mine, alone_here)
    write_text(path, json.dumps(mine) + "\n")
    if before:  # two may have found it dead at the same moment: the later one has it
        time.sleep(1.0)
        if read_lease(path) != mine:
            raise ValueError(f"another process has taken {folder} just now; name another folder")
    lease, ended = Lease(path, mine), threading.Event()
    threading.Thread(target=stay_alive, args=(lease, ended), daemon=True).start()
    try:
        yield lease
    except KeyboardInterrupt:
        if lease.lost:
            raise taken(folder) from None
        raise
    finally:
        ended.set()
        if not lease.lost:
            path.unlink(missing_ok=True)


def outlive(path: Path, mine: dict, alone_here: bool) -> bool:
    """Whether there is a lease whose holder may have been alive, and now is dead.

    Raises  ValueError if the holder lives and is not this job's own earlier start.
    """
    was_there = False
    while (theirs := read_lease(path)) and not (alone_here and theirs["kernel"] == mine["kernel"]):
        was_there = True
        if (silent := age(path)) > LIMIT:
            break
        if not mine["job"] or theirs["job"] != mine["job"]:
            raise ValueError(f"process {theirs['process']} of {theirs['host']} (job {theirs['job'] or 'none'}) is at "
                             f"work in {path.parent}, its last sign of life is {silent:.0f} s old; wait for it, stop "
                             f"it, or name another folder; if it is dead, come back in {LIMIT - silent:.0f} s")
        time.sleep(1.0)
    return was_there


def stay_alive(lease: Lease, ended: threading.Event) -> None:
    """Touch the lease until the end. If somebody else has it, because we were silent too long, stop this process."""
    while not ended.wait(BEAT):
        if lease.lost:
            _thread.interrupt_main()
            return
        with suppress(OSError):
            os.utime(lease.path)


def read_lease(path: Path) -> dict | None:
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


def age(path: Path) -> float:
    """Seconds since the file was touched, both moments by the clock of the disk."""
    probe = path.with_name(path.name + ".probe")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    return now - path.stat().st_mtime


def kernel() -> str:
    """What tells this machine from all others since it was started."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="utf-8").strip() if path.exists() else socket.gethostname()


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """While this lasts, nobody else who asks for the same file is let in: they wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield
