"""What the pages say of grading is what it does."""

import re
from pathlib import Path

from grading.course import Course
from grading.inbox import Member, recognize
from grading.ingest import MOST_CELLS
from grading.preflight import ATTEMPTS
from grading.walls import DISK_BYTES, Limits

COURSE = Course(Path(__file__).resolve().parents[1])
INSTRUCTORS, STUDENTS = (COURSE.root / "book" / name for name in ("instructors.md", "students.md"))
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven")


def test_every_answer_is_tried_on_as_many_draws_as_the_handbook_says():
    assert f"tried on {WORDS[len(ATTEMPTS)]} draws of inputs" in INSTRUCTORS.read_text()


def test_the_names_that_the_handbook_enters_are_those_that_a_collection_makes():
    page = INSTRUCTORS.read_text()
    files = re.findall(r"`([^`|]*LAB\.ipynb)` \| `([^`]+)` \|", page)
    named = {recognize(Member(file.replace("LAB.", "lab01_neuron."), bytes), COURSE.lab_names, "").student: student
             for file, student in files}
    assert len(named) == 3 and all(made == told for made, told in named.items())
    entered = re.findall(r"nbgrader db student add (\S+)", page)
    assert len(entered) == 2 and set(entered) <= named.keys()


def test_students_are_told_the_limits_of_the_judge():
    page, limits = STUDENTS.read_text(), Limits()
    (seconds,) = {question.seconds for name in COURSE.lab_names for question in COURSE.lab(name).questions}
    for told in (
        f"{limits.cell_seconds:g} seconds for a cell, {seconds:g} for all that a question asks",
        f"{limits.total_seconds:g} for the whole notebook",
        f"{limits.memory_bytes >> 30} GB for a process, {limits.sandbox_bytes >> 30} GB for all together",
        f"{limits.file_bytes >> 20} MB for one, {DISK_BYTES >> 20} MB for all together",
        f"cells | {MOST_CELLS:,} |",
        f"the first {limits.output_characters:,} characters",
    ):
        assert told in page
