"""What came back, whatever it came in: a folder or the zip of a learning platform.

Nothing is unpacked. A file is read when it is asked for, within limits, and only bytes leave this module: where
they are written is decided by the names of student and lab, never by a name in the source.
"""

import itertools
import os
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from grading.course import STUDENT, CourseError, shown
from grading.ingest import LARGEST_NOTEBOOK

MOST_FILES = 20_000  # in one source
MOST_BYTES = 4 * 2**30  # read from one source
LARGEST_RATIO = 200  # of a notebook to its packed size, above SMALL bytes
SMALL = 2**20
NOISE = re.compile(r"(?:.*/)?(?:__MACOSX|\.ipynb_checkpoints|\.DS_Store|Thumbs\.db|\._[^/]*)(?:/.*)?", re.I)
CANVAS = re.compile(r"(?:(?P<name>.+?)_)??(?P<late>LATE_)?(?P<id>\d+|anon_[^_]+)_(?P<upload>\d+)_(?P<file>.+)")
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_file_?")
MOODLE_FLAT = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_file_(?P<file>.+)")
COUNTED = r"(?:[ _-]*+(?:copy|\(?\d++\)?+))*+"  # what browsers add to a second file of that name; never tried twice


class Refused(Exception):
    """A file that is not taken, with the reason as the rest of a sentence."""


@dataclass(frozen=True)
class Member:
    """One file of a source."""

    name: str  # the path in the source, with /
    read: Callable[[], bytes]  # raises Refused
    time: datetime | None = None  # when the platform received it, if the source says so


@dataclass(frozen=True)
class HandedIn:
    """A notebook, and whose it is."""

    student: str
    lab: str
    member: Member
    upload: int = 0  # Canvas counts uploads upward
    remark: str = ""

    @property
    def rank(self) -> tuple:
        """The highest counts if a student has several: the last upload, then the right name."""
        stem = Path(self.member.name).stem
        return self.upload, stem.endswith(self.lab), self.member.time or datetime.min.replace(tzinfo=UTC), stem


# --- the kinds of source ---


def members(source: Path, tell: Callable[[str], None]) -> Iterator[Member]:
    """Every file of a folder or a zip; of what is refused outright, `tell` gets a sentence."""
    if source.is_dir():
        found = folder_members(source, tell)
    elif zipfile.is_zipfile(source):
        found = zip_members(source, tell)
    else:
        raise CourseError(f"{source} is neither a folder nor a zip; give one that holds submissions")
    yield from itertools.islice(found, MOST_FILES)
    if next(found, None) is not None:
        tell(f"the source holds more than {MOST_FILES:,} files; the rest was left out")


def folder_members(folder: Path, tell: Callable[[str], None], times: bool = False) -> Iterator[Member]:
    """The plain files below a folder, in order; links are not followed."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(place, name)
            inside = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                time = datetime.fromtimestamp(path.stat().st_mtime, UTC) if times else None
                yield Member(inside, lambda path=path: read_plain(path), time)
            elif not stat.S_ISDIR(mode):
                tell(f"{shown(inside)} is a link or no plain file and was refused")


def read_plain(path: Path | str, folder: int | None = None) -> bytes:
    """The bytes of a plain file, and of no link; `folder` is the open folder in which the path begins.

    Raises  Refused if it is none, cannot be read or is too large.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refused("is no plain file")
            return within_limit(file.read(LARGEST_NOTEBOOK + 1))
    except OSError as error:
        raise Refused(f"cannot be read ({error.strerror})") from error


def within_limit(data: bytes) -> bytes:
    if len(data) > LARGEST_NOTEBOOK:
        raise Refused(f"is larger than {LARGEST_NOTEBOOK:,} bytes")
    return data


def zip_members(path: Path, tell: Callable[[str], None]) -> Iterator[Member]:
    """The files of a zip, in its order; its names are never used as paths. It stays open while a member lives."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CourseError(f"{path.name} cannot be opened as a zip ({error}); download it again") from error
    for info in archive.infolist():
        if fault := fault_of(info):
            tell(f"{shown(info.orig_filename)} {fault} and was refused")
        elif not info.is_dir():
            yield Member(info.filename, lambda info=info: read_packed(archive, info), packed_time(info))


def fault_of(info: zipfile.ZipInfo) -> str:
    """What is wrong with a packed file's name or kind, or ""."""
    name = info.orig_filename
    mode = info.external_attr >> 16
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "has a path that leads out of its folder"
    if "\\" in name or not name.isprintable():
        return "has an odd name"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is a link or no plain file"
    return ""


def read_packed(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a packed file; what its header says about its size is not believed.

    Raises  Refused if it is damaged, locked, too large or packed too tightly to be a notebook.
    """
    if info.flag_bits & 1:
        raise Refused("is locked with a password")
    try:
        with archive.open(info) as file:
            data = within_limit(file.read(LARGEST_NOTEBOOK + 1))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Refused("is damaged or packed in an unknown way") from error
    if len(data) > SMALL and len(data) > LARGEST_RATIO * max(1, info.compress_size):
        raise Refused(f"unpacks to more than {LARGEST_RATIO} times its size")
    return data


def packed_time(info: zipfile.ZipInfo) -> datetime | None:
    """A packed file's time: in UTC where the zip says so, else by this machine's clock; None if it is none."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if kind == 0x5455 and size >= 5 and extra[4] & 1:  # extended time stamp
            return datetime.fromtimestamp(int.from_bytes(extra[5:9], "little"), UTC)
        extra = extra[4 + size :]
    try:
        return datetime(*info.date_time).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# --- whose it is ---


def to_student(name: str | None, number: str) -> str:
    """A platform's name and number of a student as one name: "Ann Lee", "1234" gives Ann-Lee-1234."""
    words = re.sub(r"[^\w.@]+", "-", unicodedata.normalize("NFC", name or "")).strip("-._@")[:60]
    return "-".join(part for part in (words, number.replace("_", "-")) if part)


def sort_out(found: Iterator[Member], labs: list[str], asked: str, tell: Callable[[str], None]) -> list[HandedIn]:
    """Who handed in what, one notebook for each student and lab, in order; `asked` is the lab that all are for.

    Of everything else, `tell` gets a sentence.
    """
    taken: dict[tuple[str, str], list[HandedIn]] = {}
    foreign: dict[str, list[str]] = {}
    found = list(found)
    if around := folder_around(found, labs):
        tell(f"all notebooks lie in {shown(around)}, which was taken for a folder around the class, not for a student")
    for member in found:
        if NOISE.fullmatch(member.name):
            continue
        if not is_notebook(member):
            owner = member.name.partition("/")[0] if "/" in member.name else ""
            foreign.setdefault(owner, []).append(member.name.rpartition("/")[2])
            continue
        try:
            handed_in = recognize(member, labs, asked, around)
        except Refused as refused:
            tell(f"{shown(member.name)} {refused}")
        else:
            taken.setdefault((handed_in.student, handed_in.lab), []).append(handed_in)
    for owner, names in sorted(foreign.items()):
        listed = ", ".join(map(shown, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        tell(f"no notebook, so left out{' of ' + shown(owner) if owner else ''}: {listed}")
    return [_last(several, tell) for _, several in sorted(taken.items())]


def _last(several: list[HandedIn], tell: Callable[[str], None]) -> HandedIn:
    *others, last = sorted(several, key=lambda one: one.rank)
    for other in others:
        tell(f"{shown(other.member.name)} was left out, because {shown(last.member.name)} is the same student's")
    return last


def folder_around(found: list[Member], labs: list[str]) -> str:
    """The folder around the whole class, with its slash, or "": what lies in a student's is named after a lab.

    Raises  CourseError if it may be either.
    """
    paths = [member.name.split("/") for member in found if is_notebook(member)]
    tops, inside = {path[0] for path in paths}, {path[1] for path in paths if len(path) > 1}
    if len(tops) != 1 or min(map(len, paths)) < 2 or any(map(MOODLE.fullmatch, tops)):
        return ""
    (top,) = tops
    if any(lab_of(name, labs) for name in inside):
        return ""
    if len(inside) == 1 and max(map(len, paths)) > 2 and not any(map(MOODLE.fullmatch, inside)):
        raise CourseError(
            f"all notebooks lie in {shown(top)}/{shown(*inside)}, so either may be the student's name; give a folder "
            "or zip that holds STUDENT/LAB/LAB.ipynb"
        )
    return f"{top}/" if len(inside) > 1 or max(map(len, paths)) > 2 else ""


def is_notebook(member: Member) -> bool:
    return member.name.lower().endswith(".ipynb") and not NOISE.fullmatch(member.name)


def recognize(member: Member, labs: list[str], asked: str, around: str = "") -> HandedIn:
    """Whose notebook a file is, and of which lab, by its name; `around` is a folder around the whole class.

    Raises  Refused if the name does not say so.
    """
    name = unicodedata.normalize("NFC", member.name.removeprefix(around))
    student, parts, upload, remark = _whose(name.split("/"))
    if lab_of(student, labs):
        raise Refused("does not say whose it is and was left out; name it STUDENT.ipynb or put it into STUDENT/")
    if not STUDENT.fullmatch(student):
        raise Refused(f"has no name for a student ({shown(student)}) and was refused; use letters, digits, . _ @ -")
    lab = next(filter(None, (lab_of(part, labs) for part in reversed(parts))), "")
    if asked and lab not in ("", asked):
        raise Refused(f"is {lab} and was left out, because {asked} is collected")
    if not (lab or asked):
        raise Refused(f"does not say which lab it is and was left out; add --lab ({', '.join(labs)})")
    if parts and parts[-1] != f"{lab or asked}.ipynb":
        remark = "; ".join([f"the file is named {shown(parts[-1])}", *filter(None, [remark])])
    return HandedIn(student, lab or asked, member, upload, remark)


def _whose(parts: list[str]) -> tuple[str, list[str], int, str]:
    """The student, the names that may name the lab, the number of the upload, and a remark."""
    if len(parts) == 1:
        if found := MOODLE_FLAT.fullmatch(parts[0]):
            return to_student(found["name"], found["id"]), [found["file"]], 0, ""
        if found := CANVAS.fullmatch(parts[0]):
            remark = "Canvas marks it as late" if found["late"] else ""
            return to_student(found["name"], found["id"]), [found["file"]], int(found["upload"]), remark
        return parts[0].rpartition(".")[0], [], 0, ""
    if found := MOODLE.fullmatch(parts[0]):
        return to_student(found["name"], found["id"]), parts[1:], 0, ""
    if len(parts) > 3:
        raise Refused("lies too deep and was left out; wanted is STUDENT/LAB/LAB.ipynb")
    return parts[0], parts[1:], 0, ""


def lab_of(name: str, labs: list[str]) -> str:
    """The lab that a file or folder is named after, or ""."""
    stem = re.sub(r"\.ipynb$", "", name, flags=re.I)
    return next((lab for lab in labs if re.fullmatch(re.escape(lab) + COUNTED, stem, re.I)), "")
