"""The instructor's commands: author, preflight, labs, release, collect, grade, feedback, export, report, demo."""

import argparse
import os
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

from grading import day, sandbox
from grading.course import Course, CourseError, make_private
from grading.demonstration import build_class, demonstration
from grading.judge import REVIEW
from grading.panel import cores
from grading.preflight import Report, preflight
from grading.record import Graded, grade
from grading.session import WarmParent

SANDBOXED = "The students' code runs in a sandbox: no network, no files but Python's, minigpt's and its own."
EXPOSED = "No sandbox, as you asked: the students' code can read and change whatever your account can."


def main(arguments: list[str] | None = None, root: Path | None = None) -> None:
    """The console script; ends with exit code 1 and one sentence when something is not in order."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # judges run side by side, one for each core
    course = Course((root or Path(__file__).resolve().parents[1]).resolve())
    try:
        make_private(course.work)
        sys.exit(options.run(course, options))
    except KeyboardInterrupt:
        print("\ngrading: stopped; what is judged is kept, and the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except CourseError as error:
        sentence = str(error)
    except OSError as error:
        sentence = (f"{error.filename or course.work}: {error.strerror or error}; "
                    "free some space or make the folder writable, then call the same command again")
    print(f"grading: {one_line(sentence)}", file=sys.stderr)
    sys.exit(1)


def one_line(sentence: str) -> str:
    """The sentence without line breaks and whatever else a name from outside may bring."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(sentence.split()))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="grading", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("author", help="begin a new lab that passes preflight from its first minute")
    one.add_argument("lab", metavar="labNN_stem", help="its name: two digits and small letters, as in lab07_loops")
    one.set_defaults(run=run_author)
    one = commands.add_parser("preflight", help="let the checks prove themselves")
    one.add_argument("labs", nargs="*", metavar="LAB", help="01, lab01 or lab01_neuron; all labs if none is named")
    one.set_defaults(run=run_preflight)
    one = commands.add_parser("labs", help="generate labs/ from solutions/")
    one.add_argument("--check", action="store_true", help="write nothing; fail if labs/ is not up to date")
    one.set_defaults(run=run_labs)
    day.add_commands(commands)
    one = commands.add_parser("grade", help="grade a folder of STUDENT/LAB/LAB.ipynb")
    one.add_argument("folder", type=Path)
    one.add_argument("--host-exposed", action="store_true", help="grade even where there is no sandbox: the "
                     "students' code can then read and change whatever your account can")
    one.add_argument("--jobs", type=int, default=0, metavar="N", help="let N jobs of a cluster judge the submissions")
    one.add_argument("--cluster", choices=("local", "slurm"), default="local",
                     help="slurm: the jobs are an array of Slurm; local: they are processes of this machine")
    one.add_argument("--judges", type=int, metavar="N",
                     help="how many submissions to judge at a time; one a core if not given, and one in a job")
    one.set_defaults(run=run_grade)
    one = commands.add_parser("export", help="write the grades for a spreadsheet, Canvas or Moodle")
    one.add_argument("format", metavar="FORMAT", help="csv, canvas or moodle")
    one.add_argument("--lab", help="01, lab01 or lab01_neuron; all labs if none is named")
    one.add_argument("--out", type=Path, metavar="FILE")
    one.add_argument("--unfinished", action="store_true", help="export the points so far where a person has not "
                     "marked everything; without it those grades stay empty")
    one.set_defaults(run=run_export)
    one = commands.add_parser("report", help="write the page about the class, one for each lab")
    one.add_argument("--lab", help="01, lab01 or lab01_neuron; all labs if none is named")
    one.add_argument("--pseudonyms", action="store_true", help="leave the students' names out")
    one.set_defaults(run=run_report)
    one = commands.add_parser("demo", help="build the demonstration class, apart from yours, and grade it")
    one.set_defaults(run=run_demo)
    return top


def run_author(course: Course, options: argparse.Namespace) -> int:
    from grading.author import author  # nbgrader takes a second to import, here and below

    made = author(course, options.lab)
    print(f"author: {made.lab.name} is whole; these files are yours now")
    for path in made.paths:
        print(f"  {short(course, path)}")
    print("change, in this order:")
    for number, what in enumerate(made.to_change, 1):
        print(f"  {number}. {what}")
    print(f"next: grading preflight {made.lab.name[3:5]}; after every change: grading labs, and preflight again")
    return 0


def run_preflight(course: Course, options: argparse.Namespace) -> int:
    names = options.labs or course.lab_names
    if not names:
        raise CourseError("there is no lab in solutions/ yet; begin one with `grading author labNN_stem`")
    started = time.monotonic()
    with course_parent() as parent:
        reports = [preflight(course.lab(name), parent, progress) for name in names]
    for report in reports:
        show_report(report)
    n_tried, n_faults = sum(r.n_tried for r in reports), sum(len(r.faults) for r in reports)
    seconds = time.monotonic() - started
    print(f"preflight: {len(reports)} labs, {n_tried} answers tried, {n_faults} faults, {seconds:.1f} s")
    return 1 if n_faults else 0


def course_parent() -> WarmParent:
    """A warm parent for the course's own code, which needs no sandbox but is run in one where there is one."""
    if fault := sandbox.fault():
        progress(f"No sandbox, because {fault}; what runs now is the course's own code.")
    return WarmParent(exposed=bool(fault))


def strangers_parent(host_exposed: bool) -> WarmParent:
    """A warm parent for code that anybody may have written."""
    fault = sandbox.fault()
    if fault and not host_exposed:
        raise CourseError(
            f"students' code needs a sandbox, and {fault}; install bubblewrap, podman or docker on Linux, or add "
            "--host-exposed if you trust every submission with all that your account can read and change"
        )
    progress(EXPOSED if fault else SANDBOXED)
    return WarmParent(exposed=bool(fault))


def progress(line: str) -> None:
    """Show a line at once, in a pipe as well."""
    print(line, flush=True)


def show_report(report: Report) -> None:
    rows = [
        (name, f"{points:g}", *((f"{a} of {b}", f"{c} of {d}") if d else ("by hand", "")))
        for name, points, a, b, c, d in report.rows
    ]
    print(f"\n{report.lab}")
    print_table(("question", "points", "right kept", "wrong caught"), rows)
    if report.hostile:
        n_nothing = sum(not names for names in report.hostile.values())
        print(f"  hostile: {n_nothing} of {len(report.hostile)} earned nothing ({', '.join(report.hostile)})")
    for fault in report.faults:
        print(f"  FAULT  {fault}")


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, tuple("-" * width for width in widths), *rows]:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def run_labs(course: Course, options: argparse.Namespace) -> int:
    from grading.gradebook import release_labs

    changed = release_labs(course, check=options.check)
    if changed and options.check:
        raise CourseError(f"labs/ differs from what solutions/ generates ({', '.join(changed)}); run `grading labs`, "
                          "and move away files that it does not make")
    n_labs = len(course.lab_names)
    print(f"labs: {n_labs} generated, {len(changed)} changed" + (f" ({', '.join(changed)})" if changed else ""))
    return 0


def run_grade(course: Course, options: argparse.Namespace) -> int:
    started = time.monotonic()
    if options.judges is not None and options.judges < 1:
        raise CourseError(f"--judges is {options.judges}; give a number that is at least 1")
    with strangers_parent(options.host_exposed) as parent:
        n_judged = run_jobs(course, options, parent) if options.jobs else 0
        graded = grade(course, options.folder.resolve(), parent, progress, options.judges or cores())
        graded = replace(graded, n_judged=graded.n_judged + n_judged)
    return show_graded(course, graded, time.monotonic() - started)


def run_jobs(course: Course, options: argparse.Namespace, parent: WarmParent) -> int:
    from grading.cluster import spread  # submitit is for clusters alone

    if options.jobs < 1 or sys.platform != "linux":
        raise CourseError(f"--jobs is {options.jobs}; give a number that is at least 1, and on Linux alone")
    folder, n_judges = options.folder.resolve(), options.judges or 1
    return spread(course, folder, parent, options.jobs, options.cluster, progress, n_judges)


def run_export(course: Course, options: argparse.Namespace) -> int:
    from grading.export import export

    done = export(course, options.format, options.lab, options.out, options.unfinished)
    print(f"export: {done.n_students} students in {short(course, done.path)}")
    if done.waiting:
        names = sorted({entry.student for entry in done.waiting})
        who = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        what = "their points so far" if options.unfinished else "left empty (--unfinished exports the points so far)"
        n = len(done.waiting)
        print(f"  {n} {'grade waits' if n == 1 else 'grades wait'} for a person, {what}: {who}")
    return 0


def run_report(course: Course, options: argparse.Namespace) -> int:
    from grading.report import write_reports  # copydetect takes a second to import, and only the report needs it

    for path in write_reports(course, options.lab, options.pseudonyms):
        print(f"report: {short(course, path)}")
    return 0


def short(course: Course, path: Path) -> Path:
    """The path as it is told: short if it lies in the course."""
    return path.relative_to(course.root) if path.is_relative_to(course.root) else path


def run_demo(course: Course, options: argparse.Namespace) -> int:
    from grading.report import write_reports

    labs = [lab for lab in map(course.lab, course.lab_names) if lab.release_path.exists() and lab.checks_path.exists()]
    if not labs:
        raise CourseError("no lab has a solution, checks and a released version yet; run `grading labs`")
    demo = demonstration(course)
    progress("The demonstration class hands in")
    folder = build_class(demo, labs, progress)
    progress("Grading")
    started = time.monotonic()
    with course_parent() as parent:
        graded = grade(demo, folder, parent, progress, cores())
    status = show_graded(demo, graded, time.monotonic() - started)
    write_reports(demo, None)
    print(f"  report     {short(demo, demo.work / 'report' / 'LAB.html')}")
    return status


def show_graded(course: Course, graded: Graded, seconds: float) -> int:
    """Print the table of students and labs and where everything lies; the exit code."""
    print()
    rows = []
    for r in sorted(graded.results, key=lambda r: (r["lab"], r["student"])):
        first, *more = textwrap.wrap(remarks(r), 64, break_on_hyphens=False) or [""]
        rows.append((r["student"], r["lab"], f"{r['points']:g}", f"{r['max_points']:g}", waiting(r), first))
        rows += [("", "", "", "", "", line) for line in more]
    print_table(("student", "lab", "points", "of", "by hand", "recognized"), rows)
    day.show_late(graded.grades)
    show_regraded(course, graded.regraded)
    for sentence in graded.refused:
        print(f"  left out: {sentence}")
    for sentence in graded.unproven:
        print(f"  NOT GRADED: {sentence}; see `grading preflight`")
    print(f"\n{len(graded.results)} submissions, {graded.n_judged} judged now, {seconds:.1f} s")
    start = short(course, course.work if course.beside else course.root / "grading")  # where nbgrader is configured
    for what, path in (
        ("grades", graded.grades),
        ("gradebook", course.work / "gradebook.db"),
        ("feedback", graded.feedback / "STUDENT" / "LAB.html"),
        ("formgrader", f"cd {start} && jupyter lab, then Nbgrader > Formgrader (marks the written answers)"),
    ):
        shown = path.relative_to(course.root) if isinstance(path, Path) else path
        print(f"  {what:<11}{shown}")
    return 1 if graded.unproven else 0


def show_regraded(course: Course, rows: list[dict[str, str]]) -> None:
    """Whose marks a changed check touched."""
    if not rows:
        return
    print("\nMarks that a changed check touched")
    print_table(("student", "lab", "question", "from", "to", "note"), [tuple(row.values()) for row in rows])
    print(f"  regraded   {short(course, course.work / 'regraded.csv')}")


def waiting(result: dict) -> str:
    points = sum(q["max_points"] for q in result["questions"] if q["points"] is None)
    return f"{points:g}" if points else ""


def remarks(result: dict) -> str:
    recognized = [q["recognized"] for q in result["questions"] if q["recognized"]]
    review = [f"{q['id']} needs review: {q['fault']}" for q in result["questions"] if q["status"] == REVIEW]
    return ", ".join([*recognized, *review, *(f"[{flag}]" for flag in result["flags"])])
