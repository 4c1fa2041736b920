"""A lab begins whole, and preflight names each mistake that its author may make on the way."""

import json
import re
import shlex
from pathlib import Path

import pytest

from grading.author import author
from grading.cli import main
from grading.course import Course, CourseError
from grading.gradebook import release_labs
from grading.preflight import disagreements, preflight
from grading.release import foreign_lines

REPOSITORY = Path(__file__).resolve().parents[1]
LAB = "lab07_running_mean"


@pytest.fixture
def course(tmp_path):
    """A course with nothing in it but one lab that `grading author` wrote."""
    course = Course(tmp_path / "course")
    author(course, LAB)
    return course


def silent(line):
    """Where a run tells its progress to nobody."""


def call(course, *words):
    with pytest.raises(SystemExit) as stop:
        main(list(words), course.root)
    return stop.value.code


def change(path, old, new):
    text = path.read_text()
    assert old in text, f"{old!r} does not stand in {path.name}"
    path.write_text(text.replace(old, new))


def files_below(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_the_new_lab_passes_preflight_as_it_is_written(tmp_path, capsys):
    """By the commands that `grading author` itself names."""
    course = Course(tmp_path)
    assert call(course, "author", LAB) == 0
    said = capsys.readouterr().out
    following = re.search(r"next: grading (preflight \d\d)", said)[1]
    assert call(course, *shlex.split(following)) == 0
    assert "0 faults" in capsys.readouterr().out
    for path in re.findall(r"^  \d\. ([\w/.]+):", said, re.M):
        assert (course.root / path).is_file() or path == "book/_toc.yml"


def test_the_new_lab_holds_what_a_lab_of_this_course_holds(course):
    lab = course.lab("07")
    judged = [question for question in lab.questions if not question.written]
    assert sum(question.points for question in lab.questions) == 100
    assert {len(question.hints) for question in judged} == {3} and len(judged) == 2
    assert any(len(question.right) >= 2 for question in judged) and all(len(q.wrong) >= 3 for q in judged)
    assert foreign_lines(lab, lab.release_path.read_bytes()) == []
    assert "### BEGIN SOLUTION" in lab.model_answer(judged[0]).source
    assert sum("instructor" in cell.tags for cell in lab.solution) == 3
    assert not any("instructor" in cell.tags for cell in lab.release)


def test_no_trace_of_the_templates_own_name_is_left(course):
    """The labels of the sections carry the stem, so two authored chapters do not collide in the book."""
    for path in files_below(course.root):
        text = (course.root / path).read_text()
        assert "99" not in re.sub(r"\b0\.\d+|1 / 99", "", text) and "(average-" not in text, path
    assert "(running-mean-window)=" in course.lab("07").chapter_path.read_text()


@pytest.mark.parametrize("name", ["solution_path", "chapter_path"])
def test_the_notebook_runs_from_top_to_bottom(course, name, capsys):
    space = {}
    for cell in json.loads(getattr(course.lab("07"), name).read_bytes())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)
    assert capsys.readouterr().out


def test_a_chapter_that_is_there_is_kept_and_its_sections_are_named(tmp_path):
    course = Course(tmp_path)
    chapter = course.root / "notebooks" / "07_running_mean.ipynb"
    chapter.parent.mkdir()
    source = ["(one)=\n", "## One\n", "\n", "(two-two)=\n", "## Two\n", "\n", "(ex)=\n", "```{exercise}\n"]
    chapter.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": source}]}))
    before = chapter.read_bytes()
    made = author(course, LAB)
    assert chapter.read_bytes() == before and disagreements(made.lab) == []
    assert {question.teaches for question in made.lab.questions} == {"one", "two-two"}
    assert not [what for what in made.to_change if "_toc.yml" in what]


NAMES = ["lab7_loops", "07_loops", "lab07", "lab07_Loops", "lab07_a b", "../lab07_x", "lab07_é", "lab07_x\n", "",
         "lab07__x"]


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_name_is_refused_and_nothing_is_written(tmp_path, capsys, name):
    assert call(Course(tmp_path), "author", name) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "write labNN_stem" in said
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("kept", ["solution_path", "release_path", "checks_path"])
def test_nothing_is_overwritten(tmp_path, kept):
    course = Course(tmp_path)
    path = getattr(author(course, LAB).lab, kept)
    for other in files_below(tmp_path):
        if course.root / other != path:
            (course.root / other).unlink()
    path.write_text("mine")
    with pytest.raises(CourseError, match="exists already"):
        author(course, LAB)
    assert (path.read_text(), files_below(tmp_path)) == ("mine", [path.relative_to(course.root).as_posix()])


def test_a_number_that_is_taken_is_refused(course):
    before = files_below(course.root)
    with pytest.raises(CourseError, match="unit 07 is lab07_running_mean already"):
        author(course, "lab07_other")
    assert files_below(course.root) == before


def test_a_chapter_without_a_section_to_name_is_refused(tmp_path):
    chapter = tmp_path / "notebooks" / "07_running_mean.ipynb"
    chapter.parent.mkdir()
    for text, sentence in (('{"cells": []}', "no section with a label"), ("{", "is not a notebook")):
        chapter.write_text(text)
        with pytest.raises(CourseError, match=sentence):
            author(Course(tmp_path), LAB)
    assert files_below(tmp_path) == ["notebooks/07_running_mean.ipynb"]


def test_what_fails_halfway_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr("grading.author.release_labs", fail)
    with pytest.raises(OSError, match="full"):
        author(Course(tmp_path), LAB)
    assert files_below(tmp_path) == []


# --- each mistake an author makes, and the sentence that names it ---


def solution_fails(lab):
    change(lab.solution_path, "totals[:-width]) / width", "totals[:-width]) / 2")


def blank_scores(lab):
    change(lab.solution_path, '"### BEGIN SOLUTION\\n",\n    "answer_reads', '"answer_reads = 951 * 50\\n",\n    '
           '"### BEGIN SOLUTION\\n",\n    "answer_reads')


def wrong_answer_passes(lab):
    change(lab.checks_path, '"answer_reads = 1000 * 50"', '"answer_reads = 951 * 50"')


def right_answer_fails(lab):
    change(lab.checks_path, "np.full(width, 1 / width)", "np.full(width, 1 / 2)")


def two_wrong_answers(lab):
    text = lab.checks_path.read_text()
    third = re.search(r'        Wrong\(\n            "windows-not-reads".*?\n        \),\n', text, re.S)[0]
    lab.checks_path.write_text(text.replace(third, ""))


def hints_differ(lab):
    change(lab.checks_path, '"Windows, times numbers in each window."', '"Windows times width."')


def points_do_not_add_up(lab):
    change(lab.solution_path, '"points": 50', '"points": 55')
    change(lab.checks_path, "points=50", "points=55")


def points_differ(lab):
    change(lab.checks_path, "points=50", "points=49")


def no_chapter(lab):
    lab.chapter_path.unlink()


def no_such_section(lab):
    change(lab.checks_path, "running-mean-cost", "running-mean-price")


def answer_cell_lost(lab):
    change(lab.solution_path, '"grade_id": "reads"', '"grade_id": "read"')


MISTAKES = {
    solution_fails: r"window: the solution is judged wrong.*should be right",
    blank_scores: r"reads: the blank lab is judged right; it should be blank with 0 points",
    wrong_answer_passes: r"reads: the wrong answer 'window-at-every-number' is judged right; it should be known by",
    right_answer_fails: r"window: the right answer 'convolution' is judged wrong.*it should be right",
    two_wrong_answers: r"question 'reads' lists 2 wrong answers; list at least 3",
    hints_differ: r"reads: hint 2 differs between the checks and the lab; copy the lab's words",
    points_do_not_add_up: r"the core questions are worth 75 points together; they should be worth 70",
    points_differ: r"window: the notebook gives 50 points and the checks 49; make them equal",
    no_chapter: r"the chapter 07_running_mean.ipynb does not exist",
    no_such_section: r"reads: the chapter has no section \(running-mean-price\)=; name the section that teaches it",
    answer_cell_lost: r"reads: the solution has 0 answer cells with this id; it needs one",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_preflight_refuses_a_lab_with_exactly_this_mistake(course, parent, mistake):
    assert disagreements(course.lab("07")) == []
    mistake(course.lab("07"))
    release_labs(course)
    try:
        faults = preflight(course.lab("07"), parent, silent).faults
    except CourseError as error:
        faults = [str(error)]
    assert any(re.search(MISTAKES[mistake], fault) for fault in faults), faults


def test_the_command_says_the_fault_and_ends_with_1(course, capsys):
    no_chapter(course.lab("07"))
    assert call(course, "preflight") == 1
    assert "FAULT  the chapter 07_running_mean.ipynb does not exist" in capsys.readouterr().out
    two_wrong_answers(course.lab("07"))
    assert call(course, "preflight") == 1
    assert capsys.readouterr().err.count("\n") == 1


def commands_of(page):
    """The commands on a page of the handbook, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith("grading ")]


@pytest.mark.slow
def test_every_command_on_the_page_for_authors_works_in_its_order(tmp_path, capsys):
    page = (REPOSITORY / "book" / "authors.md").read_text()
    commands = commands_of(page)
    assert len(commands) >= 4
    for command in commands:
        assert call(Course(tmp_path), *shlex.split(command)[1:]) == 0, (command, capsys.readouterr().err)


def test_the_examples_on_the_page_for_authors_are_of_the_template():
    """What the page shows of checks and notebook is what `grading author` writes, so it cannot go stale."""
    page = (REPOSITORY / "book" / "authors.md").read_text()
    shown = re.findall(r"```python\n(.*?)```", page, re.S)
    template = REPOSITORY / "grading" / "template"
    written = (template / "checks.py").read_text()
    for path in template.glob("*.ipynb"):
        written += "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
    assert len(shown) >= 3
    for example in shown:
        missing = [line for line in example.splitlines() if line.strip() and line not in written]
        assert missing == [], "\n".join(missing)


