"""A judge proves itself before it judges.

For each lab: the solution earns full points, the blank lab none, every listed wrong answer loses its question and
is recognized by its name, every other right answer keeps it, hostile answers earn nothing; and lab, chapter and checks
agree with each other.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from grading.course import PARTS_POINTS, ZOO, Lab, write_whole
from grading.forbidden import asked_names
from grading.ingest import rebuild
from grading.judge import BLANK, BY_HAND, RIGHT, WRONG, Fault, Judge, Judgement, accepts, draw, expected_value, say
from grading.question import Case, Question, Read
from grading.session import Session, Value, WarmParent
from grading.wire import DEEPEST

SECRET = b"preflight"  # fixed, so that the same checks pass or fail everywhere
ATTEMPTS = ("first", "second", "third", "fourth", "fifth")  # inputs are drawn anew for each
ODD_VALUES = (None, "text", float("nan"), 0, True, [], {}, np.zeros((2, 3)), 10**400, float("inf"),
              functools.reduce(lambda inner, _: [inner], range(DEEPEST), 1.0), np.array([None, "text"], dtype=object))
# Of the zoo, what can be said to any question; the tests run all of it.
HOSTILE = ("returns_its_input", "returns_constants", "equal_to_everything", "mutates_its_inputs",
           "answers_by_the_count", "odd_numbers", "wrong_types", "patched_numpy", "looks_at_frames",
           "patches_the_worker", "forged_points", "forged_reply")  # fmt: skip
HINT = re.compile(r"<details>\s*<summary>\s*Hint\s+([123])\b[^<]*</summary>(.*?)</details>", re.S)


@dataclass
class Report:
    """What preflight saw in one lab."""

    lab: str
    rows: list[tuple[str, float, int, int, int, int]] = field(default_factory=list)
    hostile: dict[str, list[str]] = field(default_factory=dict)  # where each piece earned points
    faults: list[str] = field(default_factory=list)

    @property
    def n_tried(self) -> int:
        return sum(row[3] + row[5] for row in self.rows)


def preflight(lab: Lab, parent: WarmParent, tell: Callable[[str], None] = print) -> Report:
    """Try everything that the lab's checks promise; the report holds one sentence for each broken promise."""
    report = Report(lab.name, faults=disagreements(lab))
    if any("answer cell" in fault for fault in report.faults):
        return report
    with Judge(lab, parent, SECRET) as judge:
        report.faults += check_solution(judge) + check_blank(judge)
        for question in lab.questions:
            if question.written:
                report.rows.append((question.id, question.points, 0, 0, 0, 0))
                continue
            right = [check_right(judge, question, right.name, right.source) for right in question.right]
            wrong = [check_wrong(judge, question, wrong.name, wrong.source) for wrong in question.wrong]
            report.faults += [fault for fault in [*right, *wrong, *check_odd_values(question)] if fault]
            row = (right.count(""), len(right), wrong.count(""), len(wrong))
            report.rows.append((question.id, question.points, *row))
            tell(f"  {lab.name}  {question.id:<24} {row[0]} of {row[1]} right kept, {row[2]} of {row[3]} wrong caught")
        report.hostile = {piece: earned(judge, piece) for piece in HOSTILE}
    report.faults += [
        f"{name}: the hostile answer {piece!r} earns its points; draw inputs that tell it from a right one"
        for piece, names in report.hostile.items()
        for name in names
    ]
    return report


def first_fault(lab: Lab, work: Path, parent: WarmParent, tell: Callable[[str], None] = print) -> str:
    """The first fault of the lab's checks, or ""; what has passed once is tried again only after a change."""
    mark, key = work / "proven" / lab.name, lab.key
    if mark.is_file() and mark.read_text() == key:
        return ""
    report = preflight(lab, parent, tell)
    if not report.faults:
        write_whole(mark, key)
    return next(iter(report.faults), "")


def check_solution(judge: Judge) -> list[str]:
    faults = []
    submission = rebuild(judge.lab, "preflight", judge.lab.solution)
    with judge.session(submission) as session:
        for question in judge.lab.questions:
            wanted = BY_HAND if question.written else RIGHT
            for attempt in ATTEMPTS:
                judgement = judge.judge_question(question, submission, session, attempt)
                if judgement.status != wanted:
                    faults.append(f"{question.id}: the solution is judged {_words(judgement)}; it should be {wanted}")
                    break
    return faults


def check_blank(judge: Judge) -> list[str]:
    judgements, _ = judge.judge(rebuild(judge.lab, "preflight", judge.lab.release))
    return [
        f"{judgement.question}: the blank lab is judged {_words(judgement)}; it should be {BLANK} with 0 points"
        for judgement in judgements
        if judgement.status != BLANK or judgement.points != 0
    ]


def earned(judge: Judge, piece: str) -> list[str]:
    """The questions that this piece of the zoo answers to the judge's content, put into all answer cells at once."""
    source = (ZOO / f"{piece}.py").read_text()
    questions = [question for question in judge.lab.questions if not question.written]
    answers = {question.id: aim(source, question) for question in questions}
    submission = rebuild(judge.lab, "preflight", judge.lab.with_answers(answers))
    with judge.session(submission) as session:
        return [question.id for question in questions if _earns(judge, question, session, piece)]


def aim(source: str, question: Question) -> str:
    """The piece under the names for which the question asks; for a variable, what it answers."""
    asked: dict[str, str] = {}
    for case in question.cases(np.random.default_rng(0)):
        asked |= {name: "double(1.0)" if isinstance(case, Read) else "double" for name in asked_names(case)}
    if "double(" not in source:
        return source
    return "\n".join([source, *(f"{name} = {value}" for name, value in asked.items())])


def _earns(judge: Judge, question: Question, session: Session, piece: str) -> bool:
    cases = question.cases(draw(judge.secret, judge.lab.name, question.id, piece))
    given = session.ask(cases, question.seconds, question.forbidden)
    try:
        wanted = [expected_value(question, case) for case in cases]
        return all(accepts(question, *triple) for triple in zip(given, wanted, cases, strict=True))
    except Fault:
        return False


def _judge_answer(judge: Judge, question: Question, name: str, source: str) -> list[Judgement]:
    submission = rebuild(judge.lab, "preflight", judge.lab.with_answers({question.id: source}))
    with judge.session(submission) as session:
        return [judge.judge_question(question, submission, session, f"{name} {attempt}") for attempt in ATTEMPTS]


def check_right(judge: Judge, question: Question, name: str, source: str) -> str:
    for judgement in _judge_answer(judge, question, name, source):
        if judgement.status != RIGHT:
            return f"{question.id}: the right answer {name!r} is judged {_words(judgement)}; it should be right"
    return ""


def check_wrong(judge: Judge, question: Question, name: str, source: str) -> str:
    for judgement in _judge_answer(judge, question, name, source):
        if judgement.status != WRONG or judgement.points != 0 or judgement.recognized != name:
            return f"{question.id}: the wrong answer {name!r} is judged {_words(judgement)}; it should be known by name"
    return ""


def _words(judgement: Judgement) -> str:
    by_name = f" as {judgement.recognized!r}" if judgement.recognized else ""
    sentence = f" ({judgement.fault or judgement.sentence})" if judgement.sentence else ""
    return f"{judgement.status}{by_name}{sentence}"


def check_odd_values(question: Question) -> list[str]:
    """A check must survive whatever a student's function returns, because its own faults go to a person."""
    for case in question.cases(np.random.default_rng(0)):
        try:
            expected = expected_value(question, case)
        except Fault as fault:
            return [f"{question.id}: {fault}"]
        for odd in ODD_VALUES:
            if error := _error_of(question, odd, expected, case):
                return [f"{question.id}: `accepts` fails when the answer is {odd!r} ({error}); return False there"]
    return []


def _error_of(question: Question, odd: Any, expected: Any, case: Case) -> str:
    try:
        question.accepts(odd, expected, case)
        say(question, case, Value(odd), expected, None)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def disagreements(lab: Lab) -> list[str]:
    """Where the lab's notebook, its chapter and its checks do not fit together."""
    return [*_answer_cells(lab), *_points(lab), *_labels(lab), *_hints(lab)]


def _answer_cells(lab: Lab) -> list[str]:
    faults = []
    for where, cells in (("solution", lab.solution), ("released lab", lab.release)):
        open_ids = [cell.grade_id for cell in cells if cell.is_open]
        faults += [
            f"{question.id}: the {where} has {open_ids.count(question.id)} answer cells with this id; it needs one"
            for question in lab.questions
            if open_ids.count(question.id) != 1
        ]
        ids = [cell.cell_id for cell in cells]
        if "" in ids or len(set(ids)) < len(ids):
            faults.append(f"the {where} has cells without an id or with the same id; give each cell its own")
    names = {question.id for question in lab.questions}
    known = names | {f"test-{name}" for name in names}
    stray = [cell.grade_id for cell in lab.solution if (cell.is_grade or cell.is_open) and cell.grade_id not in known]
    return faults + [f"the cell {grade_id!r} belongs to no question of the checks; add one" for grade_id in stray]


def _points(lab: Lab) -> list[str]:
    faults = []
    for question in lab.questions:
        cell = lab.points_cell(question)
        if cell is None or cell.points != question.points:
            shown = "no points" if cell is None else f"{cell.points:g} points"
            faults.append(
                f"{question.id}: the notebook gives {shown} and the checks {question.points:g}; make them equal"
            )
    for part, wanted in PARTS_POINTS.items():
        total = sum(question.points for question in lab.questions if question.part == part)
        if total != wanted:
            faults.append(f"the {part} questions are worth {total:g} points together; they should be worth {wanted}")
    return faults


def _labels(lab: Lab) -> list[str]:
    if not lab.chapter_path.is_file():
        return [f"the chapter {lab.chapter_path.name} does not exist; the questions name its sections"]
    text = "\n".join(cell.source for cell in lab.chapter)
    return [
        f"{question.id}: the chapter has no section ({question.teaches})=; name the section that teaches it"
        for question in lab.questions
        if f"({question.teaches})=" not in text
    ]


def plain(text: str) -> str:
    """The words of a hint, without its Markdown marks and line breaks."""
    return re.sub(r"\s+", " ", re.sub(r"```\w*|`", " ", text)).strip()


def _hints(lab: Lab) -> list[str]:
    text = "\n".join(cell.source for cell in lab.solution if cell.kind == "markdown")
    found = [(number, plain(body)) for number, body in HINT.findall(text)]
    in_lab = {tuple(body for _, body in found[i : i + 3]) for i in range(0, len(found), 3)}
    in_checks = {tuple(plain(hint) for hint in q.hints): q.id for q in lab.questions if q.hints}
    faults = []
    if [number for number, _ in found] != ["1", "2", "3"] * (len(found) // 3):
        faults.append("the lab's hints are not in threes (Hint 1, Hint 2, Hint 3); put them in order")
    for hints, question in in_checks.items():
        if hints not in in_lab:
            different = [
                i + 1 for i in range(3) if not any(hints[i] == triple[i] for triple in in_lab if len(triple) == 3)
            ]
            which = f"hint {different[0]} differs" if different else "the three hints do not stand together"
            faults.append(f"{question}: {which} between the checks and the lab; copy the lab's words")
    extra = in_lab - in_checks.keys()
    return faults + [f"the lab's hint {triple[0]!r} belongs to no question of the checks" for triple in extra]
