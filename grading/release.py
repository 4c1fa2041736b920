"""What students get: the generated notebook and a page that says how to work, as a folder and as a zip."""

import io
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from grading.course import PARTS_POINTS, Course, CourseError, Lab, read_cells, write_whole
from grading.gradebook import generate

REGION = re.compile(r"^[^\n]*\bBEGIN (SOLUTION|HIDDEN TESTS|MARK SCHEME)\b.*?\bEND \1\b[^\n]*$", re.S | re.M)
STUBS = {"# YOUR CODE HERE", "raise NotImplementedError()", "YOUR ANSWER HERE"}  # nbgrader's
README = """# {title}

This folder holds the lab `{name}.ipynb` and this page.

1. Open the notebook in JupyterLab, in the environment of the class.
2. Write in the cells that hold `YOUR CODE HERE` or `YOUR ANSWER HERE`. Cells of your own are welcome between them.
3. Run the test under each answer. It names the likely mistake. Hints unfold in three steps.
4. At the end choose *Kernel > Restart Kernel and Run All Cells*, save, and hand in the file under its name.

Leave the cells that are there in their place, and their tests as they are: only your answers are read.
Your instructor runs them again with other inputs. What a cell prints, warns or draws costs no points.

Points: {points}.
"""


@dataclass(frozen=True)
class Bundle:
    """A released lab: where it lies, what it holds, and whether anything changed."""

    folder: Path
    archive: Path
    names: list[str]
    changed: bool


def bundle(course: Course, lab: Lab) -> Bundle:
    """Write the lab's bundle under release/; the same sources give the same bytes.

    Raises  CourseError if the generated lab is not the one in labs/ or holds anything of an answer.
    """
    with tempfile.TemporaryDirectory(prefix="grading-") as scratch:
        fresh = generate(course, lab.name, Path(scratch))
        files = {p.relative_to(fresh).as_posix(): p.read_bytes() for p in sorted(fresh.rglob("*")) if p.is_file()}
    notebook = files[f"{lab.name}.ipynb"]
    if notebook != lab.release_path.read_bytes():
        raise CourseError(f"labs/{lab.name} differs from what solutions/ generates; run `grading labs`")
    if lines := foreign_lines(lab, notebook):
        raise CourseError(f"the lab would give away {lines[0]!r}; put it between BEGIN SOLUTION and END SOLUTION")
    files.setdefault("README.md", student_readme(lab).encode())
    target = course.work / "release" / lab.name
    stale = [p for p in target.rglob("*") if p.is_file() and p.relative_to(target).as_posix() not in files]
    for path in stale:
        path.unlink()
    changed = [write_whole(target / name, files[name]) for name in sorted(files)]
    archive = target.with_name(f"{lab.name}.zip")
    changed.append(write_whole(archive, to_zip(lab.name, files)))
    return Bundle(target, archive, sorted(files), any(changed) or bool(stale))


def student_readme(lab: Lab) -> str:
    points = ", ".join(f"{part} {points}" for part, points in PARTS_POINTS.items())
    return README.format(title=lab.title, name=lab.name, points=points)


def foreign_lines(lab: Lab, notebook: bytes) -> list[str]:
    """Lines of a generated notebook that come from nowhere a student may look.

    Allowed are the lines of the solution outside its answers and its cells for instructors, and nbgrader's stubs.
    """
    allowed = set(STUBS)
    for cell in lab.solution:
        if "instructor" not in cell.tags and not (cell.is_open and cell.kind == "markdown"):
            source = REGION.sub("", cell.source)
            whole_is_answer = cell.is_open and source == cell.source
            allowed.update([] if whole_is_answer else _lines(source))
    return [line for cell in read_cells(notebook) for line in _lines(cell.source) if line not in allowed]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def to_zip(folder: str, files: dict[str, bytes]) -> bytes:
    """A zip in which every file lies under `folder`: in order, without times, the same bytes everywhere."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(f"{folder}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, files[name])
    return made.getvalue()
