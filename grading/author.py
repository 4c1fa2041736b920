"""A new lab that is whole and passes preflight before its author has changed a word.

It is written from the files in template/: a small real lab on the moving average, its checks, and a chapter that
teaches it. A chapter that is there already is kept, and the questions name its sections.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from grading.course import Course, CourseError, Lab, write_whole
from grading.gradebook import release_labs

TEMPLATE = Path(__file__).parent / "template"
NAME = re.compile(r"lab(\d\d)_([a-z][a-z0-9]*(?:_[a-z0-9]+)*)")
LABEL = re.compile(r"^\(([\w-]+)\)=\s*\n#", re.M)
TEACHES = ("average-window", "average-cost", "average-record")  # the labels of the template's chapter


@dataclass(frozen=True)
class Authored:
    """A lab that was written: its files, and what its author changes next."""

    lab: Lab
    paths: list[Path]
    to_change: list[str]


def author(course: Course, name: str) -> Authored:
    """Write the lab's solution, checks, chapter and released notebook, all or none.

    Raises  CourseError if the name is none or taken, or the chapter that is there has no section to name.
    """
    number, stem = _number_and_stem(course, name)
    lab = Lab(name, course.root)
    if there := [path for path in (lab.solution_path, lab.checks_path, lab.release_path) if path.exists()]:
        raise CourseError(f"{there[0].relative_to(course.root)} exists already; remove it or choose another name")
    files = _files(lab, number, stem)
    try:
        for path, text in files.items():
            write_whole(path, text)
        release_labs(course, names=[name])
    except BaseException:
        _remove(course, [*files, lab.release_path])
        raise
    return Authored(lab, [*files, lab.release_path], _to_change(lab, lab.chapter_path in files))


def _number_and_stem(course: Course, name: str) -> tuple[str, str]:
    found = NAME.fullmatch(name)
    if not found:
        raise CourseError(
            f"{name!r} is no name for a lab; write labNN_stem with two digits and small letters, as in lab07_loops"
        )
    number, stem = found.groups()
    units = [*course.lab_names, *(f"lab{path.stem}" for path in (course.root / "notebooks").glob(f"{number}_*.ipynb"))]
    if others := {unit for unit in units if unit.startswith(f"lab{number}_") and unit != name}:
        raise CourseError(f"unit {number} is {min(others)} already; write {min(others)} or take another number")
    return number, stem


def _files(lab: Lab, number: str, stem: str) -> dict[Path, str]:
    """What is written, by path."""
    files = {lab.solution_path: "lab.ipynb", lab.checks_path: "checks.py"}
    labels = [f"{stem.replace('_', '-')}-{label.partition('-')[2]}" for label in TEACHES]
    if lab.chapter_path.exists():
        labels = _labels(lab)
    else:
        files[lab.chapter_path] = "chapter.ipynb"
    texts = {path: (TEMPLATE / source).read_text(encoding="utf-8") for path, source in files.items()}
    for old, new in (("Lab 99", f"Lab {number}"), ("lab 99", f"lab {number}"), *zip(TEACHES, labels, strict=True)):
        texts = {path: text.replace(old, new) for path, text in texts.items()}
    return texts


def _labels(lab: Lab) -> list[str]:
    """For each label of the template one of the chapter's own: its first sections and its last."""
    found = LABEL.findall("\n\n".join(cell.source for cell in lab.chapter if cell.kind == "markdown"))
    if not found:
        raise CourseError(f"{lab.chapter_path.name} has no section with a label; write (label)= above a heading")
    return [found[0], found[min(1, len(found) - 1)], found[-1]]


def _remove(course: Course, paths: list[Path]) -> None:
    """Take back what was written, and the folders that are empty then."""
    for path in paths:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".partial").unlink(missing_ok=True)
        folder = path.parent
        if folder.name.startswith("lab") and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _to_change(lab: Lab, has_new_chapter: bool) -> list[str]:
    """What makes the lab the author's own, in the order in which it is best done."""
    unit = lab.chapter_path.stem
    chapter = [
        f"notebooks/{unit}.ipynb: write the chapter; keep a label such as (name)= above each section",
        f"book/_toc.yml: add the line `- file: notebooks/{unit}` to its part",
    ]
    return [
        *(chapter if has_new_chapter else []),
        f"solutions/{lab.name}/{lab.name}.ipynb: title, table, tasks, answers, visible tests, hints, remarks",
        f"grading/checks/{lab.name}.py: inputs, reference, three to five wrong answers with their sentences, "
        "two other right answers, the same hints, and the labels of the sections in `teaches`",
        "about eight questions: points 70 core, 20 stretch, 10 record, the same in solution and checks",
    ]
