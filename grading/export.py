"""Grades for a spreadsheet, for Canvas and for Moodle.

A cell of text that a spreadsheet would take for a formula gets a single quote in front, which OWASP's page "CSV
Injection" (owasp.org/www-community/attacks/CSV_Injection) advises together with double quotes around every text.
Numbers are written as numbers.
"""

import csv
import html
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grading.classbook import Entry, Mark, Person, read_labs
from grading.course import Course, CourseError, write_whole

STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠")
Cell = str | float | int
Labs = dict[str, list[Entry]]


@dataclass(frozen=True)
class Exported:
    """What was written, and what was left empty because a person has not marked it yet."""

    path: Path
    n_students: int
    waiting: list[Entry]


def defuse(cell: Cell) -> Cell:
    """The cell, so that no spreadsheet runs it: text that begins like a formula gets a quote in front."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(STARTS_FORMULA) else cell


def to_csv(rows: list[list[Cell]]) -> str:
    """Rows as CSV: text in double quotes and defused, numbers bare."""
    text = io.StringIO()
    table = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    table.writerows([defuse(cell) for cell in row] for row in rows)
    return text.getvalue()


def number(value: float) -> float | int:
    """The number, whole if it is whole and otherwise to two decimals, which is all that Canvas shows."""
    return int(value) if value == int(value) else round(value, 2)


def grade_cell(entry: Entry | None, unfinished: bool) -> Cell:
    """The points; empty where nothing was handed in or, without `unfinished`, where something waits for a person."""
    is_open = entry is None or (entry.waits and not unfinished)
    return "" if is_open else number(entry.points)


def class_list(labs: Labs) -> list[tuple[Person, dict[str, Entry]]]:
    """Every student with their entries by lab, in the order of their names."""
    entries: dict[str, dict[str, Entry]] = {}
    people: dict[str, Person] = {}
    for lab, found in labs.items():
        for entry in found:
            people[entry.student] = entry.person
            entries.setdefault(entry.student, {})[lab] = entry
    return [(person, entries[person.student]) for person in sorted(people.values(), key=lambda p: (p.name, p.student))]


def plain_rows(labs: Labs, unfinished: bool) -> list[list[Cell]]:
    """One row for each student and lab."""
    head = ["student", "last_name", "first_name", "email", "lab", "points", "max_points", "waits_for_a_person"]
    rows = [
        [p.student, p.last_name, p.first_name, p.email, lab, grade_cell(e, unfinished), number(e.max_points),
         number(e.waits)]
        for p, entries in class_list(labs)
        for lab, e in entries.items()
    ]
    return [head, *rows]


def canvas_rows(labs: Labs, unfinished: bool) -> list[list[Cell]]:
    """The gradebook import of Canvas: five columns for the student, one for each assignment, then Points Possible.

    Canvas finds the student by ID, else by SIS User ID, else by SIS Login ID, which here is the name of the
    student's folder; and the assignment by its title, which is the lab's, or makes a new one.
    Source  the names and the order of the columns: Canvas's own reader, github.com/instructure/canvas-lms,
            lib/gradebook_importer.rb; the steps for a person: teaching.resources.osu.edu, "Import CSV File for
            Carmen Grades", which follows the guide of Canvas.
    """
    titles = [entries[0].lab_title for entries in labs.values()]
    possible = [number(max(entry.max_points for entry in entries)) for entries in labs.values()]
    head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *titles]
    rows = [
        [p.name, p.lms_user_id, "", p.student, "", *(grade_cell(entries.get(lab), unfinished) for lab in labs)]
        for p, entries in class_list(labs)
    ]
    return [head, ["Points Possible", "", "", "", "", *possible], *rows]


def moodle_rows(labs: Labs, unfinished: bool) -> list[list[Cell]]:
    """The grade import of Moodle: two columns to find the student by, then for each lab the grade and the feedback.

    On import map Username to username (or Email address to email), the grade to the grade item and the feedback
    to its feedback. Moodle wants both: feedback that comes without its grade would erase the grade.
    Source  docs.moodle.org/311/en/Grade_import, "CSV grade import" and Note 3 (the same in 4.5).
    """
    titles = [entries[0].lab_title for entries in labs.values()]
    head = ["Username", "Email address", *(cell for title in titles for cell in (title, f"{title} (feedback)"))]
    rows = []
    for person, entries in class_list(labs):
        row: list[Cell] = [person.student, person.email]
        for lab in labs:
            grade = grade_cell(entries.get(lab), unfinished)
            row += [grade, "" if grade == "" else feedback(entries[lab])]
        rows.append(row)
    return [head, *rows]


def feedback(entry: Entry) -> str:
    """What was said about each question that is not full, as HTML, which is how Moodle reads it.

    Moodle reads the table with PHP's fgetcsv, for which a backslash before a double quote keeps the cell open, so a
    backslash is written as an entity.
    Source  Moodle's lib/csvlib.class.php; php.net/manual/en/function.fgetcsv.php on `escape`.
    """
    told = [_told(mark) for mark in entry.marks if not mark.is_full or mark.comment] or ["Every question is right."]
    late = [f"Late: {entry.late_penalty:g} points were taken off."] if entry.late_penalty else []
    return html.escape(" ".join(told + late), quote=False).replace("\\", "&#92;")


def _told(mark: Mark) -> str:
    earned = "waits for a person" if mark.points is None else f"{mark.points:g} of {mark.max_points:g}"
    said = mark.comment or ("" if mark.points is None else mark.sentence)
    return f"{mark.title}: {earned}. {said}".strip()


FORMATS: dict[str, Callable[[Labs, bool], list[list[Cell]]]] = {
    "csv": plain_rows,
    "canvas": canvas_rows,
    "moodle": moodle_rows,
}


def export(course: Course, form: str, lab: str | None, out: Path | None, unfinished: bool) -> Exported:
    """Write the grades of one lab, or of all, in one of the formats.

    Raises  CourseError if the format or the lab is unknown, or nothing is graded yet.
    """
    if form not in FORMATS:
        raise CourseError(f"there is no format {form!r}; choose one of {', '.join(FORMATS)}")
    labs = read_labs(course, lab)
    which = next(iter(labs)) if lab else "all"
    path = out or course.work / "export" / f"{which}-{form}.csv"
    if path.is_dir():
        raise CourseError(f"{path} is a folder; give the name of a file")
    write_whole(path, to_csv(FORMATS[form](labs, unfinished)))
    waiting = [entry for entries in labs.values() for entry in entries if entry.waits]
    return Exported(path, len(class_list(labs)), waiting)
