"""Reads the environment and the command line of every process, the sandbox's own among them."""

from pathlib import Path


def look(pattern, root="COURSE"):
    """Print what can be read there."""
    for path in Path(root).glob(pattern):
        try:
            print(path, path.read_bytes())
        except OSError as error:
            print(path.name, type(error).__name__)


import os  # noqa: E402

print(dict(os.environ))
look("[0-9]*/environ", "/proc")
look("[0-9]*/cmdline", "/proc")
