"""The vocabulary in which a lab's checks are written.

A check is data: what is asked of the student's work, what the trusted reference answers to the same,
which wrong answers learners really give, and which different right answers must pass. Nothing here runs
student code.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

PARTS = ("core", "stretch", "record")


class Call:
    """Ask for the value of the student's function `name` on these arguments.

    The label completes the sentence "your answer differs for ...": "a negative bias", "an empty list".
    """

    def __init__(self, name: str, *args: Any, label: str = "", **kwargs: Any):
        self.name, self.args, self.kwargs, self.label = name, args, kwargs, label

    def __repr__(self) -> str:
        return f"Call({self.name!r}, label={self.label!r})"


@dataclass(frozen=True)
class Read:
    """Ask for the value of the student's variable `name`."""

    name: str
    label: str = ""


@dataclass(frozen=True)
class Probe:
    """Ask for the variable `answer` after `code` has run in the student's namespace with `inputs` bound.

    For classes and whatever keeps a state. The trusted reference is called as `expected(**inputs)`.
    """

    code: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True)
class Folder:
    """An argument that becomes a real temporary folder, which the student's code gets as a pathlib.Path.

    The trusted reference gets the Folder itself and reads its `files`.
    """

    files: Mapping[str, bytes]


Case = Call | Read | Probe


@dataclass(frozen=True)
class Wrong:
    """A wrong answer that learners really give, and the sentence that names the mistake.

    `source` is the whole answer cell. It is recognized by its values on the same cases, or, where these
    cannot be reproduced by running it, by `when(given, expected, case)` holding for every case that was missed.
    """

    name: str
    source: str
    sentence: str
    _: KW_ONLY
    when: Callable[[Any, Any, Case], bool] | None = None


@dataclass(frozen=True)
class Right:
    """Another way to answer (the whole answer cell), which must earn full points."""

    name: str
    source: str


@dataclass(frozen=True)
class close:
    """Whether two values agree: same structure, and numbers within `tolerance * max(1, |expected|)`.

    An expected integer allows a rounding error of 1e-9 only: where an estimate is meant, expect a float.
    NaN agrees with NaN and infinity with the same infinity. A list, a tuple and an array of the same shape
    agree if their entries do. Text and bytes agree if they are the same.
    """

    tolerance: float

    def __post_init__(self):
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"the tolerance is {self.tolerance}; give a finite number that is at least 0")

    def __call__(self, given: Any, expected: Any, case: Case | None = None) -> bool:
        if isinstance(expected, dict):
            same_keys = isinstance(given, dict) and given.keys() == expected.keys()
            return same_keys and all(self(given[key], expected[key]) for key in expected)
        if given is None or expected is None or isinstance(expected, str | bytes):
            return type(given) is type(expected) and given == expected
        if (wanted := as_numbers(expected)) is not None:
            numbers = as_numbers(given)
            return numbers is not None and numbers.shape == wanted.shape and self._agree(numbers, wanted)
        same_length = isinstance(given, list | tuple) and len(given) == len(expected)
        return same_length and all(self(g, e) for g, e in zip(given, expected, strict=True))

    def _agree(self, given: np.ndarray, expected: np.ndarray) -> bool:
        if expected.dtype.kind in "biuO" and given.dtype.kind in "biuO":
            return bool(np.array_equal(given, expected))
        tolerance = self.tolerance if expected.dtype.kind in "fc" else min(self.tolerance, 1e-9)
        kind = complex if "c" in (given.dtype.kind, expected.dtype.kind) else float
        try:
            given, expected = given.astype(kind), expected.astype(kind)
        except OverflowError:  # an integer that is larger than any float
            return False
        with np.errstate(invalid="ignore", over="ignore"):
            near = np.abs(given - expected) <= tolerance * np.maximum(1, np.abs(expected))
        finite = np.isfinite(expected) & np.isfinite(given)
        same = (given == expected) | (np.isnan(given) & np.isnan(expected))
        return bool(np.all(np.where(finite, near, same)))


def as_numbers(value: Any) -> np.ndarray | None:
    """The value as an array of numbers, or None if it is not made of numbers alone."""
    if isinstance(value, list | tuple) and not all(as_numbers(entry) is not None for entry in value):
        return None
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # ragged
        return None
    is_big_integer = array.dtype == object and array.ndim == 0 and isinstance(value, int)
    return array if array.dtype.kind in "biufc" or is_big_integer else None


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of a lab, checked at birth.

    `forbidden` lists full names that the answer cell may not import or use: "torch.autograd", "sum", and with a
    dot in front a method: ".backward". `seconds` is the limit for all cases together.
    """

    id: str
    title: str
    points: float
    part: str
    teaches: str
    hints: tuple[str, ...] = ()
    # judged by running
    cases: Callable[[np.random.Generator], list[Case]] | None = None
    expected: Any = None
    accepts: Callable[[Any, Any, Case], bool] = close(1e-6)
    wrong: tuple[Wrong, ...] = ()
    right: tuple[Right, ...] = ()
    forbidden: tuple[str, ...] = ()
    seconds: float = 5
    # judged by a person
    written: bool = False
    rubric: str = ""

    def __post_init__(self):
        say = f"question {self.id!r}"
        if self.part not in PARTS:
            raise ValueError(f"{say} is in part {self.part!r}; choose one of {', '.join(PARTS)}")
        if not self.points > 0:
            raise ValueError(f"{say} is worth {self.points} points; give a number above 0")
        if not (self.title and self.teaches):
            raise ValueError(f"{say} lacks a title or the label of the section that teaches it; give both")
        if self.written:
            self._check_written(say)
        else:
            self._check_judged(say)

    def _check_written(self, say: str) -> None:
        if not self.rubric:
            raise ValueError(f"{say} is written but has no rubric; say what a full answer says")
        if self.cases or self.wrong or self.right:
            raise ValueError(f"{say} is written but has cases or answers to run; drop them or `written`")

    def _check_judged(self, say: str) -> None:
        if self.cases is None:
            raise ValueError(f"{say} asks for nothing; give cases, or written=True with a rubric")
        if not self.seconds > 0:
            raise ValueError(f"{say} has a limit of {self.seconds} seconds; give a number above 0")
        if len(self.hints) != 3:
            raise ValueError(f"{say} has {len(self.hints)} hints; give three: where, how, the first line")
        names = [answer.name for answer in (*self.wrong, *self.right)]
        if len(set(names)) < len(names):
            raise ValueError(f"{say} uses a name twice among its answers ({', '.join(names)}); rename one")
        if len(self.wrong) < 3:
            raise ValueError(f"{say} lists {len(self.wrong)} wrong answers; list at least 3")
        cases = self.cases(np.random.default_rng(0))
        if not cases or not all(isinstance(case, Case) for case in cases):
            raise ValueError(f"{say} must make a non-empty list of Call, Read or Probe, not {cases!r}")
        if len(self.right) < 2 and not all(isinstance(case, Read) for case in cases):
            raise ValueError(f"{say} lists {len(self.right)} other right answers; list at least 2")
