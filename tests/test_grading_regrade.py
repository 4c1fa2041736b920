"""What a changed check does to marks that were given."""

import csv
from pathlib import Path

import pytest
from test_grading_record import book, hand, results, silent
from test_grading_tiny import CHECKS, LAB

from grading.course import Course
from grading.gradebook import quiet_nbgrader
from grading.judge import Judge
from grading.keys import question_sources
from grading.record import grade
from grading.regrade import merge


@pytest.fixture(autouse=True)
def proven(monkeypatch):
    """The changed checks stand as proven: how they prove themselves is tried elsewhere."""
    monkeypatch.setattr("grading.record.first_fault", lambda *given: "")


def change(course, old, new):
    checks = course.root / "grading" / "checks" / f"{LAB}.py"
    assert old in checks.read_text()
    checks.write_text(checks.read_text().replace(old, new))


def changed(old, new):
    """The questions whose key changes with this change of the checks."""
    assert old in CHECKS
    before, after = question_sources(CHECKS), question_sources(CHECKS.replace(old, new))
    return {name for name in before if before[name] != after[name]} - {"QUESTIONS"}


@pytest.mark.parametrize(
    ("old", "new", "touched"),
    [
        ('"Only one file."', '"One file alone."', {"total"}),
        ("return 2 * x", "return x + x", {"double"}),  # the reference that one question names
        ("Think of the sign.", "Mind the sign.", {"double", "total", "answer-seven", "counter"}),  # named by four
        ("QUESTIONS = [", "# a comment\n\nQUESTIONS = [", set()),
        ("HINTS = (", "import os\nHINTS = (", set()),  # nobody names it
        ("HINTS = (", "print('loaded')\nHINTS = (", {"double", "total", "answer-seven", "counter", "why"}),
    ],
)
def test_a_change_touches_the_questions_that_lead_to_it(old, new, touched):
    assert changed(old, new) == touched


def test_a_question_that_is_taken_off_the_list_changes_the_whole():
    text = "A = Question(id='a')\nB = Question(id='b')\nQUESTIONS = [A, B]"
    before, after = question_sources(text), question_sources(text.replace("[A, B]", "[A]"))
    assert before["QUESTIONS"] != after["QUESTIONS"] and before["a"] == after["a"]


def test_every_question_of_the_course_has_a_key_of_its_own():
    real = Course(Path(__file__).parents[1])
    for name in real.lab_names:
        lab = real.lab(name)
        sources = question_sources(lab.checks_path.read_text())
        assert sources.keys() == {q.id for q in lab.questions} | {"QUESTIONS"}
        assert len(set(lab.question_keys.values())) == len(lab.questions)


@pytest.fixture
def judged(monkeypatch):
    """(student, question) of everything that is judged from now on."""
    seen, judge = [], Judge.judge_question

    def noted(self, question, submission, session, attempt):
        if submission.student not in ("preflight", "solution"):
            seen.append((submission.student, question.id))
        return judge(self, question, submission, session, attempt)

    monkeypatch.setattr(Judge, "judge_question", noted)
    return seen


def grades(graded):
    with graded.grades.open(newline="") as lines:
        return {row["student"]: float(row["points"]) for row in csv.DictReader(lines)}


STRICT = "expected=7,"
LENIENT = "expected=7, accepts=lambda g, e, c: close(1e-6)(g, 7) or close(1e-6)(g, 9),"


def test_only_the_changed_question_is_judged_again_and_the_rest_is_untouched(course, parent, judged):
    hand(course, "ada", answer_seven="answer_seven = 9")
    folder = hand(course, "bob")
    before = results(grade(course, folder, parent, silent))
    judged.clear()
    change(course, STRICT, LENIENT)
    graded = grade(course, folder, parent, silent)
    assert sorted(judged) == [("ada", "answer-seven"), ("bob", "answer-seven")]
    after = results(graded)
    for student in ("ada", "bob"):
        kept = [(b, a) for b, a in zip(before[student]["questions"], after[student]["questions"], strict=True)
                if a["id"] != "answer-seven"]
        assert len(kept) == 4 and all(b == a for b, a in kept)
    assert grades(graded) == {"ada": 90, "bob": 90}
    assert graded.regraded == [{"student": "ada", "lab": LAB, "question": "answer-seven", "from": "0", "to": "20",
                                "note": ""}]
    page = (graded.feedback / "ada" / f"{LAB}.html").read_text()
    assert page.count("The check of this question was improved after you handed in.") == 1
    assert "was improved" not in (graded.feedback / "bob" / f"{LAB}.html").read_text()
    again = grade(course, folder, parent, silent)
    assert again.n_judged == 0 and again.regraded == []
    assert (course.work / "regraded.csv").read_text().count("answer-seven") == 1


def test_the_list_keeps_what_a_run_has_nothing_to_do_with(course, parent, tmp_path):
    folder = hand(course, "ada", answer_seven="answer_seven = 9")
    grade(course, folder, parent, silent)
    change(course, STRICT, LENIENT)
    assert len(grade(course, folder, parent, silent).regraded) == 1
    hand(course, "bob")
    (folder / "bob").rename(tmp_path / "bob")
    (tmp_path / "others").mkdir()
    (tmp_path / "bob").rename(tmp_path / "others" / "bob")
    graded = grade(course, tmp_path / "others", parent, silent)
    assert grades(graded) == {"ada": 90, "bob": 90} and graded.regraded == []
    assert (course.work / "regraded.csv").read_text().count("answer-seven") == 1


def test_a_mark_that_would_fall_is_kept_with_a_note_and_new_work_is_judged_alone(course, parent):
    """The strict check takes away what the lenient one gave; the lenient mark stays until new work comes in."""
    change(course, STRICT, LENIENT)
    folder = hand(course, "ada", answer_seven="answer_seven = 9")
    assert results(grade(course, folder, parent, silent))["ada"]["points"] == 90
    change(course, LENIENT, STRICT)
    graded = grade(course, folder, parent, silent)
    (row,) = graded.regraded
    assert (row["from"], row["to"]) == ("20", "20") and row["note"].startswith("kept: the changed check gives 0")
    assert grades(graded) == {"ada": 90}
    assert "you keep your points" in (graded.feedback / "ada" / f"{LAB}.html").read_text()
    assert grade(course, folder, parent, silent).n_judged == 0
    hand(course, "ada", answer_seven="answer_seven = 9", double="def double(x):\n    return x + x")
    graded = grade(course, folder, parent, silent)
    assert grades(graded) == {"ada": 70} and graded.regraded == []


def test_a_changed_check_is_no_new_attempt_on_the_ladder_of_hints(course, parent):
    folder = hand(course, "ada", answer_seven="answer_seven = 9")
    rung = lambda result: {q["id"]: (q["tried"], q["hints"]) for q in result["questions"]}  # noqa: E731
    before = rung(results(grade(course, folder, parent, silent))["ada"])
    assert len(before["answer-seven"][0]) == len(before["answer-seven"][1]) == 1
    change(course, STRICT, "expected=3 + 4,")
    graded = grade(course, folder, parent, silent)
    assert graded.n_judged == 1 and rung(results(graded)["ada"]) == before


def test_a_null_byte_costs_its_own_cell(course, parent):
    """Python cannot read such a cell, and neither can the judge, who looks for forbidden names in it."""
    folder = hand(course, "ada", double="def double(x):\n    return 2 * x  # \0")
    questions = results(grade(course, folder, parent, silent))["ada"]["questions"]
    points = {question["id"]: question["points"] for question in questions}
    assert points == {"double": 0, "total": 20, "answer-seven": 20, "counter": 20, "why": None}


def test_a_lab_is_proven_again_when_a_hostile_piece_is_changed(course, monkeypatch, tmp_path):
    lab, proven, judged = course.lab("01"), course.lab("01").key, course.lab("01").checks_key
    monkeypatch.setattr("grading.course.ZOO", tmp_path)
    (tmp_path / "returns_constants.py").write_text("def double(x):\n    return 8\n")
    assert lab.key != proven and course.lab("01").checks_key == judged


def test_marks_by_hand_survive_a_regrade_and_wait_for_nobody(course, parent):
    folder = hand(course, "ada", answer_seven="answer_seven = 9")
    grade(course, folder, parent, silent)
    with quiet_nbgrader(), book(course) as gradebook:
        for name, points in (("why", 8), ("test-double", 25)):
            mark = gradebook.find_grade(name, LAB, LAB, "ada")
            mark.manual_score, mark.needs_manual_grade = points, False
        gradebook.db.commit()
    change(course, STRICT, LENIENT)
    graded = grade(course, folder, parent, silent)
    assert '"ada","lab01_tiny","93","100","0"' in graded.grades.read_text()


def test_a_word_in_the_labs_text_neither_changes_the_attempt_nor_a_mark(course, parent):
    folder = hand(course, "ada", answer_seven="answer_seven = 9", own="mine = 1")
    before = results(grade(course, folder, parent, silent))["ada"]
    for place in ("solutions", "labs"):
        path = course.root / place / LAB / f"{LAB}.ipynb"
        path.write_text(path.read_text().replace("a tiny lab", "a small lab"))
    graded = grade(course, folder, parent, silent)
    after = results(graded)["ada"]
    assert after["attempt"] == before["attempt"] and after["points"] == before["points"] and graded.regraded == []


def entry(points, max_points=20, key="old", regraded=None):
    return {"id": "q", "title": "t", "part": "core", "max_points": max_points, "points": points, "key": key,
            "sentence": "No.", "fault": "", "regraded": regraded}


def merged(old, new):
    made = merge({"questions": [old], "free_output": {}}, {"questions": [new]}, ["q"])
    return made["questions"][0]


@pytest.mark.parametrize(
    ("old", "new", "points", "is_kept"),
    [
        (0, 20, 20, False),
        (20, 0, 20, True),
        (20, None, 20, True),  # the changed check fails on this answer
        (0, None, None, False),  # a person looks, who can only raise it
        (None, 0, 0, False),  # nothing had been decided
        (20, 20, 20, False),
    ],
)
def test_no_mark_falls_through_a_changed_check(old, new, points, is_kept):
    made = merged(entry(old), entry(new, key="new"))
    assert made["points"] == points and made["key"] == "new"
    assert bool(made["regraded"] and made["regraded"]["note"]) is is_kept
    assert (made["regraded"] is None) is (old == new)


def test_a_kept_mark_keeps_its_share_when_the_question_is_worth_more_or_less():
    made = merged(entry(20), entry(0, max_points=10, key="new"))
    assert (made["points"], made["max_points"]) == (10, 10)


def test_the_first_mark_is_remembered_over_several_changes():
    once = merged(entry(0), entry(20, key="second"))
    assert merged(once, entry(20, key="third"))["regraded"] == {"from": 0, "to": 20, "note": ""}


def test_a_fresh_course_has_no_list_of_regraded_marks(course, parent):
    grade(course, hand(course, "ada"), parent, silent)
    assert not (course.work / "regraded.csv").exists()
