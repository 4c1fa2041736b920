"""Taking in what comes back: whose it is, when it came, what is kept, and what is never written."""

import csv
import getpass
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
from nbgrader.api import Gradebook
from test_grading_tiny import LAB

from grading import inbox
from grading.cli import main
from grading.collect import Terms, collect, read_receipts
from grading.course import CourseError
from grading.day import show_late
from grading.demonstration import hand_in
from grading.exchange import pages_to_exchange, to_exchange
from grading.gradebook import LatePenalty, quiet_nbgrader
from grading.inbox import HandedIn, Member, Refused, recognize
from grading.ingest import MOST_CELLS
from grading.lateness import from_stamp, in_words, to_moment
from grading.record import grade
from grading.release import bundle

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
DUE = "2026-10-01 11:00:00 UTC"
LABS = ["lab00_journey", "lab01_neuron", "lab01_neuron_b"]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "handed-in"
    folder.mkdir()
    return folder


def silent(line):
    """Where a run tells its progress to nobody."""


def notebook(course, kind="solution", mark=""):
    made = json.loads(hand_in(course.lab("01"), kind))
    made["metadata"]["mark"] = mark
    return json.dumps(made).encode()


def put(source, name, data):
    path = source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def take(course, source, now=NOON, lab="", **terms):
    return collect(course, source, lab, Terms(**terms), now, silent)


def in_zip(path, files, **fields):
    """A zip with these files; `fields` are set on each entry."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name, date_time=(2026, 9, 30, 8, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            for field, value in fields.items():
                setattr(info, field, value)
            archive.writestr(info, data)
    return path


def everything_in(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def submitted(course, student="ada"):
    return course.work / "submitted" / student / LAB


def held(course):
    """(student, lab) of everything that lies under submitted/."""
    return sorted(path.parts[-3] for path in (course.work / "submitted").glob(f"*/{LAB}/{LAB}.ipynb"))


# --- laws ---


def test_a_second_run_changes_nothing(course, source):
    put(source, f"ada/{LAB}/{LAB}.ipynb", notebook(course))
    put(source, "bob.ipynb", notebook(course, "noisy"))
    put(source, f"eve/{LAB}.ipynb", b"broken")
    assert len(take(course, source, lab=LAB, due=DUE).taken) == 3
    before = everything_in(course.work)
    again = take(course, source, NOON + timedelta(days=9), lab=LAB, due=DUE)
    assert (again.taken, again.n_known) == ([], 3)
    assert everything_in(course.work) == before


def test_bytes_that_were_received_once_are_never_a_new_attempt(course, source, tmp_path):
    old, new = tmp_path / "old.zip", tmp_path / "new.zip"
    in_zip(old, [(f"ada/{LAB}.ipynb", notebook(course, "blank"))])
    in_zip(new, [(f"ada/{LAB}.ipynb", notebook(course))])
    said = [take(course, path).said for path in (old, new, new, old)]
    assert said[:3] == [[], [], []]
    assert len(said[3]) == 1 and f"ada/{LAB} is attempt 1 again, but attempt 2 counts" in said[3][0]
    assert (submitted(course) / f"{LAB}.ipynb").read_bytes() == notebook(course)
    assert [r["attempt"] for r in read_receipts(course.work)] == ["1", "2"]


def test_every_attempt_is_kept_and_the_last_counts(course, source):
    for n in range(3):
        put(source, f"ada/{LAB}.ipynb", notebook(course, mark=str(n)))
        take(course, source, NOON + timedelta(hours=n))
    kept = course.work / "attempts" / "ada" / LAB
    assert [(kept / n / f"{LAB}.ipynb").read_bytes() for n in "123"] == [notebook(course, mark=m) for m in "012"]
    assert (submitted(course) / f"{LAB}.ipynb").read_bytes() == notebook(course, mark="2")
    assert (submitted(course) / "timestamp.txt").read_text() == "2026-10-01 14:00:00 UTC\n"
    assert (kept / "1" / "timestamp.txt").read_text() == "2026-10-01 12:00:00 UTC\n"


def test_the_time_is_the_collectors_whatever_the_student_wrote(course, source):
    put(source, f"ada/{LAB}/timestamp.txt", b"1999-01-01 00:00:00 UTC")
    path = put(source, f"ada/{LAB}/{LAB}.ipynb", notebook(course))
    os.utime(path, (0, 0))
    said = take(course, source, trust_file_times=True).said
    assert (submitted(course) / "timestamp.txt").read_text() == "2026-10-01 12:00:00 UTC\n"
    assert any("timestamp.txt" in sentence for sentence in said)


def test_a_receipt_names_the_bytes(course, source):
    put(source, f"ada/{LAB}.ipynb", notebook(course))
    (receipt,) = take(course, source).taken
    digest = hashlib.sha256(notebook(course)).hexdigest()
    wanted = {"sha256": digest, "student": "ada", "lab": LAB, "attempt": "1", "received": "2026-10-01 12:00:00 UTC"}
    assert wanted.items() <= receipt.items()
    text = (course.work / "attempts" / "ada" / LAB / "1" / "receipt.txt").read_text()
    assert all(value in text for value in wanted.values())
    with (course.work / "receipts.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [receipt]


@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_nothing_is_written_outside_and_no_file_stops_the_run(course, source, tmp_path, as_zip, monkeypatch):
    monkeypatch.setattr(inbox, "LARGEST_NOTEBOOK", 200_000)
    good, secret = notebook(course), tmp_path / "secret"
    secret.write_text("do not read me")
    names = {
        f"../{LAB}.ipynb": good, f"/etc/{LAB}.ipynb": good, f"ada/../../x/{LAB}.ipynb": good, "C:\\x.ipynb": good,
        f"eve\\{LAB}.ipynb": good, f"bell\x07/{LAB}.ipynb": good,
    }  # fmt: skip
    both = {
        f"ann lee/{LAB}.ipynb": good, f"=cmd/{LAB}.ipynb": good, f"-rf/{LAB}.ipynb": good,
        f"{'x' * 90}/{LAB}.ipynb": good, f"big/{LAB}.ipynb": b" " * 200_001, f"{LAB}.ipynb": good,
        "ann/notes.pdf": b"x", "ann/essay.ipynb": good,
        f"deep/{LAB}/a/b/{LAB}.ipynb": good, f"__MACOSX/ann/._{LAB}.ipynb": b"x", f"ann/{LAB}.ipynb": b"\xff\x00",
        f"zoe/{LAB}.ipynb": good,
    }  # fmt: skip
    if as_zip:
        path = in_zip(tmp_path / "all.zip", [*names.items(), *both.items()])
        link = zipfile.ZipInfo(f"link/{LAB}.ipynb")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(link, str(secret))
    else:
        path = source
        for name, data in both.items():
            put(source, name, data)
        for link in ("link", "dirlink", "fifo"):
            (source / link).mkdir()
        (source / "link" / f"{LAB}.ipynb").symlink_to(secret)
        (source / "dirlink" / LAB).symlink_to(tmp_path)
        os.mkfifo(source / "fifo" / f"{LAB}.ipynb")
    before = {p for p in tmp_path.rglob("*") if course.work not in p.parents}
    said = take(course, path).said
    assert {p for p in tmp_path.rglob("*") if course.work not in p.parents} == before
    assert held(course) == ["ann", "zoe"]
    n_refused = len(both) - 3 + (len(names) + 1 if as_zip else 3)  # two are taken, one is noise, one is flagged
    assert len(said) == n_refused + 1
    assert all(sentence.count("\n") == 0 and sentence.isprintable() for sentence in said)
    assert not any("do not read me" in p.read_text(errors="ignore") for p in course.work.rglob("*") if p.is_file())


# --- zip ---


def test_a_zip_bomb_is_refused_before_it_grows(course, tmp_path):
    path = in_zip(tmp_path / "bomb.zip", [(f"eve/{LAB}.ipynb", b" " * 15_000_000), (f"huge/{LAB}.ipynb", b"0" * 2**25),
                                          (f"ada/{LAB}.ipynb", notebook(course))])
    said = "\n".join(take(course, path).said)
    assert "unpacks to more than 200 times" in said and "larger than 20,971,520 bytes" in said
    assert held(course) == ["ada"]


def test_a_zip_that_lies_about_sizes_or_is_damaged_is_refused_file_by_file(course, tmp_path):
    path = in_zip(tmp_path / "all.zip", [(f"eve/{LAB}.ipynb", notebook(course, mark="x" * 999)),
                                         (f"ada/{LAB}.ipynb", notebook(course))])
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 5)  # the size that the directory claims
    path.write_bytes(data)
    said = take(course, path).said
    assert held(course) == ["ada"] and len(said) == 1 and "damaged" in said[0]


def test_too_many_files_or_bytes_are_told_and_the_rest_is_taken(course, tmp_path, monkeypatch):
    monkeypatch.setattr(inbox, "MOST_FILES", 3)
    path = in_zip(tmp_path / "all.zip", [(f"s{n}/{LAB}.ipynb", notebook(course, mark=str(n))) for n in range(5)])
    assert "more than 3 files" in take(course, path).said[0]
    assert held(course) == ["s0", "s1", "s2"]
    monkeypatch.setattr(inbox, "MOST_FILES", 9)
    monkeypatch.setattr("grading.collect.MOST_BYTES", 10)
    assert len(take(course, path).said) == 4


def test_no_zip_and_no_folder_is_one_sentence(course, tmp_path, capsys):
    (tmp_path / "x.zip").write_bytes(b"PK no zip")
    for name in ("x.zip", "missing"):
        with pytest.raises(SystemExit) as stop:
            main(["collect", str(tmp_path / name)], course.root)
        said = capsys.readouterr().err
        assert stop.value.code == 1 and said.count("\n") == 1 and "neither a folder nor a zip" in said


def test_the_time_in_the_zip_counts_only_if_trusted_and_never_lies_ahead(course, tmp_path):
    extended = struct.pack("<HHBI", 0x5455, 5, 1, int((NOON - timedelta(days=2)).timestamp()))
    path = in_zip(tmp_path / "a.zip", [(f"ada/{LAB}.ipynb", notebook(course))], extra=extended)
    take(course, path, trust_file_times=True)
    assert (submitted(course) / "timestamp.txt").read_text() == "2026-09-29 12:00:00 UTC\n"
    ahead = in_zip(tmp_path / "b.zip", [(f"bob/{LAB}.ipynb", notebook(course))], date_time=(2030, 1, 1, 0, 0, 0))
    take(course, ahead, trust_file_times=True)
    assert (submitted(course, "bob") / "timestamp.txt").read_text() == "2026-10-01 12:00:00 UTC\n"
    none = in_zip(tmp_path / "c.zip", [(f"cem/{LAB}.ipynb", notebook(course))], date_time=(1980, 0, 0, 0, 0, 0))
    take(course, none, trust_file_times=True)
    assert (submitted(course, "cem") / "timestamp.txt").read_text() == "2026-10-01 12:00:00 UTC\n"


# --- whose it is ---


@pytest.mark.parametrize(
    ("name", "student", "lab", "remark"),
    [
        ("ada/lab01_neuron/lab01_neuron.ipynb", "ada", "lab01_neuron", ""),
        ("ada/lab01_neuron/Untitled.ipynb", "ada", "lab01_neuron", "named"),
        ("ada/lab01_neuron_b.ipynb", "ada", "lab01_neuron_b", ""),
        ("ada/lab01_neuron (2).ipynb", "ada", "lab01_neuron", "named"),
        ("leeann_12345_67890_lab01_neuron.ipynb", "leeann-12345", "lab01_neuron", ""),
        ("leeann_LATE_12345_67890_lab01_neuron-1.ipynb", "leeann-12345", "lab01_neuron", "late"),
        ("josé_12345_67890_lab01_neuron.ipynb", "josé-12345", "lab01_neuron", ""),
        ("anon_x7Ab2_67890_lab01_neuron.ipynb", "anon-x7Ab2", "lab01_neuron", ""),
        ("LATE_anon_x7Ab2_67890_lab01_neuron.ipynb", "anon-x7Ab2", "lab01_neuron", "late"),
        ("Ann Lee_1234_assignsubmission_file_/lab01_neuron.ipynb", "Ann-Lee-1234", "lab01_neuron", ""),
        ("Ann Lee_1234_assignsubmission_file/lab01_neuron.ipynb", "Ann-Lee-1234", "lab01_neuron", ""),
        ("Ann Lee_1234_assignsubmission_file_/my/own/lab00_journey.ipynb", "Ann-Lee-1234", "lab00_journey", ""),
        ("Zoë O'Hara_7_assignsubmission_file_lab00_journey.ipynb", "Zoë-O-Hara-7", "lab00_journey", ""),
        ("Participant_1234_assignsubmission_file_/lab00_journey.ipynb", "Participant-1234", "lab00_journey", ""),
    ],
)  # fmt: skip
def test_a_name_says_whose_it_is_and_which_lab(name, student, lab, remark):
    found = recognize(Member(name, bytes), LABS, "")
    assert (found.student, found.lab) == (student, lab)
    assert remark in found.remark and bool(remark) == bool(found.remark)


@pytest.mark.parametrize("below", ["{}.ipynb", "{}/any.ipynb", "{}/LAB/LAB.ipynb", "{}_1_2_LAB.ipynb",
                                   "{} Lee_1_assignsubmission_file_/x.ipynb"])
def test_a_folder_around_the_class_is_no_student(course, tmp_path, below):
    names = [f"submissions/{below.format(student).replace('LAB', LAB)}" for student in ("ann", "bob")]
    path = in_zip(tmp_path / "all.zip", [(name, notebook(course, mark=name)) for name in names] + [
        ("__MACOSX/._x.ipynb", b""), ("submissions/readme.txt", b"")])
    said = take(course, path, lab=LAB).said
    assert "lie in submissions/, which was taken for a folder around the class" in said[0]
    assert len(held(course)) == 2 and [name[:3] for name in held(course)] == ["ann", "bob"]


@pytest.mark.parametrize("name", ["submissions/ann/LAB.ipynb", "submissions/ann/LAB/LAB.ipynb"])
def test_what_may_be_a_folder_around_the_class_or_a_student_is_refused_before_anything_is_taken(course, source, name):
    put(source, name.replace("LAB", LAB), notebook(course))
    with pytest.raises(CourseError, match="either may be the student's name"):
        take(course, source)
    assert not (course.work / "receipts.csv").exists()


def test_a_students_folder_is_no_folder_around_the_class(course, source):
    put(source, f"ada/{LAB}/{LAB}.ipynb", notebook(course))
    put(source, "ada/essay.ipynb", notebook(course, mark="essay"))
    take(course, source)
    assert held(course) == ["ada"]


@pytest.mark.parametrize("name", ["ada.ipynb", "ada/essay.ipynb", "leeann_1_2_essay.ipynb"])
def test_a_name_without_a_lab_needs_one_named(name):
    with pytest.raises(Refused, match="add --lab"):
        recognize(Member(name, bytes), LABS, "")
    assert recognize(Member(name, bytes), LABS, "lab00_journey").lab == "lab00_journey"


def test_a_long_odd_name_is_judged_at_once():
    with pytest.raises(Refused, match="add --lab"):
        recognize(Member(f"ada/lab01_neuron{'1 ' * 20_000}{'1' * 20_000}x.ipynb", bytes), LABS, "")
    with pytest.raises(Refused) as refused:
        recognize(Member(f"{'_1' * 20_000}/lab01_neuron.ipynb", bytes), LABS, "")
    assert len(str(refused.value)) < 300


def test_another_lab_than_the_one_asked_for_is_left_out():
    with pytest.raises(Refused, match="is lab01_neuron and was left out"):
        recognize(Member("ada/lab01_neuron.ipynb", bytes), LABS, "lab00_journey")


def test_of_several_files_of_a_student_the_last_upload_counts(course, tmp_path):
    names = [f"leeann_5_{upload}_{LAB}{more}.ipynb" for upload, more in ((90, ""), (101, "-1"), (9, "-2"))]
    path = in_zip(tmp_path / "c.zip", [(name, notebook(course, mark=name)) for name in names])
    said = take(course, path).said
    assert (submitted(course, "leeann-5") / f"{LAB}.ipynb").read_bytes() == notebook(course, mark=names[1])
    assert sum("is the same student's" in sentence for sentence in said) == 2
    exact = HandedIn("ada", LAB, Member(f"ada/{LAB}.ipynb", bytes))
    assert exact.rank > HandedIn("ada", LAB, Member(f"ada/{LAB} (1).ipynb", bytes)).rank


def test_a_notebook_that_cannot_be_read_is_kept_but_replaces_none_that_can(course, source):
    put(source, f"ada/{LAB}.ipynb", notebook(course))
    take(course, source)
    put(source, f"ada/{LAB}.ipynb", notebook(course)[:999])
    assert "cannot be read" in take(course, source).said[0]
    assert (submitted(course) / f"{LAB}.ipynb").read_bytes() == notebook(course)
    assert [r["readable"] for r in read_receipts(course.work)] == ["yes", "no"]


def test_what_would_be_graded_as_blank_replaces_no_good_attempt_and_uses_up_none(course, source):
    good, stranger = json.loads(notebook(course)), {"cells": [{"cell_type": "code", "id": "x", "source": "x = 1"}]}
    many = good | {"cells": good["cells"] * (MOST_CELLS // len(good["cells"]) + 1)}
    for data in (good, many, stranger, {"cells": []}):
        put(source, f"ada/{LAB}.ipynb", json.dumps(data).encode())
        collected = take(course, source, attempts=2)
        assert data is good or "cannot be read as a notebook of this lab" in collected.said[0]
    assert json.loads((submitted(course) / f"{LAB}.ipynb").read_bytes()) == good
    put(source, f"ada/{LAB}.ipynb", notebook(course, "noisy"))
    assert [receipt["attempt"] for receipt in take(course, source).taken] == ["5"]
    assert (submitted(course) / f"{LAB}.ipynb").read_bytes() == notebook(course, "noisy")


def test_a_run_that_is_killed_is_put_right_by_the_next(course, source, monkeypatch):
    put(source, f"ada/{LAB}.ipynb", notebook(course))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("grading.collect._Inbox.publish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        take(course, source)
    assert held(course) == []
    assert take(course, source).n_known == 1
    assert held(course) == ["ada"]


# --- attempts, due times, penalties ---


def test_attempts_beyond_the_cap_are_left_out_and_the_cap_is_kept(course, source):
    for n in range(3):
        put(source, f"ada/{LAB}.ipynb", notebook(course, mark=str(n)))
        collected = take(course, source, attempts=2 if n == 0 else None)
    assert collected.said == [f"ada/{LAB} was left out, because 2 of at most 2 attempts are taken"]
    assert (submitted(course) / f"{LAB}.ipynb").read_bytes() == notebook(course, mark="1")


def graded_points(course, parent):
    with grade(course, course.work / "submitted", parent, silent).grades.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {row["student"]: (row["points"], row["hours_late"], row["late_penalty"]) for row in rows}


def test_lateness_is_flagged_and_costs_only_what_was_decided(course, source, parent, tmp_path, capsys):
    for student in ("ada", "bob", "cem"):
        put(source, f"{student}/{LAB}.ipynb", notebook(course))
    put(source, f"dan/{LAB}.ipynb", notebook(course, "blank"))
    csv_file = tmp_path / "extensions.csv"
    csv_file.write_text("STUDENT,LAB,DUE\nbob,01,2026-10-03T00:00Z\ncem,lab01,2026-10-01T11:30:00+00:00\n")
    collected = take(course, source, due="2026-09-30 11:00:00 UTC", extensions=csv_file)
    assert {s: in_words(late) for (s, _), late in collected.late.items()} == {
        "ada": "1 day 1 hour", "cem": "30 minutes", "dan": "1 day 1 hour"}  # fmt: skip
    hours = {"ada": "25", "bob": "0", "cem": "0.5", "dan": "25"}
    flagged = {student: ("0" if student == "dan" else "90", late, "0") for student, late in hours.items()}
    assert graded_points(course, parent) == flagged
    with quiet_nbgrader(), Gradebook(f"sqlite:///{course.work / 'gradebook.db'}", "seed-class") as book:
        mark = book.find_grade("why", LAB, LAB, "ada")
        mark.manual_score, mark.needs_manual_grade = 8, False
        book.db.commit()
    take(course, source, late_per_day=10)
    points = graded_points(course, parent)
    assert points["bob"] == ("90", "0", "0") and points["cem"] == ("80", "0.5", "10")
    assert points["ada"] == ("78", "25", "20") and points["dan"] == ("0", "25", "0")
    page = (course.work / "feedback" / "ada" / f"{LAB}.html").read_text()
    assert "1 day 1 hour late; points taken for that: 20" in page and "78 of 100" in page
    assert "late" not in (course.work / "feedback" / "bob" / f"{LAB}.html").read_text()
    before = everything_in(course.work)
    assert graded_points(course, parent) == points
    assert everything_in(course.work) == before
    show_late(course.work / "grades.csv")
    said = capsys.readouterr().out
    assert f"ada/{LAB} is 25 hours late, 20 points taken, 78 left" in said and "bob" not in said


def test_a_penalty_follows_the_marks_and_takes_no_more_than_there_is(course, source, parent):
    put(source, f"ada/{LAB}.ipynb", notebook(course))
    put(source, f"bob/{LAB}.ipynb", notebook(course, "blank").replace(b"YOUR ANSWER HERE", b"Because."))
    take(course, source, due=DUE, late_per_day=30)
    assert graded_points(course, parent) == {"ada": ("60", "1", "30"), "bob": ("0", "1", "0")}
    with quiet_nbgrader(), Gradebook(f"sqlite:///{course.work / 'gradebook.db'}", "seed-class") as book:
        overruled = [("ada", f"test-{name}", 0) for name in ("double", "total", "answer-seven")]
        for student, name, points in (("bob", "why", 10), *overruled):
            mark = book.find_grade(name, LAB, LAB, student)
            mark.manual_score, mark.needs_manual_grade = points, False
        book.db.commit()
    assert graded_points(course, parent) == {"ada": ("0", "1", "20"), "bob": ("0", "1", "10")}


def test_an_extension_stays_where_it_is_when_the_due_time_moves(course, source, parent, tmp_path):
    for student in ("ada", "bob"):
        put(source, f"{student}/{LAB}.ipynb", notebook(course))
    csv_file = tmp_path / "extensions.csv"
    csv_file.write_text("ada,01,2026-10-02T00:00Z\n")
    take(course, source, due=DUE, late_per_day=30, extensions=csv_file)
    assert graded_points(course, parent) == {"ada": ("90", "0", "0"), "bob": ("60", "1", "30")}
    take(course, source, due="2026-09-30 11:00:00 UTC")
    assert graded_points(course, parent) == {"ada": ("90", "0", "0"), "bob": ("30", "25", "60")}


def test_a_time_stamp_in_a_folder_that_was_not_collected_is_not_believed(course, source, parent):
    put(source, f"ada/{LAB}/{LAB}.ipynb", notebook(course))
    put(source, f"ada/{LAB}/timestamp.txt", b"1999-01-01 00:00:00 UTC")
    grade(course, source, parent, silent)
    with quiet_nbgrader(), Gradebook(f"sqlite:///{course.work / 'gradebook.db'}", "seed-class") as book:
        assert book.find_submission(LAB, "ada").timestamp is None


def test_a_day_that_has_begun_is_a_day():
    penalty = LatePenalty(points_per_day=10)
    assert [penalty.late_submission_penalty("ada", 90, s) for s in (1, 86_400, 86_401)] == [10, 10, 20]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--due", "tomorrow"], "is not a time"),
        (["--late-per-day", "-1"], "at least 0"),
        (["--late-per-day", "nan"], "at least 0"),
        (["--attempts", "0"], "at least 1"),
        (["--lab", "77"], "there is no lab '77'"),
        (["--extensions", "none.csv"], "cannot be read"),
        (["--due", "2026-10-01"], "add --lab"),
    ],
)
def test_what_an_instructor_mistypes_is_one_sentence_and_nothing_is_collected(course, source, capsys, words, sentence):
    with pytest.raises(SystemExit) as stop:
        main(["collect", str(source), *words], course.root)
    said = capsys.readouterr().err
    assert stop.value.code == 1 and said.count("\n") == 1 and sentence in said
    assert not (course.work / "receipts.csv").exists() and not (course.work / "policy.json").exists()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [("ada,01\n", "line 1 of ex.csv has 2"), ("ada,01,soon\n", "is not a time"), ("ada,99,2026-10-01\n", "no lab '99'"),
     ("ada,01,2026-10-01\n", "give its time with --due first")],
)  # fmt: skip
def test_an_extension_that_cannot_hold_is_one_sentence(course, source, tmp_path, rows, sentence):
    (tmp_path / "ex.csv").write_text(rows)
    with pytest.raises(CourseError, match=re.escape(sentence)):
        take(course, source, extensions=tmp_path / "ex.csv")


def test_a_time_without_a_zone_is_this_machines(monkeypatch):
    assert to_moment("2026-10-01T12:00+02:00") == to_moment("2026-10-01T10:00Z")
    assert to_moment("2026-10-01T12:00") == datetime(2026, 10, 1, 12).astimezone()


# --- nbgrader's exchange ---


@pytest.fixture
def exchange(course, tmp_path):
    root = tmp_path / "exchange"
    to_exchange(course, bundle(course, course.lab("01")), root)
    return root


def inbound(root, student, stamp, data, more=""):
    return put(root / "seed-class" / "inbound", f"{student}+{LAB}+{stamp} UTC{more}/{LAB}.ipynb", data).parent


def test_the_last_submission_in_the_exchange_is_collected(course, exchange):
    me = getpass.getuser()
    inbound(exchange, me, "2026-09-30 10:00:00.000000", notebook(course, "blank"))
    last = inbound(exchange, me, "2026-09-30 11:00:00.000000", notebook(course), "+Ab3x")
    (last / "timestamp.txt").write_text("1999-01-01 00:00:00 UTC")
    collected = take(course, exchange)
    assert collected.said == []
    assert (submitted(course, me) / f"{LAB}.ipynb").read_bytes() == notebook(course)
    assert (submitted(course, me) / "timestamp.txt").read_text() == "2026-10-01 12:00:00 UTC\n"
    before = everything_in(course.work)
    assert take(course, exchange).n_known == 1
    assert everything_in(course.work) == before


def test_the_page_of_an_earlier_attempt_answers_no_later_one(course, exchange, parent, monkeypatch):
    """The run that judges the second attempt is stopped before it writes the page."""
    me, told = getpass.getuser(), []

    def hand_in_and_grade(minute, kind):
        folder = inbound(exchange, me, f"2026-09-30 10:{minute}:00.000000", notebook(course, kind))
        (folder / "submission_secret.txt").write_text(f"the secret of minute {minute}")
        take(course, exchange)
        grade(course, course.work / "submitted", parent, silent)

    def pages():
        return pages_to_exchange(course, exchange, [LAB], told.append)

    hand_in_and_grade(10, "blank")
    assert pages() == (1, 1) and told == []
    monkeypatch.setattr("grading.record.write_pages", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hand_in_and_grade(20, "solution")
    assert pages() == (0, 0) and "is not graded yet" in told[0]
    monkeypatch.undo()
    grade(course, course.work / "submitted", parent, silent)
    assert pages() == (1, 1)


def test_links_and_odd_names_in_the_exchange_are_refused_one_by_one(course, exchange, tmp_path):
    me, secret = getpass.getuser(), course.lab("01").solution_path
    inbound(exchange, me, "2026-09-30 10:00:00.000000", notebook(course))
    evil = inbound(exchange, "eve", "2026-09-30 10:00:00.000000", notebook(course))
    (evil / f"{LAB}.ipynb").unlink()
    (evil / f"{LAB}.ipynb").symlink_to(secret)
    (evil.parent / f"mallory+{LAB}+2026-09-30 10:00:00.000000 UTC").symlink_to(secret.parent)
    inbound(exchange, "yves", "not a time", notebook(course))
    several = inbound(exchange, "zoe", "2026-09-30 10:00:00.000000", notebook(course))
    (several / f"{LAB}.ipynb").rename(several / "a.ipynb")
    (several / "b.ipynb").write_bytes(b"")
    (evil.parent / "junk").mkdir()
    said = "\n".join(take(course, exchange).said)
    assert held(course) == [me]
    for name in ("eve", "mallory", "yves", "zoe", "junk"):
        assert re.search(rf"\b{name}\b.*was refused", said), said
    assert f"eve/{LAB} was put into the exchange by the account {me}" in said


def test_a_folder_exchanged_for_a_link_while_it_is_read_gains_nothing(course, exchange, monkeypatch):
    folder = inbound(exchange, "eve", "2026-09-30 10:00:00.000000", b"mine")
    listdir = os.listdir

    def exchanged(place):
        found = listdir(place)
        if isinstance(place, int):  # the opened folder
            shutil.move(folder, folder.with_name("away"))
            folder.symlink_to(course.lab("01").solution_path.parent)
        return found

    monkeypatch.setattr("grading.exchange.os.listdir", exchanged)
    take(course, exchange)
    assert folder.is_symlink()
    assert (submitted(course, "eve") / f"{LAB}.ipynb").read_bytes() == b"mine"


def test_the_time_in_the_exchange_is_the_systems_and_not_the_students(course, exchange):
    me = getpass.getuser()
    folder = inbound(exchange, me, "1999-09-30 10:00:00.000000", notebook(course))
    os.utime(folder / f"{LAB}.ipynb", (0, 0))
    before = datetime.now(UTC) - timedelta(minutes=1)
    collect(course, exchange, terms=Terms(trust_file_times=True), tell=silent)
    assert from_stamp((submitted(course, me) / "timestamp.txt").read_text().strip()) > before


# --- the command ---


def test_collect_says_what_it_did_what_it_left_and_what_comes_next(course, source, capsys):
    put(source, f"ada/{LAB}.ipynb", notebook(course))
    put(source, "ada/notes.txt", b"x")
    put(course.work, f"submitted/amara/{LAB}/{LAB}.ipynb", notebook(course))
    with pytest.raises(SystemExit) as stop:
        main(["collect", str(source), "--lab", "01", "--due", "2020-01-01T00:00Z"], course.root)
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert "1 taken" in said and "note: no notebook" in said and f"late: ada/{LAB}" in said
    assert "next: grading grade grading/_work/submitted" in said and "1 others lie there" in said
