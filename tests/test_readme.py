"""The README: each of its commands is run or proven to exist, each of its paths and words is there. And the commands
of two pages of the book: the handbook and the one on a run of a billion parameters.
"""

import functools
import json
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
from test_cli import call

from minigpt.recipes import recipe
from minigpt.train import claim

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


def test_the_chapters_that_exist_are_those_it_counts():
    first, last = re.search(r"Chapters (\d\d) to (\d\d) and their labs exist today", README).groups()
    wanted = {f"{number:02}" for number in range(int(first), int(last) + 1)}
    assert wanted == {path.name[:2] for path in ROOT.glob("notebooks/*.ipynb")}
    assert wanted == {path.name[3:5] for path in ROOT.glob("labs/lab*")}


def test_readme_is_short_and_its_picture_is_small():
    assert len(README.splitlines()) < 120
    assert (ROOT / "book" / "images" / "site.png").stat().st_size < 300_000


# The page on a run of a billion parameters.


BILLION = (ROOT / "book" / "parts" / "billion.md").read_text()
SHELL = "".join(re.findall(r"```sh\n(.*?)```", BILLION, re.S))
STEPS = [line.split() for line in SHELL.replace("\\\n", "").splitlines()]
SMALL = ["--data.validation-share", "0.3", "--model.vocab-size", "300", "--train.steps", "4",
         "--train.warmup-steps", "1"]
QUOTED = [  # of each plan on the page, in their order
    ["1,540 GPU hours", "4,621 dollars"],
    ["113 GPU hours", "14.1 hours", "339 dollars", "13.2 GB"],
    ["10.3 hours", "31 dollars"],
]


def steps(word: str, about: str) -> list[list[str]]:
    """The commands of the page with this word, about a recipe or a folder, without their first word, `minigpt`."""
    return [step[1:] for step in STEPS if step[1] == word and about in " ".join(step)]


@pytest.fixture
def empty_folder(monkeypatch, tmp_path):
    """An empty folder to work in, where two programs stand in for Slurm's."""
    for name, body in {"sbatch": "echo 42", "squeue": "true"}.items():
        program = tmp_path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_page_on_a_billion_is_called_by_a_test_below():
    about = ("llama_1b", "runs/rehearsal")
    words = ("plan", "shards", "slurm", "train", "evaluate", "report")
    assert all(step[0] == "minigpt" for step in STEPS)
    assert sum(len(steps(word, what)) for what in about for word in words) == len(STEPS) == 11


def test_the_page_on_a_billion_quotes_what_its_plans_say(monkeypatch, capsys, empty_folder):
    for step, figures in zip(steps("plan", "llama_1b"), QUOTED, strict=True):
        status, printed = call(monkeypatch, capsys, *step)
        assert status == 0
        for figure in figures:
            assert figure.replace("dollars", "USD") in printed and figure in BILLION
        plan = json.loads((empty_folder / "runs/llama_1b/plan.json").read_text())
        if plan["steps"] == 10490:
            minutes = recipe("llama_1b").train.save_every * plan["step_seconds"] / 60
            assert f"every {minutes:.0f} minutes" in BILLION
            assert f"100`, in both commands, makes it {minutes / 10:.0f} minutes" in BILLION


def test_the_page_on_a_billion_quotes_what_was_measured_of_the_plans_memory():
    tables = json.loads((ROOT / "bench" / "plan.json").read_text())["tables"]
    (fitted,) = (table["rows"] for table in tables if "texts" in table["columns"] and "compiled" in table["columns"])
    of_gpu, *plans = (round(float(figure)) for figure in fitted[0][3:])
    assert f"a run that fitted into {of_gpu} GB gets {plans[0]}." in BILLION
    assert "the same run gets {}, with bf16 between the blocks and the loss in pieces {};".format(*plans[1:]) in BILLION


def test_the_way_of_the_page_on_a_billion_leads_from_text_to_training(monkeypatch, capsys, empty_folder):
    text, train = steps("slurm", "llama_1b")
    (check,), (report,) = steps("shards", "llama_1b"), steps("report", "llama_1b")
    assert "job 42 is queued" in call(monkeypatch, capsys, *text)[1]
    assert "there are no shards at" in call(monkeypatch, capsys, *check)[1]
    assert "no tokenizer.json and no shards; write them first" in call(monkeypatch, capsys, *train)[1]
    monkeypatch.setattr("minigpt.cluster.ready.check_ready", lambda config, folder, ranks: claim(folder, config))
    assert "job 42 is queued" in call(monkeypatch, capsys, *train)[1]
    for script in ("shards", "train"):
        written = (empty_folder / "runs/llama_1b/slurm" / f"{script}.sh").read_text()
        assert f"minigpt {script} llama_1b --data.source=hub:HuggingFaceFW/fineweb-edu/sample-100BT" in written
    assert call(monkeypatch, capsys, *report)[0] == 0
    for named in ("train.out", "rank-0000.log", "The job stays away", "slurm/train.sh"):
        assert named in BILLION
    assert "train.out" in written and "rank-%4t.log" in written and "The job stays away" in written


def test_the_rehearsal_of_the_page_on_a_billion_goes_through(monkeypatch, capsys, empty_folder, texts):
    for word in ("shards", "train"):
        (step,) = steps(word, "runs/rehearsal")
        assert call(monkeypatch, capsys, *step, "--data.source", texts, *SMALL)[0] == 0
    (evaluate,), (report,) = steps("evaluate", "runs/rehearsal"), steps("report", "runs/rehearsal")
    assert "bits_per_byte" in call(monkeypatch, capsys, *evaluate)[1]
    assert "report.html" in call(monkeypatch, capsys, *report)[1]
    for named in [*re.findall(r"`runs/llama_1b/(\w+\.(?:csv|jsonl))`", BILLION), "report.html", "report.md"]:
        assert (empty_folder / "runs/rehearsal" / named).exists() and named in BILLION


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
