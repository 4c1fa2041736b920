"""Overwrites the gradebook, the grades, a result and the key."""

from pathlib import Path


def write(path, text="import os\nprint('CANARY')\n"):
    """Write there, and make the folder if need be."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    except OSError as error:
        print(type(error).__name__)


for name in ("gradebook.db", "grades.csv", "secret", "results/honest-last/lab01_tiny/result.json", "proven/lab01_tiny"):
    write(f"COURSE/grading/_work/{name}")
