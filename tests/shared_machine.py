"""A machine with accounts of its own, for tests that need several people.

It is this machine in other namespaces of mounts and processes: its /etc is a copy, so the accounts exist nowhere
else, its /home is empty, and nbgrader's exchange lies in its usual place. The environment of the tests can be read
there by everybody, the repository by nobody; the instructor has a checkout of their own. It needs root, or sudo.
"""

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import missing

ROOT = Path(__file__).resolve().parents[1]
EXCHANGE = Path("/usr/local/share/nbgrader/exchange")
CHECKOUT = Path("/home/instructor/seed-class")
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


def lacking() -> str:
    """Why there can be no such machine here; empty if there can be one."""
    if sys.platform != "linux" or not all(map(shutil.which, ("unshare", "setpriv", "useradd"))):
        return "accounts for a test need Linux with unshare, setpriv and useradd"
    if AS_ROOT and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode:
        return "accounts for a test need root, or sudo without a password"
    return ""


def open_to_all() -> list[Path]:
    """What every account must read: Python, the environment and minigpt."""
    packages = [Path(p) for p in sys.path if Path(p).name == "site-packages"]
    places = {Path(sys.base_prefix), Path(sys.prefix), *packages, ROOT / "minigpt"}
    return sorted(p for p in places if not any(p != other and p.is_relative_to(other) for other in places))


def closed(place: Path) -> list[Path]:
    """The outermost folder on the way to this place that not everybody may enter, if there is one."""
    return [folder for folder in reversed(place.parents) if not folder.stat().st_mode & 1][:1]


class Machine:
    """Accounts, and what they do; `passwords` are for those who log in."""

    def __init__(self, accounts: list[str]):
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.folder.chmod(0o755)
        self.passwords = {account: secrets.token_hex(8) for account in accounts}
        subprocess.run([*AS_ROOT, "cp", "-a", "/etc", self.folder / "etc"], check=True)
        for name in ("home", "share/nbgrader", *(f"keep/{i}" for i in range(len(open_to_all())))):
            (self.folder / name).mkdir(parents=True)
        for account, password in self.passwords.items():
            self.run("root", f"useradd --create-home -K HOME_MODE=0700 --shell /bin/bash {account}")
            self.run("root", "chpasswd", given=f"{account}:{password}\n")
        self.run("root", f"install -d -m 1777 {EXCHANGE}")
        self.check_out()

    def mounts(self) -> str:
        """The script that turns this machine into the other."""
        places = {place: self.folder / "keep" / str(i) for i, place in enumerate(open_to_all())}
        covers = sorted({folder for place in places for folder in closed(place)} | {ROOT})
        lines = [f"mount --bind {place} {keep}" for place, keep in places.items()]
        lines += [f"mkdir -p {cover} && mount -t tmpfs -o mode=755 tmpfs {cover}" for cover in covers]
        bound = {"etc": "/etc", "home": "/home", "share": "/usr/local/share"}
        lines += [f"mount --bind {self.folder / mine} {usual}" for mine, usual in bound.items()]
        lines += [f"mkdir -p {place} && mount --bind {keep} {place}" for place, keep in places.items()]
        return "\n".join(lines)

    def words(self, account: str, command: str) -> list[str]:
        """The command line by which the account runs the command in its home, its files closed to others."""
        mine = f"{CHECKOUT}/.venv/bin:" if account == "instructor" else ""
        path = f"{mine}{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {"PATH": path, "OMP_NUM_THREADS": "1"}
        told = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        become = "" if account == "root" else f"setpriv --reuid {account} --regid {account} --init-groups --reset-env"
        umask = "022" if account == "root" else "077"
        script = f"{self.mounts()}\numask {umask}\nexec {become} env {told} sh -c {shlex.quote(f'cd; {command}')}"
        return [*AS_ROOT, "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-ec", script]

    def run(self, account: str, command: str, given: str | None = None, fails: bool = False) -> str:
        """What the command says; whether it fails must be as foretold."""
        done = subprocess.run(self.words(account, command), input=given, capture_output=True, text=True, cwd="/")
        assert bool(done.returncode) == fails, f"{account}: {command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def running(self, account: str, command: str, log: str) -> Iterator[tuple[subprocess.Popen, Path]]:
        """Run the command in the background, with the file of what it says.

        The process ends with the command; it and all that it started end with the block, or with the tests.
        """
        words, path = self.words(account, f"{{ {command}; kill $$; }} & cat"), self.folder / log
        with path.open("w") as said, subprocess.Popen(words, stdin=subprocess.PIPE, stdout=said, stderr=said,
                                                      cwd="/") as process:
            yield process, path

    def check_out(self) -> None:
        """The instructor's own copy of the repository as it is here, with its environment."""
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True)
        names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).exists()]
        packed = subprocess.run(["tar", "-c", "-T", "-"], cwd=ROOT, input="\n".join(names).encode(),
                                capture_output=True, check=True).stdout
        (self.folder / "checkout.tar").write_bytes(packed)
        self.run("instructor", f"mkdir -p {CHECKOUT} && tar -x -f {self.folder}/checkout.tar -C {CHECKOUT}")
        self.run("instructor", f"python -m venv --without-pip {CHECKOUT}/.venv")
        self.run("instructor", f"ln -s {sys.prefix}/etc {sys.prefix}/share {CHECKOUT}/.venv")
        paths = [str(CHECKOUT), *(p for p in sys.path if Path(p).name == "site-packages")]
        packages = f"{CHECKOUT}/.venv/lib/python3.11/site-packages"
        self.run("instructor", f"cat > {packages}/class.pth", given="\n".join(paths) + "\n")
        program = f"#!{CHECKOUT}/.venv/bin/python\nfrom grading.cli import main\nmain()\n"
        self.run("instructor", f"cat > {CHECKOUT}/.venv/bin/grading && chmod +x {CHECKOUT}/.venv/bin/grading",
                 given=program)

    def remove(self) -> None:
        subprocess.run([*AS_ROOT, "rm", "-rf", self.folder], check=True)


@pytest.fixture(scope="module")
def machine():
    """An instructor and two students; skipped on a learner's machine that cannot have them, never in CI."""
    if reason := lacking():
        missing(reason)
    made = Machine(["instructor", "ada", "bob"])
    yield made
    made.remove()
