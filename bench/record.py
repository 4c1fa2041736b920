"""Measurements taken in turn, and their record: date, command, machine, versions, every figure and its spread."""

import datetime
import json
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from minigpt.disk import write_text
from minigpt.evaluate.report import machine


def in_turn(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, dict[str, Any]]:
    """What each contestant returns, once a round after one that does not count; a busy minute hits them all."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, measure in contestants.items():
            value = measure()
            if turn:
                found[name].append(value)
    return {name: {"median": statistics.median(values), "lowest": min(values), "highest": max(values),
                   "values": values} for name, values in found.items()}


def stamp() -> dict[str, Any]:
    """When, how and where this program measures."""
    return {"date": datetime.date.today().isoformat(), "command": " ".join(["python", *sys.argv]), "machine": machine()}


def record(path: Path, title: str, parts: dict[str, Any], packages: tuple[str, ...]) -> None:
    """Write the result and print a line for each figure; parts that were measured before, on this machine, stay."""
    result = {"title": title} | stamp() | {"versions": {name: version(name) for name in packages}}
    known = json.loads(path.read_text()) if path.exists() else {}
    same = all(known.get(name) == result[name] for name in ("machine", "versions"))
    result["parts"] = (known["parts"] if same else {}) | parts
    result["dates"] = (known.get("dates", {}) if same else {}) | dict.fromkeys(parts, result["date"])
    write_text(path, json.dumps(result, indent=2) + "\n")
    for part, figures in parts.items():
        for name, figure in figures.items():
            print(f"{part:28} {name:26} median {figure['median']:12.2f}   "
                  f"{figure['lowest']:.2f} to {figure['highest']:.2f}")
