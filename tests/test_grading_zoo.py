"""Every hostile submission of the zoo gains nothing, harms nothing, and the batch finishes.

One class hands in: each piece of the zoo in the answer cell of a question, everything else blank, and after each of
them an honest student. The class is graded once; the tests look at what came out.
"""

import hashlib
import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_grading_tiny import LAB, cell, tiny_course

import grading
import minigpt
from grading.course import write_whole
from grading.demonstration import hand_in
from grading.judge import REVIEW
from grading.record import grade
from grading.session import Limits, Session, Step, WarmParent

pytestmark = pytest.mark.slow

ENGINE = Path(grading.__file__).parent
ZOO = {path.stem: path.read_text() for path in sorted((ENGINE / "zoo").glob("*.py"))}
PACKAGES = Path(pytest.__file__).parents[1]
LIMITS = Limits(
    cell_seconds=3, total_seconds=15, grace_seconds=1, memory_bytes=2**30, sandbox_bytes=2**31, output_characters=10**6
)


def fingerprint(*folders):
    """A digest of the names, sizes, times and, of small files, contents below these folders."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts):
        facts = path.lstat()
        digest.update(f"{path} {facts.st_mode}".encode())
        if path.is_file() and not path.is_symlink():
            digest.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
            digest.update(path.read_bytes() if facts.st_size < 2**16 else b"")
    return digest.hexdigest()


def hand(course, student, text):
    write_whole(course.work / "submitted" / student / LAB / f"{LAB}.ipynb", text)


def blank(course):
    return json.loads(course.lab("01").release_path.read_bytes())


def attack(course, source):
    """A blank notebook with the source in the answer cell of the first question."""
    notebook = blank(course)
    next(cell for cell in notebook["cells"] if cell["id"] == "double")["source"] = source
    return notebook


def attack_from_beside(course, source):
    """A blank notebook with the source in a cell of the student's own."""
    notebook = blank(course)
    notebook["cells"].append(cell("code", "mine", source))
    return notebook


def forged_marks(course):
    """Gives every test a thousand points, tells graders to skip it, and unlocks it."""
    notebook = blank(course)
    for made in notebook["cells"]:
        made["metadata"]["tags"] = ["skip-execution", "nbgrader-skip", "raises-exception", "show"]
        if "nbgrader" in made["metadata"]:
            made["metadata"]["nbgrader"] |= {"points": 1000, "locked": False, "schema_version": 99}
    return notebook


def forged_outputs(course):
    """Arrives with tests that are already passed and points that are already displayed."""
    notebook = blank(course)
    shown = {"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": {"text/plain": "30"}}
    for made in (made for made in notebook["cells"] if made["cell_type"] == "code"):
        made |= {"source": "30", "outputs": [shown]} if made["id"].startswith("test") else {}
    return notebook


def copied_tests(course):
    """Holds every cell three times, under the same ids."""
    notebook = blank(course)
    notebook["cells"] *= 3
    return notebook


def foreign_tests(course):
    """Brings tests of its own, which say yes."""
    marks = {"grade": True, "locked": True, "points": 500}
    return blank(course) | {"cells": [cell("code", "test-double", "500", grade_id="test-double", **marks)] * 2}


def empty_metadata(course):
    """Has lost every mark and id, and brings wrong answers for all."""
    cells = [cell("code", "", source) for source in ("double = total = 1", "answer_seven = 8", "Counter = print")]
    return {"cells": [made | {"metadata": {}} for made in cells], "metadata": {}, "nbformat": 4, "nbformat_minor": 0}


def names_with_tricks(course):
    """Adds cells whose ids are paths, tags of a page, formulas and parts of the judge."""
    notebook = blank(course)
    for name in ("../../../secret", "<script>steal()</script>", "=1+1", "free-1", "test-double", "\u202edouble"):
        notebook["cells"].append(cell("code", name, f"print({name!r})\n1 / 0", grade_id=name, solution=True))
    return notebook


def endless_cells(course):
    """Adds five thousand cells."""
    notebook = blank(course)
    notebook["cells"] += [cell("code", f"c{n}", f"x = {n}") for n in range(5000)]
    return notebook


def nested_file(course):
    """Is nested so deeply that a parser may give up."""
    return "[" * 100_000


def odd_parts(course):
    """Has numbers where texts and lists where objects belong."""
    odd = [None, 3, [], {}, {"cell_type": []}, {"cell_type": "code", "source": {"a": 1}, "metadata": 7, "id": 1e400}]
    return blank(course) | {"cells": odd, "metadata": []}


def poisoned_folder(course):
    """Comes with modules beside the notebook that carry the names of real ones."""
    return blank(course)


FORGED = {make.__name__: make for make in (forged_marks, forged_outputs, copied_tests, foreign_tests, empty_metadata,
          names_with_tricks, endless_cells, nested_file, odd_parts, poisoned_folder)}  # fmt: skip
BESIDE = "-beside"
TRIED = (*ZOO, *(f"{name}{BESIDE}" for name in ZOO), *FORGED)
POISON = ("numpy.py", "json.py", "sitecustomize.py", "conftest.py", "nbgrader_config.py", "grading/wire.py")


@pytest.fixture(scope="module")
def course(tmp_path_factory, backend):
    return course_with_canaries(tmp_path_factory.mktemp("zoo"))


def course_with_canaries(root):
    """A course with something to steal in every corner."""
    write_whole(root / "home" / "diary.txt", "CANARY of the home")
    course = tiny_course(root / "course")
    checks = course.root / "grading" / "checks" / f"{LAB}.py"
    checks.write_text(checks.read_text() + "\n# CANARY of the checks\n")
    write_whole(course.root / "solutions" / "next" / "next.ipynb", "CANARY of the solutions")
    write_whole(course.work / "secret", "CANARY of the secret")
    hand(course, "honest-last", hand_in(course.lab("01"), "solution") + "\n")
    write_whole(course.work / "submitted" / "honest-last" / "lab02" / "lab02.ipynb", "CANARY of another submission")
    return course


@pytest.fixture(scope="module")
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield str(server.getsockname()[1])


def aimed(source, course, listener):
    """The source with the real places in it."""
    names = {"COURSE": course.root, "HOME": course.root.parent / "home", "ENGINE": ENGINE, "PACKAGES": PACKAGES}
    for word, value in (names | {"PORT": listener}).items():
        source = source.replace(word, str(value))
    return source


@pytest.fixture(scope="module")
def graded(course, listener):
    """The results by student, with the fingerprints before and after of what no submission may touch."""
    notebooks = {name: attack(course, aimed(source, course, listener)) for name, source in ZOO.items()}
    notebooks |= {f"{name}{BESIDE}": attack_from_beside(course, aimed(source, course, listener))
                  for name, source in ZOO.items()}  # fmt: skip
    notebooks |= {name: make(course) for name, make in FORGED.items()}
    for number, (name, notebook) in enumerate(notebooks.items()):
        hand(course, f"s{number:02}-{name}", notebook if isinstance(notebook, str) else json.dumps(notebook))
        hand(course, f"s{number:02}-{name}-then-honest", hand_in(course.lab("01"), "solution"))
        for poison in POISON if name == "poisoned_folder" else ():
            write_whole(course.work / "submitted" / f"s{number:02}-{name}" / LAB / poison, "raise SystemExit('CANARY')")
    places = (course.root / "solutions", course.root / "grading" / "checks", course.work / "submitted")
    places += (course.root.parent / "home", ENGINE, Path(minigpt.__file__).parent, PACKAGES / "numpy")
    before = fingerprint(*places), sorted(os.listdir(PACKAGES))
    with pytest.MonkeyPatch.context() as patch, WarmParent(LIMITS) as parent:
        patch.setenv("TOKEN", "CANARY of the environment")
        results = grade(course, course.work / "submitted", parent, tell=lambda line: None).results
    after = fingerprint(*places), sorted(os.listdir(PACKAGES))
    return {result["student"]: result for result in results}, before, after


@pytest.mark.parametrize("name", TRIED)
def test_it_gains_nothing_and_the_next_student_keeps_all_points(graded, name):
    results, _, _ = graded
    student = next(student for student in results if student.endswith(f"-{name}"))
    assert results[student]["points"] == 0
    assert REVIEW not in {question["status"] for question in results[student]["questions"]}
    assert results[f"{student}-then-honest"]["points"] == 90


@pytest.mark.parametrize("name", TRIED)
def test_it_sees_nothing(course, graded, name):
    results, _, _ = graded
    student = next(student for student in results if student.endswith(f"-{name}"))
    for place in ("results", "feedback"):
        for path in (course.work / place / student).rglob("*.*"):
            assert "CANARY" not in path.read_text(), path


@pytest.mark.parametrize("name", TRIED)
def test_nothing_that_it_wrote_acts_on_a_page_a_table_or_a_terminal(course, graded, name):
    results, _, _ = graded
    student = next(student for student in results if student.endswith(f"-{name}"))
    page = (course.work / "feedback" / student / f"{LAB}.html").read_text()
    assert "<script" not in page and "<img" not in page
    for text in (page, *texts_in(json.loads((course.work / "results" / student / LAB / "result.json").read_bytes()))):
        assert all(letter.isprintable() or letter in "\n\t" for letter in text)


def texts_in(value):
    """Every text in a value that was read from JSON, keys included."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return [text for entry in value for text in texts_in(entry)]
    return [value] if isinstance(value, str) else []


def test_the_table_of_grades_holds_no_formula(course, graded):
    rows = (course.work / "grades.csv").read_text().splitlines()
    assert len(rows) > len(ZOO)
    assert not any(field.strip('"').startswith(("=", "@", "+")) for row in rows for field in row.split(","))


def test_no_memory_is_read_and_no_process_traced(graded):
    results, _, _ = graded
    (output,) = [r["questions"][0]["output"] for student, r in results.items() if student.endswith("-reads_memory")]
    assert "attached False" in output and output.count("PermissionError") == 3


def test_course_home_packages_and_the_judge_are_as_they_were(graded):
    _, before, after = graded
    assert before == after


def test_secret_and_gradebook_are_those_of_the_judge(course, graded):
    results, _, _ = graded
    assert (course.work / "secret").read_text() == "CANARY of the secret"
    assert (course.work / "gradebook.db").read_bytes().startswith(b"SQLite format 3")
    assert len(results) == 2 * len(TRIED) + 1


SIGHTED = ("reads_solutions", "reads_checks", "reads_gradebook_and_secret", "reads_other_submissions", "reads_home",
           "follows_links", "network")  # fmt: skip


@pytest.mark.parametrize("name", SIGHTED)
def test_without_the_sandbox_the_same_code_finds_what_it_looks_for(tmp_path, listener, name):
    """Otherwise it would prove nothing that it finds nothing inside."""
    course = course_with_canaries(tmp_path)
    source = aimed(ZOO[name], course, listener).replace('"/root", "/home"', "")
    limits = replace(LIMITS, cell_seconds=30, total_seconds=120)
    with WarmParent(limits, exposed=True) as parent, Session(parent, [Step("double", source)]) as session:
        session.ready()
        assert "CANARY" in session.outputs["double"]


def test_no_process_is_left(graded):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
        if not any(b"43.21" in line for line in lines):
            return
        time.sleep(0.1)
    pytest.fail("the daemon is still there")


def test_every_piece_says_what_it_tries():
    for name, source in ZOO.items():
        assert source.startswith('"""'), name

