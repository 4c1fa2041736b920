"""The judgement: a student's values against the trusted reference, and the mistake by its name.

Everything here runs in the judge's own process. The student's code runs in a worker (session.py), and so do the
known wrong answers, in the understudy: a worker of their own in which the solution has been run.
"""

import copy
import hashlib
import hmac
import math
import os
import re
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from grading.course import CourseError, Lab
from grading.forbidden import asked_names, forbidden_name, imports, needed, statements
from grading.ingest import Submission, rebuild
from grading.question import Call, Case, Probe, Question, Read, Wrong, as_numbers, close
from grading.session import ENDED, OVERTIME, TOO_LATE, Failure, Outcome, Session, Step, Value, WarmParent
from grading.trained import Trained

NUMBER = re.compile(r"[-+]?[\d.]+")
STILL_OPEN = "The answer cell is as it was handed out."
OUR_FAULT = "Our check could not deal with this answer, so a person looks at it."
TIME_IS_OVER = (
    "The time for the whole notebook was over before this answer could be tried: make the slowest cells faster, "
    "or leave out those that you added."
)
RIGHT, WRONG, BLANK, BY_HAND, REVIEW = "right", "wrong", "blank", "by hand", "needs review"


@dataclass(frozen=True)
class Judgement:
    """What one question earned and what the student is told."""

    question: str  # its id
    status: str
    points: float | None  # None: a person decides
    sentence: str = ""
    recognized: str = ""  # the name of the wrong answer
    fault: str = ""  # what failed in the check, for the instructor alone


class Fault(Exception):
    """A check itself failed: the question needs review, whatever the student wrote."""


def course_secret(work: Path) -> bytes:
    """The key from which inputs are drawn; made once, readable by the grader alone."""
    path = work / "secret"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        partial = path.with_name("secret.partial")
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        partial.write_text(secrets.token_hex(32))
        os.replace(partial, path)
    return path.read_text().encode()


def draw(secret: bytes, *names: str) -> np.random.Generator:
    """A random generator that belongs to these names and cannot be guessed without the secret."""
    digest = hmac.digest(secret, "\n".join(names).encode(), hashlib.sha256)
    return np.random.default_rng(int.from_bytes(digest, "big"))


class Judge:
    """Judges the submissions of one lab: a context, because it keeps the understudy running."""

    def __init__(self, lab: Lab, parent: WarmParent, secret: bytes):
        self.lab, self.parent, self.secret = lab, parent, secret
        self.solution = rebuild(lab, "solution", lab.solution)
        self.understudy = Session(parent.aside, [Step(*step) for step in self.solution.steps], total_seconds=math.inf)

    def __enter__(self) -> "Judge":
        self.understudy.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self.understudy.__exit__()

    @cached_property
    def modules(self) -> frozenset[str]:
        """What the lab's own cells import, and what holds the names that its questions forbid."""
        barred = {name for question in self.lab.questions for name in question.forbidden if not name.startswith(".")}
        return imports(self.solution.runs) | {name.rpartition(".")[0] or name for name in barred}

    def session(self, submission: Submission) -> Session:
        """The submission's notebook, ready to be run."""
        for parent in (self.parent, self.parent.aside):
            parent.modules = self.modules
            parent.begin()
        forbidden = {question.id: question.forbidden for question in self.lab.questions}
        return Session(self.parent, [
            Step(cell.grade_id or cell.cell_id, cell.source, submission.by_course(cell),
                 forbidden.get(cell.grade_id, ()))
            for cell in submission.runs
        ], spare=lambda: self.spare(submission))

    def spare(self, submission: Submission) -> list[str]:
        """The ids of the student's own cells that make nothing of which an answer is made."""
        wanted, added = set(), {}
        try:
            for cell in submission.runs:
                if cell.is_open or submission.by_course(cell):
                    wanted = wanted.union(*(one.loads | one.binds for one in statements(cell.source)))
                else:
                    added[cell.cell_id] = statements(cell.source)
            kept = set(needed([statement for cell in added.values() for statement in cell], wanted))
        except RecursionError:  # nobody can tell
            return []
        return [name for name, cell in added.items() if kept.isdisjoint(cell)]

    def judge(
        self, submission: Submission, questions: list[Question] | None = None
    ) -> tuple[list[Judgement], dict[str, str]]:
        """The judgement of these questions (all, if none are named), and the student's own output by cell."""
        with self.session(submission) as session:
            judgements = [
                self.judge_question(question, submission, session, submission.digest)
                for question in (self.lab.questions if questions is None else questions)
            ]
            return judgements, session.outputs

    def judge_question(self, question: Question, submission: Submission, session: Session, attempt: str) -> Judgement:
        """The judgement of one question; `attempt` decides which inputs are drawn."""
        source = submission.source(question.id)
        untouched = source.strip() == self.lab.blank(question).source.strip()
        if question.written:
            return self._set_aside(question, untouched and not submission.has_own_text)
        rng = draw(self.secret, submission.student, self.lab.name, question.id, attempt)
        try:
            with guarded("draws no cases"):
                cases = question.cases(rng)
            with guarded("cannot read the text of the submission"):
                name = self._forbidden_in(submission, question, cases)
            return self._refuse(question, name) if name else self._compare(question, session, cases, untouched)
        except (CourseError, OSError):  # the judge itself is broken, or its machine
            raise
        except Exception as error:  # nothing that one student hands in ends the run for all
            session.drop()
            self.understudy.drop()
            fault = str(error) if isinstance(error, Fault) else f"the judge fails ({type(error).__name__}: {error})"
            return Judgement(question.id, REVIEW, None, OUR_FAULT, fault=fault)

    def _set_aside(self, question: Question, untouched: bool) -> Judgement:
        if untouched:
            return Judgement(question.id, BLANK, 0, STILL_OPEN)
        return Judgement(question.id, BY_HAND, None, "A person reads this answer.")

    def _forbidden_in(self, submission: Submission, question: Question, cases: list[Case]) -> str:
        """The forbidden name that the text of the answer, or of what it is made of, uses, or ""."""
        cells = [(c.source, not submission.by_course(c)) for c in submission.runs if c.grade_id != question.id]
        asked = {name for case in cases for name in asked_names(case)}
        return forbidden_name(cells, submission.source(question.id), asked, question.forbidden)

    def _refuse(self, question: Question, name: str) -> Judgement:
        known = next((w for w in question.wrong if forbidden_name([], w.source, set(), (name,))), None)
        if known:
            return Judgement(question.id, WRONG, 0, known.sentence, known.name)
        return Judgement(question.id, WRONG, 0, f"Your answer uses {name}: this question asks you to do without it.")

    def _compare(self, question: Question, session: Session, cases: list[Case], untouched: bool) -> Judgement:
        expected = [expected_value(question, case) for case in cases]
        given = session.ask(cases, question.seconds, question.forbidden)
        accepted = [
            accepts(question, value, wanted, case) for value, wanted, case in zip(given, expected, cases, strict=True)
        ]
        if all(accepted):
            return Judgement(question.id, RIGHT, question.points)
        if untouched:
            return Judgement(question.id, BLANK, 0, STILL_OPEN)
        outcomes = [*given, session.failures.get(question.id)]
        if stopped := [outcome for outcome in outcomes if is_forbidden(question, outcome)]:
            return self._refuse(question, stopped[0].message)
        if known := self._recognize(question, cases, given, expected, accepted):
            return Judgement(question.id, WRONG, 0, known.sentence, known.name)
        first = accepted.index(False)
        cell = session.failures.get(question.id)
        with guarded("finds no sentence for this answer"):
            sentence = say(question, cases[first], given[first], expected[first], cell)
        return Judgement(question.id, WRONG, 0, sentence)

    def _recognize(
        self,
        question: Question,
        cases: list[Case],
        given: list[Outcome],
        expected: list[Any],
        accepted: list[bool],
    ) -> Wrong | None:
        """The listed wrong answer that the student gave, if it is one."""
        same = question.accepts if isinstance(question.accepts, close) else close(1e-6)
        for wrong in question.wrong:
            if wrong.when is None:
                values = self.values_of(question, wrong.source, cases)
                if all(agree(same, g, w, c) for g, w, c in zip(given, values, cases, strict=True)):
                    return wrong
            else:
                missed = [i for i, fine in enumerate(accepted) if not fine]
                if all(holds(wrong, given[i], expected[i], cases[i]) for i in missed):
                    return wrong
        return None

    def values_of(self, question: Question, source: str, cases: list[Case]) -> list[Outcome]:
        """The outcomes of another answer cell, put for a moment in the place of the solution's."""
        self.understudy.ready()
        failure = self.understudy.try_cell(Step(f"{question.id}, tried", source))
        stuck = failure in (OVERTIME, ENDED)
        outcomes = [failure] * len(cases) if stuck else self.understudy.ask(cases, question.seconds)
        self.understudy.try_cell(Step(question.id, self.lab.model_answer(question).source))
        return outcomes


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn any error of a check into a Fault; its warnings are its own affair."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise Fault(f"the check {what} ({type(error).__name__}: {error})") from error


def expected_value(question: Question, case: Case) -> Any:
    """What the trusted reference answers to a case."""
    if not callable(question.expected):
        return question.expected
    args = list(case.args) if isinstance(case, Call) else []
    named = {Call: lambda: case.kwargs, Probe: lambda: case.inputs, Read: dict}[type(case)]()
    with guarded("fails on its own inputs"):
        return question.expected(*copy.deepcopy(args), **copy.deepcopy(dict(named)))


def accepts(question: Question, outcome: Outcome, expected: Any, case: Case) -> bool:
    """Whether the question takes this outcome as right."""
    if isinstance(outcome, Failure):
        return False
    with guarded("fails on this answer"):
        return bool(question.accepts(outcome.value, expected, case))


def is_forbidden(question: Question, outcome: Outcome | None) -> bool:
    """Whether the guard inside the worker stopped the student's code."""
    return isinstance(outcome, Failure) and outcome.kind == "Forbidden" and outcome.message in question.forbidden


def agree(same: close, given: Outcome, known: Outcome, case: Case) -> bool:
    """Whether two outcomes are alike: equal values, or errors with the same message but for its numbers."""
    if isinstance(given, Value) and isinstance(known, Value):
        return same(given.value, known.value, case)
    if isinstance(given, Failure) and isinstance(known, Failure):
        return [given.kind, NUMBER.sub("", given.message)] == [known.kind, NUMBER.sub("", known.message)]
    return False


def holds(wrong: Wrong, outcome: Outcome, expected: Any, case: Case) -> bool:
    """Whether the property that marks a wrong answer holds; a property that cannot be tested does not."""
    try:
        return isinstance(outcome, Value) and bool(wrong.when(outcome.value, expected, case))
    except Exception:
        return False


def say(question: Question, case: Case, outcome: Outcome, expected: Any, cell: Failure | None) -> str:
    """One sentence on the first case that was not accepted, without the expected value."""
    where = f" for {case.label}" if case.label else ""
    what = "Your answer" if isinstance(case, Probe) else f"`{case.name}`"
    if isinstance(outcome, Failure):
        return say_failure(question, what, where, outcome, cell)
    if isinstance(question.accepts, Trained):
        return question.accepts.sentence(outcome.value)
    if outcome.value is None and expected is not None:
        return f"{what} gives None{where}: does every path end in a `return`?"
    if (kind := kind_of(outcome.value)) != (wanted := kind_of(expected)) and not callable(question.expected):
        return f"{what} is {kind}, but {wanted} is asked for."
    if isinstance(outcome.value, np.ndarray) and isinstance(expected, list | tuple) and as_numbers(expected) is None:
        return f"{what} is one array{where}, but several values are asked for."
    if isinstance(outcome.value, np.ndarray) and np.shape(outcome.value) != np.shape(expected):
        return f"{what} has the shape {outcome.value.shape}{where}: compare it with the shape in the specification."
    if isinstance(case, Read):
        return f"{what} is not the value that is asked for: check each step of the count, and its unit."
    return f"{what} gives another value than it should{where or ' for one of the inputs'}."


def say_failure(question: Question, what: str, where: str, outcome: Failure, cell: Failure | None) -> str:
    if outcome == OVERTIME:
        return f"{what} was still running after {question.seconds:g} seconds{where}: look for a loop that does not end."
    if outcome == ENDED:
        return f"{what} ended the Python process{where}: look for an exit, or for far too much memory."
    if TOO_LATE in (outcome, cell):
        return TIME_IS_OVER
    if outcome.kind == "Unsendable":
        return f"{what} cannot be read{where}: {outcome.message}."
    if outcome.kind == "NotImplementedError" and not outcome.message:
        return f"{what} still raises NotImplementedError{where}: write your answer in place of that line."
    if outcome.kind != "Undefined":
        message = f": {outcome.message}" if outcome.message else ""
        return f"{what} stops with {outcome.kind}{message.rstrip('.')}{where and ','}{where}."
    if cell is None:
        return f"`{outcome.message}` is not defined: keep the name that the question gives."
    if cell == OVERTIME:
        return "Your cell was still running when its time was over: look for a loop that does not end."
    if cell == ENDED:
        return "Your cell ended the Python process: look for an exit, or for far too much memory."
    line = f" in line {cell.line}" if cell.line else ""
    message = f": {cell.message}" if cell.message and not cell.line else ""
    return f"Your cell stops with {cell.kind}{message.rstrip('.')}{line}, so `{outcome.message}` is not defined."


def kind_of(value: Any) -> str:
    """A value's kind in a word that a learner knows."""
    kinds = {bool: "True or False", int: "a number", float: "a number", str: "text", type(None): "None"}
    return kinds.get(type(value), f"a {type(value).__name__}")
