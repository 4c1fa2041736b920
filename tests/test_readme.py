"""The README: each of its commands is run or proven to exist, each of its paths and words is there."""

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="no make here; `python make.py` does the same")


@functools.cache
def output_of(*command) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_a_word_of_make(command: str) -> None:
    word = command.split()[-1]
    assert re.search(rf"^  {word}  ", output_of(sys.executable, "make.py", "--help"), re.M), f"make.py has no {word}"


def is_a_command_of_grading(command: str) -> None:
    assert re.search(rf"^ +{command.split()[1]}\b", output_of(BIN / "grading", "--help"), re.M)


def makes_an_environment(_command: str) -> None:
    assert "usage: venv" in output_of(sys.executable, "-m", "venv", "--help")


def installs_the_pinned_torch(command: str) -> None:
    pin = re.search(r"torch==\S+", command)[0]
    assert pin in (ROOT / "requirements.txt").read_text().split()
    assert command.split("--index-url ")[1] == "https://download.pytorch.org/whl/cpu"


def is_about_our_conda_environment(command: str) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert command.split()[-1] in ("environment.yml", environment["name"])


PROOFS = {
    "make class": is_a_word_of_make,  # and run for real in test_class_serves_site_and_jupyterlab
    "make test": is_a_word_of_make,  # this test is one of those it runs
    "python make.py class": is_a_word_of_make,
    "python make.py test": is_a_word_of_make,
    "conda env create -f environment.yml": is_about_our_conda_environment,
    "conda activate seed-class": is_about_our_conda_environment,
    "python3.11 -m venv .venv": makes_an_environment,
    ".venv/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu": installs_the_pinned_torch,
    ".venv/bin/grading preflight": is_a_command_of_grading,
    ".venv/bin/grading labs": is_a_command_of_grading,
    ".venv/bin/grading release LAB": is_a_command_of_grading,
    ".venv/bin/grading collect SOURCE": is_a_command_of_grading,
    ".venv/bin/grading grade FOLDER": is_a_command_of_grading,
}


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_is_known_and_exists(command):
    assert command in PROOFS, f"no test knows {command!r}: run it or prove that it exists"
    PROOFS[command](command)


def test_every_command_of_the_handbook_exists():
    handbook = (ROOT / "book" / "instructors.md").read_text()
    commands = set(re.findall(r"(?:^|`)((?:make|grading) [^`\n]+)", handbook, re.M))
    assert len(commands) > 4
    for command in commands:
        (is_a_word_of_make if command.startswith("make") else is_a_command_of_grading)(command)


def test_no_proof_outlives_its_command():
    assert set(PROOFS) == set(COMMANDS)


@needs_make
def test_every_word_of_make_is_a_target():
    words = set(re.findall(r"`make (\w+)`", README))
    words |= set(re.findall(r"`(\w+)`", re.search(r"^Other words of `make`: (.*)$", README, re.M)[1])) - {"make"}
    assert {"class", "test", "book", "help"} <= words
    for word in words:
        assert output_of("make", "--dry-run", word)


def test_every_path_exists():
    named = [name for name in re.findall(r"`([^`\s]+)`", README) if "/" in name or Path(name).suffix or name.isupper()]
    named += re.findall(r"\]\((?!https://)([^)]+)\)", README)
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).exists(), f"the README names {name}, which is not there"


def test_readme_is_short_and_its_picture_is_small():
    assert len(README.splitlines()) < 120
    assert (ROOT / "book" / "images" / "site.png").stat().st_size < 300_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    """Whether a server on this machine answers at the address."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.mark.slow
@needs_make
def test_class_serves_site_and_jupyterlab(tmp_path):
    ports = {"SITE_PORT": free_port(), "LAB_PORT": free_port()}
    settings = [f"{name}={port}" for name, port in ports.items()]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["make", "class", *settings], cwd=ROOT, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 1200

        def wait_until(ready) -> None:
            while not ready():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(1)

        def addresses() -> list[str]:
            return re.findall(r"^(?:site|JupyterLab): +(http://127\S+)", log.read_text(), re.M)

        wait_until(lambda: len(addresses()) == 2)
        site, lab = addresses()
        assert answers(site + "intro.html")
        wait_until(lambda: answers(lab))
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)
        assert not answers(site)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
