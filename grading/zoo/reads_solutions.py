"""Reads the solutions and the released labs of the course."""

from pathlib import Path


def look(pattern, root="COURSE"):
    """Print what can be read there."""
    for path in Path(root).glob(pattern):
        try:
            print(path, path.read_bytes())
        except OSError as error:
            print(path.name, type(error).__name__)


look("solutions/**/*.ipynb")
look("**/*.ipynb")
