"""Plants code in the packages, in the standard library and in the worker."""

from pathlib import Path


def write(path, text="import os\nprint('CANARY')\n"):
    """Write there, and make the folder if need be."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    except OSError as error:
        print(type(error).__name__)


import os  # noqa: E402

for path in ("PACKAGES/sitecustomize.py", "PACKAGES/zoo.pth", f"{os.__file__}", "ENGINE/worker.py", "ENGINE/wire.py"):
    write(path)
write("ENGINE/../minigpt/__init__.py")
write("ENGINE/../conftest.py")
