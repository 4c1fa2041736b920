"""A submission, rebuilt on the released notebook.

Of what a student hands in only source text is taken: of the cells that the lab asks to fill in, by grade id, and
of the cells of code and Markdown that the student added, in their place. Everything else comes from the release.
"""

import hashlib
import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from grading.course import Cell, Lab, read_cells, shown, to_json

LARGEST_NOTEBOOK = 20 * 2**20  # bytes
MOST_CELLS = 2000


@dataclass(frozen=True)
class Submission:
    """The rebuilt notebook: the cells in order, and what was odd about the file."""

    student: str
    lab: Lab
    cells: tuple[Cell, ...]  # the student's own have the cell id "free-N", "changed-N" or "text-N"
    flags: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Names the attempt: the same answers give the same digest, whatever else file and release hold."""
        released = {cell.cell_id for cell in self.lab.release if not cell.is_open}
        counts = [cell for cell in self.cells if cell.kind == "code" or cell.is_open or self.is_own_text(cell)]
        taken = [[cell.cell_id, cell.grade_id, "" if cell.cell_id in released else cell.source] for cell in counts]
        return hashlib.sha256(json.dumps(taken + list(self.flags)).encode()).hexdigest()

    @property
    def runs(self) -> list[Cell]:
        """Every cell that the judge runs.

        Released cells tagged "show" are for the eyes and visible tests for the learner, so they are left out.
        """
        return [
            cell
            for cell in self.cells
            if cell.kind == "code" and cell.source.strip() and not cell.is_visible_test and "show" not in cell.tags
        ]

    @property
    def steps(self) -> list[tuple[str, str]]:
        """(id, source) of every cell that the judge runs."""
        return [(cell.grade_id or cell.cell_id, cell.source) for cell in self.runs]

    def by_course(self, cell: Cell) -> bool:
        """Whether the cell stands as the course released it, so that a student has written nothing in it."""
        return not cell.is_open and any(cell is released for released in self.lab.release)

    @property
    def has_own_text(self) -> bool:
        """Whether the student added Markdown, which may hold an answer."""
        return any(self.is_own_text(cell) for cell in self.cells)

    def is_own_text(self, cell: Cell) -> bool:
        """Whether it is a Markdown cell that the student added."""
        return cell.kind == "markdown" and not cell.is_open and not self.by_course(cell)

    def source(self, grade_id: str) -> str:
        """What stands in the open cell with that id."""
        return next(cell.source for cell in self.cells if cell.grade_id == grade_id)

    def to_notebook(self) -> str:
        """The rebuilt notebook as a file, for nbgrader and for the person who marks the written answers."""
        notebook = json.loads(self.lab.release_path.read_bytes())
        released = {cell["id"]: cell for cell in notebook["cells"]}
        notebook["cells"] = [
            released[cell.cell_id] | {"source": cell.source} if cell.cell_id in released else _free_cell(cell)
            for cell in self.cells
        ]
        return to_json(notebook)


def _free_cell(cell: Cell) -> dict:
    code = {"execution_count": None, "outputs": []} if cell.kind == "code" else {}
    return code | {"cell_type": cell.kind, "id": cell.cell_id, "metadata": {}, "source": cell.source}


def find_notebook(folder: Path, name: str) -> tuple[bytes | None, list[str]]:
    """The bytes of the lab's notebook in a handed-in folder, and what was odd; no bytes if there is none.

    A notebook under another name is taken if it is the only one. Links and odd files are refused.
    """
    try:
        notebooks, flags = _plain_notebooks(folder)
        if f"{name}.ipynb" in notebooks:
            path = notebooks[f"{name}.ipynb"]
        elif len(notebooks) == 1:
            path = next(iter(notebooks.values()))
            flags.append(f"the notebook is named {shown(path.name)}; it was taken as {name}.ipynb")
        else:
            return None, [*flags, f"there is no {name}.ipynb, so it was graded as blank"]
        if path.stat().st_size > LARGEST_NOTEBOOK:
            said = f"{shown(path.name)} is larger than {LARGEST_NOTEBOOK:,} bytes, so it was graded as blank"
            return None, [*flags, said]
        return path.read_bytes(), flags
    except OSError as error:
        return None, [f"the notebook cannot be opened ({error.strerror}), so it was graded as blank"]


def _plain_notebooks(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The notebooks of a folder by name, and a flag for each that is no plain file."""
    notebooks, flags = {}, []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.name.endswith(".ipynb"):
            continue
        if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            notebooks[entry.name] = Path(entry.path)
        else:
            flags.append(f"{shown(entry.name)} is a link or no plain file and was refused")
    return notebooks, flags


def ingest(lab: Lab, student: str, folder: Path) -> Submission:
    """The submission in `folder` (STUDENT/LAB), rebuilt; what cannot be read is graded as blank and flagged."""
    data, flags = find_notebook(folder, lab.name)
    given, fault = ([], "") if data is None else _given_cells(data)
    flags += [f"the notebook {fault}, so it was graded as blank"] if fault else []
    return rebuild(lab, student, given, flags)


def is_readable(lab: Lab, data: bytes) -> bool:
    """Whether the file is a notebook with answer cells of this lab."""
    return bool(_originals(lab.release, _given_cells(data)[0]))


def _given_cells(data: bytes) -> tuple[list[Cell], str]:
    """The cells of a file that was handed in; none, and why, if it is graded as blank."""
    try:
        given = read_cells(data)
    except ValueError:
        return [], "cannot be read"
    if len(given) > MOST_CELLS:
        return [], f"has more than {MOST_CELLS:,} cells"
    return given, "" if given else "has no cells"


def rebuild(lab: Lab, student: str, given: list[Cell], flags: list[str] | None = None) -> Submission:
    """The release with the student's sources in its open cells and the student's own cells between them."""
    flags = list(flags or [])
    originals = _originals(lab.release, given)
    missing = [cell.grade_id for cell in lab.release if cell.is_open and cell.grade_id not in originals]
    if given and not originals:
        flags.append("no cell of this lab is in the file, so its code runs after a blank lab; is it another notebook?")
    elif given and missing:
        flags.append(f"cells are missing and were taken as blank: {', '.join(missing)}")
    free = _free_cells(lab.release, given, originals)
    cells: list[Cell] = list(free.pop(None, []))
    for cell in lab.release:
        taken = originals.get(cell.grade_id) if cell.is_open else None
        cells.append(replace(cell, source=taken.source) if taken else cell)
        cells.extend(free.pop(cell.cell_id, []))
    return Submission(student, lab, tuple(cells), tuple(flags))


def _originals(release: list[Cell], given: list[Cell]) -> dict[str, Cell]:
    """For each open cell of the release the one given cell that fills it; a copy has another cell id."""
    originals: dict[str, Cell] = {}
    for cell in (cell for cell in release if cell.is_open):
        same = [g for g in given if g.grade_id == cell.grade_id]
        same += [g for g in given if not g.grade_id and g.cell_id and g.cell_id == cell.cell_id]
        if same:
            originals[cell.grade_id] = next((g for g in same if g.cell_id == cell.cell_id), same[0])
    return originals


def _free_cells(release: list[Cell], given: list[Cell], originals: dict[str, Cell]) -> dict[str | None, list[Cell]]:
    """The student's own cells, by the id of the released cell after which they stand (None: at the top).

    A released cell for the eyes that the student has changed counts as one of them, but no changed text of the lab.
    When no open cell was recognized at all, they stand at the end, where they meet everything defined before.
    """
    by_mark = {cell.grade_id: cell for cell in release if cell.grade_id}
    by_id = {cell.cell_id: cell for cell in release if cell.cell_id}
    released_sources = {(cell.kind, cell.source.strip()) for cell in release}
    taken = {id(cell) for cell in originals.values()}
    anchor = None if originals else release[-1].cell_id
    free: dict[str | None, list[Cell]] = {}
    n_free = n_texts = 0
    for cell in given:
        known = by_mark.get(cell.grade_id) or by_id.get(cell.cell_id)
        is_copy = id(cell) not in taken and (known is None or known.cell_id != cell.cell_id)
        if known and originals and not is_copy:
            anchor = known.cell_id
        is_locked = known is not None and known.grade_id and not known.is_open and not is_copy
        is_own = cell.source.strip() and (cell.kind, cell.source.strip()) not in released_sources
        if not is_own or is_locked or id(cell) in taken:
            continue
        if cell.kind == "code":
            n_free += 1
            kind = "changed" if known and "show" in known.tags else "free"
            free.setdefault(anchor, []).append(Cell("code", cell.source, cell_id=f"{kind}-{n_free}"))
        elif cell.kind == "markdown" and is_copy:
            n_texts += 1
            free.setdefault(anchor, []).append(Cell("markdown", cell.source, cell_id=f"text-{n_texts}"))
    return free
