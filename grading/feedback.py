"""The page that a student gets back: one file, readable on a phone, by day and by night, without scripts."""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from grading.chapter import links, sections
from grading.course import Course, Lab
from grading.judge import BLANK, BY_HAND, REVIEW, RIGHT, WRONG

PARTS = {"core": "Core", "stretch": "Stretch", "record": "Growth record"}
WORDS = {RIGHT: "right", WRONG: "not yet", BLANK: "open", BY_HAND: "with a person", REVIEW: "with a person"}
RUNGS = ("where to look", "how to think", "the first line")  # of the hint ladder
MOST_CELLS = 20  # of the student's own whose output is shown


@dataclass(frozen=True)
class Lesson:
    """What surrounds the questions of a lab, each by question id."""

    headings: dict[str, str] = field(default_factory=dict)  # of the section that teaches it
    links: dict[str, str] = field(default_factory=dict)  # to that section
    rubrics: dict[str, str] = field(default_factory=dict)  # shown once a person has marked the answer


def lesson_of(course: Course, lab: Lab) -> Lesson:
    """What the chapter and the checks say, for pages that lie under feedback/STUDENT."""
    return Lesson(
        {question: section.heading for question, section in sections(lab).items()},
        links(course, lab, depth=2),
        {question.id: question.rubric for question in lab.questions if question.written},
    )


def with_code(text: str) -> Markup:
    """The text with its `names` set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@cache
def template(name: str) -> Template:
    """One of the judge's pages, ready to be filled in."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"with_code": with_code, "percent": lambda share: f"{100 * share:.0f}%"}
    return environment.get_template(name)


def feedback_page(
    result: dict,
    by_hand: dict[str, dict],
    late: str = "",
    penalty: float = 0,
    lesson: Lesson | None = None,
    receipt: dict | None = None,
) -> str:
    """The page for one result.

    `by_hand` holds the points and the comment of a person by question id; `late` says how late it came, in words.
    """
    questions = [_told(n, q, by_hand, lesson or Lesson()) for n, q in enumerate(result["questions"], 1)]
    return template("feedback.html").render(
        result=result,
        parts=[(PARTS[part], [q for q in questions if q["part"] == part]) for part in PARTS],
        points=sum(q["points"] or 0 for q in questions) - penalty,
        late=late,
        penalty=penalty,
        receipt=receipt,
        waiting=sum(q["max_points"] for q in questions if q["points"] is None),
        well=[q for q in questions if q["points"] is not None and q["points"] >= q["max_points"]],
        look=[q for q in questions if q["points"] is not None and q["points"] < q["max_points"]],
        n_questions=len(questions),
        rungs=RUNGS,
        own_output=list(result["free_output"].values())[:MOST_CELLS],
        n_own=len(result["free_output"]),
    )


def _told(number: int, question: dict, by_hand: dict[str, dict], lesson: Lesson) -> dict:
    """The question as the page tells it, with a person's points and comment in place of the judge's."""
    name = question["id"]
    taught = {"heading": lesson.headings.get(name, ""), "link": lesson.links.get(name, "")}
    shown = question | taught | {"number": number, "word": WORDS[question["status"]], "comment": "", "rubric": ""}
    given = by_hand.get(name, {})
    if "points" in given:
        shown |= {"sentence": "", "hints": [], "status": BY_HAND, "word": WORDS[BY_HAND]}
    if (points := given.get("points")) is not None:
        shown |= {"status": RIGHT if points >= question["max_points"] else WRONG, "word": "marked by a person"}
        shown |= {"rubric": lesson.rubrics.get(name, "")}
    return shown | given
