"""Whatever stops a run, what it has reached is kept, and the same command finishes."""

import errno
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

import pytest
from test_grading_panel import alive, course, family, files, state  # noqa: F401  (a fixture)
from test_grading_record import hand, results, silent
from test_grading_tiny import EXPOSED, LAB, tiny_course

from grading import gradebook, record
from grading.cli import main
from grading.course import CourseError, alone
from grading.judge import Judge
from grading.record import grade
from grading.session import WarmParent


def command(course, folder, capsys):  # noqa: F811
    """`grading grade FOLDER`: its exit code and what it said to the error stream."""
    with pytest.raises(SystemExit) as stop:
        main(["grade", str(folder), "--judges", "2", *(["--host-exposed"] if EXPOSED else [])], course.root)
    return stop.value.code, capsys.readouterr().err


def reached(course):  # noqa: F811
    return sorted(path.parent.parent.name for path in (course.work / "results").rglob("result.json"))


def test_a_full_disk_is_one_sentence_and_the_same_command_finishes(course, capsys, monkeypatch):  # noqa: F811
    for student in ("ada", "bob", "cyd"):
        folder = hand(course, student)
    write = Path.write_bytes

    def full_at_cyd(path, data):
        if path.name.startswith("result.json") and "cyd" in path.parts:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_at_cyd)
        code, said = command(course, folder, capsys)
    assert code == 1 and said.count("\n") == 1 and "No space left on device; free some space" in said
    assert "cyd" not in reached(course)
    before = {name: data for name, data in files(course.work, "results/*/*/result.json").items()}
    code, said = command(course, folder, capsys)
    assert (code, said) == (0, "") and reached(course) == ["ada", "bob", "cyd"]
    assert before.items() <= files(course.work, "results/*/*/result.json").items()


def test_a_gradebook_without_room_is_one_sentence_and_the_same_command_finishes(course, capsys):  # noqa: F811
    folder = hand(course, "ada")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # a result has 5 kB, the gradebook above 100
    try:
        code, said = command(course, folder, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1 and said.count("\n") == 1 and "gradebook cannot be used" in said and "free some space" in said
    assert reached(course) == ["ada"]
    (course.work / "gradebook.db").unlink()  # it never held anything
    assert command(course, folder, capsys) == (0, "")
    assert '"ada","lab01_tiny","90"' in (course.work / "grades.csv").read_text()


def hold(path, is_held, release):
    """Hold the gradebook, as another program would, until told to release it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    is_held.set()
    release.wait(60)


def test_a_locked_gradebook_is_one_sentence_and_the_same_command_finishes(course, capsys):  # noqa: F811
    assert command(course, hand(course, "ada"), capsys) == (0, "")
    folder = hand(course, "bob")
    context = multiprocessing.get_context("fork")
    is_held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(course.work / "gradebook.db", is_held, release))
    other.start()
    assert is_held.wait(10)
    code, said = command(course, folder, capsys)
    release.set()
    other.join()
    assert code == 1 and said.count("\n") == 1 and "database is locked" in said and "close the program" in said
    assert reached(course) == ["ada", "bob"]
    assert command(course, folder, capsys) == (0, "")
    assert '"bob","lab01_tiny","90"' in (course.work / "grades.csv").read_text()


def test_a_warm_parent_that_is_killed_between_two_submissions_costs_nothing(course, parent, monkeypatch):  # noqa: F811
    for student in ("ada", "bob"):
        folder = hand(course, student)
    judge = Judge.judge

    def killed_before_bob(self, submission, questions=None):
        if submission.student == "bob":
            self.parent.running.process.kill()
            self.parent.running.process.wait()
        return judge(self, submission, questions)

    monkeypatch.setattr(Judge, "judge", killed_before_bob)
    graded = grade(course, folder, parent, silent)
    assert {student: result["points"] for student, result in results(graded).items()} == {"ada": 90, "bob": 90}


@pytest.mark.parametrize("kind", ["grade", "solution", "source"])
def test_a_run_killed_while_the_gradebook_learns_the_lab_goes_on_from_there(course, parent, kind):  # noqa: F811
    folder = hand(course, "ada")
    left = _killed_while_introduced(course, f"update_or_create_{kind}_cell")
    assert left == -signal.SIGKILL
    grade(course, folder, parent, silent)
    with gradebook.open_gradebook(course) as book:
        cells = book.find_notebook(LAB, LAB)
        known = {kind: len(getattr(cells, f"{kind}_cells")) for kind in ("grade", "solution", "source")}
        assert book.find_submission_notebook(LAB, LAB, "ada").score == 90
    marked = [cell for cell in course.lab(LAB).release if cell.grade_id]
    assert known == {
        "grade": sum(cell.is_grade for cell in marked),
        "solution": sum(cell.is_solution for cell in marked),
        "source": len(marked),
    }


def _killed_while_introduced(course, method):  # noqa: F811
    """Introduce the lab in a process that is killed before it writes the second cell of this kind; its exit code."""

    step, calls = getattr(gradebook.Gradebook, method), itertools.count(1)

    def killed_at_the_second(*given, **named):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*given, **named)

    def introduce():
        setattr(gradebook.Gradebook, method, killed_at_the_second)
        gradebook.introduce(course, LAB)

    process = multiprocessing.get_context("fork").Process(target=introduce)
    process.start()
    process.join()
    return process.exitcode


PHASES = ("ingest", "judge", "write", "take in", "feedback")


def announced(step, phase, pipe):
    """The step, which first says on the pipe that it begins."""

    def announcing(*given, **named):
        os.write(pipe, f"{phase}\n".encode())
        return step(*given, **named)

    return announcing


def announcing_run(course, folder, pipe):  # noqa: F811
    """A run in a process group of its own that announces each step."""
    os.setsid()
    record.ingest = announced(record.ingest, "ingest", pipe)
    Judge.judge = announced(Judge.judge, "judge", pipe)
    os.replace = announced(os.replace, "write", pipe)
    gradebook._take_in_one = announced(gradebook._take_in_one, "take in", pipe)
    record.feedback_page = announced(record.feedback_page, "feedback", pipe)
    with WarmParent(exposed=EXPOSED) as parent:
        grade(course, folder, parent, silent, n_judges=2)


def kill_at(course, folder, phase, nth, delay):  # noqa: F811
    """Start a run and kill its whole group in the nth step of the phase; whether it lived to see it."""
    read, write = os.pipe()
    run = multiprocessing.get_context("fork").Process(target=announcing_run, args=(course, folder, write))
    run.start()
    os.close(write)
    with open(read) as lines:
        seen = 0
        for line in lines:
            seen += line.strip() == phase
            if seen == nth:
                break
        time.sleep(delay if seen == nth else 0)
        pids = family(run.pid)
        if run.is_alive():
            os.killpg(run.pid, signal.SIGKILL)
    run.join()
    deadline = time.monotonic() + 10
    while (alive(pids) or not is_free(course)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive(pids) == [] and is_free(course)
    return seen == nth


def is_free(course):  # noqa: F811
    """Whether no process of a run is left; one that was forked in its last moment holds the course's lock too."""
    with suppress(CourseError), alone(course.work):
        return True
    return False


def everything(course):  # noqa: F811
    """What a run leaves: results, pages, grades, the gradebook and the files for the formgrader."""
    kept = [files(course.work, p) for p in ("results/*/*/result.json", "feedback/*/*.html", "*.csv")]
    return *kept, *state(course)


@pytest.mark.slow
def test_a_run_killed_at_fifty_moments_ends_like_one_that_was_never_disturbed(
    tmp_path, demonstration, parent
):
    """Ten classes, each killed once in every phase, at a step and after a delay drawn at random."""
    draw, killed = random.Random(7), dict.fromkeys(PHASES, 0)
    kinds = {"ada": "solution", "bob": "wrong 1", "cyd": "broken file", "dan": "partly right"}

    def fresh(name):
        made = tiny_course(tmp_path / name)
        shutil.copytree(demonstration[0].work / "proven", made.work / "proven")
        shutil.copy(demonstration[0].work / "secret", made.work)
        for student, kind in kinds.items():
            folder = hand(made, student, kind) if kind != "broken file" else broken(made, student)
        return made, folder

    def broken(made, student):
        path = made.work / "submitted" / student / LAB / f"{LAB}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text("{")
        return made.work / "submitted"

    undisturbed, folder = fresh("undisturbed")
    grade(undisturbed, folder, parent, silent)
    for n in range(10):
        disturbed, folder = fresh(f"disturbed{n}")
        for phase in PHASES:
            nth = draw.randint(1, 2 if phase == "judge" else 4)
            killed[phase] += kill_at(disturbed, folder, phase, nth, draw.uniform(0, 0.05))
        grade(disturbed, folder, parent, silent)
        assert everything(disturbed) == everything(undisturbed), n
        assert not [line for line in (disturbed.work / "results").rglob("*.json") if not json.loads(line.read_text())]
    assert min(killed.values()) >= 5 and sum(killed.values()) >= 40, killed
