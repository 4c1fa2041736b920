"""Where the course keeps its things, and how a lab is read.

A lab has one name in four places: the instructor's source, the released notebook, the chapter and the checks.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from grading.keys import question_sources
from grading.question import Question

STUDENT = re.compile(r"\w[\w.@-]{0,79}")  # a student's folder
ZOO = Path(__file__).parent / "zoo"  # hostile answers
PARTS_POINTS = {"core": 70, "stretch": 20, "record": 10}  # of every lab


class CourseError(Exception):
    """Something about the course that its instructor has to put right, in one sentence."""


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook; what is missing or damaged in the file is empty here."""

    kind: str  # code, markdown, raw
    source: str
    cell_id: str = ""
    grade_id: str = ""
    is_grade: bool = False
    is_solution: bool = False
    points: float = 0
    tags: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether the learner writes in it."""
        return bool(self.grade_id) and self.is_solution

    @property
    def is_visible_test(self) -> bool:
        return self.is_grade and not self.is_solution


def read_cells(text: str | bytes) -> list[Cell]:
    """The cells of a notebook file, in order.

    Raises  ValueError if the text is not a notebook.
    """
    try:
        notebook = json.loads(text)
        return [_read_cell(cell) for cell in notebook["cells"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("the file is not a notebook; open it in Jupyter, save it and hand it in again") from error


def _read_cell(cell: dict) -> Cell:
    source = cell.get("source", "")
    metadata = cell["metadata"] if isinstance(cell.get("metadata"), dict) else {}
    marks = metadata["nbgrader"] if isinstance(metadata.get("nbgrader"), dict) else {}
    tags = metadata["tags"] if isinstance(metadata.get("tags"), list) else []
    points = marks.get("points", 0)
    return Cell(
        kind=str(cell["cell_type"]),
        source=_text("".join(source) if isinstance(source, list) else source),
        cell_id=_text(cell.get("id", "")),
        grade_id=_text(marks.get("grade_id", "")),
        is_grade=marks.get("grade") is True,
        is_solution=marks.get("solution") is True,
        points=points if isinstance(points, int | float) else 0,
        tags=tuple(tag for tag in tags if isinstance(tag, str)),
    )


def _text(value: object) -> str:
    """The value as text that a file can hold: JSON can name half a character, UTF-8 cannot."""
    return str(value).encode(errors="replace").decode()


@dataclass(frozen=True)
class Lab:
    """One lab: its notebooks and its questions."""

    name: str  # lab01_neuron
    root: Path

    @property
    def solution_path(self) -> Path:
        return self.root / "solutions" / self.name / f"{self.name}.ipynb"

    @property
    def release_path(self) -> Path:
        return self.root / "labs" / self.name / f"{self.name}.ipynb"

    @property
    def chapter_path(self) -> Path:
        return self.root / "notebooks" / f"{self.name.removeprefix('lab')}.ipynb"

    @property
    def checks_path(self) -> Path:
        return self.root / "grading" / "checks" / f"{self.name}.py"

    @cached_property
    def solution(self) -> list[Cell]:
        return _cells(self.solution_path, "write the solution first")

    @cached_property
    def release(self) -> list[Cell]:
        return _cells(self.release_path, "generate it with `grading labs`")

    @cached_property
    def chapter(self) -> list[Cell]:
        return _cells(self.chapter_path, "write the chapter first")

    @property
    def title(self) -> str:
        """The lab's first heading, or its name."""
        headings = (re.search(r"^# +(.+)$", cell.source, re.M) for cell in self.release if cell.kind == "markdown")
        return next((found[1].strip() for found in headings if found), self.name)

    @cached_property
    def questions(self) -> list[Question]:
        """The questions of the lab's checks, in the order of the checks."""
        _read(self.checks_path, "write the checks first")
        spec = importlib.util.spec_from_file_location(f"checks_{self.name}", self.checks_path)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            questions = list(module.QUESTIONS)
        except (Exception, SystemExit) as error:
            raise CourseError(
                f"the checks in {self.checks_path.name} do not load: {type(error).__name__}: {error}"
            ) from error
        if not questions or not all(isinstance(question, Question) for question in questions):
            raise CourseError(f"QUESTIONS in {self.checks_path.name} is no list of questions; list them there")
        return questions

    @property
    def key(self) -> str:
        """Changes with everything from which the lab's checks prove themselves, the zoo included."""
        return digest_of(self.checks_path, *self._around_checks, *sorted(ZOO.glob("*.py")))

    @cached_property
    def checks_key(self) -> str:
        """Changes when anything that decides about a judgement does; a comment in the checks does not."""
        return self._key_of("QUESTIONS")

    @cached_property
    def question_keys(self) -> dict[str, str]:
        """The same for each question's own check, by question id."""
        return {question.id: self._key_of(question.id) for question in self.questions}

    def _key_of(self, name: str) -> str:
        source = self._sources.get(name) or self.checks_path.read_text(encoding="utf-8")
        return hashlib.sha256((source + self._frame_key).encode()).hexdigest()

    @cached_property
    def _sources(self) -> dict[str, str]:
        return question_sources(_read(self.checks_path, "write the checks first").decode())

    @cached_property
    def _frame_key(self) -> str:
        return digest_of(*self._around_checks)

    @property
    def _around_checks(self) -> list[Path]:
        return [self.solution_path, self.release_path, *sorted(Path(__file__).parent.glob("*.py"))]

    def blank(self, question: Question) -> Cell:
        """The question's answer cell as it was released."""
        return self._answer(self.release, question)

    def model_answer(self, question: Question) -> Cell:
        """The question's answer cell in the solution."""
        return self._answer(self.solution, question)

    def _answer(self, cells: list[Cell], question: Question) -> Cell:
        for cell in cells:
            if cell.grade_id == question.id and cell.is_solution:
                return cell
        raise CourseError(f"{self.name} has no answer cell with the grade id {question.id!r}; add one")

    def points_cell(self, question: Question) -> Cell | None:
        """The cell that carries the question's points in the solution."""
        grade_id = question.id if question.written else f"test-{question.id}"
        return next((cell for cell in self.solution if cell.grade_id == grade_id and cell.is_grade), None)

    def with_answers(self, answers: dict[str, str]) -> list[Cell]:
        """The solution's cells with other sources in the answer cells of these question ids."""
        return [
            replace(cell, source=answers[cell.grade_id]) if cell.is_open and cell.grade_id in answers else cell
            for cell in self.solution
        ]


def shown(name: object) -> str:
    """A name from outside, fit for a line of text."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(name))[:120]


def read_record(path: Path, *names: str) -> dict:
    """What stands in a file that grading itself wrote under these names, as JSON.

    Raises  CourseError if it is damaged.
    """
    try:
        record = json.loads(path.read_bytes())
        return record | {name: record[name] for name in names}
    except (ValueError, TypeError, KeyError) as error:
        raise CourseError(
            f"{path} is damaged ({type(error).__name__}); restore it from your copy, or remove it and call "
            "the same command again"
        ) from error


def _cells(path: Path, remedy: str) -> list[Cell]:
    data = _read(path, remedy)
    try:
        return read_cells(data)
    except ValueError as error:
        raise CourseError(
            f"{path.parent.name}/{path.name} is not a notebook; restore it from your copy"
        ) from error


def digest_of(*paths: Path) -> str:
    """Changes with the content of these files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _read(path: Path, remedy: str) -> bytes:
    if not path.is_file():
        raise CourseError(f"{path.parent.name}/{path.name} does not exist; {remedy}")
    return path.read_bytes()


@dataclass(frozen=True)
class Course:
    """The course's folders; what grading makes lies under `work`, which git ignores."""

    root: Path
    beside: str = ""  # the name of a class that is kept apart from the real one

    @property
    def home(self) -> Path:
        return self.root / "grading" / "_work"

    @property
    def work(self) -> Path:
        """Where the class lies: submissions, marks, pages."""
        return self.home / self.beside

    @property
    def lab_names(self) -> list[str]:
        """Every lab that has a solution, in order."""
        notebooks = (self.root / "solutions").glob("lab*/lab*.ipynb")
        return sorted(path.stem for path in notebooks if path.stem == path.parent.name)

    def lab(self, name: str) -> Lab:
        """The lab of that name, or of that number ("01", "lab01")."""
        number = re.fullmatch(r"(?:lab)?(\d+)", name)
        found = [full for full in self.lab_names if full == name or (number and full.startswith(f"lab{number[1]}_"))]
        if len(found) > 1:
            raise CourseError(f"{name!r} stands for {' and '.join(found)}; write the whole name")
        if not found:
            raise CourseError(f"there is no lab {name!r}; choose one of {', '.join(self.lab_names) or 'none yet'}")
        return Lab(found[0], self.root)


def make_private(folder: Path) -> Path:
    """The folder; if it is made now, other accounts of the machine cannot look into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def result_place(work: Path, student: str, lab: str) -> Path:
    """Where a student's result for a lab lies."""
    return work / "results" / student / lab / "result.json"


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Hold the course's work for one run; two at a time would write the same gradebook."""
    with (make_private(work) / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CourseError("another run is grading this course; wait until it has ended") from error
        yield


def write_whole(path: Path, content: str | bytes) -> bool:
    """Write the file aside and rename it, so that it exists whole or not at all; whether anything changed."""
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
    return True


def to_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
