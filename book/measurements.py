"""Write the page of measurements from the figures in bench/*.json: tables, curves, and how to repeat each.

A measurement shows up by itself if its JSON holds `command`, `date`, `machine` and any of
`tables`, [{"caption", "columns", "rows"}], and `curves`, [{"caption", "x", "y", "lines": {name: [y, ...]}}];
without `tables`, its `parts`, {part: {name: {"median", "lowest", "highest", "values"}}}, become one table each.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

BENCH = Path(__file__).resolve().parent.parent / "bench"


def write_measurements(target: Path, bench: Path = BENCH) -> None:
    """`results.md` and its pictures in a folder, for the page to include."""
    target.mkdir(parents=True, exist_ok=True)
    sections = [section(path, target) for path in sorted(bench.glob("*.json"))]
    missing = [f"`python bench/{path.name}` {first_line(path)}" for path in sorted(bench.glob("*.py"))
               if not path.with_suffix(".json").exists() and measures(path)]
    if missing:
        sections.append("## Not measured yet\n\n" + "\n".join(f"- {line}" for line in missing) + "\n")
    (target / "results.md").write_text("\n".join(sections), encoding="utf-8")


def measures(script: Path) -> bool:
    """Is this a program that writes figures, and not a part of one?"""
    return "__main__" in (text := script.read_text(encoding="utf-8")) and ("RESULT = " in text or "record(" in text)


def first_line(script: Path) -> str:
    return script.read_text(encoding="utf-8").lstrip('"').splitlines()[0]


def section(path: Path, target: Path) -> str:
    """The Markdown of one measurement."""
    known = json.loads(path.read_text(encoding="utf-8"))
    place = known["machine"]
    where = f"{place['processor']}, {place['cores']} cores, GPU: {place['gpu']}, torch {place['torch']}"
    tables = [table(one) for one in known.get("tables") or plain_tables(known.get("parts", {}), known.get("dates", {}))]
    pictures = [picture(one, f"{path.stem}-{number}.svg", target) for number, one in enumerate(known.get("curves", []))]
    head = f"## {known.get('title', path.stem.replace('_', ' ').capitalize())}\n\n"
    return head + f"Measured on {known['date']}: {where}. Repeat it with:\n\n```sh\n{known['command']}\n```\n\n" + \
        "\n".join(tables + pictures)


def plain_tables(parts: dict[str, Any], dates: dict[str, str]) -> list[dict[str, Any]]:
    """A table of medians and spreads for each part."""
    return [plain_table(part, dates.get(part), figures) for part, figures in parts.items()]


def plain_table(part: str, date: str | None, figures: dict[str, Any]) -> dict[str, Any]:
    """Medians, spreads, and how many times the best one that is not minigpt, by the medians of the rounds' ratios."""
    keys = ("median", "lowest", "highest")
    caption = f"{part}, {date}." if date else f"{part}."
    others = {name: figure for name, figure in figures.items() if not name.startswith("minigpt")}
    best = max(others, key=lambda name: others[name]["median"])
    rows = [[name, *(f"{figure[key]:,.4g}" for key in keys),
             f"{median(a / b for a, b in zip(figure['values'], others[best]['values'], strict=True)):.2f}"]
            for name, figure in figures.items()]
    return {"caption": caption, "columns": ["who", *keys, f"times {best}"], "rows": rows}


def table(known: dict[str, Any]) -> str:
    """A Markdown table under its caption."""
    rows = [known["columns"], ["---"] * len(known["columns"]), *known["rows"]]
    lines = ["| " + " | ".join(str(cell) for cell in cells) + " |" for cells in rows]
    return f"{known['caption']}\n\n" + "\n".join(lines) + "\n"


def picture(known: dict[str, Any], name: str, target: Path) -> str:
    """Lines over their number of steps, as an SVG file, and the Markdown that shows it."""
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for number, (label, values) in enumerate(known["lines"].items()):
        axes.plot(range(1, len(values) + 1), values, label=label, linestyle=("-", "--", ":", "-.")[number % 4])
    axes.set(xlabel=known["x"], ylabel=known["y"])
    axes.legend(fontsize="x-small")
    figure.savefig(target / name, metadata={"Date": None})
    plt.close(figure)
    return f"```{{figure}} /_build/measurements/{name}\n{known['caption']}\n```\n"
