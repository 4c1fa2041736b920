"""Collects submissions: each gets a number, a time by the collector's clock and a receipt.

Every attempt is kept under attempts/, the one that counts lies under submitted/. The receipts are the memory:
bytes that were received once are known, so a second run changes nothing.
"""

import csv
import functools
import hashlib
import io
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from grading.course import Course, CourseError, alone, write_whole
from grading.inbox import MOST_BYTES, HandedIn, Refused, folder_members, members, shown, sort_out
from grading.ingest import is_readable
from grading.lateness import STAMP, read_extensions, read_policy, save_policy, seconds_late, to_stamp

COLUMNS = ("sha256", "student", "lab", "attempt", "received", "bytes", "readable", "file")
RECEIPT = """Receipt

student   {student}
lab       {lab}
attempt   {attempt}
received  {received}
bytes     {bytes}
SHA-256   {sha256}

The SHA-256 names the bytes of your file. To compare: sha256sum {lab}.ipynb
"""


@dataclass
class Collected:
    """What one run took, what it knew already, and a sentence for each thing it left or wants you to see."""

    taken: list[dict] = field(default_factory=list)  # the receipts of this run
    late: dict[tuple[str, str], float] = field(default_factory=dict)  # seconds, of everything that counts
    said: list[str] = field(default_factory=list)
    n_known: int = 0
    strangers: int = 0  # submissions that were not collected but lie beside those that were


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the instructor decides with a run; None leaves it as it is."""

    due: str | None = None  # a stamp
    late_per_day: float | None = None
    attempts: int | None = None
    extensions: Path | None = None
    trust_file_times: bool = False


def collect(course: Course, source: Path, lab: str = "", terms: Terms | None = None, now: datetime | None = None,
            tell: Callable[[str], None] = print) -> Collected:
    """Take everything that is new in the source; `lab` says which lab all of it is."""
    terms, now = terms or Terms(), now or datetime.now(UTC)
    collected = Collected()
    extensions = read_extensions(course, terms.extensions) if terms.extensions else {}
    with alone(course.work), tempfile.TemporaryDirectory(prefix="grading-") as scratch:
        found = list(_sorted_out(course, source, lab, Path(scratch), collected.said.append))
        _set_policies(course, sorted({one.lab for one in found} | ({lab} if lab else set())), terms, extensions)
        inbox = _Inbox(course, None if terms.trust_file_times else now, now, collected)
        for one in found:
            inbox.take(one, tell)
        inbox.publish()
    return collected


def _sorted_out(
    course: Course, source: Path, lab: str, scratch: Path, tell: Callable[[str], None]
) -> list[HandedIn]:
    """Who handed in what; the files are read later, so the source must stay."""
    from grading.exchange import from_exchange, is_exchange  # nbgrader takes a second to import

    if is_exchange(course, source):
        folder = from_exchange(course, source, [lab] if lab else course.lab_names, scratch, tell)
        return sort_out(folder_members(folder, tell, times=True), course.lab_names, lab, tell)
    return sort_out(members(source, tell), course.lab_names, lab, tell)


def _set_policies(course: Course, labs: list[str], terms: Terms, extensions: dict[str, dict[str, str]]) -> None:
    """Keep what the instructor decided for these labs.

    Raises  CourseError if a due time does not say for which lab, or an extension for which due time.
    """
    if terms.due and len(labs) != 1:
        raise CourseError(f"--due is for one lab, but there are {len(labs)} ({', '.join(labs)}); add --lab")
    for name in sorted({*labs, *extensions}):
        policy = read_policy(course.work, name)
        given = {"due": terms.due, "late_per_day": terms.late_per_day, "attempts": terms.attempts}
        changes = {key: value for key, value in given.items() if value is not None and name in labs}
        if name in extensions:
            if not changes.get("due", policy.due):
                raise CourseError(f"{name} has an extension but is due at no time; give its time with --due first")
            changes["extensions"] = policy.extensions | extensions[name]
        if changes:
            save_policy(course.work, name, **changes)


class _Inbox:
    """Where attempts are numbered and kept; `fixed` is the time that all get, or None to trust the files' own."""

    def __init__(self, course: Course, fixed: datetime | None, now: datetime, collected: Collected):
        self.lab = functools.cache(course.lab)
        self.work, self.fixed, self.now, self.collected = course.work, fixed, now, collected
        self.receipts = read_receipts(course.work)
        self.n_bytes = 0

    def take(self, one: HandedIn, tell: Callable[[str], None]) -> None:
        """Keep the notebook as the student's next attempt, unless its bytes were received before."""
        say = self.collected.said.append
        try:
            data = self._read(one)
        except Refused as refused:
            say(f"{shown(one.member.name)} {refused} and was refused")
            return
        digest = hashlib.sha256(data).hexdigest()
        earlier = [r for r in self.receipts if (r["student"], r["lab"]) == (one.student, one.lab)]
        if known := next((r for r in earlier if r["sha256"] == digest), None):
            self.collected.n_known += 1
            counts = counting(earlier)[one.student, one.lab]
            if known is not counts and known["readable"] == "yes":
                say(f"{one.student}/{one.lab} is attempt {known['attempt']} again, but attempt {counts['attempt']} "
                    "counts; if the student went back to it, ask for it with a change")
            return
        number, most = len(earlier) + 1, read_policy(self.work, one.lab).attempts
        n_readable = sum(receipt["readable"] == "yes" for receipt in earlier)
        if most is not None and n_readable >= most:
            say(f"{one.student}/{one.lab} was left out, because {n_readable} of at most {most} attempts are taken")
            return
        receipt = self._keep(one, data, digest, number)
        if receipt["readable"] == "no":
            say(f"{one.student}/{one.lab} cannot be read as a notebook of this lab; attempt {number} is kept but "
                "counts only if no other can be read")
        if one.remark:
            say(f"{one.student}/{one.lab}: {one.remark}")
        tell(f"  {one.lab}  {one.student:<20} attempt {number}")

    def _read(self, one: HandedIn) -> bytes:
        if self.n_bytes > MOST_BYTES:
            raise Refused(f"comes after the first {MOST_BYTES:,} bytes of the source")
        data = one.member.read()
        self.n_bytes += len(data)
        return data

    def _keep(self, one: HandedIn, data: bytes, digest: str, number: int) -> dict:
        received = self.fixed or min(one.member.time or self.now, self.now)
        receipt = {
            "sha256": digest,
            "student": one.student,
            "lab": one.lab,
            "attempt": str(number),
            "received": to_stamp(received),
            "bytes": str(len(data)),
            "readable": "yes" if is_readable(self.lab(one.lab), data) else "no",
            "file": re.sub(r"^(?=[=+\-@])", "'", shown(one.member.name)),  # no formula in a spreadsheet
        }
        place = self.work / "attempts" / one.student / one.lab / str(number)
        write_whole(place / f"{one.lab}.ipynb", data)
        write_whole(place / STAMP, receipt["received"] + "\n")
        write_whole(place / "receipt.txt", RECEIPT.format(**receipt))
        self.receipts.append(receipt)
        write_receipts(self.work, self.receipts)
        self.collected.taken.append(receipt)
        return receipt

    def publish(self) -> None:
        """Lay out under submitted/ the attempt that counts."""
        counts = counting(self.receipts)
        for (student, lab), receipt in sorted(counts.items()):
            kept = self.work / "attempts" / student / lab / receipt["attempt"]
            for name in (f"{lab}.ipynb", STAMP):
                write_whole(self.work / "submitted" / student / lab / name, (kept / name).read_bytes())
            if late := seconds_late(receipt["received"], read_policy(self.work, lab).due_for(student)):
                self.collected.late[student, lab] = late
        there = {(path.parent.name, path.name) for path in (self.work / "submitted").glob("*/*") if path.is_dir()}
        self.collected.strangers = len(there - counts.keys())


def counting(receipts: list[dict]) -> dict[tuple[str, str], dict]:
    """By student and lab the receipt of the attempt that counts: the last that can be read, or else the last."""
    in_order = sorted(receipts, key=lambda r: (r["readable"] == "yes", int(r["attempt"])))
    return {(receipt["student"], receipt["lab"]): receipt for receipt in in_order}


def read_receipts(work: Path) -> list[dict]:
    path = work / "receipts.csv"
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            receipts = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f"{path} is damaged ({error}); restore it from your copy") from error
    if any(receipt.get(name) is None for receipt in receipts for name in COLUMNS):
        raise CourseError(f"{path} lacks one of {', '.join(COLUMNS)}; restore it from your copy")
    return receipts


def write_receipts(work: Path, receipts: list[dict]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writeheader()
    table.writerows(receipts)
    write_whole(work / "receipts.csv", text.getvalue())

