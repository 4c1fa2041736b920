"""What students get, and what they never get."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from test_grading_tiny import LAB, cell

from grading.cli import main
from grading.course import Course, CourseError
from grading.gradebook import release_labs
from grading.release import bundle, foreign_lines

COURSE = Course(Path(__file__).resolve().parents[1])


def release(course, *words):
    with pytest.raises(SystemExit) as stop:
        main(["release", *words], course.root)
    return stop.value.code


def everything_in(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def bytes_of(made):
    """All that a student could look into: the folder's files, the unpacked zip's, and the zip itself."""
    with zipfile.ZipFile(made.archive) as archive:
        packed = [archive.read(name) for name in archive.namelist()]
    return b"\n".join([*(path.read_bytes() for path in made.folder.rglob("*") if path.is_file()), *packed])


def secrets_of(course, lab):
    """Lines of answers, of cells for instructors and of the checks that the lab's own text does not hold."""
    cells = lab.solution
    hidden = [c.source for c in cells if "instructor" in c.tags or (c.is_open and c.kind == "markdown")]
    hidden += [part for c in cells for part in re.findall(r"BEGIN SOLUTION(.*?)### END SOLUTION", c.source, re.S)]
    for question in lab.questions:
        hidden += [answer.source for answer in (*question.wrong, *question.right)]
        hidden += [wrong.sentence for wrong in question.wrong]
    hidden += [lab.checks_path.read_text(), *(p.read_text() for p in (COURSE.root / "grading" / "zoo").glob("*.py"))]
    shown = "\n".join(
        re.sub(r"### BEGIN SOLUTION.*?### END SOLUTION", "", c.source, flags=re.S)
        for c in cells
        if "instructor" not in c.tags and not (c.is_open and c.kind == "markdown")
    )
    shown += json.dumps(shown, ensure_ascii=False)  # a hint's quotes are escaped in the checks; it is still a hint
    lines = {line.strip(" \t\"',()") for text in hidden for line in re.split(r"\n|\\n", text)}
    return {line for line in lines if len(line) > 7 and line not in shown and not re.fullmatch(r"\W*\w+\W*", line)}


@pytest.mark.parametrize("lab", ["tiny", *COURSE.lab_names])
def test_nothing_of_an_answer_a_check_or_an_instructors_cell_is_in_the_bundle(course, lab):
    if lab != "tiny":
        shutil.copytree(COURSE.root / "solutions" / lab, course.root / "solutions" / lab)
        shutil.copy(COURSE.lab(lab).checks_path, course.root / "grading" / "checks")
        release_labs(course)
    lab = course.lab(LAB if lab == "tiny" else lab)
    told = bytes_of(bundle(course, lab)).decode()
    told += "\n".join(c.source for c in type(lab)(lab.name, course.root).release)  # the text without JSON's escapes
    secrets = secrets_of(course, lab)
    assert len(secrets) > 10
    assert [line for line in secrets if line in told or json.dumps(line)[1:-1] in told] == []
    assert foreign_lines(lab, lab.release_path.read_bytes()) == []
    assert foreign_lines(lab, lab.solution_path.read_bytes())
    notebook = json.loads(lab.release_path.read_bytes())
    assert not any(c.get("outputs") or c.get("attachments") for c in notebook["cells"])


def test_the_bundle_holds_the_generated_notebook_and_a_page_and_is_the_same_each_time(course):
    made = bundle(course, course.lab("01"))
    assert made.names == ["README.md", f"{LAB}.ipynb"]
    assert (made.folder / f"{LAB}.ipynb").read_bytes() == course.lab("01").release_path.read_bytes()
    assert "a tiny lab" in (made.folder / "README.md").read_text()
    before = everything_in(course.work / "release")
    assert not bundle(course, course.lab("01")).changed
    assert everything_in(course.work / "release") == before
    shutil.rmtree(course.work / "release")
    assert bundle(course, course.lab("01")).archive.read_bytes() == before[made.archive][1]
    with zipfile.ZipFile(made.archive) as archive:
        assert [i.filename for i in archive.infolist()] == [f"{LAB}/README.md", f"{LAB}/{LAB}.ipynb"]
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_file_that_is_no_longer_released_leaves_the_bundle(course):
    made = bundle(course, course.lab("01"))
    (made.folder / "old.csv").write_text("1")
    assert bundle(course, course.lab("01")).changed
    assert not (made.folder / "old.csv").exists()


def test_an_edited_lab_is_not_released(course, capsys):
    path = course.lab("01").release_path
    path.write_text(path.read_text().replace("a tiny lab", "a tinier lab"))
    (course.work / "proven" / LAB).write_text(course.lab("01").key)
    assert release(course, "01") == 1
    assert "run `grading labs`" in capsys.readouterr().err
    assert not (course.work / "release").exists()


def test_a_lab_that_was_not_generated_is_one_sentence(course, capsys):
    shutil.rmtree(course.root / "labs")
    assert release(course, "01") == 1
    assert "generate it with `grading labs`" in capsys.readouterr().err


def test_an_answer_that_would_slip_through_is_not_released(course, monkeypatch):
    notebook = json.loads(course.lab("01").release_path.read_bytes())
    notebook["cells"].append(cell("code", "slip", "def double(x):\n    return 2 * x"))
    data = json.dumps(notebook)

    def leaky(course, lab, destination):
        (destination / LAB).mkdir()
        (destination / LAB / f"{LAB}.ipynb").write_text(data)
        return destination / LAB

    course.lab("01").release_path.write_text(data)
    monkeypatch.setattr("grading.release.generate", leaky)
    with pytest.raises(CourseError, match="would give away 'def double"):
        bundle(course, course.lab("01"))


def test_a_lab_that_does_not_prove_itself_is_not_released(course, capsys):
    checks = course.root / "grading" / "checks" / f"{LAB}.py"
    checks.write_text(checks.read_text().replace("return x * x", "return x * 2"))
    assert release(course, "01") == 1
    assert "the wrong answer 'square' is judged right" in capsys.readouterr().out
    assert not (course.work / "release").exists()


def test_release_says_what_it_did_left_and_what_comes_next(course, capsys):
    assert release(course, "01") == 0
    said = capsys.readouterr().out
    assert f"grading/_work/release/{LAB}.zip" in said and "left out" in said and "next: " in said
    assert release(course, "lab01") == 0
    assert "is released already" in capsys.readouterr().out


def test_the_exchange_gets_the_bundle_once(course, tmp_path, capsys):
    root = tmp_path / "exchange"
    assert release(course, "01", "--exchange", str(root)) == 0
    outbound = root / "seed-class" / "outbound" / LAB
    assert sorted(path.name for path in outbound.iterdir()) == ["README.md", f"{LAB}.ipynb"]
    assert (outbound / f"{LAB}.ipynb").read_bytes() == course.lab("01").release_path.read_bytes()
    before = everything_in(root)
    assert release(course, "01", "--exchange", str(root)) == 0
    assert everything_in(root) == before
    assert "was there already" in capsys.readouterr().out
    (outbound / "README.md").write_text("edited")
    assert release(course, "01", "--exchange", str(root)) == 0
    assert "a tiny lab" in (outbound / "README.md").read_text()
