"""What is taken of a submission, and what is not."""

import copy
import json
import os
import re
from pathlib import Path

import pytest
from test_grading_tiny import LAB, cell, tiny_course

from grading.ingest import LARGEST_NOTEBOOK, MOST_CELLS, ingest
from grading.preflight import disagreements


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return tiny_course(tmp_path_factory.mktemp("course")).lab("01")


@pytest.fixture
def notebook(lab):
    """A handed-in notebook with an answer to "double"; change it, then `hand_in`."""
    made = json.loads(lab.release_path.read_bytes())
    by_id(made, "double")["source"] = "def double(x):\n    return 2 * x"
    return made


def by_id(notebook, cell_id):
    return next(c for c in notebook["cells"] if c["id"] == cell_id)


def hand_in(lab, folder, notebook):
    text = notebook if isinstance(notebook, str) else json.dumps(notebook)
    (folder / f"{LAB}.ipynb").write_text(text)
    return ingest(lab, "ada", folder)


def ids(submission):
    return [step for step, _ in submission.steps]


def test_only_the_open_cells_are_taken(lab, tmp_path, notebook):
    by_id(notebook, "setup")["source"] = "import evil"
    by_id(notebook, "test-double")["source"] = "print(30)"
    by_id(notebook, "test-double")["metadata"]["nbgrader"]["points"] = 1000
    notebook["metadata"]["evil"] = True
    submission = hand_in(lab, tmp_path, notebook)
    assert submission.source("double") == "def double(x):\n    return 2 * x"
    rebuilt = submission.to_notebook()
    assert "evil" not in rebuilt and "1000" not in rebuilt and "print(30)" not in rebuilt
    assert submission.flags == ()


def test_tests_and_cells_for_the_eyes_do_not_run(lab, tmp_path, notebook):
    assert ids(hand_in(lab, tmp_path, notebook)) == ["setup", "double", "total", "answer-seven", "counter"]


def test_a_changed_cell_for_the_eyes_runs_as_the_students_own(lab, tmp_path, notebook):
    by_id(notebook, "look")["source"] = "mine = 1"
    assert ids(hand_in(lab, tmp_path, notebook))[1:3] == ["double", "changed-1"]


def test_own_cells_stay_in_their_place(lab, tmp_path, notebook):
    at = [c["id"] for c in notebook["cells"]].index("double")
    notebook["cells"].insert(at, cell("code", "x", "helper = 1"))
    notebook["cells"].append(cell("code", "y", "last = 1"))
    notebook["cells"].append(cell("markdown", "z", "my notes"))
    steps = hand_in(lab, tmp_path, notebook).steps
    assert [s for _, s in steps if "=" in s and "def" not in s and "class" not in s][:1] == ["helper = 1"]
    assert steps[1] == ("free-1", "helper = 1")
    assert steps[-1] == ("free-2", "last = 1")


def test_own_markdown_stays_where_it_stands_and_the_labs_text_is_not_ones_own(lab, tmp_path, notebook):
    before = hand_in(lab, tmp_path, notebook)
    at = [c["id"] for c in notebook["cells"]].index("why")
    notebook["cells"].insert(at + 1, cell("markdown", "mine", "My answer."))
    notebook["cells"].append(cell("markdown", "pasted", by_id(notebook, "title")["source"]))
    by_id(notebook, "hints")["source"] += " (read)"
    submission = hand_in(lab, tmp_path, notebook)
    made = json.loads(submission.to_notebook())["cells"]
    texts = [c for c in made if c["cell_type"] == "markdown" and c["id"] not in {c.cell_id for c in lab.release}]
    assert [c["source"] for c in texts] == ["My answer."] and made[made.index(texts[0]) - 1]["id"] == "why"
    assert submission.has_own_text and not before.has_own_text
    assert submission.digest != before.digest and submission.steps == before.steps


def test_a_copied_test_cell_changes_nothing(lab, tmp_path, notebook):
    before = hand_in(lab, tmp_path, notebook)
    duplicate = copy.deepcopy(by_id(notebook, "test-double")) | {"id": "pasted"}
    notebook["cells"].append(duplicate)
    assert hand_in(lab, tmp_path, notebook).digest == before.digest


def test_a_copied_answer_becomes_a_free_cell_where_it_stands(lab, tmp_path, notebook):
    duplicate = copy.deepcopy(by_id(notebook, "double")) | {"id": "pasted", "source": "def double(x): pass"}
    notebook["cells"].append(duplicate)
    submission = hand_in(lab, tmp_path, notebook)
    assert submission.source("double") == "def double(x):\n    return 2 * x"
    assert submission.steps[-1] == ("free-1", "def double(x): pass")


def test_a_missing_cell_is_blank_and_flagged(lab, tmp_path, notebook):
    notebook["cells"] = [c for c in notebook["cells"] if c["id"] != "double"]
    submission = hand_in(lab, tmp_path, notebook)
    assert submission.source("double") == lab.blank(lab.questions[0]).source
    assert "double" in submission.flags[0]


@pytest.mark.parametrize("damage", ["", "{", "[1, 2]", '{"cells": 3}', '{"cells": [null]}', "\x00", "[" * 100_000])
def test_a_broken_file_is_graded_as_blank_and_flagged(lab, tmp_path, damage):
    submission = hand_in(lab, tmp_path, damage)
    assert submission.cells == tuple(lab.release)
    assert "graded as blank" in submission.flags[0]


@pytest.mark.parametrize("metadata", [None, [], {"nbgrader": 3}, {"nbgrader": {}}, {"tags": 1}])
def test_damaged_metadata_is_repaired_by_the_cell_id(lab, tmp_path, notebook, metadata):
    by_id(notebook, "double")["metadata"] = metadata
    assert hand_in(lab, tmp_path, notebook).source("double") == "def double(x):\n    return 2 * x"


def test_answers_without_any_marks_run_at_the_end(lab, tmp_path, notebook):
    for c in notebook["cells"]:
        c["metadata"] = {}
        del c["id"]
    submission = hand_in(lab, tmp_path, notebook)
    assert submission.steps[-1][1] == "def double(x):\n    return 2 * x"
    assert submission.flags


def test_a_notebook_of_another_lab_is_blank_and_says_so(lab, tmp_path):
    made = {"cells": [cell("code", "q", "x = 1", grade_id="other", solution=True)]}
    (flag,) = hand_in(lab, tmp_path, made).flags
    assert "no cell of this lab" in flag


def test_a_truncated_or_huge_or_empty_notebook_is_blank_and_flagged(lab, tmp_path, notebook):
    whole = json.dumps(notebook)
    many = notebook | {"cells": notebook["cells"] + [cell("code", f"q{n}", f"x = {n}") for n in range(MOST_CELLS)]}
    large = notebook | {"metadata": {"more": "x" * LARGEST_NOTEBOOK}}
    for n, odd in enumerate((whole[: len(whole) // 2], many, large, {"cells": []})):
        folder = tmp_path / str(n)
        folder.mkdir()
        submission = hand_in(lab, folder, odd)
        assert submission.cells == tuple(lab.release)
        assert len(submission.flags) == 1 and "graded as blank" in submission.flags[0]


def test_a_file_that_cannot_be_opened_is_blank_and_flagged(lab, tmp_path, notebook, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    hand_in(lab, tmp_path, notebook)
    assert lab.release  # is read before
    monkeypatch.setattr(Path, "read_bytes", refuse)
    (flag,) = ingest(lab, "ada", tmp_path).flags
    assert flag == "the notebook cannot be opened (Permission denied), so it was graded as blank"


def test_odd_characters_in_names_and_cells_can_be_written(lab, tmp_path, notebook):
    by_id(notebook, "double")["source"] = "x = '\ud800'"
    with open(os.fsencode(tmp_path) + b"/a\xff\x1b[2J.ipynb", "w") as file:
        file.write(json.dumps(notebook))
    submission = ingest(lab, "ada", tmp_path)
    assert submission.to_notebook().encode() and "a??[2J.ipynb" in submission.flags[0]
    assert submission.flags[0].isprintable() and submission.source("double") == "x = '?'"


def test_a_word_in_the_labs_text_is_no_new_attempt_but_a_word_of_the_student_is(lab, tmp_path, notebook):
    before = hand_in(lab, tmp_path, notebook).digest
    other = tiny_course(tmp_path / "course").lab("01")
    other.release_path.write_text(other.release_path.read_text().replace("a tiny lab", "a small lab"))
    assert ingest(other, "ada", tmp_path).digest == before
    by_id(notebook, "double")["source"] += "\n"
    assert hand_in(lab, tmp_path, notebook).digest != before


def test_a_link_is_refused(lab, tmp_path):
    os.symlink(lab.solution_path, tmp_path / f"{LAB}.ipynb")
    submission = ingest(lab, "ada", tmp_path)
    assert submission.cells == tuple(lab.release)
    assert "was refused" in submission.flags[0]


def test_a_renamed_notebook_is_taken_and_flagged(lab, tmp_path, notebook):
    (tmp_path / "Untitled (1).ipynb").write_text(json.dumps(notebook))
    submission = ingest(lab, "ada", tmp_path)
    assert "2 * x" in submission.source("double")
    assert "was taken as" in submission.flags[0]


def test_the_tiny_lab_agrees_with_its_chapter_and_checks(lab):
    assert disagreements(lab) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "sentence"),
    [
        ("notebooks/01_tiny.ipynb", "(doubling)", "(other)", r"no section \(doubling\)="),
        (f"grading/checks/{LAB}.py", "points=30", "points=25", "make them equal"),
        (f"grading/checks/{LAB}.py", "points=30", "points=25", "together"),
        (f"grading/checks/{LAB}.py", "the sign.", "the size.", "hint 2 differs"),
        (f"grading/checks/{LAB}.py", 'id="double"', 'id="twice"', "it needs one"),
        (f"solutions/{LAB}/{LAB}.ipynb", '"grade_id": "why"', '"grade_id": "more"', "belongs to no question"),
    ],
)
def test_preflight_sees_where_lab_chapter_and_checks_disagree(tmp_path, path, old, new, sentence):
    course = tiny_course(tmp_path)
    file = tmp_path / path
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    faults = disagreements(course.lab("01"))
    assert re.search(sentence, "\n".join(faults)), faults
