"""The chapter's section that teaches a question: its heading, and where a reader finds it in the book."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from docutils.nodes import make_id

from grading.course import Course, CourseError, Lab

SECTION = r"\({}\)=\s*\n#+ +(.+)"  # a label of the chapter and the heading that follows it


@dataclass(frozen=True)
class Section:
    """A heading of the chapter; `place` is its page and anchor in the book."""

    heading: str
    place: str


def sections(lab: Lab) -> dict[str, Section]:
    """The section that teaches each question, by question id; without those that the chapter does not have."""
    cells = lab.chapter if lab.chapter_path.is_file() else []
    text = "\n\n".join(cell.source for cell in cells if cell.kind == "markdown")
    found = {question: re.search(SECTION.format(re.escape(question.teaches)), text) for question in lab.questions}
    return {
        question.id: Section(match[1].strip(), f"notebooks/{lab.chapter_path.stem}.html#{make_id(question.teaches)}")
        for question, match in found.items()
        if match
    }


def links(course: Course, lab: Lab, depth: int) -> dict[str, str]:
    """Addresses of the sections by question id, for a page that lies `depth` folders below the class's work.

    They begin with `html: baseurl:` of book/_config.yml. Without one they lead to the book that was built on this
    machine; where there is neither, there are none.
    """
    base = _base(course.root / "book" / "_config.yml")
    site = Path("book", "_build", "html")
    near = "../" * (depth + len(course.work.relative_to(course.root).parts)) + site.as_posix() + "/"
    return {
        question: (base or near) + section.place
        for question, section in sections(lab).items()
        if base or (course.root / site / section.place.partition("#")[0]).is_file()
    }


def _base(config: Path) -> str:
    """The address at which the book is published, with a slash at its end, or ""."""
    try:
        read = yaml.safe_load(config.read_bytes()) if config.is_file() else {}
    except yaml.YAMLError as error:
        raise CourseError(f"book/{config.name} is not YAML; `make book` says in which line") from error
    html = read.get("html") if isinstance(read, dict) else None
    url = html.get("baseurl") if isinstance(html, dict) else None
    if url and not re.match(r"https?://", str(url)):
        raise CourseError(f"html: baseurl: in book/{config.name} is {url!r}; write an address that begins with https://")
    return f"{url}".rstrip("/") + "/" if url else ""
