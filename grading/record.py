"""A folder of submissions in; one result.json each, the gradebook, grades.csv and the feedback pages out.

A result is written whole or not at all and carries the key of what it was made from, so a second run finds it
and changes nothing, and a run that was interrupted goes on where it stopped.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from grading.collect import counting, read_receipts
from grading.course import STUDENT, Course, CourseError, Lab, alone, read_record, shown, to_json, write_whole
from grading.feedback import feedback_page, lesson_of
from grading.gradebook import lateness, marks_by_hand, take_in, write_grades
from grading.ingest import Submission, ingest
from grading.judge import BLANK, Judge, Judgement, course_secret
from grading.ladder import climb, tried_before
from grading.lateness import in_words, is_collected, pass_on
from grading.preflight import first_fault
from grading.session import WarmParent


@dataclass(frozen=True)
class Graded:
    """What a run made, and what it left out and why."""

    results: list[dict]
    n_judged: int
    refused: list[str]
    unproven: list[str]  # the labs whose checks failed to prove themselves, with the reason
    grades: Path
    feedback: Path


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
        except OSError as error:
            refused.append(f"{student.name} cannot be read ({error.strerror}) and was left out")
            continue
        for lab in labs:
            if lab.is_symlink():
                refused.append(f"{student.name}/{shown(lab.name)} is a link and was refused")
            else:
                found.append((student.name, lab.name, lab))
    if not found:
        raise CourseError(f"{folder} holds no submission; it should hold STUDENT/LAB/LAB.ipynb")
    return found, refused


def to_result(
    submission: Submission, judgements: list[Judgement], outputs: dict[str, str], key: str, before: dict | None
) -> dict:
    """The content of result.json; `before` is the student's result that it takes the place of."""
    questions, tried = [], tried_before(before)
    for question, judgement in zip(submission.lab.questions, judgements, strict=True):
        output = "" if judgement.status == BLANK else outputs.get(question.id, "")
        hints = climb(question, judgement, submission.source(question.id), tried.get(question.id, []))
        told = asdict(judgement) | {"output": output} | hints
        known = {"id": question.id, "title": question.title, "part": question.part, "max_points": question.points}
        questions.append(known | {name: told[name] for name in told if name != "question"})
    return {
        "student": submission.student,
        "lab": submission.lab.name,
        "lab_title": submission.lab.title,
        "key": key,
        "points": sum(q["points"] or 0 for q in questions),
        "max_points": sum(q["max_points"] for q in questions),
        "flags": list(submission.flags),
        "questions": questions,
        "free_output": {name: text for name, text in outputs.items() if name.startswith("free-") and text},
    }


def grade_lab(
    course: Course, lab: Lab, handed_in: list[tuple[str, Path]], parent: WarmParent, tell: Callable[[str], None]
) -> tuple[dict[str, dict], int]:
    """The result of every student who handed this lab in, and how many had to be judged."""
    results, n_judged, lab_key = {}, 0, lab.key
    with Judge(lab, parent, course_secret(course.work)) as judge:
        for student, folder in handed_in:
            submission = ingest(lab, student, folder)
            key = key_of(submission, lab_key)
            place = course.work / "results" / student / lab.name / "result.json"
            result = before = read_result(place)
            if before is None or before["key"] != key:
                result = to_result(submission, *judge.judge(submission), key, before)
                n_judged += 1
                tell(f"  {lab.name}  {student:<12} {result['points']:>5g} of {result['max_points']:g}")
            rebuilt = course.work / "rebuilt" / student / lab.name / f"{lab.name}.ipynb"
            write_whole(rebuilt, submission.to_notebook())
            pass_on(course.work, student, lab.name, folder)
            write_whole(place, to_json(result))
            results[student] = result
    return results, n_judged


def key_of(submission: Submission, lab_key: str) -> str:
    """What a result is made from: the student's work, and all that judges it."""
    return hashlib.sha256((submission.digest + lab_key).encode()).hexdigest()


def read_result(place: Path) -> dict | None:
    """The result that lies there."""
    return read_record(place, "key", "questions") if place.is_file() else None


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


def grade(course: Course, folder: Path, parent: WarmParent, tell: Callable[[str], None] = print) -> Graded:
    """Judge every submission in the folder that has no result yet, then bring all records up to date."""
    labs, refused = by_lab(course, folder)
    with alone(course.work):
        graded, n_judged, unproven = [], 0, []
        for name, handed_in in sorted(labs.items()):
            lab = course.lab(name)
            if fault := first_fault(lab, course.work, parent, tell):
                unproven.append(f"{name} is not graded, because its checks do not prove themselves ({fault})")
                continue
            results, n_new = grade_lab(course, lab, handed_in, parent, tell)
            if n_taken := take_in(course, name, results):
                tell(f"  {name}  nbgrader took in the scores of {n_taken} submissions")
            graded += results.values()
            n_judged += n_new
        if not graded:
            raise CourseError("; ".join(unproven))
        grades = write_grades(course, graded)
        return Graded(graded, n_judged, refused, unproven, grades, write_pages(course, graded))


def write_pages(course: Course, results: list[dict]) -> Path:
    """The feedback pages of these results; the folder that holds them."""
    pages = course.work / "feedback"
    lessons = {lab: lesson_of(course, course.lab(lab)) for lab in {result["lab"] for result in results}}
    receipts = counting(read_receipts(course.work))
    for result in results:
        place = result["student"], result["lab"]
        seconds, penalty = lateness(course, *place)
        receipt = receipts.get(place) if is_collected(course.work, *place) else None
        page = feedback_page(
            result, marks_by_hand(course, *place), in_words(seconds), penalty, lessons[result["lab"]], receipt
        )
        write_whole(pages / result["student"] / f"{result['lab']}.html", page)
    return pages
