"""Environments of their own for the peers that minigpt is measured against.

    python bench/peers.py            makes them all under bench/.cache/, in a minute or two, and prints where they are

A peer's packages come first and those of the class's environment after them, torch among these. So the peer runs on
the same torch as minigpt does, and nothing that it pins changes the class's environment.
"""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

CACHE = Path(__file__).resolve().parent / ".cache"
PEERS = {"litgpt": ["litgpt>=0.5.13,<0.6", "transformers>=4.51.3,<4.57"]}


def python(peer: str) -> Path:
    """The interpreter that can import the peer; makes its environment the first time.

    Raises  ValueError for a peer that is not known; CalledProcessError if pip cannot install it.
    """
    if peer not in PEERS:
        raise ValueError(f"there is no peer {peer!r}; choose one of {', '.join(PEERS)}")
    packages = PEERS[peer]
    paths = [path for path in sys.path if path.endswith("site-packages")] or [sysconfig.get_path("purelib")]
    key = hashlib.sha256("\n".join(packages + paths).encode()).hexdigest()[:8]
    home = CACHE / f"{peer}-{key}"
    interpreter = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if (home / "ready").exists():
        return interpreter
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    own = subprocess.run([interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                         check=True, capture_output=True, text=True).stdout.strip()
    (Path(own) / "class.pth").write_text("\n".join(paths) + "\n")
    subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
                   check=True)
    (home / "ready").write_text("\n".join(packages) + "\n")
    return interpreter


if __name__ == "__main__":
    for name in PEERS:
        print(f"{name}: {python(name)}")
