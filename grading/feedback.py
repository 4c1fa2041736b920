"""The page that a student gets back: one file, readable on a phone, by day and by night, without scripts."""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from grading.judge import BLANK, BY_HAND, REVIEW, RIGHT, WRONG

PARTS = {"core": "Core", "stretch": "Stretch", "record": "Growth record"}
WORDS = {RIGHT: "right", WRONG: "not yet", BLANK: "open", BY_HAND: "with a person", REVIEW: "with a person"}


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


def feedback_page(result: dict, by_hand: dict[str, tuple[float, str]], late: str = "", penalty: float = 0) -> str:
    """The page for one result.

    `by_hand` holds (points, comment) that a person gave, by question id; `late` says how late it came, in words.
    """
    questions = [_marked(question, by_hand) for question in result["questions"]]
    waiting = sum(q["max_points"] for q in questions if q["points"] is None)
    return template("feedback.html").render(
        result=result,
        parts=[(PARTS[part], [q for q in questions if q["part"] == part]) for part in PARTS],
        points=sum(q["points"] or 0 for q in questions) - penalty,
        late=late,
        penalty=penalty,
        waiting=waiting,
        n_right=sum(q["status"] == RIGHT for q in questions),
        n_questions=len(questions),
    )


def _marked(question: dict, by_hand: dict[str, tuple[float, str]]) -> dict:
    """The question with a person's points and comment in place of the judge's."""
    shown = question | {"word": WORDS[question["status"]], "comment": ""}
    if question["id"] in by_hand:
        points, comment = by_hand[question["id"]]
        shown |= {"points": points, "comment": comment, "sentence": "", "hint": "", "word": "marked by a person"}
        shown["status"] = RIGHT if points == question["max_points"] else WRONG
    return shown
