"""A folder of submissions in; one result.json each, the gradebook, grades.csv and the feedback pages out.

A result is written whole or not at all and carries the key of what it was made from, so a second run finds it
and changes nothing, and a run that was interrupted goes on where it stopped.
"""

import hashlib
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from grading.collect import counting, read_receipts
from grading.course import (
    STUDENT,
    Course,
    CourseError,
    Lab,
    alone,
    read_record,
    result_place,
    shown,
    to_json,
    write_whole,
)
from grading.feedback import feedback_page, lesson_of
from grading.ingest import Submission, ingest
from grading.judge import BLANK, Judge, Judgement
from grading.ladder import climb, tried_before
from grading.lateness import in_words, is_collected, pass_on
from grading.panel import Panel
from grading.preflight import first_fault
from grading.question import Question
from grading.regrade import merge, with_totals, write_regraded
from grading.session import WarmParent

MOST_LINES = 100  # of progress for a lab


@dataclass(frozen=True)
class Graded:
    """What a run made, and what it left out and why."""

    results: list[dict]
    n_judged: int
    refused: list[str]
    unproven: list[str]  # the labs whose checks failed to prove themselves, with the reason
    grades: Path
    feedback: Path
    regraded: list[dict[str, str]]  # the marks that a changed check touched, since the last run


def find_submissions(folder: Path) -> tuple[list[tuple[str, str, Path]], list[str]]:
    """(student, lab, path) of everything handed in under STUDENT/LAB, and a sentence for what was refused.

    Raises  CourseError if there is nothing.
    """
    if not folder.is_dir():
        raise CourseError(f"{folder} is not a folder; give one that holds STUDENT/LAB/LAB.ipynb")
    found, refused = [], []
    for student in sorted(path for path in folder.iterdir() if path.is_symlink() or path.is_dir()):
        if student.is_symlink() or not STUDENT.fullmatch(student.name):
            refused.append(f"{student.name!r} is a link or no name for a student and was refused")
            continue
        try:
            labs = sorted(path for path in student.iterdir() if path.is_symlink() or path.is_dir())
            stray = sorted(path.name for path in student.glob("*.ipynb") if not path.is_dir())
        except OSError as error:
            refused.append(f"{student.name} cannot be read ({error.strerror}) and was left out")
            continue
        refused += [f"{student.name}/{shown(name)} lies outside of a lab's folder and was left out" for name in stray]
        for lab in labs:
            if lab.is_symlink():
                refused.append(f"{student.name}/{shown(lab.name)} is a link and was refused")
            else:
                found.append((student.name, lab.name, lab))
    if not found:
        raise CourseError(f"{folder} holds no submission; it should hold STUDENT/LAB/LAB.ipynb")
    return found, refused


def to_result(
    submission: Submission,
    before: dict | None,
    questions: list[Question],
    judgements: list[Judgement],
    outputs: dict[str, str],
) -> dict:
    """The content of result.json for the questions that were judged; `before` is the result whose place it takes."""
    entries, tried = [], tried_before(before)
    for question, judgement in zip(questions, judgements, strict=True):
        output = "" if judgement.status == BLANK else outputs.get(question.id, "")
        hints = climb(question, judgement, submission.source(question.id), tried.get(question.id, []))
        told = asdict(judgement) | {"output": output} | hints
        known = {"id": question.id, "title": question.title, "part": question.part, "max_points": question.points}
        key = {"key": submission.lab.question_keys[question.id], "regraded": None}
        entries.append(known | {name: told[name] for name in told if name != "question"} | key)
    return with_totals({
        "student": submission.student,
        "lab": submission.lab.name,
        "lab_title": submission.lab.title,
        "key": key_of(submission),
        "attempt": submission.digest,
        "points": 0,
        "max_points": 0,
        "flags": list(submission.flags),
        "questions": entries,
        "free_output": {name: text for name, text in outputs.items() if name.startswith("free-") and text},
    })


def key_of(submission: Submission) -> str:
    """What a result is made from: the student's work, and all that judges it."""
    return hashlib.sha256((submission.digest + submission.lab.checks_key).encode()).hexdigest()


def read_result(place: Path) -> dict | None:
    """The result that lies there."""
    return read_record(place, "key", "questions") if place.is_file() else None


def is_open(work: Path, lab: Lab, student: str, folder: Path) -> bool:
    """Whether the submission has no result yet."""
    before = read_result(result_place(work, student, lab.name))
    return before is None or before["key"] != key_of(ingest(lab, student, folder))


def record(judge: Judge, work: Path, student: str, folder: Path) -> tuple[dict, bool]:
    """A student's result, written, and whether anything had to be judged for it."""
    submission = ingest(judge.lab, student, folder)
    place = result_place(work, student, judge.lab.name)
    result = before = read_result(place)
    if is_new := before is None or before["key"] != key_of(submission):
        same_work = before is not None and before.get("attempt") == submission.digest
        result = regrade(judge, submission, before) if same_work else judge_all(judge, submission, before)
    write_whole(work / "rebuilt" / student / judge.lab.name / f"{judge.lab.name}.ipynb", submission.to_notebook())
    pass_on(work, student, judge.lab.name, folder)
    write_whole(place, to_json(result))
    return result, is_new


def judge_all(judge: Judge, submission: Submission, before: dict | None) -> dict:
    """The result of work that was never judged; `before` is that of the student's last attempt."""
    return to_result(submission, before, judge.lab.questions, *judge.judge(submission))


def regrade(judge: Judge, submission: Submission, before: dict) -> dict:
    """The result of work that was judged before: only questions whose check was changed are judged anew."""
    keys = {question["id"]: question["key"] for question in before["questions"]}
    stale = [q for q in judge.lab.questions if keys.get(q.id) != judge.lab.question_keys[q.id]]
    fresh = to_result(submission, before, stale, *judge.judge(submission, stale))
    return merge(before, fresh, [question.id for question in judge.lab.questions])


def grade_lab(
    panel: Panel, lab: Lab, handed_in: list[tuple[str, Path]], tell: Callable[[str], None],
    meanwhile: Callable[[], None] = lambda: None,
) -> tuple[list[dict], int]:
    """The result of every student who handed this lab in, and how many had to be judged.

    `meanwhile` is called when the judges have begun.
    """
    results, n_judged, step = {}, 0, math.ceil(len(handed_in) / MOST_LINES)
    coming = panel.each(record, lab, handed_in, any(is_open(panel.course.work, lab, *one) for one in handed_in))
    meanwhile()
    for result, is_new in coming:
        results[result["student"]] = result
        n_judged += is_new
        if is_new and step == 1:
            tell(f"  {lab.name}  {result['student']:<12} {result['points']:>5g} of {result['max_points']:g}")
        elif n_judged and len(results) % step == 0:
            tell(f"  {lab.name}  {len(results)} of {len(handed_in)} submissions")
    return [results[student] for student, _ in handed_in], n_judged


def by_lab(course: Course, folder: Path) -> tuple[dict[str, list[tuple[str, Path]]], list[str]]:
    """What was handed in for each lab of the course, as (student, path), and a sentence for what was refused."""
    found, refused = find_submissions(folder)
    labs: dict[str, list[tuple[str, Path]]] = {}
    for student, lab, path in found:
        if lab in course.lab_names:
            labs.setdefault(lab, []).append((student, path))
        else:
            refused.append(f"{student}/{shown(lab)}: there is no such lab, so it was left out")
    if not labs:
        raise CourseError(f"{folder} holds no lab of this course; it should hold STUDENT/LAB/LAB.ipynb")
    return labs, refused


def grade(
    course: Course, folder: Path, parent: WarmParent, tell: Callable[[str], None] = print, n_judges: int = 1
) -> Graded:
    """Judge every submission in the folder that has no result yet, then bring all records up to date."""
    labs, refused = by_lab(course, folder)
    with alone(course.work), Panel(course, parent, n_judges) as panel:
        graded, n_judged, unproven = [], 0, []
        for name, handed_in in sorted(labs.items()):
            lab = course.lab(name)
            if fault := first_fault(lab, course.home, parent, tell):
                unproven.append(f"{name} is not graded, because its checks do not prove themselves ({fault})")
                continue
            results, n_new = grade_lab(panel, lab, handed_in, tell, lambda name=name: prepare(course, name))
            if n_taken := gradebook().take_in(course, name, results):
                tell(f"  {name}  nbgrader took in the scores of {n_taken} submissions")
            graded += results
            n_judged += n_new
        if not graded:
            raise CourseError("; ".join(unproven))
        stored = sorted([*graded, *left_alone(course, graded)], key=lambda result: (result["lab"], result["student"]))
        grades, feedback = gradebook().write_grades(course, stored), write_pages(course, graded)
        regraded = write_regraded(course.work / "regraded.csv", stored)
        return Graded(graded, n_judged, refused, unproven, grades, feedback, regraded)


def left_alone(course: Course, graded: list[dict]) -> list[dict]:
    """The results of earlier runs that are not among these: of another folder, or of a lab that is not proven now."""
    known = {(result["student"], result["lab"]) for result in graded}
    places = (course.work / "results").glob("*/*/result.json")
    others = [place for place in places if place.parts[-3:-1] not in known and place.parts[-2] in course.lab_names]
    return [read_record(place, "student", "lab", "points", "max_points", "flags", "questions") for place in others]


def prepare(course: Course, lab: str) -> None:
    """Introduce the lab to the gradebook; what cannot be done now is told when the scores are taken in."""
    with suppress(CourseError):
        gradebook().introduce(course, lab)


def gradebook() -> ModuleType:
    """The module, which takes a second to import; so that is left to a time when the judges are at work."""
    from grading import gradebook

    return gradebook


def write_pages(course: Course, results: list[dict]) -> Path:
    """The feedback pages of these results; the folder that holds them."""
    pages = course.work / "feedback"
    lessons = {lab: lesson_of(course, course.lab(lab)) for lab in {result["lab"] for result in results}}
    receipts = counting(read_receipts(course.work))
    with gradebook().open_gradebook(course) as book:
        seen = {lab: gradebook().remembered(book, lab) for lab in lessons}
        for result in results:
            student, lab = place = result["student"], result["lab"]
            seconds, penalty = gradebook().lateness(book, *place)
            receipt = receipts.get(place) if is_collected(course.work, *place) else None
            by_hand = gradebook().marks_by_hand(book, *place, seen[lab])
            page = feedback_page(result, by_hand, in_words(seconds), penalty, lessons[lab], receipt)
            write_whole(pages / student / f"{lab}.html", page)
    return pages
