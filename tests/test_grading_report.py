"""The class report says what a hand-made class did, to the digit, and finds what was copied."""

import json
import math
import os
import re
import subprocess
import sys

import pytest
from test_grading_export import FULL, give
from test_grading_tiny import LAB, tiny_course

from grading.chapter import sections
from grading.classbook import read_entries
from grading.course import to_json, write_whole
from grading.demonstration import hand_in
from grading.judge import BLANK, REVIEW
from grading.likeness import find_alike, own_lines
from grading.report import discrimination, distribution, items_of, pseudonyms, to_teach, write_reports

COPIED = '''class Counter:
    """Counts calls."""
    def __init__(self, start=0):
        self.history = [start]
    def next(self):
        newest = max(self.history)
        while newest in self.history:
            newest += 1
        self.history.append(newest)
        assert sorted(self.history) == list(range(len(self.history)))
        return self.history[-1]'''
RENAMED = COPIED.replace("history", "seen").replace("newest", "n").replace('"""Counts calls."""', "# all mine")
HONEST = '''class Counter:
    def __init__(self):
        self.steps = (k for k in range(1, 10 ** 9))
    def next(self):
        for step in self.steps:
            return step
        raise StopIteration("the counter has reached its end after a billion calls")'''


@pytest.fixture
def course(tmp_path):
    return tiny_course(tmp_path / "course")


@pytest.fixture
def dozen(course):
    """Twelve students who all have everything but for two questions, `double` and `total`.

    Six have `double`. Of these five have `total`, too; of the other six one has it.
    """
    for n in range(12):
        has_double, has_total = n < 6, n < 5 or n == 6
        give(course, f"s{n:02}", FULL | {"double": 30 * has_double, "total": 20 * has_total})
    return course


def hand(course, student, **sources):
    """Put a rebuilt notebook where the report looks for the answers' text."""
    notebook = json.loads(hand_in(course.lab("01"), "blank"))
    for cell in notebook["cells"]:
        cell["source"] = sources.get(cell["id"].replace("-", "_"), cell["source"])
    write_whole(course.work / "rebuilt" / student / LAB / f"{LAB}.ipynb", to_json(notebook))


def page_of(course, hide_names=False):
    return write_reports(course, "01", hide_names)[0].read_text()


def items(course):
    entries = read_entries(course, LAB)
    return {item.id: item for item in items_of(entries, sections(course.lab("01")), str)}


def alike(course, **answers):
    return find_alike(course.lab("01"), {student: {"counter": text} for student, text in answers.items()})


def test_difficulty_is_the_share_of_full_marks(dozen):
    assert {name: item.difficulty for name, item in items(dozen).items()} == {
        "double": 6 / 12, "total": 6 / 12, "answer-seven": 1, "counter": 1, "why": 1,
    }


def test_discrimination_is_the_hand_computed_one(dozen):
    """Where both vary between two values it is phi: (5 * 5 - 1 * 1) / sqrt(6 * 6 * 6 * 6) = 2/3."""
    found = items(dozen)
    assert found["double"].discrimination == pytest.approx(2 / 3)
    assert found["total"].discrimination == pytest.approx(2 / 3)
    assert (found["counter"].discrimination, found["counter"].untold) == (None, "all the same")
    page = page_of(dozen)
    assert page.count(">0.67<") == 2 and page.count(">50%<") == 4  # in the table and among what to teach again


def test_discrimination_is_the_point_biserial_correlation():
    rest = [0.8, 0.8, 0.8, 0.6, 0.5, 0.6, 0.4, 0.4, 0.3, 0.3]
    pairs = list(zip([1] * 5 + [0] * 5, rest, strict=True))
    spread = math.sqrt(0.365 / 10)  # squared distances from the mean 0.55 sum up to 0.365
    assert discrimination(pairs)[0] == pytest.approx((0.7 - 0.4) / spread * math.sqrt(0.5 * 0.5))
    assert discrimination([(1 - item, share) for item, share in pairs])[0] < -0.7


def test_with_too_few_students_discrimination_is_not_told(course):
    for n in range(9):
        give(course, f"s{n}", FULL | {"double": 30 * (n % 2)})
    assert items(course)["double"].discrimination is None
    assert "too few to tell: 9 of at least 10 students" in page_of(course)


def test_the_question_itself_is_not_part_of_the_rest(course):
    """Ten students whose `double` is opposed to the rest: with itself included the sign would turn."""
    for n in range(10):
        give(course, f"s{n}", {"double": 30 * (n < 5), "total": 20 * (n >= 5)})
    assert items(course)["double"].discrimination == pytest.approx(-1)


def test_what_waits_and_who_gave_no_answer_do_not_count_in_difficulty(course):
    blank = {name.replace("-", "_"): {"status": BLANK} for name in FULL}
    give(course, "ada", FULL)
    give(course, "bob", FULL | {"why": None, "double": 0})
    give(course, "cyd", {}, **blank)
    found = items(course)
    assert found["double"].counts == {"full marks": 1, "part": 0, "no points": 1, "left open": 0,
                                      "waits for a person": 0}
    assert (found["double"].difficulty, found["why"].difficulty, found["why"].n) == (0.5, 1, 1)
    assert "3 submissions, 1 without any answer" in page_of(course)


def test_a_question_that_most_wait_for_is_not_called_hard(course):
    """Two written answers wait; the one that was left open is marked at once and would say 0%."""
    give(course, "ada", FULL | {"why": None})
    give(course, "bob", FULL | {"why": None})
    give(course, "cyd", FULL | {"why": 0}, why={"status": BLANK})
    found = items(course)["why"]
    assert found.difficulty is None and found.counts["left open"] == 1
    assert to_teach([found]) == [] and "most wait" in page_of(course)


def test_the_distribution_counts_everyone_once(course):
    give(course, "ada", FULL)
    give(course, "bob", FULL | {"why": None})
    give(course, "cyd", {"total": 20})
    give(course, "dan", {})
    steps = {label: counts for label, *counts in distribution(read_entries(course, LAB))}
    assert steps["90–100"] == [1, 1] and steps["20–29"] == [1, 0] and steps["0–9"] == [1, 0]
    assert sum(map(sum, steps.values())) == 4


def test_named_mistakes_are_counted_with_their_sentence(course):
    square = {"recognized": "square", "sentence": "You multiply x by itself."}
    for student in ("ada", "bob"):
        give(course, student, FULL | {"double": 0}, double=square)
    give(course, "cyd", FULL | {"double": 0}, double={"recognized": "sign", "sentence": "The sign is turned."})
    give(course, "dan", FULL | {"double": 0})
    double = items(course)["double"]
    assert [(m.name, m.students) for m in double.mistakes] == [("square", ["ada", "bob"]), ("sign", ["cyd"])]
    assert double.n_other == 1
    page = page_of(course)
    assert "2 ×</b><div><p>You multiply x by itself." in page and "and 1 other<" in page


def test_rare_mistakes_are_folded_and_none_is_lost(course):
    for n in range(6):
        told = {"recognized": f"kind-{min(n, 4)}", "sentence": f"Mistake {min(n, 4)}."}
        give(course, f"s{n}", FULL | {"double": 0}, double=told)
    section = page_of(course).partition("<h2>Mistakes</h2>")[2].partition("</section>")[0]
    shown, _, folded = section.partition('<details class="rest"')
    assert re.findall(r"<p>(Mistake \d)", shown) == ["Mistake 4", "Mistake 0", "Mistake 1"]
    assert "2 rarer mistakes" in folded and re.findall(r"<p>(Mistake \d)", folded) == ["Mistake 2", "Mistake 3"]


def test_every_tile_leads_to_its_section(course):
    give(course, "ada", FULL)
    page = page_of(course)
    targets = set(re.findall(r'href="#(\w+)"', page))
    assert targets == {"again", "waits", "alike"} and all(f'<section id="{name}">' in page for name in targets)


def test_what_to_teach_again_names_the_section_of_the_chapter(dozen):
    dozen.lab("01").chapter_path.write_text(json.dumps({"cells": [
        {"cell_type": "markdown", "source": ["(doubling)=\n", "## How to double\n", "\nText."]}]}))
    assert [section for section, _ in to_teach(list(items(dozen).values()))] == ["How to double"]
    assert "<h3>How to double</h3>" in page_of(dozen)


def test_who_waits_who_needs_review_and_flags_are_on_the_page(course):
    give(course, "ada", FULL | {"why": None})
    give(course, "bob", FULL | {"double": None}, double={"status": REVIEW, "fault": "accepts stops: <b>1 / 0</b>"},
         flags=["the notebook is named bob.ipynb"])
    page = page_of(course)
    assert re.search(r"needs review</small></th><td>bob<small>accepts stops: &lt;b&gt;1 / 0", page)
    assert re.search(r"Why<small>1 answer</small></th><td>ada<", page)
    assert "the notebook is named bob.ipynb" in page


def test_two_copied_answers_are_found_although_renamed(course):
    (pair,) = alike(course, ada=COPIED, bob=RENAMED, cyd=HONEST)
    assert (pair.first, pair.second, pair.question) == ("ada", "bob", "counter")
    assert pair.share > 0.9 and pair.n_signs > 100


def test_two_honest_solutions_of_a_short_question_are_not_found(course):
    short = "def double(x):\n    result = x + x\n    return result"
    both = {student: {"double": short} for student in ("ada", "bob")}
    assert find_alike(course.lab("01"), both) == []
    assert alike(course, ada=HONEST, bob=COPIED) == []


def test_what_the_course_itself_wrote_counts_for_nobody(course):
    """The solution, a listed answer and starter code may be the same in all notebooks."""
    for text in (course.lab("01").questions[3].right[0].source, course.lab("01").questions[3].wrong[0].source):
        assert alike(course, ada=text, bob=text) == []
    release = course.lab("01").release_path
    notebook = json.loads(release.read_bytes())
    next(cell for cell in notebook["cells"] if cell["id"] == "counter")["source"] = COPIED + "\n# YOUR CODE HERE"
    release.write_text(json.dumps(notebook))
    assert alike(course, ada=COPIED + "\nx = 1", bob=RENAMED + "\ny = 2") == []
    assert own_lines("a = 1\nb = 2\n", "  b = 2") == "a = 1"


def test_a_question_that_was_added_later_is_missing_in_old_results_alone(course):
    give(course, "ada", FULL)
    give(course, "bob", FULL | {"double": 0})
    path = course.work / "results" / "ada" / LAB / "result.json"
    old = json.loads(path.read_bytes())
    write_whole(path, to_json(old | {"questions": old["questions"][1:]}))
    found = items(course)
    assert (found["double"].difficulty, found["double"].n, found["total"].n) == (0, 1, 2)
    assert "Twice a number" in page_of(course)


def test_the_page_shows_the_pair(course):
    for student, text in (("ada", COPIED), ("bob", RENAMED), ("cyd", HONEST)):
        give(course, student, FULL)
        hand(course, student, counter=text)
    page = page_of(course)
    assert "ada and bob</th><td>A counter" in page and "cyd and" not in page and "and cyd" not in page


def test_pseudonyms_are_stable_secret_and_leave_no_name(course):
    square = {"recognized": "square", "sentence": "You multiply x by itself."}
    names = ("adalovelace", "bobnoyce")
    for student, text in zip(names, (COPIED, RENAMED), strict=True):
        give(course, student, FULL | {"why": None, "double": 0}, double=square, flags=[f"it is named {student}.ipynb"])
        hand(course, student, counter=text)
    page = page_of(course, hide_names=True)
    assert not any(name in page for name in names)
    assert page == page_of(course, hide_names=True)
    assert all(name in page_of(course) for name in names)
    one, other = pseudonyms(b"one"), pseudonyms(b"other")
    assert one("ada") == one("ada") != other("ada") and one("ada") != one("bob")


def test_the_page_needs_nothing_else_and_runs_nothing(course):
    give(course, "ada", FULL | {"double": 0}, double={"recognized": "x", "sentence": "<script>alert(1)</script>"})
    page = page_of(course)
    assert not re.search(r"<script|<link|<img|https?:|url\(|@import", page)
    assert "prefers-color-scheme: dark" in page and "&lt;script&gt;" in page


def test_one_student_alone_makes_a_page(course):
    give(course, "ada", FULL)
    assert "1 submission" in page_of(course)


def test_a_second_run_changes_no_byte_whatever_the_seed_of_hashes(dozen):
    for n, text in enumerate((COPIED, RENAMED, HONEST)):
        hand(dozen, f"s{n:02}", counter=text)
    path, seen = dozen.work / "report" / f"{LAB}.html", set()
    call = f"from pathlib import Path; from grading.cli import main; main(['report'], Path({str(dozen.root)!r}))"
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", call], env=environment, check=True, capture_output=True)
        seen.add((path.stat().st_mtime_ns, path.read_bytes()))
    assert len(seen) == 1
