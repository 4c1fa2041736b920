"""Judges side by side, and the scores taken into nbgrader's gradebook."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
from nbgrader.converters import Autograde
from test_grading_record import book, hand, silent
from test_grading_tiny import EXPOSED, LAB, tiny_course

from grading.course import CourseError, write_whole
from grading.demonstration import build_class
from grading.gradebook import LatePenalty, convert, generate, quiet_nbgrader, release_labs, set_due, settings, take_in
from grading.judge import Judge
from grading.lateness import save_policy
from grading.panel import Panel
from grading.record import grade
from grading.session import WarmParent
from grading.walls import Limits


@pytest.fixture
def course(tmp_path, demonstration):
    """A fresh tiny course with the same secret, whose checks have already proven themselves."""
    course = tiny_course(tmp_path / "course")
    shutil.copytree(demonstration[0].work / "proven", course.work / "proven")
    shutil.copy(demonstration[0].work / "secret", course.work)
    return course


SPEED = re.compile(rb"50/50 \[[^\]]*\]")  # a progress bar's clock, which a student's cell printed


def files(folder, pattern):
    return {path.relative_to(folder).as_posix(): SPEED.sub(b"", path.read_bytes()) for path in folder.glob(pattern)}


def whereabouts(judge, work, student, folder):
    """A task that says in which process a submission is judged."""
    return os.getpid()


def test_one_judge_and_two_write_the_same_bytes(course, demonstration, tmp_path, monkeypatch):
    folder = build_class(course, [course.lab("01")], silent)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with WarmParent(exposed=EXPOSED) as parent:
        graded = grade(course, folder, parent, silent, n_judges=2)
    assert graded.n_judged == 12
    alone = demonstration[0].work
    for pattern in ("results/*/*/result.json", "feedback/*/*.html", "grades.csv", "rebuilt/*/*/*"):
        assert files(course.work, pattern) == files(alone, pattern) != {}, pattern
    assert [r["student"] for r in graded.results] == sorted(r["student"] for r in graded.results)
    assert not list((tmp_path / "scratch").iterdir())


def test_checks_that_prove_themselves_between_two_labs_wait_for_no_judge(tmp_path, monkeypatch):
    """The second lab is proven while the judges of the first are there: each has its own warm parent."""
    course, second = tiny_course(tmp_path / "course"), LAB.replace("01", "02")
    write_whole(course.root / "notebooks/02_tiny.ipynb", (course.root / "notebooks/01_tiny.ipynb").read_text())
    for place in (f"solutions/{LAB}/{LAB}.ipynb", f"grading/checks/{LAB}.py"):
        write_whole(course.root / place.replace("01", "02"), (course.root / place).read_text().replace(LAB, second))
    release_labs(course)
    folder = build_class(course, [course.lab("01"), course.lab("02")], silent)
    begin, faults = WarmParent._begin, []

    def watched(parent):
        try:
            begin(parent)
        except OSError as fault:
            faults.append(fault)
            raise

    monkeypatch.setattr(WarmParent, "_begin", watched)
    with WarmParent(exposed=EXPOSED) as parent:
        graded = grade(course, folder, parent, silent, n_judges=2)
    assert graded.n_judged == 24 and graded.unproven == [] and faults == []


def test_two_judges_are_two_processes_and_none_of_them_stays(course, parent):
    handed_in = [(f"student-{n}", Path("nowhere")) for n in range(40)]
    with Panel(course, parent, 2) as panel:
        pids = set(panel.each(whereabouts, course.lab("01"), handed_in))
    assert os.getpid() not in pids and 1 <= len(pids) <= 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_submission_that_hangs_does_not_hold_up_the_others(course):
    """While one judge waits for an endless loop, the other judges the rest."""
    hand(course, "ada", double="while True: pass")
    for n in range(4):
        folder = hand(course, f"bob{n}")
    said = []
    with WarmParent(Limits(cell_seconds=4), exposed=EXPOSED) as parent:
        graded = grade(course, folder, parent, said.append, n_judges=2)
    assert [line.split()[1] for line in said if " of 100" in line][-1] == "ada"
    points = {result["student"]: result["points"] for result in graded.results}
    assert points == {"ada": 60, **{f"bob{n}": 90 for n in range(4)}}


def test_a_judge_that_is_ended_from_outside_costs_one_sentence_and_no_result(course, parent, monkeypatch):
    hand(course, "ada")
    folder = hand(course, "bob")
    judge = Judge.judge

    def killed_at_bob(self, submission, questions=None):
        if submission.student == "bob":
            os.kill(os.getpid(), signal.SIGKILL)
        return judge(self, submission, questions)

    with monkeypatch.context() as patch:
        patch.setattr(Judge, "judge", killed_at_bob)
        with pytest.raises(CourseError, match="ended from outside; what is judged is kept"):
            grade(course, folder, WarmParent(exposed=EXPOSED), silent, n_judges=2)
    assert grade(course, folder, parent, silent).n_judged in (1, 2)


def state(course):
    """What the gradebook and the formgrader know about the lab."""
    with quiet_nbgrader(), book(course) as gradebook:
        submissions = {s.student.id: s for s in gradebook.find_assignment(LAB).submissions}
        rows = {
            (name, grade.name): (grade.auto_score, grade.manual_score, grade.needs_manual_grade, grade.max_score)
            for name, s in submissions.items() for notebook in s.notebooks for grade in notebook.grades
        }
        rows |= {
            (name, "comment", comment.name): comment.auto_comment
            for name, s in submissions.items() for notebook in s.notebooks for comment in notebook.comments
        }
        rows |= {
            name: (s.score, s.late_submission_penalty, s.timestamp, s.total_seconds_late)
            for name, s in submissions.items()
        }
    laid_out = files(course.work, f"autograded/*/{LAB}/*")
    read = {name: nbformat.reads(data.decode(), 4) if name.endswith("b") else data for name, data in laid_out.items()}
    return rows, read


def test_taking_in_gives_what_nbgraders_autograde_gives(course, demonstration):
    """The same rows in the gradebook and the same files for the formgrader, late penalties included."""
    shutil.copytree(demonstration[0].work / "rebuilt", course.work / "rebuilt")
    shutil.copytree(demonstration[0].work / "results", course.work / "results")
    save_policy(course.work, LAB, due="2026-10-01 12:00:00 UTC", late_per_day=5)
    (course.root / "solutions" / LAB / "data.csv").write_text("1,2\n")
    for student, day in (("amara", 1), ("bruno", 3), ("hugo", 9)):
        write_whole(course.work / "rebuilt" / student / LAB / "timestamp.txt", f"2026-10-0{day} 13:00:00 UTC")
    results = [json.loads(path.read_bytes()) for path in sorted((course.work / "results").glob("*/*/result.json"))]
    assert take_in(course, LAB, results) == 12
    ours = state(course)
    assert ours[0]["amara"][1] == 5 and ours[0]["bruno"][1] == 15 and ours[0]["hugo"][1] == 0

    (course.work / "gradebook.db").unlink()
    shutil.rmtree(course.work / "autograded")
    generate(course, LAB, course.work / "released", database=True)
    config = settings(course.root)
    config.CourseDirectory.submitted_directory = "grading/_work/rebuilt"
    config.LatePenalty.points_per_day = 5
    with quiet_nbgrader(), book(course) as gradebook:
        set_due(gradebook, course.work, LAB)
    convert(Autograde, config, LAB)
    assert state(course) == ours


def test_the_late_penalty_is_nbgraders_plugin():
    assert LatePenalty(points_per_day=2).late_submission_penalty("ada", 90, 86401) == 4


RUN = """
import sys
from pathlib import Path
from grading.course import Course
from grading.record import grade
from grading.session import WarmParent
from grading.walls import Limits
with WarmParent(exposed={exposed}) as parent:
    grade(Course(Path(sys.argv[1])), Path(sys.argv[2]), parent, lambda line: print(line, flush=True), n_judges=2)
"""


def start(course, folder):
    words = [sys.executable, "-c", RUN.format(exposed=EXPOSED), str(course.root), str(folder)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True)


def family(pid):
    """The process and all below it."""
    found = [str(pid)]
    for member in found:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            found += children.read_text().split()
    return found


def alive(pids):
    """Those that still run; a zombie has ended."""
    states = [path.read_text().rsplit(")", 1)[1].split()[0] for p in pids if (path := Path(f"/proc/{p}/stat")).exists()]
    return [state for state in states if state != "Z"]


@pytest.mark.parametrize("whole_group", [True, False])
def test_no_sandbox_outlives_a_run_that_is_killed(course, whole_group):
    for n in range(2):
        folder = hand(course, f"student{n}", double="while True:\n    try:\n        while True: pass\n    except: pass")
    run = start(course, folder)
    deadline = time.monotonic() + 60
    while len(pids := family(run.pid)) < (9 if EXPOSED is False else 5) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) >= 5
    if whole_group:
        os.killpg(run.pid, signal.SIGKILL)
    else:
        run.kill()
    run.communicate()
    deadline = time.monotonic() + 10
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(pids) == []


def test_ctrl_c_ends_all_judges_and_keeps_what_they_have_reached(course, parent):
    hand(course, "ada")
    folder = hand(course, "zoe", double="while True:\n    try:\n        while True: pass\n    except: pass")
    run = start(course, folder)
    assert any("ada" in line for line in run.stdout)
    pids = family(run.pid)
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=10)
    assert run.returncode != 0 and alive(pids) == []
    left = [path.parent.parent.name for path in (course.work / "results").rglob("*.*")]
    assert left == ["ada"]
