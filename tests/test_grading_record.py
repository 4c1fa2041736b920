"""From a folder of submissions to results, gradebook, grades.csv and feedback pages."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbgrader.api import Gradebook
from test_grading_tiny import LAB, cell
from traitlets.config.loader import PyFileConfigLoader

from grading.classbook import read_entries, read_labs
from grading.cli import main
from grading.course import CourseError, alone, write_whole
from grading.demonstration import STUDENTS, build_class, hand_in
from grading.demonstration import demonstration as demonstration_of
from grading.gradebook import (
    marks_by_hand,
    name_student,
    open_gradebook,
    quiet_nbgrader,
    release_labs,
    remembered,
    settings,
)
from grading.judge import BLANK, BY_HAND, Judge
from grading.record import find_submissions, grade

REPOSITORY = Path(__file__).resolve().parents[1]


def silent(line):
    """Where a run tells its progress to nobody."""


def hand(course, student, kind="solution", **sources):
    """Put one submission into the course's folder; the folder."""
    folder = course.work / "submitted"
    notebook = json.loads(hand_in(course.lab("01"), kind))
    for made in notebook["cells"]:
        made["source"] = sources.get(made["id"].replace("-", "_"), made["source"])
    notebook["cells"] += [cell("code", name, text) for name, text in sources.items() if name.startswith("own")]
    write_whole(folder / student / LAB / f"{LAB}.ipynb", json.dumps(notebook))
    return folder


def results(graded):
    return {result["student"]: result for result in graded.results}


def everything_in(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def book(course):
    return Gradebook(f"sqlite:///{course.work / 'gradebook.db'}", "seed-class")


def test_who_has_no_name_goes_by_that_of_the_folder_and_a_name_entered_by_hand_stays(course):
    with quiet_nbgrader(), book(course) as gradebook:
        gradebook.add_student("k-7", last_name="Kaya")
        gradebook.add_student("l-8", first_name="Ann", last_name="Lee")
    for _ in range(2):
        with open_gradebook(course) as gradebook:
            for student in ("amara", "k-7", "l-8"):
                name_student(gradebook.update_or_create_student(student))
            gradebook.db.commit()
    with quiet_nbgrader(), book(course) as gradebook:
        names = {student.id: (student.last_name, student.first_name) for student in gradebook.students}
    assert names == {"amara": ("amara", ""), "k-7": ("Kaya", ""), "l-8": ("Lee", "Ann")}


def test_every_kind_of_student_gets_what_they_deserve(demonstration):
    _, _, graded = demonstration
    deserved = {"solution": 90, "noisy": 90, "partly right": 70, "blank": 0, "broken file": 0}
    for student, result in results(graded).items():
        kind = STUDENTS[student][0]
        if kind in deserved or kind.startswith("another way"):
            assert result["points"] == deserved.get(kind, 90), (student, kind)


def test_every_named_wrong_answer_appears_and_is_recognized(demonstration):
    course, _, graded = demonstration
    seen = {(q["id"], q["recognized"]) for result in graded.results for q in result["questions"]}
    listed = {(question.id, wrong.name) for question in course.lab("01").questions for wrong in question.wrong}
    assert listed <= seen


def test_the_broken_file_is_flagged(demonstration):
    _, _, graded = demonstration
    assert [s for s, r in results(graded).items() if r["flags"]] == ["jonas"]


def test_a_second_run_changes_nothing(demonstration, parent):
    course, folder, _ = demonstration
    before = everything_in(course.work)
    again = grade(course, folder, parent, silent)
    assert again.n_judged == 0
    assert everything_in(course.work) == before


def test_grades_are_quoted_and_agree_with_the_results(demonstration):
    _, _, graded = demonstration
    assert all(line.startswith('"') for line in graded.grades.read_text().splitlines())
    with graded.grades.open(newline="") as lines:
        rows = {row["student"]: row for row in csv.DictReader(lines)}
    assert {student: float(row["points"]) for student, row in rows.items()} == {
        student: result["points"] for student, result in results(graded).items()
    }
    assert rows["amara"]["waits_for_a_person"] == "10"
    assert rows["hugo"]["waits_for_a_person"] == "0"
    assert "double:square" in rows["divya"]["recognized"]


def test_feedback_is_one_page_that_needs_nothing_else(demonstration):
    _, _, graded = demonstration
    pages = list(graded.feedback.rglob("*.html"))
    assert len(pages) == len(STUDENTS)
    for page in pages:
        text = page.read_text()
        assert not re.search(r"<script|<link|<img|https?:|url\(|@import", text)
        assert "prefers-color-scheme: dark" in text
    divya = (graded.feedback / "divya" / f"{LAB}.html").read_text()
    assert "You multiply x by itself." in divya
    assert "Look at the formula." in divya and "Think of the sign." not in divya
    assert "Look at the formula." in (graded.feedback / "hugo" / f"{LAB}.html").read_text()


def test_what_a_student_prints_cannot_become_part_of_the_page(course, parent):
    folder = hand(course, "ada", double="print('<script>alert(1)</script>')\ndouble = 1", own="print('<b>own</b>')")
    page = grade(course, folder, parent, silent).feedback / "ada" / f"{LAB}.html"
    assert "<script" not in page.read_text() and "<b>own" not in page.read_text()
    assert "&lt;script&gt;" in page.read_text() and "&lt;b&gt;own" in page.read_text()


def test_a_new_attempt_is_judged_and_the_others_are_left_alone(course, parent):
    hand(course, "ada", double="def double(x):\n    return x * x")
    folder = hand(course, "bob")
    assert results(grade(course, folder, parent, silent))["ada"]["points"] == 60
    hand(course, "ada")
    again = grade(course, folder, parent, silent)
    assert (again.n_judged, results(again)["ada"]["points"]) == (1, 90)
    assert '"ada","lab01_tiny","90"' in again.grades.read_text()


def test_a_run_that_is_killed_leaves_whole_results_and_goes_on(course, monkeypatch, parent):
    hand(course, "ada")
    folder = hand(course, "bob")
    judge = Judge.judge

    def killed_at_bob(self, submission):
        if submission.student == "bob":
            raise KeyboardInterrupt
        return judge(self, submission)

    monkeypatch.setattr(Judge, "judge", killed_at_bob)
    with pytest.raises(KeyboardInterrupt):
        grade(course, folder, parent, silent)
    left = list((course.work / "results").rglob("*.*"))
    assert [path.name for path in left] == ["result.json"]
    monkeypatch.undo()
    assert grade(course, folder, parent, silent).n_judged == 1


def test_two_runs_at_a_time_are_refused_with_a_sentence(course, parent):
    folder = hand(course, "ada")
    with alone(course.work), pytest.raises(CourseError, match="another run is grading"):
        grade(course, folder, parent, silent)
    assert grade(course, folder, parent, silent).n_judged == 1


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_whole(path, "old")

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        write_whole(path, "new")
    assert path.read_text() == "old"


def test_a_lost_gradebook_is_made_again_from_the_results(course, parent):
    folder = hand(course, "ada")
    grade(course, folder, parent, silent)
    (course.work / "gradebook.db").unlink()
    again = grade(course, folder, parent, silent)
    assert again.n_judged == 0
    assert '"ada","lab01_tiny","90"' in again.grades.read_text()


def test_a_gradebook_restored_from_a_copy_is_brought_up_to_date(course, parent):
    """A new student is not in the copy, and ada's mark in it was for another text."""
    folder = hand(course, "ada")
    grade(course, folder, parent, silent)
    mark(course, "ada", "why", manual_score=10)
    copy = (course.work / "gradebook.db").read_bytes()
    hand(course, "bob")
    hand(course, "ada", why="Another text, which nobody has read.")
    grade(course, folder, parent, silent)
    (course.work / "gradebook.db").write_bytes(copy)
    again = grade(course, folder, parent, silent)
    assert again.n_judged == 0
    assert told(course, again, "ada") == told(course, again, "bob") == ("90", "10")
    with quiet_nbgrader(), book(course) as gradebook:
        gradebook.remove_student("bob")
    assert told(course, grade(course, folder, parent, silent), "bob") == ("90", "10")


def test_written_answers_wait_for_a_person_and_their_marks_reach_grades_and_page(course, parent):
    folder = hand(course, "ada")
    graded = grade(course, folder, parent, silent)
    with quiet_nbgrader(), book(course) as gradebook:
        written = gradebook.find_grade("why", LAB, LAB, "ada")
        assert written.needs_manual_grade and written.auto_score is None
        written.manual_score, written.needs_manual_grade = 8, False
        gradebook.find_comment("why", LAB, LAB, "ada").manual_comment = "Clear & short"
        gradebook.db.commit()
    with open_gradebook(course) as gradebook:
        given = marks_by_hand(gradebook, "ada", LAB, remembered(gradebook, LAB))
        assert given == {"why": {"points": 8, "comment": "Clear & short"}}
    again = grade(course, folder, parent, silent)
    assert again.n_judged == 0
    assert '"ada","lab01_tiny","98","100","0"' in graded.grades.read_text()
    page = (again.feedback / "ada" / f"{LAB}.html").read_text()
    assert "Clear &amp; short" in page and "98 of 100" in page


def mark(course, student, name, comment="", **given):
    """What a person enters for a question in the formgrader."""
    with quiet_nbgrader(), book(course) as gradebook:
        for found in gradebook.find_submission_notebook(LAB, LAB, student).grades if given else ():
            if found.name in (name, f"test-{name}"):
                found.needs_manual_grade = False
                for key, value in given.items():
                    setattr(found, key, value)
        gradebook.find_comment(name, LAB, LAB, student).manual_comment = comment
        gradebook.db.commit()


def told(course, graded, student="ada"):
    """Points and points that wait, as the table, the export and the page tell them."""
    with graded.grades.open(newline="") as lines:
        row = next(row for row in csv.DictReader(lines) if row["student"] == student)
    entry = next(entry for entry in read_entries(course, LAB) if entry.student == student)
    page = (graded.feedback / student / f"{LAB}.html").read_text()
    points = re.search('aria-label="([-0-9.]+) of 100 points', page)
    waits = re.search("([0-9.]+) more points wait", page)
    table, page = (row["points"], row["waits_for_a_person"]), (points[1], waits[1] if waits else "0")
    assert table == page == (f"{entry.points:g}", f"{entry.waits:g}")
    return table


def test_a_mark_for_earlier_work_waits_for_a_person_again(course, parent):
    folder = hand(course, "ada")
    grade(course, folder, parent, silent)
    mark(course, "ada", "why", "A clear answer", manual_score=10)
    mark(course, "ada", "counter", extra_credit=5)
    assert told(course, grade(course, folder, parent, silent)) == ("105", "0")
    hand(course, "ada", why="Another text, which nobody has read.")
    graded = grade(course, folder, parent, silent)
    assert told(course, graded) == ("70", "30")
    assert "A clear answer" not in (graded.feedback / "ada" / f"{LAB}.html").read_text()
    mark(course, "ada", "why", manual_score=9)
    mark(course, "ada", "counter", extra_credit=None)
    assert told(course, grade(course, folder, parent, silent)) == ("99", "0")


def test_extra_credit_and_comments_on_code_reach_every_reader(course, parent):
    folder = hand(course, "ada", double="def double(x):\n    return x * x")
    grade(course, folder, parent, silent)
    mark(course, "ada", "double", "Read the title once more")
    mark(course, "ada", "counter", "An elegant class", extra_credit=5)
    graded = grade(course, folder, parent, silent)
    assert told(course, graded) == ("65", "10")
    page = (graded.feedback / "ada" / f"{LAB}.html").read_text()
    assert "You multiply x by itself." in page
    marks = {mark.id: mark for mark in read_entries(course, LAB)[0].marks}
    assert marks["double"].sentence == "You multiply x by itself." and marks["counter"].points == 25
    for name, comment in (("double", "Read the title once more"), ("counter", "An elegant class")):
        assert marks[name].comment == comment and comment in page


def test_a_comment_on_earlier_work_is_not_shown_under_new_work(course, parent):
    folder = hand(course, "ada", double="def double(x):\n    return x * x")
    grade(course, folder, parent, silent)
    mark(course, "ada", "double", "Read the title once more")
    page = grade(course, folder, parent, silent).feedback / "ada" / f"{LAB}.html"
    assert "Read the title once more" in page.read_text()
    hand(course, "ada")
    for _ in range(2):
        grade(course, folder, parent, silent)
        comments = {mark.id: mark.comment for mark in read_entries(course, LAB)[0].marks}
        assert "Read the title once more" not in page.read_text() and comments["double"] == ""
    mark(course, "ada", "double", "Now it is right")
    grade(course, folder, parent, silent)
    assert "Now it is right" in page.read_text()


def test_an_added_space_is_no_answer_to_a_written_question_for_any_reader(course, parent):
    folder = hand(course, "ada", why=course.lab("01").blank(course.lab("01").questions[-1]).source + " ")
    graded = grade(course, folder, parent, silent)
    assert results(graded)["ada"]["questions"][-1]["status"] == BLANK
    assert told(course, graded) == ("90", "0")


def test_an_answer_in_a_markdown_cell_of_ones_own_waits_for_a_person_who_sees_it(course, parent):
    blank = course.lab("01").blank(course.lab("01").questions[-1]).source
    folder = hand(course, "ada", why=blank)
    assert told(course, grade(course, folder, parent, silent)) == ("90", "0")
    path = folder / "ada" / LAB / f"{LAB}.ipynb"
    notebook = json.loads(path.read_bytes())
    notebook["cells"].append(cell("markdown", "mine", "Because it is so."))
    path.write_text(json.dumps(notebook))
    graded = grade(course, folder, parent, silent)
    assert results(graded)["ada"]["questions"][-1]["status"] == BY_HAND and told(course, graded) == ("90", "10")
    shown = json.loads((course.work / "autograded" / "ada" / LAB / f"{LAB}.ipynb").read_bytes())["cells"]
    assert [c["source"] for c in shown[-2:]] == [blank, "Because it is so."]


def test_a_fault_of_a_check_waits_for_a_person_in_the_gradebook(course, parent):
    checks = course.root / "grading" / "checks" / f"{LAB}.py"
    trap = (
        "expected=double, accepts=lambda g, e, c: 1 / 0 if isinstance(g, str) and g == 'trap' else close(1e-6)(g, e),"
    )
    checks.write_text(checks.read_text().replace("expected=double,", trap))
    folder = hand(course, "ada", double="def double(x):\n    return 'trap'")
    graded = grade(course, folder, parent, silent)
    with quiet_nbgrader(), book(course) as gradebook:
        scored = gradebook.find_grade("test-double", LAB, LAB, "ada")
        assert scored.auto_score is None and scored.needs_manual_grade
        assert gradebook.find_grade("test-total", LAB, LAB, "ada").auto_score == 20
    assert '"60","100","40","double"' in graded.grades.read_text()
    page = (graded.feedback / "ada" / f"{LAB}.html").read_text()
    assert "a person looks at it" in page and "ZeroDivisionError" not in page


def test_nothing_is_graded_by_checks_that_do_not_prove_themselves(course, parent):
    checks = course.root / "grading" / "checks" / f"{LAB}.py"
    checks.write_text(checks.read_text().replace("return x * x", "return x * 2"))
    with pytest.raises(CourseError, match="the wrong answer 'square' is judged right"):
        grade(course, hand(course, "ada"), parent, silent)
    assert not (course.work / "results").exists()


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir(), lambda folder: folder.touch()])
def test_an_empty_or_missing_folder_is_one_sentence(course, tmp_path, capsys, make):
    make(tmp_path / "none")
    with pytest.raises(SystemExit) as stop:
        main(["grade", str(tmp_path / "none"), "--host-exposed"], course.root)
    said = capsys.readouterr().err
    assert stop.value.code == 1
    assert said.count("\n") == 1 and "STUDENT/LAB/LAB.ipynb" in said


def test_odd_folders_are_left_out_with_a_sentence(course, tmp_path, parent):
    folder = hand(course, "ada")
    (folder / "=cmd" / LAB).mkdir(parents=True)
    (folder / "eve").symlink_to(folder / "ada")
    (folder / "bob").mkdir()
    (folder / "bob" / LAB).symlink_to(folder / "ada" / LAB)
    (folder / "ada" / "holiday").mkdir()
    (folder / "ada" / f"{LAB}.ipynb").write_text("{}")
    graded = grade(course, folder, parent, silent)
    assert list(results(graded)) == ["ada"]
    assert len(graded.refused) == 5
    found, refused = find_submissions(folder)
    assert [entry[:2] for entry in found] == [("ada", "holiday"), ("ada", LAB)]
    assert len(refused) == 4 and any("outside of a lab's folder" in sentence for sentence in refused)


def test_generating_twice_gives_the_same_bytes_without_instructor_cells(course):
    release = course.lab("01").release_path.read_bytes()
    assert release_labs(course) == []
    shutil.rmtree(course.root / "labs")
    assert release_labs(course) == [LAB]
    assert course.lab("01").release_path.read_bytes() == release
    assert b"usual mistake" not in release and b"BEGIN SOLUTION" not in release


def test_labs_check_says_which_lab_is_not_up_to_date(course, capsys):
    with course.lab("01").release_path.open("a") as file:
        file.write("\n")
    with pytest.raises(SystemExit) as stop:
        main(["labs", "--check"], course.root)
    assert stop.value.code == 1
    assert capsys.readouterr().err.count(LAB) == 1
    release_labs(course)
    for name in ("answers.ipynb", ".ipynb_checkpoints/x.ipynb", "lab01_run/log.csv"):
        write_whole(course.root / "labs" / LAB / name, "{}")
    assert release_labs(course, check=True) == [f"{LAB}/answers.ipynb"]
    with pytest.raises(CourseError, match="there is no lab '07'"):
        course.lab("07")


def test_the_demonstration_is_one_command_and_leaves_the_real_class_alone(course, capsys):
    """A student who is called like one of the twelve has handed in code that nobody may run without a sandbox."""
    hand(course, "liam", double="open('/tmp/liam', 'w')")
    pages, before = course.work / "demo" / "feedback", everything_in(course.work)
    with pytest.raises(SystemExit) as stop:
        main(["demo"], course.root)
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert "grading/_work/demo/grades.csv" in said and "square, count, eight, from-zero" in said
    assert "cd grading/_work/demo && jupyter lab" in said and len(list(pages.glob("*/*.html"))) == len(STUDENTS)
    assert (course.work / "demo" / "report" / f"{LAB}.html").is_file()
    after = everything_in(course.work)
    assert before == {path: kept for path, kept in after.items() if "demo" not in path.parts and path.name != "lock"}
    with pytest.raises(CourseError, match="has no grades yet"):
        read_labs(course, None)


def test_nbgrader_finds_the_demonstration_in_its_folder(course):
    demo = demonstration_of(course)
    build_class(demo, [course.lab("01")], silent)
    found = PyFileConfigLoader("nbgrader_config.py", str(demo.work)).load_config().CourseDirectory
    assert found.db_url == f"sqlite:///{demo.work / 'gradebook.db'}" and found.root == str(course.root)
    assert found.submitted_directory == "grading/_work/demo/submitted"


def test_what_a_run_has_nothing_to_do_with_stays_in_the_grades(course, parent, tmp_path):
    grade(course, hand(course, "ada"), parent, silent)
    mark(course, "ada", "why", manual_score=8)
    grade(course, course.work / "submitted", parent, silent)
    write_whole(tmp_path / "late" / "bob" / LAB / f"{LAB}.ipynb", hand_in(course.lab("01"), "solution"))
    graded = grade(course, tmp_path / "late", parent, silent)
    assert list(results(graded)) == ["bob"]
    assert [told(course, graded, student) for student in ("ada", "bob")] == [("98", "0"), ("90", "10")]
    with quiet_nbgrader(), book(course) as gradebook:
        gradebook.remove_student("ada")
    lines = grade(course, tmp_path / "late", parent, silent).grades.read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [['"ada"', f'"{LAB}"', '"90"'], ['"bob"', f'"{LAB}"', '"90"']]


@pytest.mark.slow
def test_nbgraders_own_commands_work_on_the_course(demonstration, tmp_path):
    course, _, _ = demonstration
    shutil.copy(REPOSITORY / "grading" / "nbgrader_config.py", course.root / "grading")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONWARNINGS": "ignore"}

    def nbgrader(*words):
        command = ["nbgrader", *words]
        return subprocess.run(command, cwd=course.root / "grading", env=environment, capture_output=True, text=True)

    released = course.lab("01").release_path.read_bytes()
    done = nbgrader("generate_assignment", LAB, "--force", "--no-db")
    assert done.returncode == 0, done.stderr
    assert course.lab("01").release_path.read_bytes() == released

    done = nbgrader("export", "--to", str(tmp_path / "grades.csv"))
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "grades.csv").read_text().splitlines()
    assert len(rows) == 1 + len(STUDENTS)

    done = nbgrader("generate_feedback", LAB, "--student", "amara")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel and its client
def test_nbgraders_validation_tells_a_solution_from_a_blank_lab(course, monkeypatch):
    from nbgrader.validator import Validator

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    lab = course.lab("01")
    notebook = json.loads(lab.solution_path.read_text())
    notebook["cells"] = [c for c in notebook["cells"] if c["id"] != "look"]
    lab.solution_path.write_text(json.dumps(notebook))
    assert "failed" not in Validator().validate(str(lab.solution_path))
    assert len(Validator().validate(str(lab.release_path))["failed"]) == 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of nbgrader's server side
def test_the_formgrader_sees_the_class(demonstration):
    from nbgrader.apps.api import NbGraderAPI

    course, _, _ = demonstration
    with quiet_nbgrader():
        api = NbGraderAPI(config=settings(course.root))
        (assignment,) = api.get_assignments()
        submissions = api.get_submissions(LAB)
    assert assignment["num_submissions"] == len(STUDENTS)
    assert {entry["student"]: entry["score"] for entry in submissions}["amara"] == 90
    assert all(entry["autograded"] for entry in submissions)
