"""A graded class, read back: every student's marks for a lab, with what a person gave in the formgrader."""

from dataclasses import dataclass

from nbgrader.api import Gradebook, MissingEntry

from grading.course import Course, CourseError, read_record
from grading.gradebook import by_hand, quiet_nbgrader, remembered
from grading.judge import BLANK


@dataclass(frozen=True)
class Mark:
    """What one question earned."""

    id: str
    title: str
    max_points: float
    points: float | None  # None: it waits for a person
    status: str  # the judge's word
    recognized: str
    sentence: str
    fault: str
    comment: str  # a person's

    @property
    def is_full(self) -> bool:
        return self.points is not None and self.points >= self.max_points


@dataclass(frozen=True)
class Person:
    """A student as the gradebook knows them; what it does not know is empty."""

    student: str  # the folder's name
    last_name: str = ""
    first_name: str = ""
    email: str = ""
    lms_user_id: str = ""

    @property
    def name(self) -> str:
        """The name by which lists are sorted: last, first."""
        return ", ".join(part for part in (self.last_name, self.first_name) if part) or self.student


@dataclass(frozen=True)
class Entry:
    """One submission, marked."""

    person: Person
    lab: str
    lab_title: str
    marks: tuple[Mark, ...]
    flags: tuple[str, ...]
    late_penalty: float = 0

    @property
    def student(self) -> str:
        return self.person.student

    @property
    def max_points(self) -> float:
        return sum(mark.max_points for mark in self.marks)

    @property
    def points(self) -> float:
        """The points so far: what waits for a person is not among them."""
        return max(0, sum(mark.points or 0 for mark in self.marks) - self.late_penalty)

    @property
    def waits(self) -> float:
        """The points that wait for a person."""
        return sum(mark.max_points for mark in self.marks if mark.points is None)

    @property
    def is_empty(self) -> bool:
        """Whether no question was answered at all."""
        return all(mark.status == BLANK and not mark.points for mark in self.marks)


def read_labs(course: Course, name: str | None) -> dict[str, list[Entry]]:
    """The entries of every graded lab by its name, or of the one lab asked for.

    Raises  CourseError if the lab is unknown or nothing is graded yet.
    """
    names = [course.lab(name).name] if name else course.lab_names
    labs = {lab: entries for lab in names if (entries := read_entries(course, lab))}
    if not labs:
        what = names[0] if name else "the course"
        raise CourseError(f"{what} has no grades yet; call `grading grade FOLDER` first")
    return labs


def read_entries(course: Course, lab: str) -> list[Entry]:
    """The entries of one lab, by student: the judge's results with the gradebook's marks, names and penalties."""
    places = (course.work / "results").glob(f"*/{lab}/result.json")
    results = [read_record(path, "student", "lab", "lab_title", "questions", "flags") for path in places]
    known = _known(course, lab) if results else {}
    return [_entry(result, *known.get(result["student"], (None, 0, {}))) for result in sorted(results, key=_student)]


def _student(result: dict) -> str:
    return result["student"]


def _entry(result: dict, person: Person | None, penalty: float, given: dict[str, dict]) -> Entry:
    return Entry(
        person=person or Person(result["student"]),
        lab=result["lab"],
        lab_title=result["lab_title"],
        marks=tuple(_mark(question, given.get(question["id"], {})) for question in result["questions"]),
        flags=tuple(result["flags"]),
        late_penalty=penalty,
    )


def _mark(question: dict, given: dict) -> Mark:
    names = ("id", "title", "max_points", "points", "status", "recognized", "sentence", "fault")
    judged = {name: question[name] for name in names} | {"comment": ""}
    return Mark(**judged | ({"sentence": ""} if "points" in given else {}) | given)


def _known(course: Course, lab: str) -> dict[str, tuple[Person, float, dict[str, dict]]]:
    """By student: who it is, the late penalty, and by question id what a person gave."""
    database = course.work / "gradebook.db"
    if not database.exists():
        return {}
    with quiet_nbgrader(), Gradebook(f"sqlite:///{database}", "seed-class") as book:
        try:
            submissions, seen = book.find_assignment(lab).submissions, remembered(book, lab)
        except MissingEntry:
            return {}
        return {
            s.student.id: (
                _person(s.student), s.late_submission_penalty or 0, by_hand(notebook, seen.get(s.student.id, {}))
            )
            for s in submissions for notebook in s.notebooks
        }


def _person(row) -> Person:
    known = (row.last_name, row.first_name, row.email, row.lms_user_id)
    return Person(row.id, *(text or "" for text in known))
