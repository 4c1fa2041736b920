"""The ladder of Part I over seeds: bits per byte of every chapter's models on the same validation text.

    python bench/ladder.py --seeds 10 02 03        measures these chapters and puts them into bench/ladder.json

A chapter defines `rung(seed)` in cells tagged `rung`; here these cells run as they stand on the page.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from record import stamp

from minigpt.disk import write_text

CHAPTERS = Path(__file__).parents[1] / "notebooks"
RESULT = Path(__file__).with_suffix(".json")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("chapters", nargs="*", help="their numbers; all that have a rung if none is named")
    options.add_argument("--seeds", type=int, default=10, help="how many seeds, from 0 on")
    given = options.parse_args()
    chapters = json.loads(RESULT.read_text(encoding="utf-8"))["chapters"] if RESULT.exists() else {}
    for chapter in given.chapters or with_a_rung():
        chapters[chapter] = measure(chapter, given.seeds)
        write_text(RESULT, json.dumps(page(chapters), indent=2) + "\n")
        for name, figures in chapters[chapter]["rungs"].items():
            print(f"{chapter}  {name:<24} {figures['mean']:.3f} ± {figures['standard_deviation']:.3f} bits per byte")


def page(chapters: dict[str, dict]) -> dict:
    """What bench/ladder.json holds: each chapter's figures, and all of them as a table for the book."""
    rows = [[chapter, name, f"{rung['mean']:.3f}", f"{rung['standard_deviation']:.3f}", len(rung["values"])]
            for chapter, figures in sorted(chapters.items())
            for name, rung in sorted(figures["rungs"].items(), key=lambda pair: -pair[1]["mean"])]
    caption = "Bits per byte of the validation text. Counting needs no seed, so its spread is 0."
    columns = ["chapter", "model", "mean", "standard deviation", "seeds"]
    newest = max(chapters.values(), key=lambda figures: figures["date"])
    return {"title": "The ladder of Part I", "date": newest["date"], "command": "python bench/ladder.py",
            "machine": newest["machine"],
            "tables": [{"caption": caption, "columns": columns, "rows": rows}],
            "chapters": dict(sorted(chapters.items()))}


def rung_cells(chapter: str) -> str:
    """The source of the chapter's cells tagged `rung`, in order."""
    found = sorted(CHAPTERS.glob(f"{chapter}_*.ipynb"))
    if not found:
        raise SystemExit(f"there is no chapter {chapter}; name one of {', '.join(with_a_rung())}")
    cells = json.loads(found[0].read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if "rung" in cell["metadata"].get("tags", []))


def with_a_rung() -> list[str]:
    numbers = [path.name[:2] for path in sorted(CHAPTERS.glob("*.ipynb"))]
    return [number for number in numbers if rung_cells(number)]


def rung_of(chapter: str) -> Callable[[int], dict[str, float]]:
    """The chapter's own function: bits per byte by model, for one seed."""
    page: dict = {}
    exec(compile(rung_cells(chapter), f"chapter {chapter}", "exec"), page)
    return page["rung"]


def measure(chapter: str, seeds: int) -> dict:
    rung = rung_of(chapter)
    start = time.perf_counter()
    runs = [rung(seed) for seed in range(seeds)]
    seconds = (time.perf_counter() - start) / seeds
    return stamp() | {"seconds_per_seed": seconds,
                      "rungs": {name: summary([run[name] for run in runs]) for name in runs[0]}}


def summary(values: list[float]) -> dict:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "standard_deviation": spread, "values": values}


if __name__ == "__main__":
    main()
