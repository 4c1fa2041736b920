"""When a lab is due and what lateness costs, in nbgrader's terms: time stamps, due dates, extensions, penalties.

A time stamp is written by the collector alone. Nothing that a student hands in can set or change one.
"""

import csv
import math
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from grading.course import STUDENT, Course, CourseError, read_record, shown, to_json, write_whole

STAMP = "timestamp.txt"  # nbgrader's name for it
FORMAT = "%Y-%m-%d %H:%M:%S UTC"  # nbgrader reads this
DAY = 24 * 60 * 60  # seconds


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What holds for one lab; all times as nbgrader's text in UTC."""

    due: str = ""  # "": never late
    late_per_day: float = 0  # points for each day begun
    attempts: int | None = None  # None: as many as they like
    extensions: dict[str, str] = field(default_factory=dict)  # a student's own due time

    def due_for(self, student: str) -> str:
        return self.extensions.get(student, self.due)

    def penalty(self, seconds: float) -> float:
        """The points that so much lateness takes."""
        return self.late_per_day * math.ceil(seconds / DAY)

    def extension_of(self, student: str) -> timedelta | None:
        """How much later than the others the student may be, if there is a due time."""
        return from_stamp(self.due_for(student)) - from_stamp(self.due) or None


def read_policy(work: Path, lab: str) -> Policy:
    return _policy(work, _policies(work).get(lab, {}))


def save_policy(work: Path, lab: str, **changes: object) -> None:
    """Change what holds for the lab; what is not named stays."""
    policies = _policies(work)
    policies[lab] = asdict(replace(_policy(work, policies.get(lab, {})), **changes))
    write_whole(work / "policy.json", to_json(dict(sorted(policies.items()))))


def _policies(work: Path) -> dict[str, dict]:
    path = work / "policy.json"
    return read_record(path) if path.is_file() else {}


def _policy(work: Path, kept: dict) -> Policy:
    try:
        return Policy(**kept)
    except TypeError as error:
        raise CourseError(
            f"{work / 'policy.json'} holds what is no policy ({error}); restore it from your copy, or remove it"
        ) from error


def to_moment(text: str) -> datetime:
    """An ISO time as a moment; without a zone it is a time of this machine.

    Raises  CourseError if it is none.
    """
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise CourseError(f"{text!r} is not a time; write it as 2026-10-01T23:59 or 2026-10-01T23:59Z") from error


def to_stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(FORMAT)


def from_stamp(stamp: str) -> datetime:
    return datetime.strptime(stamp, FORMAT).replace(tzinfo=UTC)


def seconds_late(stamp: str, due: str) -> float:
    """How long after the due time; 0 if in time, or if nothing is due."""
    return max(0.0, (from_stamp(stamp) - from_stamp(due)).total_seconds()) if due else 0.0


def in_words(seconds: float) -> str:
    """A lateness as a person says it, rounded up to minutes."""
    minutes = math.ceil(seconds / 60)
    counts = (minutes // 1440, "day"), (minutes // 60 % 24, "hour"), (minutes % 60, "minute")
    said = [f"{n} {unit}{'' if n == 1 else 's'}" for n, unit in counts if n]
    return " ".join(said[:2])


def read_extensions(course: Course, path: Path) -> dict[str, dict[str, str]]:
    """By lab and student the due time of each row STUDENT,LAB,DUE; a first row with these words is passed over.

    Raises  CourseError with the line that cannot be read.
    """
    found: dict[str, dict[str, str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[entry.strip() for entry in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f"{path} cannot be read ({error}); give a table with the rows STUDENT,LAB,DUE") from error
    for number, row in enumerate(rows, 1):
        if not any(row) or (number == 1 and [entry.upper() for entry in row] == ["STUDENT", "LAB", "DUE"]):
            continue
        if len(row) != 3:
            raise CourseError(f"line {number} of {path.name} has {len(row)} entries; write STUDENT,LAB,DUE")
        student, lab, due = row
        dues = found.setdefault(course.lab(lab).name, {})
        if not STUDENT.fullmatch(student):
            raise CourseError(f"line {number} of {path.name} names {shown(student)!r}; write a student's folder")
        if student in dues:
            raise CourseError(f"line {number} of {path.name} gives {student} a second time for {lab}; keep one line")
        dues[student] = to_stamp(to_moment(due))
    return found


def pass_on(work: Path, student: str, lab: str, folder: Path) -> None:
    """Give the rebuilt notebook the collector's time stamp; in any other folder it could be the student's."""
    target = work / "rebuilt" / student / lab / STAMP
    source = folder / STAMP
    if folder.resolve() == (work / "submitted" / student / lab).resolve() and source.is_file():
        write_whole(target, source.read_bytes())
    else:
        target.unlink(missing_ok=True)


def is_collected(work: Path, student: str, lab: str) -> bool:
    """Whether the rebuilt notebook came from the collector and carries its time stamp."""
    return (work / "rebuilt" / student / lab / STAMP).is_file()


def terms(work: Path, student: str, lab: str) -> dict | None:
    """All that decides about a student's lateness in a lab; None without a time stamp."""
    if not is_collected(work, student, lab):
        return None
    policy = read_policy(work, lab)
    stamp = work / "rebuilt" / student / lab / STAMP
    return {"time": stamp.read_text().strip(), "due": policy.due_for(student), "late_per_day": policy.late_per_day}
