"""Commands of the instructor's day: release a lab, collect what comes back, give the pages back."""

import argparse
import csv
import math
from pathlib import Path

from grading import sandbox
from grading.collect import Collected, Terms, collect
from grading.course import Course, CourseError, alone
from grading.lateness import in_words, to_moment, to_stamp
from grading.preflight import first_fault
from grading.session import WarmParent

EXCHANGE = Path("/usr/local/share/nbgrader/exchange")  # where nbgrader has it


def add_commands(commands: argparse._SubParsersAction) -> None:
    one = commands.add_parser("release", help="make the bundle of a lab for students, once its checks prove themselves")
    one.add_argument("labs", nargs="+", metavar="LAB", help="01, lab01 or lab01_neuron")
    one.add_argument("--exchange", nargs="?", const=EXCHANGE, type=Path, metavar="FOLDER",
                     help=f"release in nbgrader's exchange as well ({EXCHANGE} if no folder is given)")
    one.set_defaults(run=run_release)
    one = commands.add_parser("collect", help="take submissions from a folder, a zip of Canvas or Moodle, an exchange")
    one.add_argument("source", type=Path, metavar="SOURCE", help="folder, zip, or the root of nbgrader's exchange")
    one.add_argument("--lab", default="", metavar="LAB", help="the lab that all of them are")
    one.add_argument("--due", type=str, metavar="TIME", help="ISO time, 2026-10-01T23:59+02:00; kept for the lab")
    one.add_argument("--late-per-day", type=float, metavar="POINTS", help="points taken for each day begun; kept")
    one.add_argument("--attempts", type=int, metavar="N", help="take no more attempts than this; kept")
    one.add_argument("--extensions", type=Path, metavar="CSV", help="rows STUDENT,LAB,DUE; kept")
    one.add_argument("--trust-file-times", action="store_true",
                     help="the time of a file in the zip counts, not the time of this call")
    one.set_defaults(run=run_collect)
    one = commands.add_parser("feedback", help="put the pages into nbgrader's exchange, each for its student alone")
    one.add_argument("exchange", nargs="?", default=EXCHANGE, type=Path, metavar="FOLDER",
                     help=f"the root of nbgrader's exchange ({EXCHANGE} if none is given)")
    one.add_argument("--lab", default="", metavar="LAB", help="this lab alone")
    one.set_defaults(run=run_feedback)


def tell(line: str) -> None:
    print(line, flush=True)


def run_release(course: Course, options: argparse.Namespace) -> int:
    from grading.exchange import to_exchange  # nbgrader takes a second to import, here and below
    from grading.release import bundle

    n_refused = 0
    labs = [course.lab(name) for name in options.labs]
    with alone(course.work), WarmParent(exposed=bool(sandbox.fault())) as parent:
        for lab in labs:
            tell(lab.title)
            if fault := first_fault(lab, course.work, parent, tell):
                tell(f"{lab.name} is not released, because it does not prove itself ({fault}); see `grading preflight`")
                n_refused += 1
                continue
            made = bundle(course, lab)
            tell(f"{lab.name}  {'released' if made.changed else 'is released already'}: {', '.join(made.names)}")
            tell(f"  folder    {made.folder.relative_to(course.root)}")
            tell(f"  zip       {made.archive.relative_to(course.root)}")
            if options.exchange:
                changed = to_exchange(course, made, options.exchange.resolve())
                tell(f"  exchange  {options.exchange}{'' if changed else ' (was there already)'}")
    tell(f"\n{len(labs) - n_refused} of {len(labs)} labs released; left out of each: answers, checks, remarks to you")
    if n_refused < len(labs):
        tell("next: hand out the zip; when the work comes back, `grading collect SOURCE`")
    return 1 if n_refused else 0


def run_collect(course: Course, options: argparse.Namespace) -> int:
    terms = Terms(
        due=to_stamp(to_moment(options.due)) if options.due is not None else None,
        late_per_day=options.late_per_day,
        attempts=options.attempts,
        extensions=options.extensions,
        trust_file_times=options.trust_file_times,
    )
    if terms.late_per_day is not None and not 0 <= terms.late_per_day < math.inf:
        raise CourseError(f"--late-per-day is {terms.late_per_day:g}; give a number of points that is at least 0")
    if terms.attempts is not None and terms.attempts < 1:
        raise CourseError(f"--attempts is {terms.attempts}; give a number that is at least 1")
    lab = course.lab(options.lab).name if options.lab else ""
    collected = collect(course, options.source.resolve(), lab, terms, tell=tell)
    show_collected(course, collected)
    if not collected.taken and not collected.n_known:
        raise CourseError(f"nothing in {options.source} could be taken; name notebooks after student and lab")
    return 0


def run_feedback(course: Course, options: argparse.Namespace) -> int:
    from grading.exchange import is_exchange, pages_to_exchange

    if not is_exchange(course, options.exchange):
        raise CourseError(f"{options.exchange} is no exchange of this course; give the folder of `grading release`")
    labs = [course.lab(options.lab).name] if options.lab else course.lab_names
    with alone(course.work):
        root = options.exchange.resolve()
        n_pages, n_new = pages_to_exchange(course, root, labs, lambda line: tell(f"  note: {line}"))
    tell(f"\n{n_pages} pages lie in {options.exchange}, {n_new} of them new or changed")
    tell("next: students call `nbgrader fetch_feedback LAB`, or click Fetch Feedback in their list of assignments")
    return 0


def show_collected(course: Course, collected: Collected) -> None:
    work = course.work.relative_to(course.root)
    for sentence in collected.said:
        tell(f"  note: {sentence}")
    for receipt in collected.taken:
        if seconds := collected.late.get((receipt["student"], receipt["lab"])):
            tell(f"  late: {receipt['student']}/{receipt['lab']} by {in_words(seconds)}")
    tell(f"\n{len(collected.taken)} taken, {collected.n_known} known already, {len(collected.said)} notes, "
         f"{len(collected.late)} of all submissions are late")
    if collected.strangers:
        tell(f"  {collected.strangers} others lie there that were not collected and will be graded too; remove their "
             "folders, and those in results/, if you do not want that")
    tell(f"  submissions  {work}/submitted/STUDENT/LAB")
    tell(f"  attempts     {work}/attempts/STUDENT/LAB/N, each with receipt.txt for the student")
    tell(f"  receipts     {work}/receipts.csv")
    tell(f"next: grading grade {work}/submitted")


def show_late(grades: Path) -> None:
    """A line for each late submission in grades.csv; the table before it shows the points without the penalty."""
    with grades.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if float(row["hours_late"]) or float(row["late_penalty"]):
                said = f"{row['hours_late']} hours late, {row['late_penalty']} points taken, {row['points']} left"
                tell(f"  late: {row['student']}/{row['lab']} is {said}")
