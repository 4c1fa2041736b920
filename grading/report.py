"""The class report: one page a lab that says what the class can do, what to teach again and whom to look at.

The measures are those of classical test theory. Difficulty is the share of full marks. Discrimination is the
correlation of a question's share of points with the share of points in the rest of the lab (the corrected
item-total correlation; for a question that is right or wrong, the point-biserial one). Submissions without any
answer, and questions that wait for a person, are left out of both.
Source  Crocker and Algina 1986, "Introduction to Classical and Modern Test Theory", chapter 14.
"""

import base64
import hashlib
import hmac
import json
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grading.chapter import Section, links, sections
from grading.classbook import Entry, Mark, read_labs
from grading.course import Course, Lab, write_whole
from grading.feedback import template
from grading.judge import BLANK, REVIEW, course_secret
from grading.likeness import Alike, find_alike

TEACH_AGAIN = 0.6  # share of full marks below which a question is taught again
FEWEST = 10  # students below which discrimination says nothing
SEPARATES = 0.2  # discrimination below which the question itself deserves a look
MOST_PAIRS = 40  # pairs shown
MOST_MISTAKES = 3  # unfolded of a question
FULL, PART, NONE, OPEN, WAITS = "full marks", "part", "no points", "left open", "waits for a person"
Naming = Callable[[str], str]


@dataclass(frozen=True)
class Mistake:
    """A listed wrong answer that was given."""

    name: str
    sentence: str
    students: list[str]


@dataclass(frozen=True)
class Item:
    """What the class did with one question."""

    id: str
    title: str
    section: str  # of the chapter
    counts: dict[str, int]  # students by FULL, PART, NONE, OPEN, WAITS
    difficulty: float | None  # None: most answers wait for a person
    discrimination: float | None  # None: it cannot be told, `untold` says why
    untold: str
    mistakes: list[Mistake]
    n_other: int  # wrong answers that are none of the listed ones

    @property
    def n(self) -> int:
        """How many marked answers the difficulty rests on."""
        return sum(self.counts[kind] for kind in (FULL, PART, NONE, OPEN))


def difficulty(marks: list[Mark]) -> float | None:
    """The share of full marks among the marked answers, or None while most of them wait for a person.

    The first to be marked are those left open, so a few marked answers say nothing about the rest.
    """
    marked = [mark.is_full for mark in marks if mark.points is not None]
    return sum(marked) / len(marked) if marked and 2 * len(marked) >= len(marks) else None


def discrimination(pairs: list[tuple[float, float]]) -> tuple[float | None, str]:
    """The correlation of (share in the question, share in the rest), or None and why it cannot be told."""
    if len(pairs) < FEWEST:
        return None, f"too few to tell: {len(pairs)} of at least {FEWEST} students"
    item, rest = zip(*pairs, strict=True)
    if len(set(item)) == 1:
        return None, "all the same"
    if len(set(rest)) == 1:
        return None, "the rest is all the same"
    return statistics.correlation(item, rest), ""


def item_and_rest(entry: Entry, question: str) -> tuple[float, float] | None:
    """A student's share of the points in the question and in the rest of the lab, of what is marked."""
    marked = [mark for mark in entry.marks if mark.points is not None]
    item = [mark for mark in marked if mark.id == question]
    rest = [mark for mark in marked if mark.id != question]
    if not item or not rest:
        return None
    return item[0].points / item[0].max_points, sum(m.points for m in rest) / sum(m.max_points for m in rest)


def kind_of(mark: Mark) -> str:
    if mark.points is None:
        return WAITS
    if mark.is_full:
        return FULL
    if mark.points > 0:
        return PART
    return OPEN if mark.status == BLANK else NONE


def mistakes_of(marks: dict[str, Mark]) -> list[Mistake]:
    """The listed wrong answers that were given, the most frequent first; `marks` are by student."""
    named = {mark.recognized: mark.sentence for mark in marks.values() if mark.recognized and mark.sentence}
    given = {name: [student for student, mark in marks.items() if mark.recognized == name] for name in named}
    return sorted((Mistake(name, named[name], given[name]) for name in named), key=lambda m: (-len(m.students), m.name))


def items_of(entries: list[Entry], chapter: dict[str, Section], naming: Naming) -> list[Item]:
    """One item for each question, in the order of the lab; `chapter` holds the section that teaches it, by question."""
    tried = [entry for entry in entries if not entry.is_empty]
    questions = {mark.id: mark for entry in entries for mark in entry.marks}  # an older result may lack a new one
    items = []
    for question in questions.values():
        marks = {naming(entry.student): mark for entry in tried for mark in entry.marks if mark.id == question.id}
        pairs = [pair for entry in tried if (pair := item_and_rest(entry, question.id))]
        told, untold = discrimination(pairs)
        counts = Counter(map(kind_of, marks.values()))
        listed = mistakes_of(marks)
        items.append(Item(
            id=question.id,
            title=question.title,
            section=chapter[question.id].heading if question.id in chapter else "",
            counts={kind: counts[kind] for kind in (FULL, PART, NONE, OPEN, WAITS)},
            difficulty=difficulty(list(marks.values())),
            discrimination=told,
            untold=untold,
            mistakes=listed,
            n_other=counts[NONE] - sum(len(mistake.students) for mistake in listed),
        ))
    return items


def distribution(entries: list[Entry]) -> list[tuple[str, int, int]]:
    """(label, finished, waiting): how many have that percentage of the points, in ten steps of ten."""
    steps = [(min(9, int(10 * entry.points / entry.max_points)), bool(entry.waits)) for entry in entries]
    labels = [f"{10 * n}–{10 * n + 9}" for n in range(9)] + ["90–100"]
    return [(label, steps.count((n, False)), steps.count((n, True))) for n, label in enumerate(labels)]


def pseudonyms(secret: bytes) -> Naming:
    """Names that stay the same as long as the course's secret does, and that only its holder can find again."""

    def pseudonym(student: str) -> str:
        digest = hmac.digest(secret, f"pseudonym\n{student}".encode(), hashlib.sha256)
        letters = base64.b32encode(digest).decode().lower()
        return f"{letters[:3]}-{letters[3:6]}"

    return pseudonym


def answers_of(course: Course, lab: Lab, students: list[str]) -> dict[str, dict[str, str]]:
    """By student, the text of the answer cells by question id, from the rebuilt notebooks."""
    answers = {}
    for student in students:
        path = course.work / "rebuilt" / student / lab.name / f"{lab.name}.ipynb"
        cells = json.loads(path.read_bytes())["cells"] if path.is_file() else []
        marks = [(cell["metadata"].get("nbgrader", {}), cell["source"]) for cell in cells]
        answers[student] = {
            mark["grade_id"]: "".join(source) for mark, source in marks if mark.get("solution") and mark.get("grade_id")
        }
    return answers


def to_teach(items: list[Item]) -> list[tuple[str, list[Item]]]:
    """The sections to teach again with their questions, the hardest first."""
    hard = [item for item in items if item.difficulty is not None and item.difficulty < TEACH_AGAIN]
    by_section: dict[str, list[Item]] = {}
    for item in sorted(hard, key=lambda item: item.difficulty):
        by_section.setdefault(item.section or item.title, []).append(item)
    return list(by_section.items())


def by_title(marks: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Names by title, from (title, name)."""
    names: dict[str, list[str]] = {}
    for title, name in sorted(marks, key=lambda mark: mark[1]):
        names.setdefault(title, []).append(name)
    return names


def pairs_of(alike: list[Alike], titles: dict[str, str], naming: Naming) -> list[dict]:
    """The pairs, those with the most in common first: who, in which questions, how much."""
    by_pair: dict[tuple[str, str], list[Alike]] = {}
    for each in alike:
        by_pair.setdefault(tuple(sorted((naming(each.first), naming(each.second)))), []).append(each)
    pairs = [
        {
            "students": pair,
            "questions": [(titles[each.question], each.share) for each in found],
            "n_signs": sum(each.n_signs for each in found),
        }
        for pair, found in by_pair.items()
    ]
    return sorted(pairs, key=lambda pair: (-pair["n_signs"], pair["students"]))


def report_page(course: Course, lab: Lab, entries: list[Entry], naming: Naming | None = None) -> str:
    """The page of one lab; with `naming`, other names stand for the students' and nothing of their own text."""
    hidden = naming is not None
    naming = naming or str
    items = items_of(entries, sections(lab), naming)
    points = [entry.points for entry in entries]
    quartiles = statistics.quantiles(points, n=4, method="inclusive") if len(points) > 1 else points * 3
    open_marks = [(naming(entry.student), mark) for entry in entries for mark in entry.marks if mark.points is None]
    review = [(who, mark.title, "" if hidden else mark.fault) for who, mark in open_marks if mark.status == REVIEW]
    flagged = [(naming(e.student), [] if hidden else e.flags) for e in entries if e.flags]
    alike = find_alike(lab, answers_of(course, lab, [entry.student for entry in entries]))
    return template("report.html").render(
        title=entries[0].lab_title,
        hidden=hidden,
        n=len(entries),
        n_empty=sum(entry.is_empty for entry in entries),
        max_points=max(entry.max_points for entry in entries),
        quartiles=quartiles,
        n_waiting=sum(bool(entry.waits) for entry in entries),
        unread=by_title([(mark.title, who) for who, mark in open_marks if mark.status != REVIEW]),
        review=sorted(review),
        flagged=sorted(flagged),
        distribution=distribution(entries),
        items=items,
        again=to_teach(items),
        addresses=links(course, lab, depth=1),
        pairs=pairs_of(alike, {item.id: item.title for item in items}, naming),
        teach_again=TEACH_AGAIN,
        fewest=FEWEST,
        separates=SEPARATES,
        most_pairs=MOST_PAIRS,
        most_mistakes=MOST_MISTAKES,
        kinds=(FULL, PART, NONE, OPEN, WAITS),
    )


def write_reports(course: Course, lab: str | None, hide_names: bool = False) -> list[Path]:
    """Write the page of one lab, or of each that is graded.

    Raises  CourseError if the lab is unknown or nothing is graded yet.
    """
    labs = read_labs(course, lab)
    naming = pseudonyms(course_secret(course.work)) if hide_names else None
    ending = "-pseudonyms.html" if hide_names else ".html"
    paths = []
    for name, entries in labs.items():
        path = course.work / "report" / f"{name}{ending}"
        write_whole(path, report_page(course, course.lab(name), entries, naming))
        paths.append(path)
    return paths
