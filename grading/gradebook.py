"""nbgrader, with one step exchanged: where it would execute the student's code, the judge's scores go in.

Gradebook, formgrader, validation and exports work as they do everywhere.
"""

import csv
import io
import json
import logging
import math
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.modules.setdefault("rfc3987_syntax", None)  # half of nbgrader's time to import, for addresses that no notebook has

import nbgrader.api
from nbformat import NotebookNode, from_dict
from nbgrader.api import Grade, Gradebook, InvalidEntry, MissingEntry, Student, SubmittedNotebook
from nbgrader.converters import BaseConverter, GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.dbutil import ALEMBIC_DIR
from nbgrader.plugins import LateSubmissionPlugin
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    LimitOutput,
    NbGraderPreprocessor,
    SaveAutoGrades,
)
from nbgrader.utils import compute_checksum, determine_grade, is_grade, is_solution, parse_utc
from sqlalchemy import text as sql
from sqlalchemy.exc import DBAPIError, SAWarning
from traitlets import Float
from traitlets.config import Config

from grading.course import Course, CourseError, make_private, read_record, result_place, write_whole
from grading.judge import BLANK, BY_HAND, REVIEW
from grading.lateness import Policy, from_stamp, read_policy, terms

COLUMNS = ("student", "lab", "points", "max_points", "waits_for_a_person", "needs_review", "recognized", "flags",
           "hours_late", "late_penalty")
MADE_BY_WORKING = re.compile(r"\..*|__pycache__|lab\w*_run")  # in a lab's folder; git ignores it too
# A table of our own beside nbgrader's: what each submission was taken in from.
MEMORY = "CREATE TABLE IF NOT EXISTS taken_in (submission TEXT PRIMARY KEY, seen TEXT NOT NULL)"
HAS_MEMORY = "SELECT 1 FROM sqlite_master WHERE name = 'taken_in'"
REMEMBER = "INSERT OR REPLACE INTO taken_in VALUES (:submission, :seen)"
REMEMBERED = """
SELECT submitted_assignment.student_id, taken_in.seen FROM taken_in
JOIN submitted_assignment ON submitted_assignment.id = taken_in.submission
JOIN assignment ON assignment.id = submitted_assignment.assignment_id WHERE assignment.name = :lab
"""


def schema_version() -> str:
    """The version of nbgrader's tables."""
    from alembic.script import ScriptDirectory  # for a new gradebook alone

    return ScriptDirectory(ALEMBIC_DIR).get_current_head()


nbgrader.api.get_alembic_version = schema_version  # nbgrader's own starts a process for it, which takes a second


class LatePenalty(LateSubmissionPlugin):
    """So many points for each day begun; nbgrader takes no more than the notebook has earned."""

    points_per_day = Float(0, help="Points taken for each day begun.").tag(config=True)

    def late_submission_penalty(self, student_id: str, score: float, total_seconds_late: float) -> float:
        return Policy(late_per_day=self.points_per_day).penalty(total_seconds_late)


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
        place = result_place(work, names["student"], names["assignment"])
        if not place.is_file():
            raise CourseError(f"{names['student']} has no result for {names['assignment']}; run `grading grade` first")
        result = read_record(place, "questions")
        return inject_scores(nb, result), resources


def inject_scores(nb: NotebookNode, result: dict) -> NotebookNode:
    """The notebook with the judge's word in each cell that is graded, and its score as the output of each test cell."""
    questions = {question["id"]: question for question in result["questions"]}
    for cell in nb.cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("grade") and (question := questions.get(marks.get("grade_id", "").removeprefix("test-"))):
            marks["judged_status"] = question["status"]
            if not marks.get("solution"):
                cell.outputs = _outputs(question)
    return nb


def judged_score(cell: NotebookNode) -> float | None:
    """The judge's score for a cell that is graded, None where a person decides; the judge's word is taken out."""
    status = cell.metadata.nbgrader.pop("judged_status", None)
    if status == BLANK:
        return 0
    return None if status in (BY_HAND, REVIEW) else determine_grade(cell)[0]


def _outputs(question: dict) -> list[NotebookNode]:
    sentence = f"{question['status']}: {question['sentence']}\n".replace(": \n", "\n")
    said = NotebookNode(output_type="stream", name="stdout", text=sentence)
    score = NotebookNode(output_type="execute_result", execution_count=None, metadata={})
    score.data = {"text/plain": f"{question['points'] or 0:g}"}
    return [said, score]


class SaveJudgedGrades(SaveAutoGrades):
    """Saves the scores; a question that a person decides gets no score but a request for that person."""

    def _add_score(self, cell: NotebookNode, resources: dict) -> None:
        super()._add_score(cell, resources)
        grade_id, score = cell.metadata.nbgrader["grade_id"], judged_score(cell)
        grade = self.gradebook.find_grade(grade_id, self.notebook_id, self.assignment_id, self.student_id)
        if grade.auto_score != score:
            grade.auto_score, grade.needs_manual_grade = score, score is None
            self.gradebook.db.commit()


def settings(root: Path, work: Path | None = None) -> Config:
    """nbgrader's configuration for the course in `root`; also makes the folders that it wants to find.

    `work` is that of a class beside the real one.
    """
    work = make_private(work or Course(root).work)
    for name in ("submitted", "autograded", "nbgrader-feedback"):
        (work / name).mkdir(parents=True, exist_ok=True)
    config = Config()
    folders = config.CourseDirectory
    folders.course_id = "seed-class"
    folders.root = str(root)
    folders.source_directory = "solutions"
    folders.release_directory = "labs"
    place = work.relative_to(root).as_posix()
    folders.submitted_directory = f"{place}/submitted"
    folders.autograded_directory = f"{place}/autograded"
    folders.feedback_directory = f"{place}/nbgrader-feedback"
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
    except (DBAPIError, InvalidEntry) as error:
        raise CourseError(_unusable(str(error.orig if isinstance(error, DBAPIError) else error))) from error
    finally:
        os.environ["PATH"] = path
        log.setLevel(level)


def _unusable(said: str) -> str:
    """The sentence for what the database said."""
    remedy = "restore it from your copy, or remove it and grade again, which loses what a person has marked"
    for word, other in (("locked", "close the program that holds it"), ("full", "free some space"),
                        ("I/O", "free some space"), ("readonly", "make it writable")):
        if word in said:
            remedy = f"{other} and call the same command again: what is judged is kept"
    return f"nbgrader's gradebook cannot be used ({said}); {remedy}"


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
    config = settings(course.root, course.work)
    config.CourseDirectory.release_directory = str(destination)
    if not database:
        config.GenerateAssignment.no_database = True
        config.SaveCells.enabled = False
    config.GenerateAssignment.force = True
    convert(GenerateAssignment, config, lab)
    return destination / lab


def release_labs(course: Course, check: bool = False, names: list[str] | None = None) -> list[str]:
    """Generate labs/ from solutions/, all or those named; with `check` write nothing.

    Returns  the labs that differ from what lies there; with `check` also the files that nothing generates.
    """
    names, changed = names or course.lab_names, []
    if not names:
        raise CourseError("there is no lab in solutions/ yet; begin one with `grading author labNN_stem`")
    with tempfile.TemporaryDirectory(prefix="grading-") as scratch:
        for name in names:
            fresh = generate(course, name, Path(scratch))
            target = course.root / "labs" / name
            if check:
                changed += [f"{name}/{file}" for file in sorted(files_in(target) - files_in(fresh))]
            for path in (path for path in fresh.rglob("*") if path.is_file()):
                released = target / path.relative_to(fresh)
                if released.is_file() and released.read_bytes() == path.read_bytes():
                    continue
                changed.append(name)
                if not check:
                    write_whole(released, path.read_bytes())
    return sorted(set(changed))


def files_in(folder: Path) -> set[str]:
    """The files below a lab's folder, without what Jupyter and the lab itself write there."""
    paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path.as_posix() for path in paths if not any(map(MADE_BY_WORKING.fullmatch, path.parts))}


@contextmanager
def open_gradebook(course: Course) -> Iterator[Gradebook]:
    """nbgrader's gradebook of the course.

    Raises  CourseError if it cannot be read or written, or another program holds it.
    """
    with quiet_nbgrader(), Gradebook(f"sqlite:///{course.work / 'gradebook.db'}", "seed-class") as book:
        yield book


def take_in(course: Course, lab: str, results: list[dict]) -> int:
    """Bring the gradebook up to date with the results of one lab; how many were taken in.

    It does what nbgrader's autograde does with scores that are known, in one transaction. The rebuilt notebooks must
    lie in `rebuilt`; what the gradebook has already seen is left alone, but for what lateness costs by now.
    """
    introduce(course, lab)
    with open_gradebook(course) as book:
        commit, book.db.commit = book.db.commit, book.db.flush  # nbgrader would write the file for every row
        book.db.execute(sql(MEMORY))
        seen = remembered(book, lab)
        stale = [result for result in results if not _is_current(course.work, result, seen)]
        if stale or read_policy(course.work, lab).due:
            set_due(book, course.work, lab)
            for result in stale:
                _take_in_one(book, course, result, seen.get(result["student"]))
            set_lateness(book, course.work, lab)
            commit()
    return len(stale)


def set_due(book: Gradebook, work: Path, lab: str) -> None:
    """Tell the gradebook when the lab is due."""
    if due := read_policy(work, lab).due:
        book.update_or_create_assignment(lab, duedate=due)


def set_lateness(book: Gradebook, work: Path, lab: str) -> None:
    """Tell the gradebook when each submission came, when it was due, and what its lateness costs by now.

    A person's marks change how many points there are to take, and an extension is kept as what lies behind the due
    time of all, which may move.
    """
    policy = read_policy(work, lab)
    book.db.flush()
    book.db.expire_all()  # the sums are new
    submissions = {submission.id: submission for submission in book.assignment_submissions(lab)}
    with book.db.no_autoflush:  # which would look through all of them for each
        for notebook in book.notebook_submissions(lab, lab):
            submission = submissions[notebook.assignment_id]
            if late := terms(work, submission.student_id, lab):
                submission.timestamp = parse_utc(from_stamp(late["time"]))
            if policy.due:
                submission.extension = policy.extension_of(submission.student_id)
            seconds = submission.total_seconds_late if late else 0
            notebook.late_submission_penalty = min(policy.penalty(seconds), counted(notebook)) if seconds else None


def counted(notebook: SubmittedNotebook) -> float:
    """The points that count; what waits for a person is not among them."""
    return sum(grade.score for grade in notebook.grades if not grade.needs_manual_grade)


def remembered(book: Gradebook, lab: str) -> dict[str, dict]:
    """By student what the gradebook has taken in; it says so itself, because it may have come back from a copy."""
    if not book.db.execute(sql(HAS_MEMORY)).first():
        return {}
    return {student: json.loads(seen) for student, seen in book.db.execute(sql(REMEMBERED), {"lab": lab})}


def _to_see(work: Path, result: dict) -> dict:
    """What the gradebook remembers of a result that it has taken in."""
    late = terms(work, result["student"], result["lab"])
    return {"key": result["key"], "attempt": result["attempt"], "terms": late}


def _is_current(work: Path, result: dict, seen: dict[str, dict]) -> bool:
    student, lab = result["student"], result["lab"]
    is_laid_out = (work / "autograded" / student / lab / f"{lab}.ipynb").is_file()
    return is_laid_out and _to_see(work, result).items() <= seen.get(student, {}).items()


def introduce(course: Course, lab: str) -> None:
    """Make the gradebook know the lab as it is released now."""
    if not (course.work / "gradebook.db").exists():
        shutil.rmtree(course.work / "autograded", ignore_errors=True)
    released = course.lab(lab).release
    wanted = {cell.grade_id: cell.points if cell.is_grade else None for cell in released if cell.grade_id}
    with open_gradebook(course) as book:
        try:
            notebook = book.find_notebook(lab, lab)
        except MissingEntry:
            known = {}
        else:  # nbgrader writes cell by cell, the sources last: who has them all was not interrupted
            known = {cell.name: None for cell in notebook.source_cells}
            known |= {cell.name: cell.max_score for cell in notebook.grade_cells}
    if known == wanted:
        return
    try:
        generate(course, lab, course.work / "released", database=True)
    except Exception as error:
        raise CourseError(
            f"nbgrader could not take in the scores of {lab} ({error}); if its questions were changed after "
            f"grading, remove {(course.work / 'gradebook.db').relative_to(course.root)} and grade again"
        ) from error


def _take_in_one(book: Gradebook, course: Course, result: dict, seen: dict | None) -> None:
    """Take in one result; `seen` is what the gradebook remembers of the student's last one."""
    student, lab = result["student"], result["lab"]
    name_student(book.update_or_create_student(student))
    submission = book.update_or_create_submission(lab, student)
    notebook = book.find_submission_notebook(lab, lab, student)
    rebuilt = course.work / "rebuilt" / student / lab / f"{lab}.ipynb"
    content = inject_scores(from_dict(json.loads(rebuilt.read_bytes())), result)
    is_same_work = seen is None or seen["attempt"] == result["attempt"]
    _save_scores(notebook, content, is_same_work)
    _lay_out(course, student, lab, content)
    earlier = (seen or {}).get("earlier", {}) if is_same_work else comments_of(notebook)  # written about other work
    now_seen = json.dumps(_to_see(course.work, result) | {"earlier": earlier})
    book.db.execute(sql(REMEMBER), {"submission": submission.id, "seen": now_seen})


def name_student(student: Student) -> None:
    """Who has no name goes by that of their folder; the formgrader would call them "None, None"."""
    student.last_name = student.last_name or ("" if student.first_name else student.id)
    student.first_name = student.first_name or ""


def _save_scores(notebook: SubmittedNotebook, content: NotebookNode, is_same_work: bool) -> None:
    """Put the notebook's scores into the gradebook; what a person gave stays, and is asked for again on new work."""
    grades = {grade.name: grade for grade in notebook.grades}
    comments = {comment.name: comment for comment in notebook.comments}
    for cell in content.cells:
        if is_grade(cell):
            grade = grades[cell.metadata.nbgrader["grade_id"]]
            grade.auto_score = judged_score(cell)
            if not (is_same_work and is_marked(grade)):
                grade.needs_manual_grade = is_marked(grade) or grade.auto_score is None
        if is_solution(cell):
            is_blank = cell.metadata.nbgrader.get("checksum") == compute_checksum(cell)
            comments[cell.metadata.nbgrader["grade_id"]].auto_comment = "No response." if is_blank else None


def _lay_out(course: Course, student: str, lab: str, content: NotebookNode) -> None:
    """Lay out the graded notebook where the formgrader looks for it."""
    target = course.work / "autograded" / student / lab
    shutil.rmtree(target, ignore_errors=True)
    for place in (course.work / "rebuilt" / student / lab, course.root / "solutions" / lab):
        shutil.copytree(place, target, ignore=shutil.ignore_patterns("*.ipynb"), dirs_exist_ok=True)
    path = target / f"{lab}.ipynb"
    write_whole(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    path.chmod(0o444)


def lateness(book: Gradebook, student: str, lab: str) -> tuple[float, float]:
    """By how many seconds the gradebook holds a submission for late, and the points that it takes."""
    submission = book.find_submission(lab, student)
    return submission.total_seconds_late, submission.late_submission_penalty


def marks_by_hand(book: Gradebook, student: str, lab: str, seen: dict[str, dict]) -> dict[str, dict]:
    """What a person in the formgrader changes of the student's result, by question id; `seen` is by student."""
    try:
        return by_hand(book.find_submission_notebook(lab, lab, student), seen.get(student, {}))
    except MissingEntry:
        return {}


def by_hand(notebook: SubmittedNotebook, seen: dict) -> dict[str, dict]:
    """The "points" and the "comment" that a person gave, by question id; `seen` is what the gradebook remembers.

    Points of None wait for that person, because what they gave was for earlier work; so does their comment. A comment
    on earlier work without points is left out until that person changes it.
    """
    comments, earlier = comments_of(notebook), seen.get("earlier", {})
    found: dict[str, dict] = {}
    for grade in notebook.grades:
        name, waits = grade.name.removeprefix("test-"), grade.needs_manual_grade
        if is_marked(grade):
            found[name] = {"points": None if waits else grade.score}
        if name in comments and not waits and (is_marked(grade) or comments[name] != earlier.get(name)):
            found[name] = found.get(name, {}) | {"comment": comments[name]}
    return found


def comments_of(notebook: SubmittedNotebook) -> dict[str, str]:
    """What a person wrote, by question id."""
    return {comment.name: comment.manual_comment for comment in notebook.comments if comment.manual_comment}


def is_marked(grade: Grade) -> bool:
    """Whether a person gave points."""
    return grade.manual_score is not None or bool(grade.extra_credit)


def write_grades(course: Course, results: list[dict]) -> Path:
    """grades.csv: one quoted row for each student and lab, with the points that the gradebook holds."""
    text = io.StringIO()
    table = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writerow(COLUMNS)
    with open_gradebook(course) as book:
        table.writerows(_row(result, *_standing(book, result)) for result in results)
    path = course.work / "grades.csv"
    write_whole(path, text.getvalue())
    return path


def _standing(book: Gradebook, result: dict) -> tuple[float, float, float, float]:
    """Points, points that wait, hours late and penalty; the judge's, if the gradebook lost what an earlier run gave."""
    try:
        graded = book.find_submission(result["lab"], result["student"])
    except MissingEntry:
        return result["points"], sum(q["max_points"] for q in result["questions"] if q["points"] is None), 0, 0
    grades = [grade for notebook in graded.notebooks for grade in notebook.grades]
    waits = sum(grade.max_score for grade in grades if grade.needs_manual_grade)
    hours, penalty = math.ceil(graded.total_seconds_late / 36) / 100, graded.late_submission_penalty
    return sum(map(counted, graded.notebooks)) - penalty, waits, hours, penalty


def _row(result: dict, points: float, waits: float, hours: float, penalty: float) -> list[str]:
    questions = result["questions"]
    review = " ".join(q["id"] for q in questions if q["status"] == REVIEW)
    recognized = " ".join(f"{q['id']}:{q['recognized']}" for q in questions if q["recognized"])
    flags = "; ".join(result["flags"])
    numbers = [f"{points:g}", f"{result['max_points']:g}", f"{waits:g}"]
    return [result["student"], result["lab"], *numbers, review, recognized, flags, f"{hours:g}", f"{penalty:g}"]
