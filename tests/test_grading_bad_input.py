"""Bad input at every entry of `grading`: one sentence, exit code 1, nothing half-written, and no run that stops."""

import json
import os
import re
import shutil
import zipfile

import pytest
from test_grading_export import FULL, give
from test_grading_record import silent
from test_grading_tiny import LAB, tiny_course

from grading.author import author
from grading.cli import main
from grading.course import Course, write_whole
from grading.demonstration import hand_in
from grading.ingest import LARGEST_NOTEBOOK
from grading.record import grade

ROW = "ann,01,2026-01-01T00:00\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_course(tmp_path_factory.mktemp("tiny") / "course")


@pytest.fixture
def course(tmp_path, tiny):
    shutil.copytree(tiny.root, tmp_path / "course")
    return Course(tmp_path / "course")


def call(course, *words):
    with pytest.raises(SystemExit) as stop:
        main([word.replace("@", str(course.root)) for word in words], course.root)
    return stop.value.code


def put(place, content):
    """A preparation: this content at this place of the course; None takes away what is there."""

    def prepare(course):
        path = course.root / place
        if content is None:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            write_whole(path, content)

    return prepare


def both(*preparations):
    def prepare(course):
        for each in preparations:
            each(course)

    return prepare


def as_it_is(course):
    """No preparation."""


def handed_in(course):
    """A folder `in` with one submission."""
    write_whole(course.root / "in" / "ann.ipynb", hand_in(course.lab("01"), "solution"))


def empty_folder(course):
    (course.root / "in").mkdir()


def empty_zip(course):
    zipfile.ZipFile(course.root / "in.zip", "w").close()


def zip_of_tricks(course):
    """A path that leads out, an absolute one, a link, and a notebook that unpacks to 20 MB of blanks."""
    with zipfile.ZipFile(course.root / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../eve.ipynb", "{}")
        archive.writestr("/etc/eve.ipynb", "{}")
        link = zipfile.ZipInfo("eve/lab01_tiny.ipynb")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bob/lab01_tiny.ipynb", " " * LARGEST_NOTEBOOK)


def two_labs_of_one_number(course):
    write_whole(course.root / "solutions" / "lab01_other" / "lab01_other.ipynb", "{}")


def graded(course):
    give(course, "ann", FULL)


SOLUTION, RELEASE = f"solutions/{LAB}/{LAB}.ipynb", f"labs/{LAB}/{LAB}.ipynb"
CHAPTER, CHECKS = "notebooks/01_tiny.ipynb", f"grading/checks/{LAB}.py"
RESULT, WORK = f"grading/_work/results/ann/{LAB}/result.json", "grading/_work"
COLLECT = ("collect", "@/in", "--lab", "01")

# The words of the command, what was wrong with the course, and what the sentence says.
TABLE = [
    *[(("preflight", name), as_it_is, "there is no lab") for name in ("99", "", "../01", "(", ".*", "01\n", "lab01/")],
    (("preflight", "01"), two_labs_of_one_number, "write the whole name"),
    (("preflight",), put("solutions", None), "grading author labNN_stem"),
    (("labs",), put("solutions", None), "grading author labNN_stem"),
    (("labs", "--check"), put(RELEASE, "{}"), "run `grading labs`"),
    (("demo",), put("solutions", None), "run `grading labs`"),
    *[
        ((*words,), put(place, content), sentence)
        for words in (("preflight",), ("release", "01"), ("demo",))
        for place, content, sentence in (
            (SOLUTION, '{"cells": [', "is not a notebook"),
            (SOLUTION, b"\xff\xfe\x00", "is not a notebook"),
            (RELEASE, "[]", "is not a notebook"),
            (CHECKS, "def (", "do not load: SyntaxError"),
            (CHECKS, b'x = "\xff"', "do not load"),
            (CHECKS, "raise SystemExit(0)", "do not load: SystemExit"),
            (CHECKS, "x = 1", "do not load: AttributeError"),
            (CHECKS, "QUESTIONS = [1]", "is no list of questions"),
            (CHECKS, "QUESTIONS = []", "is no list of questions"),
        )
    ],
    (("labs",), put(SOLUTION, '{"cells": ['), "is not a notebook"),
    (("labs",), put(SOLUTION, '{"cells": []}'), "has no answer cell"),
    (("preflight",), put(CHECKS, None), "write the checks first"),
    (("preflight",), put(CHAPTER, b"\xff"), "is not a notebook"),
    (("release", "07"), as_it_is, "there is no lab"),
    (("author", "lab1_x"), as_it_is, "write labNN_stem"),
    (("author", "lab01_other"), as_it_is, "is lab01_tiny already"),
    (("author", LAB), as_it_is, "exists already"),
    (("collect", "@/nowhere"), as_it_is, "neither a folder nor a zip"),
    (("collect", "@/in"), put("in", "no zip"), "neither a folder nor a zip"),
    (("collect", "@/in"), empty_folder, "could be taken"),
    (("collect", "@/in.zip"), empty_zip, "could be taken"),
    (("collect", "@/in.zip"), zip_of_tricks, "could be taken"),
    (("collect", "@/in", "--lab", "77"), handed_in, "there is no lab"),
    ((*COLLECT, "--due", "soon"), handed_in, "is not a time"),
    ((*COLLECT, "--due", ""), handed_in, "is not a time"),
    ((*COLLECT, "--late-per-day", "nan"), handed_in, "at least 0"),
    ((*COLLECT, "--attempts", "0"), handed_in, "at least 1"),
    ((*COLLECT, "--extensions", "@/nowhere.csv"), handed_in, "cannot be read"),
    *[
        ((*COLLECT, "--due", "2026-01-01T00:00", "--extensions", "@/roster.csv"),
         both(handed_in, put("roster.csv", rows)), sentence)
        for rows, sentence in (
            (b"\xff\xfe", "cannot be read"),
            ("ann,01\n", "has 2 entries"),
            ("ann,01,soon\n", "is not a time"),
            ("ann,99,2026-01-01T00:00\n", "there is no lab"),
            (ROW + ROW, "a second time"),
            ("=cmd(),01,2026-01-01T00:00\n", "names '=cmd"),
            ('"ann,\nlee",01,2026-01-01T00:00\n', "names"),
            ("\u202eann,01,2026-01-01T00:00\n", "names"),
        )
    ],
    (COLLECT, both(handed_in, put(f"{WORK}/receipts.csv", b"\xff")), "is damaged"),
    (COLLECT, both(handed_in, put(f"{WORK}/receipts.csv", "a,b\n1,2\n")), "lacks one of"),
    ((*COLLECT, "--attempts", "3"), both(handed_in, put(f"{WORK}/policy.json", "{")), "is damaged"),
    ((*COLLECT, "--attempts", "3"), both(handed_in, put(f"{WORK}/policy.json", '{"lab01_tiny": {"x": 1}}')), "policy"),
    (COLLECT, both(handed_in, put(WORK, None), put(WORK, "a file")), "File exists|Not a directory"),
    (("grade", "@/nowhere"), as_it_is, "is not a folder"),
    (("grade", "@/no\nwhere"), as_it_is, "is not a folder"),
    (("grade", "@/in"), put("in", "a file"), "is not a folder"),
    (("grade", "@/in"), empty_folder, "holds no submission"),
    (("grade", "@/in"), handed_in, "holds no submission"),
    (("grade", "@/in"), put("in/ann/lab99_x/lab99_x.ipynb", "{}"), "holds no lab of this course"),
    (("export", "xls"), graded, "there is no format"),
    (("export", "csv"), as_it_is, "has no grades yet"),
    (("export", "csv", "--lab", "44"), graded, "there is no lab"),
    (("export", "csv", "--out", "@/labs"), graded, "is a folder"),
    (("export", "csv", "--out", f"@/{CHECKS}/x.csv"), graded, "Not a directory|File exists"),
    (("feedback", "@/nowhere"), as_it_is, "is no exchange of this course"),
    (("feedback", "@/labs"), as_it_is, "is no exchange of this course"),
    (("report",), as_it_is, "has no grades yet"),
    (("report", "--lab", "44"), graded, "there is no lab"),
    *[
        (words, put(RESULT, damage), "is damaged")
        for words in (("export", "csv"), ("report",))
        for damage in ("{", "[]", "{}", '{"key": "k"}', b"\xff")
    ],
    (("export", "csv"), both(graded, put(f"{WORK}/gradebook.db", "no database")), "gradebook cannot be used"),
]


def listing(course):
    """Every file of the course but the lock and the key, with its bytes."""
    files = (path for path in course.root.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    kept = (path for path in files if path.name not in ("lock", "secret"))
    return {path.relative_to(course.root).as_posix(): path.read_bytes() for path in kept}


@pytest.mark.parametrize(("words", "prepare", "sentence"), TABLE, ids=lambda value: " ".join(value)
                         if isinstance(value, tuple) else "" if callable(value) else value[:20])
def test_bad_input_gets_one_sentence_and_changes_nothing(course, capsys, words, prepare, sentence):
    prepare(course)
    before = listing(course)
    assert call(course, *words) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(sentence, said) and "Traceback" not in said, said
    assert listing(course) == before


def test_every_command_is_in_the_table(capsys):
    """So a command that is added later has to say what bad input gets."""
    with pytest.raises(SystemExit):
        main(["--help"])
    known = set(re.findall(r"^    (\w+)\b", capsys.readouterr().out, re.M))
    assert known == {words[0] for words, _, _ in TABLE}


@pytest.mark.parametrize("place", ["solutions", "notebooks", "grading/checks", "labs"])
def test_author_takes_back_what_it_wrote_when_a_room_cannot_be_written(tmp_path, place):
    """A file stands where a room should be, which is as good as a folder that cannot be written."""
    write_whole(tmp_path / place, "in the way")
    with pytest.raises(OSError, match=r"exists|directory"):
        author(Course(tmp_path), "lab07_x")
    kept = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == {place}


# --- what comes from students never stops the run ---


def notebook_with(source, **more):
    """A notebook of one cell that fills in `double`."""
    marks = {"nbgrader": {"grade_id": "double", "solution": True}}
    return json.dumps({"cells": [{"cell_type": "code", "id": "double", "metadata": marks, "source": source} | more]})


FILES = {  # what a student hands in as LAB.ipynb
    "empty": b"",
    "truncated": notebook_with("double = 1")[:60].encode(),
    "foreign": b"%PDF-1.7 \x00\xff",
    "not-utf8": b'{"cells": [{"cell_type": "code", "source": "\xff\xfe"}]}',
    "a-list": b"[]",
    "deep": b'{"cells": ' + b"[" * 100_000,
    "long-number": b'{"cells": ' + b"9" * 10_000 + b"}",
    "cells-are-text": b'{"cells": ["x", 1, null]}',
    "oversized": b" " * (LARGEST_NOTEBOOK + 1),
    "odd-fields": notebook_with(["a", 1], id=7, metadata=[]).encode(),
    "half-character": notebook_with("def double(x):\n    return '\ud800'").encode(),
    "nul": notebook_with("double = '\x00'").encode(),
    "right-to-left": notebook_with("double = '\u202e\u2066'  # \u200f").encode(),
}


def strange_folders(folder):
    """What else a student's folder may be: a name that is not UTF-8, a folder in place of the file, a pipe."""
    (folder / "pipe" / LAB).mkdir(parents=True)
    os.mkfifo(folder / "pipe" / LAB / f"{LAB}.ipynb")
    (folder / "nested" / LAB / f"{LAB}.ipynb").mkdir(parents=True)
    (folder / "bytes" / LAB).mkdir(parents=True)
    name = os.path.join(os.fsencode(folder / "bytes" / LAB), b"\xff\n.ipynb")
    with open(name, "wb") as file:
        file.write(FILES["truncated"])


def test_whatever_is_handed_in_the_run_goes_on_and_says_what_was_odd(course, parent):
    folder = course.work / "submitted"
    for student, data in FILES.items():
        write_whole(folder / student / LAB / f"{LAB}.ipynb", data)
    strange_folders(folder)
    write_whole(folder / "zoe" / LAB / f"{LAB}.ipynb", hand_in(course.lab("01"), "solution"))
    done = grade(course, folder, parent, silent)
    found = {result["student"]: result for result in done.results}
    assert set(found) == {*FILES, "pipe", "nested", "bytes", "zoe"}
    assert found.pop("zoe")["points"] == 90
    assert {result["points"] for result in found.values()} == {0}
    readable = {"half-character", "nul", "right-to-left", "odd-fields"}
    for student, result in found.items():
        flags = " ".join(result["flags"])
        assert student in readable or "graded as blank" in flags, (student, flags)
        assert flags.isprintable(), student
    assert all((done.feedback / student / f"{LAB}.html").is_file() for student in found)
    before = {path: path.read_bytes() for path in course.work.rglob("*.json")}
    assert grade(course, folder, parent, silent).n_judged == 0
    assert {path: path.read_bytes() for path in course.work.rglob("*.json")} == before
