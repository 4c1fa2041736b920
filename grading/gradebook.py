"""nbgrader, with one step exchanged: where it would execute the student's code, the judge's scores go in.

Gradebook, formgrader, validation and exports work as they do everywhere.
"""

import csv
import io
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import Autograde, BaseConverter, GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    LimitOutput,
    NbGraderPreprocessor,
    SaveAutoGrades,
)
from sqlalchemy.exc import DatabaseError, SAWarning
from traitlets.config import Config

from grading.course import Course, CourseError, make_private, read_record, write_whole
from grading.judge import REVIEW
from grading.lateness import LatePenalty, read_policy, set_dates, terms

COLUMNS = ("student", "lab", "points", "max_points", "waits_for_a_person", "needs_review", "recognized", "flags",
           "hours_late", "late_penalty")


class DropInstructorCells(NbGraderPreprocessor):
    """Leaves out the Markdown cells that are meant for the instructor."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        nb.cells = [
            cell
            for cell in nb.cells
            if cell.cell_type != "markdown" or "instructor" not in cell.metadata.get("tags", [])
        ]
        return nb, resources


class InjectScores(NbGraderPreprocessor):
    """Puts the judge's score into each test cell as its output, in place of running the notebook."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        names = resources["nbgrader"]
        work = Path(names["db_url"].removeprefix("sqlite:///")).parent
        place = work / "results" / names["student"] / names["assignment"] / "result.json"
        if not place.is_file():
            raise CourseError(f"{names['student']} has no result for {names['assignment']}; run `grading grade` first")
        result = read_record(place, "key", "questions")
        nb.metadata["judged"] = {"key": result["key"]}
        if late := terms(work, names["student"], names["assignment"]):
            nb.metadata["judged"]["terms"] = late
        for question in result["questions"]:
            for cell in nb.cells:
                marks = cell.metadata.get("nbgrader", {})
                if marks.get("grade_id") == f"test-{question['id']}" and marks.get("grade"):
                    cell.outputs = self._outputs(question)
                    marks["judged_status"] = question["status"]
        return nb, resources

    def _outputs(self, question: dict) -> list[NotebookNode]:
        sentence = f"{question['status']}: {question['sentence']}\n".replace(": \n", "\n")
        said = NotebookNode(output_type="stream", name="stdout", text=sentence)
        score = NotebookNode(output_type="execute_result", execution_count=None, metadata={})
        score.data = {"text/plain": f"{question['points'] or 0:g}"}
        return [said, score]


class SaveJudgedGrades(SaveAutoGrades):
    """Saves the scores; a question that needs review gets no score but a request for a person."""

    def _add_score(self, cell: NotebookNode, resources: dict) -> None:
        super()._add_score(cell, resources)
        if cell.metadata.nbgrader.pop("judged_status", None) == REVIEW:
            grade_id = cell.metadata.nbgrader["grade_id"]
            grade = self.gradebook.find_grade(grade_id, self.notebook_id, self.assignment_id, self.student_id)
            grade.auto_score, grade.needs_manual_grade = None, True
            self.gradebook.db.commit()


def settings(root: Path) -> Config:
    """nbgrader's configuration for the course in `root`; also makes the folders that it wants to find."""
    work = make_private(root / "grading" / "_work")
    for name in ("submitted", "autograded", "nbgrader-feedback"):
        (work / name).mkdir(parents=True, exist_ok=True)
    config = Config()
    folders = config.CourseDirectory
    folders.course_id = "seed-class"
    folders.root = str(root)
    folders.source_directory = "solutions"
    folders.release_directory = "labs"
    folders.submitted_directory = "grading/_work/submitted"
    folders.autograded_directory = "grading/_work/autograded"
    folders.feedback_directory = "grading/_work/nbgrader-feedback"
    folders.db_url = f"sqlite:///{work / 'gradebook.db'}"
    config.GenerateAssignment.preprocessors = [DropInstructorCells, *GenerateAssignment().preprocessors]
    config.Autograde.autograde_preprocessors = [
        InjectScores,
        LimitOutput,
        SaveJudgedGrades,
        AssignLatePenalties,
        CheckCellMetadata,
    ]
    config.AssignLatePenalties.plugin_class = LatePenalty
    return config


@contextmanager
def quiet_nbgrader() -> Iterator[None]:
    """Find the tools of this environment; of nbgrader's log and warnings let through what went wrong."""
    path, log = os.environ.get("PATH", ""), logging.getLogger("traitlets")
    level = log.level
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # nbgrader adds submissions before they are in the session
            yield
    except DatabaseError as error:
        raise CourseError(
            f"nbgrader's gradebook cannot be used ({error.orig}); restore it from your copy, or remove it and "
            "grade again, which loses what a person has marked"
        ) from error
    finally:
        os.environ["PATH"] = path
        log.setLevel(level)


def convert(converter: type[BaseConverter], config: Config, assignment: str) -> None:
    """Run one of nbgrader's converters on one lab for every student."""
    config.CourseDirectory.assignment_id = assignment
    directory = CourseDirectory(config=config)
    with quiet_nbgrader():
        converter(coursedir=directory, config=config).start()


def generate(course: Course, lab: str, destination: Path, database: bool = False) -> Path:
    """The released version of a lab in `destination`/LAB; with `database`, the gradebook learns its questions.

    The same source gives the same bytes.
    """
    if not any(cell.is_open for cell in course.lab(lab).solution):
        raise CourseError(f"solutions/{lab} has no answer cell; mark one as a solution for nbgrader")
    config = settings(course.root)
    config.CourseDirectory.release_directory = str(destination)
    if not database:
        config.GenerateAssignment.no_database = True
        config.SaveCells.enabled = False
    config.GenerateAssignment.force = True
    convert(GenerateAssignment, config, lab)
    return destination / lab


def release_labs(course: Course, check: bool = False, names: list[str] | None = None) -> list[str]:
    """Generate labs/ from solutions/, all or those named; with `check` write nothing.

    Returns  the labs that differ from what lies there.
    """
    names, changed = names or course.lab_names, []
    if not names:
        raise CourseError("there is no lab in solutions/ yet; begin one with `grading author labNN_stem`")
    with tempfile.TemporaryDirectory(prefix="grading-") as scratch:
        for name in names:
            fresh = generate(course, name, Path(scratch))
            target = course.root / "labs" / name
            for path in (path for path in fresh.rglob("*") if path.is_file()):
                released = target / path.relative_to(fresh)
                if released.is_file() and released.read_bytes() == path.read_bytes():
                    continue
                changed.append(name)
                if not check:
                    write_whole(released, path.read_bytes())
    return sorted(set(changed))


def take_in(course: Course, lab: str, results: dict[str, dict]) -> int:
    """Bring the gradebook up to date with the results (by student) of one lab; how many were taken in.

    The rebuilt notebooks must lie in `rebuilt`; what the gradebook has already seen is left alone.
    """
    database, autograded = course.work / "gradebook.db", course.work / "autograded"
    if not database.exists():
        shutil.rmtree(autograded, ignore_errors=True)
    stale = [
        student
        for student, result in results.items()
        if _seen(autograded, student, lab) != (result["key"], terms(course.work, student, lab))
    ]
    if not stale:
        return 0
    for student in stale:
        shutil.rmtree(autograded / student / lab, ignore_errors=True)
    try:
        generate(course, lab, course.work / "released", database=True)
        config = settings(course.root)
        config.CourseDirectory.submitted_directory = "grading/_work/rebuilt"
        config.LatePenalty.points_per_day = read_policy(course.work, lab).late_per_day
        with quiet_nbgrader():
            set_dates(course, lab, stale)
        convert(Autograde, config, lab)
    except Exception as error:
        raise CourseError(
            f"nbgrader could not take in the scores of {lab} ({error}); if its questions were changed after "
            f"grading, remove {database.relative_to(course.root)} and grade again"
        ) from error
    return len(stale)


def _seen(autograded: Path, student: str, lab: str) -> tuple[str, dict | None]:
    """The key of the result that the gradebook has taken in, or "", and the terms of lateness that held."""
    path = autograded / student / lab / f"{lab}.ipynb"
    judged = json.loads(path.read_bytes())["metadata"].get("judged", {}) if path.is_file() else {}
    return judged.get("key", ""), judged.get("terms")


def lateness(course: Course, student: str, lab: str) -> tuple[float, float]:
    """By how many seconds the gradebook holds a submission for late, and the points that it takes."""
    with quiet_nbgrader(), Gradebook(f"sqlite:///{course.work / 'gradebook.db'}", "seed-class") as book:
        submission = book.find_submission(lab, student)
        return submission.total_seconds_late, submission.late_submission_penalty


def marks_by_hand(course: Course, student: str, lab: str) -> dict[str, tuple[float, str]]:
    """What a person gave in the formgrader: (points, comment) by question id."""
    with quiet_nbgrader(), Gradebook(f"sqlite:///{course.work / 'gradebook.db'}", "seed-class") as book:
        try:
            notebook = book.find_submission_notebook(lab, lab, student)
        except MissingEntry:
            return {}
        comments = {comment.name: comment.comment or "" for comment in notebook.comments}
        return {
            grade.name.removeprefix("test-"): (grade.manual_score, comments.get(grade.name, ""))
            for grade in notebook.grades
            if grade.manual_score is not None
        }


def write_grades(course: Course, results: list[dict]) -> Path:
    """grades.csv: one quoted row for each student and lab, with the points that the gradebook holds."""
    text = io.StringIO()
    table = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writerow(COLUMNS)
    with quiet_nbgrader(), Gradebook(f"sqlite:///{course.work / 'gradebook.db'}", "seed-class") as book:
        for result in results:
            graded = book.find_submission(result["lab"], result["student"])
            grades = [grade for notebook in graded.notebooks for grade in notebook.grades]
            waits = sum(grade.max_score for grade in grades if grade.needs_manual_grade)
            hours, penalty = math.ceil(graded.total_seconds_late / 36) / 100, graded.late_submission_penalty
            table.writerow([*_row(result, graded.score - penalty, waits), f"{hours:g}", f"{penalty:g}"])
    path = course.work / "grades.csv"
    write_whole(path, text.getvalue())
    return path


def _row(result: dict, points: float, waits: float) -> list[str]:
    questions = result["questions"]
    review = " ".join(q["id"] for q in questions if q["status"] == REVIEW)
    recognized = " ".join(f"{q['id']}:{q['recognized']}" for q in questions if q["recognized"])
    flags = "; ".join(result["flags"])
    numbers = [f"{points:g}", f"{result['max_points']:g}", f"{waits:g}"]
    return [result["student"], result["lab"], *numbers, review, recognized, flags]
