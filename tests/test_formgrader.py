"""The formgrader on a class, in JupyterLab as `make class` serves it."""

import csv
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
from jupyter_pages import choose, free_ports, mark, open_submission, submissions, wait_for, watched_page
from test_grading_tiny import LAB, tiny_course

from grading.cli import main
from grading.demonstration import STUDENTS, build_class

HERE = Path(__file__).resolve().parents[1]
COMMENT = "A reason, but not the reason"

pytestmark = pytest.mark.slow


def grading(root, *words):
    with pytest.raises(SystemExit) as stop:
        main(list(words), root)
    assert stop.value.code == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small course whose class does what the demonstration class does, graded."""
    course = tiny_course(tmp_path_factory.mktemp("class"))
    shutil.copy(HERE / "grading" / "nbgrader_config.py", course.root / "grading")
    folder = build_class(course, [course.lab("01")], lambda line: None)
    grading(course.root, "grade", str(folder))
    return course.root


@pytest.fixture(scope="module")
def jupyterlab(root, tmp_path_factory):
    """The address of JupyterLab on the course and the token that opens it."""
    spec = importlib.util.spec_from_file_location("make", HERE / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    make.HERE, make.BIN, (port,) = root, Path(sys.executable).parent, free_ports(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        with make.start_lab(port, "word") as server:
            try:
                wait_for(f"http://127.0.0.1:{port}/login", lambda: server.poll() is None, lambda: "see above")
                yield f"http://127.0.0.1:{port}", "word"
            finally:
                server.terminate()


def row_of(root, student):
    with (root / "grading" / "_work" / "grades.csv").open() as file:
        return {row["student"]: row for row in csv.DictReader(file)}[student]


def test_names_and_points_are_those_of_the_grades_and_a_mark_by_hand_reaches_the_student(root, browser, jupyterlab):
    address, token = jupyterlab
    before = {student: float(row_of(root, student)["points"]) for student in STUDENTS}
    with watched_page(browser, "instructor") as page:
        page.goto(f"{address}/lab?token={token}")
        choose(page, "open-formgrader")
        frame = page.wait_for_selector("iframe[src$='/formgrader']").content_frame()
        shown = submissions(frame, f"{address}/formgrader", LAB)
        assert shown == {student: (f"{student},", f"{points:g} / 100") for student, points in before.items()}
        open_submission(frame, f"{address}/formgrader", LAB, "amara")
        mark(frame, "why", 7, COMMENT)
    grading(root, "grade", str(root / "grading" / "_work" / "submitted"))
    assert float(row_of(root, "amara")["points"]) == before["amara"] + 7
    assert float(row_of(root, "amara")["waits_for_a_person"]) == 0
    assert COMMENT in (root / "grading" / "_work" / "feedback" / "amara" / f"{LAB}.html").read_text()
