"""What a student is told: a ladder of hints, the way back into the book, and never an expected value."""

import ast
import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from test_grading_record import book, hand, silent
from test_grading_tiny import HINTS, LAB

from grading.collect import collect
from grading.course import Course, CourseError, write_whole
from grading.demonstration import build_class
from grading.feedback import MOST_CELLS, feedback_page
from grading.gradebook import quiet_nbgrader
from grading.ingest import ingest
from grading.judge import BLANK, RIGHT, WRONG, Judge, Judgement, course_secret, draw, expected_value
from grading.ladder import climb
from grading.record import grade

REPOSITORY = Path(__file__).resolve().parents[1]
RUNGS = re.findall(r"</summary>\n\n(.*?)\n\n</details>", HINTS)


@pytest.fixture
def graded(demonstration):
    return demonstration[0]


def double(expression):
    return f"def double(x):\n    return {expression}"


def page_of(course, student="ada"):
    return (course.work / "feedback" / student / f"{LAB}.html").read_text()


def shown_hints(page, question="double"):
    """The hints of one question, as (number, whether it is unfolded)."""
    article = re.search(rf'<article id="{question}".*?</article>', page, re.S)[0]
    return [(int(n), bool(unfolded)) for unfolded, n in re.findall(r"<details( open)?><summary>Hint (\d)", article)]


def told(status, answer, tried, hints=("a", "b", "c")):
    class Asked:
        pass

    Asked.hints = hints
    return climb(Asked, Judgement("q", status, 0), answer, tried)


# --- the ladder ---


def test_each_different_wrong_answer_shows_one_hint_more_and_there_are_three():
    tried = []
    for n in range(1, 6):
        climbed = told(WRONG, f"x = {n}", tried)
        tried = climbed["tried"]
        assert climbed["hints"] == ["a", "b", "c"][:n]


@pytest.mark.parametrize("again", ["x = 1", "x = 1\n", "\nx = 1   \n"])
def test_the_same_answer_again_does_not_climb(again):
    first = told(WRONG, "x = 1", [])
    assert told(WRONG, again, first["tried"]) == first
    second = told(WRONG, "x = 2", first["tried"])
    assert told(WRONG, again, second["tried"]) == second


def test_a_right_answer_ends_the_ladder_and_an_open_question_stands_on_its_first_step():
    tried = told(WRONG, "x = 1", [])["tried"]
    assert told(RIGHT, "x = 9", tried)["hints"] == []
    assert told(BLANK, "", [])["hints"] == ["a"]
    assert told(BLANK, "", told(WRONG, "x = 2", tried)["tried"])["hints"] == ["a", "b"]
    assert told(BLANK, "", [], hints=())["hints"] == []


def test_the_ladder_is_climbed_from_attempt_to_attempt_and_stays_where_nothing_changed(course, parent):
    seen, shown = [], ""
    for answer in ("x * x", "x * x", "x + 2", "x * x", "3 * x", "4 * x", "2 * x"):
        folder = hand(course, "ada", double=double(answer), own=f"# {len(seen)}")
        grade(course, folder, parent, silent)
        seen.append(shown_hints(page_of(course)))
        shown = page_of(course) if seen[-1] else shown
    one, two, three = [(1, True)], [(1, False), (2, True)], [(1, False), (2, False), (3, True)]
    assert seen == [one, one, two, two, three, three, []]
    assert [hint for hint in RUNGS if hint.replace("`", "") in re.sub("<.*?>", "", shown)] == RUNGS


def test_a_changed_engine_judges_the_same_answer_anew_without_climbing(course, parent):
    folder = hand(course, "ada", double=double("x * x"))
    grade(course, folder, parent, silent)
    place = course.work / "results" / "ada" / LAB / "result.json"
    result = json.loads(place.read_bytes())
    write_whole(place, json.dumps(result | {"key": "made by an older engine"}))
    assert grade(course, folder, parent, silent).n_judged == 1
    assert json.loads(place.read_bytes())["questions"] == result["questions"]


def test_a_run_that_was_interrupted_climbs_as_if_it_had_not_been(course, monkeypatch, parent):
    for student in ("ada", "bob"):
        folder = hand(course, student, double=double("x * x"))
    grade(course, folder, parent, silent)
    for student in ("ada", "bob"):
        hand(course, student, double=double("x + 2"))
    judge = Judge.judge

    def killed_at_bob(self, submission, *more):
        if submission.student == "bob":
            raise KeyboardInterrupt
        return judge(self, submission, *more)

    monkeypatch.setattr(Judge, "judge", killed_at_bob)
    with pytest.raises(KeyboardInterrupt):
        grade(course, folder, parent, silent)
    monkeypatch.undo()
    grade(course, folder, parent, silent)
    assert shown_hints(page_of(course)) == shown_hints(page_of(course, "bob")) == [(1, False), (2, True)]


# --- never an expected value, never a line of a check ---


def numbers_in(value):
    """The numbers of a value that are long enough to be recognized in a text, as a page would write them."""
    if isinstance(value, dict | list | tuple):
        return {text for entry in (value.values() if isinstance(value, dict) else value) for text in numbers_in(entry)}
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        return set()
    texts = {form(number) for number in array.ravel().tolist() for form in (repr, "{:.4g}".format, "{:,}".format)}
    return {text for text in texts if len(re.sub(r"\D", "", text).strip("0")) >= 4}


def expected_of(course, lab, submission):
    """Everything that the judge expected of this submission."""
    secret = course_secret(course.work)
    for question in lab.questions:
        if not question.written:
            rng = draw(secret, submission.student, lab.name, question.id, submission.digest)
            for case in question.cases(rng):
                yield from numbers_in(expected_value(question, case))


def code_of(lab):
    """Every line of code of the checks, of the listed answers and of the solution that says something."""
    tree = ast.parse(lab.checks_path.read_text())
    told = {"sentence", "hints", "rubric", "title"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield from ast.unparse(node).splitlines()
        elif isinstance(node, ast.keyword) and node.arg not in told and isinstance(node.value, ast.Lambda):
            yield ast.unparse(node.value)
    for question in (question for question in lab.questions if not question.written):
        for answer in (*question.right, *question.wrong):
            yield from answer.source.splitlines()
        yield from lab.model_answer(question).source.splitlines()


def secrets_of(course, lab, submission):
    """What may stand on no page: expected values, and code that is not itself a hint."""
    hints = " ".join(hint for question in lab.questions for hint in question.hints)
    lines = {line.strip() for line in code_of(lab) if len(line.strip()) >= 20 and line.strip() not in hints}
    return lines | set(expected_of(course, lab, submission))


def leaks(page, secrets):
    text = unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.S))
    return [secret for secret in secrets if re.search(rf"(?<![\w.]){re.escape(secret)}(?![\w])", text)]


def leaks_of_class(course):
    found = []
    for lab in map(course.lab, course.lab_names):
        for folder in sorted((course.work / "submitted").glob(f"*/{lab.name}")):
            submission = ingest(lab, folder.parent.name, folder)
            page = (course.work / "feedback" / submission.student / f"{lab.name}.html").read_text()
            found += [(submission.student, leak) for leak in leaks(page, secrets_of(course, lab, submission))]
    return found


def test_no_page_of_the_class_tells_an_expected_value_or_a_line_of_a_check(graded):
    assert leaks_of_class(graded) == []


@pytest.mark.slow
def test_no_page_of_the_real_labs_tells_an_expected_value_or_a_line_of_a_check(tmp_path, parent):
    """The demonstration class of this course: every listed wrong answer of every lab, and its page."""
    course = Course(tmp_path)
    for room in ("solutions", "labs", "notebooks", "grading/checks"):
        shutil.copytree(REPOSITORY / room, course.root / room)
    labs = [course.lab(name) for name in course.lab_names]
    grade(course, build_class(course, labs, silent), parent, silent)
    assert leaks_of_class(course) == []


def test_the_law_finds_what_is_planted(graded):
    """A page that tells one value or one line of code too many is found, so the law above can fail."""
    submission = ingest(graded.lab("01"), "divya", graded.work / "submitted" / "divya" / LAB)
    secrets = secrets_of(graded, submission.lab, submission)
    value = next(iter(expected_of(graded, submission.lab, submission)))
    for planted in (f"expected {value}, got 3", "def counts(n):\n return list(range(1, n + 1))"):
        result = json.loads((graded.work / "results" / "divya" / LAB / "result.json").read_bytes())
        result["questions"][0]["sentence"] = planted
        assert leaks(feedback_page(result, {}), secrets)


HOSTILE = {
    "markup": "print('</pre><script>alert(1)</script><img src=x onerror=alert(1)>')",
    "template": "print('{{ result.key }} {% for q in result.questions %}{{ q }}{% endfor %}')",
    "entity": "print('&lt;script&gt; &amp;#60;b&#62;')",
    "controls": "print('\\u202eevil\\u202c \\u2066x\\u2069 \\x1b[31m \\x00 \\u200f \\u2028 \\ufeff \\ud800')",
    "flood": "print('y' * 10_000_000)",
    "lines": "for n in range(200_000): print(n, end='\\r\\n')",
    "error": "raise ValueError('<svg onload=alert(1)>' + '\\u202e' * 10 + 'z' * 10_000_000)",
    "name": "class double: __name__ = '<b>'\ndouble.__qualname__ = '<script>'",
}


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes."""

    def __init__(self, page):
        super().__init__()
        self.seen = set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.seen.add((tag, *(name for name, _ in attributes)))


def test_hostile_output_stays_text_and_small(course, graded, parent):
    """Whatever a cell prints or raises: the page has the elements of an honest page, and no more."""
    honest = set().union(*(Elements(path.read_text()).seen for path in graded.work.glob("feedback/*/*.html")))
    for kind, source in HOSTILE.items():
        folder = hand(course, f"eve-{kind}", double=source + "\ndouble = 1", own=source)
    grade(course, folder, parent, silent)
    for kind in HOSTILE:
        page = page_of(course, f"eve-{kind}")
        assert Elements(page).seen - honest - {("code",), ("details",), ("pre",)} == set(), kind
        assert not [c for c in page if not (c.isprintable() or c in "\n\t")], kind
        assert len(page) < 50_000, (kind, len(page))
    assert "{{ result.key }}" in page_of(course, "eve-template")
    assert leaks_of_class(course) == []


def test_ten_thousand_cells_that_print_make_no_page_of_ten_thousand_parts(graded):
    result = json.loads((graded.work / "results" / "divya" / LAB / "result.json").read_bytes())
    page = feedback_page(result | {"free_output": {f"free-{n}": "x" for n in range(10_000)}}, {})
    assert len(re.findall(r"What your cell \d+ printed", page)) == MOST_CELLS
    assert f"and {10_000 - MOST_CELLS} more cells" in page


# --- the page ---


def test_the_page_says_what_went_well_and_where_to_look_in_the_order_of_the_lab(course, parent):
    folder = hand(course, "ada", double=double("x * x"), counter="class Counter:\n    n = 0")
    grade(course, folder, parent, silent)
    page = page_of(course)
    well, look = re.search(r"Went well</b>(.*?)</p>.*?Look next at</b>(.*?)</p>", page, re.S).groups()
    assert re.findall(r">([\w ]+)</a>", well) == ["The sum of a folder", "Seven"]
    assert re.findall(r'href="#([\w-]+)"', look) == ["double", "counter"]
    ids = re.findall(r'<article id="([\w-]+)"', page)
    assert ids == [question.id for question in course.lab("01").questions]


def with_heading(course):
    chapter = {"cells": [{"cell_type": "markdown", "source": ["(doubling)=\n", "## How to `double`\n"]}]}
    course.lab("01").chapter_path.write_text(json.dumps(chapter))


def test_the_page_leads_to_the_section_of_the_book(course, parent):
    with_heading(course)
    folder = hand(course, "ada", double=double("x * x"))
    grade(course, folder, parent, silent)
    assert "Taught in “How to <code>double</code>”" in page_of(course)  # no book: words alone
    built = course.root / "book" / "_build" / "html" / "notebooks" / "01_tiny.html"
    write_whole(built, '<section id="doubling">')
    grade(course, folder, parent, silent)
    page = course.work / "feedback" / "ada" / f"{LAB}.html"
    path, _, anchor = re.search(r'Taught in <a href="([^"]+)"', page.read_text())[1].partition("#")
    assert (page.parent / path).resolve() == built and f'id="{anchor}"' in built.read_text()
    write_whole(course.root / "book" / "_config.yml", "html:\n  baseurl: https://example.org/class\n")
    grade(course, folder, parent, silent)
    assert 'href="https://example.org/class/notebooks/01_tiny.html#doubling"' in page_of(course)
    write_whole(course.root / "book" / "_config.yml", "html:\n  baseurl: javascript:alert(1)\n")
    with pytest.raises(CourseError, match="write an address that begins with https"):
        grade(course, folder, parent, silent)


def test_the_receipt_of_the_attempt_that_counts_is_on_the_page(course, parent, tmp_path):
    folder = hand(course, "ada", double=double("x * x"))
    shutil.copytree(folder, tmp_path / "came-in")
    shutil.rmtree(folder)
    (receipt,) = collect(course, tmp_path / "came-in", tell=silent).taken
    grade(course, course.work / "submitted", parent, silent)
    assert f"attempt 1, received {receipt['received']}" in page_of(course) and receipt["sha256"] in page_of(course)
    grade(course, tmp_path / "came-in", parent, silent)  # the same work from elsewhere: no receipt speaks of it
    assert "Receipt" not in page_of(course)


def test_the_rubric_is_told_once_a_person_has_marked(course, parent):
    folder = hand(course, "ada")
    grade(course, folder, parent, silent)
    assert "What a full answer says" not in page_of(course)
    with quiet_nbgrader(), book(course) as gradebook:
        mark = gradebook.find_grade("why", LAB, LAB, "ada")
        mark.manual_score, mark.needs_manual_grade = 4, False
        gradebook.db.commit()
    grade(course, folder, parent, silent)
    assert re.search(r"What a full answer says</summary><p>a reason<", page_of(course))
