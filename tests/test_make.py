"""The front door: bad input gets one sentence, and nothing is made that is not asked for."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]


@pytest.fixture
def make(monkeypatch, tmp_path):
    """make.py as a module, working in a copy of nothing: a folder with the two files that it hashes."""
    spec = importlib.util.spec_from_file_location("make", HERE / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text((HERE / name).read_text())
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "BIN", tmp_path / ".venv" / "bin")
    return module


def call(make, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["make.py", *words])
    with pytest.raises(SystemExit) as stop:
        make.main()
    return stop.value.code


def test_an_unknown_word_names_the_known_ones(make, monkeypatch):
    assert "there is no word 'clas'; choose one of class, test, book" in call(make, monkeypatch, "clas")


def test_another_python_is_refused_before_anything_is_made(make, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert "but the class is pinned to 3.11" in call(make, monkeypatch, "test")
    assert not (tmp_path / ".venv").exists()


def test_a_taken_port_is_refused_before_the_work_begins(make, monkeypatch):
    monkeypatch.setattr(make, "environment", lambda: None)
    monkeypatch.setattr(make, "run", lambda *words: pytest.fail("work began"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = call(make, monkeypatch, "class", f"SITE_PORT={port}")
    assert f"port {port} is taken by another program; choose a free one, as in SITE_PORT={port + 1}" in said


@pytest.mark.parametrize("value", ["x", "0", "70000"])
def test_a_port_that_is_none_is_refused(make, monkeypatch, value):
    monkeypatch.setattr(make, "environment", lambda: None)
    assert "a port is a number from 1 to 65535" in call(make, monkeypatch, "lab", f"LAB_PORT={value}")


@pytest.mark.parametrize(("number", "sentence"), [(28, "No space left on device"), (30, "Read-only file system")])
def test_a_disk_that_takes_nothing_is_one_sentence(make, monkeypatch, number, sentence):
    def full(*arguments, **options):
        raise OSError(number, os.strerror(number), "/somewhere/.venv")

    monkeypatch.setattr(make.venv, "create", full)
    said = call(make, monkeypatch, "test")
    assert sentence in said and "/somewhere/.venv" in said and "\n" not in said


def test_a_step_that_fails_stops_the_others(make, monkeypatch):
    ran = []
    monkeypatch.setattr(make, "environment", lambda: None)
    monkeypatch.setattr(make.subprocess, "Popen", lambda words, **options: ran.append(words) or Failed())
    assert call(make, monkeypatch, "class", "SERVE=0") == 3
    assert len(ran) == 1


class Failed:
    def wait(self):
        return 3


def test_ctrl_c_waits_until_the_running_step_has_ended_in_order(make, monkeypatch):
    class Busy:
        waits = 0

        def wait(self):
            Busy.waits += 1
            if Busy.waits == 1:
                raise KeyboardInterrupt
            return 130

    monkeypatch.setattr(make, "environment", lambda: None)
    monkeypatch.setattr(make.subprocess, "Popen", lambda words, **options: Busy())
    assert "the same command goes on from here" in call(make, monkeypatch, "class", "SERVE=0")
    assert Busy.waits == 2


def test_an_environment_that_is_up_to_date_is_left_alone(make, monkeypatch, tmp_path):
    installed = []
    monkeypatch.setattr(make.venv, "create", lambda folder, with_pip: (folder / "bin").mkdir(parents=True))
    monkeypatch.setattr(make, "run", lambda *words: installed.append(words))
    make.environment()
    make.environment()
    assert len(installed) == 2
    (tmp_path / "requirements.txt").write_text("torch\n")
    make.environment()
    assert len(installed) == 4


def test_in_the_conda_environment_no_second_one_is_made(make, monkeypatch):
    monkeypatch.setattr(make, "IN_CONDA", True)
    monkeypatch.setattr(make.venv, "create", lambda *arguments, **options: pytest.fail("made another environment"))
    make.environment()


def test_clean_removes_what_can_be_made_again_and_no_marks(make, monkeypatch, tmp_path):
    for name in ("runs/journey", "book/_build/html", "grading/_work", ".venv/bin", "notebooks"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["make.py", "clean"])
    make.main()
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir())
    assert left == [".venv", ".venv/bin", "book", "grading", "grading/_work", "notebooks"]


def test_the_makefile_has_no_logic_of_its_own():
    words = ["make", "--no-print-directory", "--dry-run", "class", "SERVE=0"]
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["make.py", "class"]


@pytest.mark.slow
def test_measuring_the_journey_writes_figures_with_machine_and_spread(tmp_path):
    script = tmp_path / "journey_seeds.py"
    script.write_text((HERE / "bench" / "journey_seeds.py").read_text())
    subprocess.run([sys.executable, script, "--seeds", "2", "--steps", "20"], check=True, capture_output=True,
                   env=os.environ | {"OMP_NUM_THREADS": "1"})
    written = (tmp_path / "journey_seeds.json").read_text()
    assert all(word in written for word in ("processor", "standard_deviation", "bits_per_byte", "date"))


def test_jupyterlab_finds_the_courses_configuration(make, monkeypatch):
    started = []
    monkeypatch.setattr(make.subprocess, "Popen", lambda words, **how: started.append(how["env"]))
    make.start_lab(8888, "token")
    folder = Path(started[0]["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0])
    assert (HERE / folder.relative_to(make.HERE) / "nbgrader_config.py").is_file()
