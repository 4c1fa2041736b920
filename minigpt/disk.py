"""Files and folders that are written whole or not at all, and folders that one process at a time may write to."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def write_text(path: Path, text: str) -> None:
    """Write aside and rename, so that no half of a file is ever seen under its name."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While this lasts, no other process locks the folder; a process that dies, however it dies, lets go of it.

    Raises  ValueError if another process holds the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", blocking=False):
            yield
    except Timeout:
        raise ValueError(f"another process is at work in {folder}; wait for it, stop it, "
                         "or name another folder") from None


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """While this lasts, nobody else who asks for the same file is let in: they wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield
