"""What becomes of marks when a check was changed after it had judged: the higher mark stays, and all is told."""

import csv
import io
from pathlib import Path

from grading.course import write_whole

COLUMNS = ("student", "lab", "question", "from", "to", "note")


def merge(earlier: dict, fresh: dict, order: list[str]) -> dict:
    """The result of the same work after checks were changed; `fresh` holds the questions judged anew."""
    old, new = ({question["id"]: question for question in result["questions"]} for result in (earlier, fresh))
    questions = [
        _merge_question(old[name], new[name]) if name in old and name in new else new.get(name) or old[name]
        for name in order
    ]
    return with_totals(earlier | fresh | {"questions": questions, "free_output": earlier["free_output"]})


def _merge_question(old: dict, new: dict) -> dict:
    """The new judgement, or the old one with a note where its mark was the higher."""
    before, scale = old["points"], new["max_points"] / old["max_points"]
    first = old["regraded"]["from"] if old["regraded"] else before
    kept = bool(before) and (new["points"] is None or new["points"] < before * scale)
    entry, note = new, ""
    if kept:
        points = "waits for a person" if new["points"] is None else f"gives {new['points']:g}"
        note = f"kept: the changed check {points} ({new['fault'] or new['sentence']})"
        entry = old | {name: new[name] for name in ("key", "title", "part", "max_points")}
        entry["points"] = before * scale
    changed = note or first != entry["points"]
    return entry | {"regraded": {"from": first, "to": entry["points"], "note": note} if changed else None}


def with_totals(result: dict) -> dict:
    """The result with the sums over its questions."""
    points = sum(question["points"] or 0 for question in result["questions"])
    return result | {"points": points, "max_points": sum(question["max_points"] for question in result["questions"])}


def write_regraded(path: Path, results: list[dict]) -> list[dict[str, str]]:
    """Write the list of marks that a changed check touched; the rows that were not in it before."""
    known = path.read_text(encoding="utf-8") if path.is_file() else ""
    rows = [
        dict(zip(COLUMNS, map(_word, (r["student"], r["lab"], q["id"], *q["regraded"].values())), strict=True))
        for r in results for q in r["questions"] if q.get("regraded")
    ]  # fmt: skip
    if rows or known:
        write_whole(path, _table(rows))
    earlier = list(csv.DictReader(io.StringIO(known)))
    return [row for row in rows if row not in earlier]


def _table(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _word(entry: str | float | None) -> str:
    return "" if entry is None else entry if isinstance(entry, str) else f"{entry:g}"
