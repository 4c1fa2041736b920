"""A tiny course with one lab, for the tests of grading, and the laws of the vocabulary."""

import json
from pathlib import Path

import numpy as np
import pytest

from grading.course import Course
from grading.gradebook import release_labs
from grading.question import Call, Question, Read, Right, Wrong, close
from grading.sandbox import fault

EXPOSED = bool(fault())  # these tests run the course's own code, so they need no sandbox
LAB = "lab01_tiny"

CHECKS = '''
"""Checks of a tiny lab."""
from grading.question import Call, Folder, Probe, Question, Read, Right, Wrong, close

HINTS = ("Look at the formula.", "Think of the sign.", "Begin with `return`.")

def double(x):
    return 2 * x

def total(folder):
    return sum(int(content) for content in folder.files.values())

def counts(n):
    return list(range(1, n + 1))

QUESTIONS = [
    Question(
        id="double", title="Twice a number", points=30, part="core", teaches="doubling", hints=HINTS,
        cases=lambda rng: [Call("double", float(rng.normal()), label="a number"),
                           Call("double", rng.normal(size=3), label="an array")],
        expected=double, seconds=2,
        wrong=(
            Wrong("square", "def double(x):\\n    return x * x", "You multiply x by itself."),
            Wrong("sign", "def double(x):\\n    return -2 * x", "The sign is turned around."),
            Wrong("plus", "def double(x):\\n    return x + 2", "You add two."),
        ),
        right=(
            Right("sum", "def double(x):\\n    return x + x"),
            Right("numpy", "def double(x):\\n    return np.multiply(x, 2)"),
        ),
        forbidden=("math.fsum",),
    ),
    Question(
        id="total", title="The sum of a folder", points=20, part="core", teaches="doubling", hints=HINTS,
        cases=lambda rng: [Call("total", Folder({"a.txt": str(rng.integers(10, 90)).encode(), "b.txt": b"5"}))],
        expected=total,
        wrong=(
            Wrong("count", "def total(folder):\\n    return len(list(folder.iterdir()))", "You count the files."),
            Wrong("first", "def total(folder):\\n    return int((folder / 'a.txt').read_text())", "Only one file."),
            Wrong("path", "def total(folder):\\n    return str(folder)", "You return the name.",
                  when=lambda given, expected, case: isinstance(given, str)),
        ),
        right=(
            Right("loop", "def total(folder):\\n    n = 0\\n    for p in folder.glob('*.txt'):\\n"
                  "        n += int(p.read_text())\\n    return n"),
            Right("map", "def total(folder):\\n    return sum(map(int, (p.read_text() for p in folder.iterdir())))"),
        ),
    ),
    Question(
        id="answer-seven", title="Seven", points=20, part="core", teaches="doubling", hints=HINTS,
        cases=lambda rng: [Read("answer_seven")], expected=7,
        wrong=(
            Wrong("eight", "answer_seven = 8", "You count one too many."),
            Wrong("six", "answer_seven = 6", "You count one too few."),
            Wrong("minus", "answer_seven = -7", "The sign is wrong."),
        ),
    ),
    Question(
        id="counter", title="A counter", points=20, part="stretch", teaches="doubling", hints=HINTS,
        cases=lambda rng: [Probe("c = Counter()\\nanswer = [c.next() for _ in range(n)]",
                                 {"n": int(rng.integers(3, 9))}, label="several calls")],
        expected=counts,
        wrong=(
            Wrong("from-zero", "class Counter:\\n    n = -1\\n    def next(self):\\n        self.n += 1\\n"
                  "        return self.n", "The first call gives 0."),
            Wrong("stuck", "class Counter:\\n    def next(self):\\n        return 1", "It forgets where it was."),
            Wrong("two", "class Counter:\\n    n = 0\\n    def next(self):\\n        self.n += 2\\n"
                  "        return self.n", "It counts in twos."),
        ),
        right=(
            Right("init", "class Counter:\\n    def __init__(self):\\n        self.n = 0\\n    def next(self):\\n"
                  "        self.n = self.n + 1\\n        return self.n"),
            Right("iterator", "import itertools\\nclass Counter:\\n    def __init__(self):\\n"
                  "        self.all = itertools.count(1)\\n    def next(self):\\n        return next(self.all)"),
        ),
    ),
    Question(id="why", title="Why", points=10, part="record", teaches="doubling", written=True, rubric="a reason"),
]
'''

HINTS = "\n\n".join(
    f"<details><summary>Hint {n}: {what}</summary>\n\n{text}\n\n</details>"
    for n, what, text in (
        (1, "where to look", "Look at the formula."),
        (2, "how to think", "Think of the sign."),
        (3, "the first line", "Begin with `return`."),
    )
)


def cell(kind: str, cell_id: str, source: str, tags: tuple[str, ...] = (), **marks: object) -> dict:
    metadata: dict = {"tags": list(tags)} if tags else {}
    if marks:
        metadata["nbgrader"] = {"schema_version": 3, "grade": False, "solution": False, "locked": False} | marks
    made = {"cell_type": kind, "id": cell_id, "metadata": metadata, "source": source}
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def answer_cells(name: str, points: int, solution: str, test: str) -> list[dict]:
    source = f"### BEGIN SOLUTION\n{solution}\n### END SOLUTION"
    return [
        cell("code", name, source, grade_id=name, solution=True),
        cell("code", f"test-{name}", test, grade_id=f"test-{name}", grade=True, locked=True, points=points),
    ]


def solution_notebook() -> dict:
    cells = [
        cell("markdown", "title", "# Lab 01: a tiny lab"),
        cell("code", "setup", "import numpy as np", grade_id="setup", locked=True),
        cell("markdown", "hints", HINTS),
        *answer_cells("double", 30, "def double(x):\n    return 2 * x", "assert double(2) == 4"),
        cell("markdown", "remark", "The usual mistake: squaring.", tags=("instructor",)),
        cell("code", "look", "raise RuntimeError('the judge must not run me')", tags=("show",)),
        *answer_cells(
            "total",
            20,
            "def total(folder):\n    return sum(int(path.read_text()) for path in folder.glob('*.txt'))",
            "assert callable(total)",
        ),
        *answer_cells("answer-seven", 20, "answer_seven = 7", "assert answer_seven > 0"),
        *answer_cells(
            "counter",
            20,
            "class Counter:\n    n = 0\n    def next(self):\n        self.n += 1\n        return self.n",
            "assert Counter().next() == 1",
        ),
        cell("markdown", "why", "Because it is.", grade_id="why", grade=True, solution=True, points=10),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def tiny_course(root: Path) -> Course:
    """A course with one released lab, its chapter and its checks."""
    for path, text in {
        f"solutions/{LAB}/{LAB}.ipynb": json.dumps(solution_notebook(), indent=1) + "\n",
        "notebooks/01_tiny.ipynb": json.dumps({"cells": [{"cell_type": "markdown", "source": ["(doubling)=\n"]}]}),
        f"grading/checks/{LAB}.py": CHECKS,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    course = Course(root)
    release_labs(course)
    return course


def question(**changes: object) -> Question:
    """A well-formed question with some fields changed."""
    fields = {
        "id": "q",
        "title": "t",
        "points": 1,
        "part": "core",
        "teaches": "s",
        "hints": ("a", "b", "c"),
        "cases": lambda rng: [Call("f", 1)],
        "expected": lambda x: x,
        "wrong": tuple(Wrong(name, "f = 1", "No.") for name in "abc"),
        "right": tuple(Right(name, "f = 1") for name in "de"),
    }
    return Question(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"wrong": ()}, "list at least 3"),
        ({"right": ()}, "list at least 2"),
        ({"hints": ("one",)}, "give three"),
        ({"part": "extra"}, "choose one of"),
        ({"points": 0}, "above 0"),
        ({"cases": lambda rng: []}, "non-empty"),
        ({"cases": None}, "asks for nothing"),
        ({"written": True}, "has no rubric"),
        ({"right": (Right("a", ""), Right("d", ""))}, "uses a name twice"),
    ],
)
def test_a_question_is_checked_at_birth(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        question(**changes)


def test_a_question_that_reads_a_variable_needs_no_other_right_answer():
    assert question(cases=lambda rng: [Read("x")], right=()).right == ()


@pytest.mark.parametrize(
    ("given", "expected", "agrees"),
    [
        (1, 1.0, True),
        (np.array([1.0, 2.0]), [1, 2], True),
        (float("nan"), 1.0, False),
        (1.0, float("nan"), False),
        (float("nan"), float("nan"), True),
        (float("inf"), float("inf"), True),
        (float("-inf"), float("inf"), False),
        (np.array([[1.0]]), np.array([1.0]), False),
        (1_000_000_001, 1_000_000_000, False),
        (3.0000000001, 3, True),
        (10**30 + 1, 10**30, False),
        (10**400, 1.0, False),
        ("1", 1, False),
        (None, 0.0, False),
        ([[1], [2, 3]], [[1], [2, 3]], True),
        ({"a": (1, "x")}, {"a": [1, "x"]}, True),
        ({"a": 1}, {"b": 1}, False),
        (0.1 + 0.2, 0.3, True),
    ],
)
def test_close_compares_structure_and_numbers(given, expected, agrees):
    assert close(1e-6)(given, expected) is agrees
