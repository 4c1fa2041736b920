"""nbgrader's exchange, a folder of a shared machine: labs go out, work comes in, pages go back.

Many accounts write there. What a student put in is theirs, and they may exchange anything in it meanwhile: their
folder is opened once and read through that, no link is followed, and only the owner of a folder speaks for its name.
"""

import hashlib
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange import ExchangeError
from nbgrader.exchange.default import ExchangeReleaseAssignment
from nbgrader.utils import notebook_hash, parse_utc

from grading.course import STUDENT, Course, CourseError, shown, write_whole
from grading.gradebook import quiet_nbgrader, settings
from grading.inbox import Refused, read_plain
from grading.ingest import ingest
from grading.release import Bundle

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Submission:
    """What one `nbgrader submit` left: the notebook, its time and the word by which its page is found."""

    name: str
    data: bytes
    seen: float  # when the system last saw the notebook change, which its owner cannot set back
    secret: str  # "" if there is none


def course_of(course: Course, root: Path) -> Path:
    """The course's folder in the exchange."""
    return root / settings(course.root).CourseDirectory.course_id


def is_exchange(course: Course, root: Path) -> bool:
    return (course_of(course, root) / "inbound").is_dir()


# --- labs go out ---


def to_exchange(course: Course, made: Bundle, root: Path) -> bool:
    """Release the bundle in the exchange; whether anything changed there."""
    config = settings(course.root)
    lab = made.folder.name
    released = course_of(course, root) / "outbound" / lab
    names = sorted(p.relative_to(released).as_posix() for p in released.rglob("*") if p.is_file())
    if names == made.names and all((released / n).read_bytes() == (made.folder / n).read_bytes() for n in names):
        return False
    config.CourseDirectory.assignment_id = lab
    config.CourseDirectory.release_directory = str(made.folder.parent)
    config.Exchange.root = str(root)
    config.ExchangeReleaseAssignment.force = True
    with quiet_nbgrader():
        try:
            make_root(root)
            ExchangeReleaseAssignment(coursedir=CourseDirectory(config=config), config=config).start()
        except (ExchangeError, OSError) as error:
            raise CourseError(
                f"nbgrader could not release {lab} in the exchange {root} ({error}); give a folder of your own"
            ) from error
    return True


def make_root(root: Path) -> None:
    """Make the exchange if there is none: everyone may put something in, nobody may move what is another's."""
    if not root.exists():
        root.mkdir(parents=True)
        root.chmod(0o1777)


# --- work comes in ---


def from_exchange(course: Course, root: Path, labs: list[str], scratch: Path, tell: Tell) -> Path:
    """The folder in `scratch` with the last submission of every student, as STUDENT/LAB/LAB.ipynb."""
    for (student, lab), folders in claims(course, root, labs, tell).items():
        try:
            last = read_submission(folders[-1], lab)
        except Refused as refused:
            tell(f"{student}/{lab} in the exchange {refused} and was refused")
            continue
        copy = scratch / student / lab / last.name
        write_whole(copy, last.data)
        os.utime(copy, (last.seen, last.seen))
    return scratch


def claims(course: Course, root: Path, labs: list[str], tell: Tell) -> dict[tuple[str, str], list[Path]]:
    """Every student's folders for each lab, in the order of the times in their names."""
    found: dict[tuple[str, str], list[tuple]] = {}
    for path in sorted((course_of(course, root) / "inbound").iterdir()):
        try:
            student, lab, time = parts_of(path.name, course.lab_names)
            if lab in labs:
                check_owner(path, student, lab, tell)
                found.setdefault((student, lab), []).append((time, path))
        except Refused as refused:
            tell(f"{shown(path.name)} {refused} and was refused")
    return {whose: [path for _, path in sorted(folders)] for whose, folders in sorted(found.items())}


def parts_of(name: str, labs: list[str]) -> tuple:
    """Student, lab and time of a folder that nbgrader named STUDENT+LAB+TIME+RANDOM."""
    student, lab, time = [*name.split("+"), "", ""][:3]
    if not STUDENT.fullmatch(student) or lab not in labs:
        raise Refused("names no student and lab of this course")
    try:
        return student, lab, parse_utc(time)
    except (ValueError, OverflowError) as error:
        raise Refused("names no time") from error


def check_owner(path: Path, student: str, lab: str, tell: Tell) -> None:
    """Nobody hands in under the name of another account; where students have no accounts, the instructor is told.

    Raises  Refused if the student has an account and the folder is another's.
    """
    if (owner := owner_of(path)) == student:
        return
    if has_account(student):
        raise Refused(f"was put there by the account {owner}")
    tell(f"{student}/{lab} was put into the exchange by the account {owner}; make sure that it is theirs")


def owner_of(path: Path) -> str:
    try:
        return pwd.getpwuid(path.lstat().st_uid).pw_name
    except KeyError:
        return "unknown"


def has_account(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


def read_submission(path: Path, lab: str) -> Submission:
    """What a student's folder holds.

    Raises  Refused if it is a link, or holds no notebook that could be the lab.
    """
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise Refused(f"is a link or cannot be opened ({error.strerror})") from error
    try:
        names = os.listdir(folder)
        name = the_notebook(names, f"{lab}.ipynb")
        data = read_plain(name, folder)
        seen = os.stat(name, dir_fd=folder, follow_symlinks=False).st_ctime
        secret = read_plain("submission_secret.txt", folder) if "submission_secret.txt" in names else b""
    finally:
        os.close(folder)
    return Submission(name, data, seen, secret.decode(errors="replace"))


def the_notebook(names: list[str], wanted: str) -> str:
    """The name among these that is wanted, or else the only notebook.

    Raises  Refused if there is neither.
    """
    notebooks = [name for name in names if name.endswith(".ipynb")]
    if wanted in notebooks:
        return wanted
    if len(notebooks) == 1:
        return notebooks[0]
    raise Refused(f"holds {len(notebooks)} notebooks and no {wanted}")


# --- pages go back ---


def pages_to_exchange(course: Course, root: Path, labs: list[str], tell: Tell) -> tuple[int, int]:
    """Put each page where `nbgrader fetch_feedback` of its student finds it; how many lie there, how many are new.

    A page answers every submission that has the bytes which were graded. Its name is drawn from the word that only
    the student and the instructor can read, and the folder shows nobody what it holds.
    """
    pages = course_of(course, root) / "feedback"
    n_pages = n_new = 0
    for (student, lab), folders in claims(course, root, labs, tell).items():
        page = course.work / "feedback" / student / f"{lab}.html"
        if not is_graded(course, student, lab, page):
            tell(f"{student}/{lab} is not graded yet; collect and grade it first")
            continue
        wanted = hashlib.sha256((course.work / "submitted" / student / lab / f"{lab}.ipynb").read_bytes()).digest()
        for name in answered(folders, lab, wanted, tell):
            n_pages += 1
            n_new += put_page(pages / name, page.read_bytes())
    return n_pages, n_new


def is_graded(course: Course, student: str, lab: str, page: Path) -> bool:
    """Whether the page answers what was collected last."""
    collected = course.work / "submitted" / student / lab
    if not (page.is_file() and collected.is_dir()):
        return False
    return f'content="{ingest(course.lab(lab), student, collected).digest}"' in page.read_text(encoding="utf-8")


def answered(folders: list[Path], lab: str, wanted: bytes, tell: Tell) -> list[str]:
    """The names under which the page of the notebook with this SHA-256 is looked for."""
    names = []
    for folder in folders:
        try:
            one = read_submission(folder, lab)
        except Refused as refused:
            tell(f"{shown(folder.name)} {refused} and was left out")
            continue
        if hashlib.sha256(one.data).digest() == wanted and one.secret:
            names.append(f"{notebook_hash(secret=one.secret, notebook_id=Path(one.name).stem)}.html")
    return names


def put_page(path: Path, page: bytes) -> bool:
    """Write the page, readable for whoever knows its name, into a folder that cannot be listed."""
    if not path.parent.is_dir():
        path.parent.mkdir()
        path.parent.chmod(0o711)
    changed = write_whole(path, page)
    path.chmod(0o644)
    return changed
