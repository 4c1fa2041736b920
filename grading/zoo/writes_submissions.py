"""Changes another's submission and its timestamp."""

from pathlib import Path


def write(path, text="import os\nprint('CANARY')\n"):
    """Write there, and make the folder if need be."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    except OSError as error:
        print(type(error).__name__)


for name in ("lab01_tiny.ipynb", "timestamp.txt"):
    write(f"COURSE/grading/_work/submitted/honest-last/lab01_tiny/{name}")
