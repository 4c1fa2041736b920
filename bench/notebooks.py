"""Seconds of every chapter and of every lab with its answers, each executed in a fresh kernel.

    OMP_NUM_THREADS=1 python bench/notebooks.py --rounds 3 02 06        measures these units anew, the rest stays

A student meets a chapter cold: every round starts a kernel, imports and all. Starting it is part of the time.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import nbformat
import torch
from nbclient import NotebookClient
from record import stamp

from minigpt.disk import write_text

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_suffix(".json")
UNITS = sorted(path.name[:2] for path in (ROOT / "notebooks").glob("*.ipynb"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("units", nargs="*", default=UNITS, help="their numbers; all if none is named")
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    known = json.loads(RESULT.read_text(encoding="utf-8"))["notebooks"] if RESULT.exists() else {}
    for unit in given.units:
        for path in notebooks_of(unit):
            known[path.stem] = figures = measure(path, given.rounds)
            write_text(RESULT, json.dumps(page(known), indent=2) + "\n")
            print(f"{path.stem:20} {figures['median']:6.1f} s, "
                  f"of which cell {figures['slowest_cell']} {figures['slowest_seconds']:.1f} s", flush=True)


def notebooks_of(unit: str) -> list[Path]:
    """The unit's chapter and its lab with answers."""
    found = [*ROOT.glob(f"notebooks/{unit}_*.ipynb"), *ROOT.glob(f"solutions/lab{unit}_*/*.ipynb")]
    if not found:
        raise SystemExit(f"there is no unit {unit}; name one of {', '.join(UNITS)}")
    return found


def measure(path: Path, rounds: int) -> dict[str, Any]:
    """The seconds of all rounds, and the cell on which the last one spent most."""
    seconds = []
    for _ in range(rounds):
        notebook = nbformat.read(path, as_version=4)
        cells = Stopwatch(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}})
        start = time.perf_counter()
        cells.execute()
        seconds.append(time.perf_counter() - start)
    slowest = max(cells.seconds, key=cells.seconds.get)
    return stamp() | {"threads": torch.get_num_threads(), "values": seconds, "median": statistics.median(seconds),
                      "lowest": min(seconds), "highest": max(seconds),
                      "slowest_cell": slowest, "slowest_seconds": cells.seconds[slowest]}


class Stopwatch(NotebookClient):
    """Runs a notebook and keeps the seconds of each cell by its id."""

    def __init__(self, notebook: nbformat.NotebookNode, **options: Any) -> None:
        super().__init__(notebook, **options)
        self.seconds: dict[str, float] = {}

    async def async_execute_cell(self, cell: nbformat.NotebookNode, *place: Any, **options: Any) -> Any:
        start = time.perf_counter()
        done = await super().async_execute_cell(cell, *place, **options)
        self.seconds[cell["id"]] = time.perf_counter() - start
        return done


def page(known: dict[str, dict]) -> dict[str, Any]:
    """What bench/notebooks.json holds: the figures of every notebook, and all of them as a table for the book."""
    rows = [[name, *(f"{figures[key]:.1f}" for key in ("median", "lowest", "highest")), figures["threads"],
             len(figures["values"]), f"{figures['slowest_cell']}, {figures['slowest_seconds']:.1f}"]
            for name, figures in sorted(known.items())]
    newest = max(known.values(), key=lambda figures: figures["date"])
    return {"title": "Chapters and labs", "date": newest["date"], "command": "python bench/notebooks.py",
            "machine": newest["machine"],
            "tables": [{"caption": "Seconds from starting a kernel to its last cell, cold each time. "
                                   "Labs are those with answers.",
                        "columns": ["notebook", "median", "lowest", "highest", "threads", "runs", "slowest cell"],
                        "rows": rows}],
            "notebooks": dict(sorted(known.items()))}


if __name__ == "__main__":
    main()
