"""Grades leave for spreadsheets, Canvas and Moodle: whole, quoted, harmless."""

import csv
import html
import json
import os

import pytest
from nbgrader.api import Gradebook
from test_grading_tiny import LAB, tiny_course

from grading.classbook import Person, read_entries
from grading.cli import main
from grading.course import CourseError, to_json, write_whole
from grading.export import STARTS_FORMULA, defuse, export, feedback, to_csv
from grading.gradebook import quiet_nbgrader
from grading.judge import BLANK, BY_HAND, REVIEW, RIGHT, WRONG

QUESTIONS = {"double": 30, "total": 20, "answer-seven": 20, "counter": 20, "why": 10}
TITLES = {"double": "Twice a number", "total": "The sum of a folder", "answer-seven": "Seven", "counter": "A counter",
          "why": "Why"}
FULL = dict(QUESTIONS)


def give(course, student, points, **more):
    """Write a student's result: points by question, None where a person decides; `more` by question id."""
    questions = []
    for name, most in QUESTIONS.items():
        earned = points.get(name, 0)
        status = RIGHT if earned == most else WRONG
        if earned is None:
            status = BY_HAND
        told = {"id": name, "title": TITLES[name], "part": "core", "max_points": most, "status": status,
                "points": earned, "sentence": "", "recognized": "", "fault": "", "output": "", "tried": [], "hints": []}
        questions.append(told | more.get(name.replace("-", "_"), {}))
    result = {"student": student, "lab": LAB, "lab_title": "Lab 01: a tiny lab", "key": "k", "points": 0,
              "max_points": 100, "flags": more.get("flags", []), "questions": questions, "free_output": {}}
    write_whole(course.work / "results" / student / LAB / "result.json", to_json(result))


def enter(course, student, **known):
    """Enter a student and an empty submission in the gradebook; what a person marks goes into `marks`."""
    marks, late = known.pop("marks", {}), known.pop("late", None)
    course.work.mkdir(parents=True, exist_ok=True)
    with quiet_nbgrader(), Gradebook(f"sqlite:///{course.work / 'gradebook.db'}", "seed-class") as book:
        book.update_or_create_assignment(LAB)
        book.update_or_create_notebook(LAB, LAB)
        for name, most in QUESTIONS.items():
            book.update_or_create_grade_cell(name, LAB, LAB, max_score=most, cell_type="code")
            book.update_or_create_solution_cell(name, LAB, LAB)
        book.update_or_create_student(student, **known)
        book.update_or_create_submission(LAB, student)
        for name, (points, comment) in marks.items():
            grade = book.find_grade(name, LAB, LAB, student)
            grade.manual_score, grade.needs_manual_grade = points, False
            book.find_comment(name, LAB, LAB, student).manual_comment = comment
        book.find_submission_notebook(LAB, LAB, student).late_submission_penalty = late
        book.db.commit()


@pytest.fixture
def course(tmp_path):
    return tiny_course(tmp_path / "course")


@pytest.fixture
def small_class(course):
    """ada has everything; bob waits for a person with 10 points; cyd has 70 of 100."""
    give(course, "ada", FULL)
    give(course, "bob", FULL | {"why": None})
    give(course, "cyd", FULL | {"double": 0}, double={"sentence": "You multiply x by itself.", "recognized": "square"})
    return course


def rows_of(path):
    with path.open(newline="") as lines:
        return list(csv.reader(lines))


@pytest.mark.parametrize("first", STARTS_FORMULA)
def test_a_formula_in_a_name_cannot_run(first):
    assert defuse(f"{first}cmd|' /C calc'!A0") == f"'{first}cmd|' /C calc'!A0"
    assert to_csv([[f"{first}1"]]) == f"\"'{first}1\"\n"


@pytest.mark.parametrize("harmless", ["ada", "a=b", "Ana-Maria", "", "1+1", "'quoted"])
def test_other_text_is_left_alone(harmless):
    assert defuse(harmless) == harmless


@pytest.mark.parametrize("form", ["csv", "canvas", "moodle"])
def test_no_cell_of_any_format_begins_like_a_formula(course, form):
    give(course, "eve", {}, double={"title": '=HYPERLINK("http://x")', "sentence": "+1"})
    enter(course, "eve", last_name='=WEBSERVICE("x")', first_name="@b", email="-e@x.org", lms_user_id="+7")
    cells = [cell for row in rows_of(export(course, form, None, None, True).path) for cell in row]
    assert any("WEBSERVICE" in cell or "HYPERLINK" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(STARTS_FORMULA)]


def test_numbers_stay_numbers_even_below_zero():
    assert to_csv([["a", -1, 2.5, 90]]) == '"a",-1,2.5,90\n'


def test_quoting_survives_a_round_trip():
    rows = [['a "quoted" name', "comma, semicolon; tab\t", "two\nlines", "", "ü 猫"]]
    assert list(csv.reader(to_csv(rows).splitlines(keepends=True))) == rows


def test_canvas_gets_its_columns_and_the_points_possible(small_class):
    enter(small_class, "ada", last_name="Lovelace", first_name="Ada", lms_user_id="4711")
    rows = rows_of(export(small_class, "canvas", "01", None, False).path)
    assert rows == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Lab 01: a tiny lab"],
        ["Points Possible", "", "", "", "", "100"],
        ["Lovelace, Ada", "4711", "", "ada", "", "100"],
        ["bob", "", "", "bob", "", ""],
        ["cyd", "", "", "cyd", "", "70"],
    ]


def test_moodle_gets_grade_and_feedback_together_or_neither(small_class):
    enter(small_class, "ada", email="ada@example.org")
    rows = rows_of(export(small_class, "moodle", "01", None, False).path)
    assert rows == [
        ["Username", "Email address", "Lab 01: a tiny lab", "Lab 01: a tiny lab (feedback)"],
        ["ada", "ada@example.org", "100", "Every question is right."],
        ["bob", "", "", ""],
        ["cyd", "", "70", "Twice a number: 0 of 30. You multiply x by itself."],
    ]


def test_feedback_for_moodle_cannot_carry_html(course):
    give(course, "eve", FULL | {"double": 0}, double={"sentence": "NameError: <script>alert(1)</script>"})
    assert "<" not in feedback(read_entries(course, LAB)[0])


def test_what_waits_is_empty_and_told_unless_asked_for(small_class, capsys):
    def call(*more):
        with pytest.raises(SystemExit) as stop:
            main(["export", "csv", *more], small_class.root)
        assert stop.value.code == 0
        rows = rows_of(small_class.work / "export" / "all-csv.csv")
        return capsys.readouterr().out, {row[0]: row[5:] for row in rows[1:]}

    said, rows = call()
    assert "1 grade waits for a person, left empty" in said and "bob" in said
    assert rows == {"ada": ["100", "100", "0"], "bob": ["", "100", "10"], "cyd": ["70", "100", "0"]}
    said, rows = call("--unfinished")
    assert rows["bob"] == ["90", "100", "10"] and "points so far" in said


def test_a_persons_marks_and_the_late_penalty_count(small_class):
    enter(small_class, "bob", marks={"why": (7, "Good & short")}, late=5)
    bob = read_entries(small_class, LAB)[1]
    assert (bob.points, bob.waits) == (92, 0)
    assert feedback(bob) == "Why: 7 of 10. Good &amp; short Late: 5 points were taken off."


def test_a_person_may_overrule_the_judge_and_a_review_waits(course):
    give(course, "ada", FULL | {"double": 0, "total": None}, total={"status": REVIEW})
    enter(course, "ada", marks={"double": (30, "")})
    ada = read_entries(course, LAB)[0]
    assert (ada.points, ada.waits, ada.person) == (80, 20, Person("ada"))
    assert not ada.marks[0].sentence


def test_a_blank_submission_is_empty_and_worth_nothing(course):
    give(course, "ada", {}, **{name.replace("-", "_"): {"status": BLANK} for name in QUESTIONS})
    assert read_entries(course, LAB)[0].is_empty


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["export", "xlsx"], "there is no format 'xlsx'"),
        (["export", "csv", "--lab", "77"], "there is no lab '77'"),
        (["export", "csv"], "the course has no grades yet"),
        (["export", "csv", "--lab", "01"], f"{LAB} has no grades yet"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(course, capsys, words, sentence):
    with pytest.raises(SystemExit) as stop:
        main(words, course.root)
    said = capsys.readouterr().err
    assert stop.value.code == 1 and sentence in said and said.count("\n") == 1
    assert not (course.work / "export").exists()


def test_a_folder_is_no_file_to_write_to(small_class, tmp_path):
    with pytest.raises(CourseError, match="is a folder"):
        export(small_class, "csv", None, tmp_path, False)


def test_an_export_is_written_whole_or_not_at_all(small_class, tmp_path, monkeypatch):
    path = export(small_class, "csv", None, tmp_path / "grades.csv", False).path
    before = path.read_bytes()
    give(small_class, "dan", FULL)

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        export(small_class, "csv", None, path, False)
    assert path.read_bytes() == before


def test_a_second_export_changes_no_byte(small_class):
    path = export(small_class, "canvas", None, None, False).path
    before = (path.stat().st_mtime_ns, path.read_bytes())
    export(small_class, "canvas", None, None, False)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_results_are_read_as_they_lie(small_class):
    stored = json.loads((small_class.work / "results" / "cyd" / LAB / "result.json").read_bytes())
    cyd = read_entries(small_class, LAB)[2]
    assert [mark.id for mark in cyd.marks] == [question["id"] for question in stored["questions"]]
    assert cyd.marks[0].recognized == "square"


def test_no_backslash_keeps_a_cell_of_moodle_open(course):
    """PHP's fgetcsv takes a backslash before a quote for an escape: the cells after it would be swallowed."""
    sentence = 'You split at "\\n", not at "\\"'
    give(course, "cyd", {}, double={"sentence": sentence})
    text = export(course, "moodle", None, None, True).path.read_text()
    assert "\\" not in text and sentence in html.unescape(text.replace('""', '"'))
