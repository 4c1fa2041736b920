"""How fast a class is graded: this judge, plain nbgrader and otter-grader on the same submissions and two cores.

    python bench/grading_speed.py --fresh                 3 rounds of both labs, then 1,000 submissions by this judge
    python bench/grading_speed.py --labs torch --rounds 1 --many 0       one round more, added to what is known

Writes bench/grading_speed.json. In each round all three tools grade the same 20 submissions, and this judge all 60
besides; nbgrader grades all 60 once for each lab. Every tool gets the same lab, the same files, and tests that draw and
compare the same cases: nbgrader and otter-grader as hidden tests in the student's process, this judge from outside its
sandbox. All know the lab before the clock starts. nbgrader runs as `nbgrader autograde LAB` does, which is one
submission after the other; otter-grader two at a time, in processes of this machine; this judge with two judges. For
this judge the whole command is timed, with gradebook and feedback pages, from no result to all of them.
otter-grader is installed into bench/.cache the first time. The tools take turns.
"""

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch_lab
from record import stamp

from grading import gradebook, record
from grading.course import Course, write_whole
from grading.demonstration import hand_in
from grading.judge import Judge
from grading.preflight import first_fault
from grading.session import Session, WarmParent
from minigpt.disk import write_text

HERE = Path(__file__).resolve().parent
RESULT = Path(__file__).with_suffix(".json")
OTTER, OTTER_HOME = "otter-grader==6.1.6", HERE / ".cache" / "otter"
JUDGE, NBGRADER, OTTER_GRADER = "this judge", "nbgrader", "otter-grader"
COMMAND = "python bench/grading_speed.py --fresh"
KINDS = ("solution", "wrong 1", "another way 1", "wrong 2", "another way 2", "wrong 3", "blank")
BIN = Path(sys.executable).parent

CASES = '''
"""The checks of the lab as tests that run in the student's own process."""
import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np

from grading.judge import expected_value
from grading.question import Call, Folder, Probe

spec = importlib.util.spec_from_file_location("checks", os.environ["BENCH_CHECKS"])
checks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checks)


def unpacked(value):
    if not isinstance(value, Folder):
        return value
    folder = Path(tempfile.mkdtemp())
    for name, content in value.files.items():
        (folder / name).write_bytes(content)
    return folder


def value_of(case, names):
    if isinstance(case, Probe):
        scope = dict(names) | dict(case.inputs)
        exec(case.code, scope)
        return scope["answer"]
    value = names[case.name]
    return value(*map(unpacked, case.args), **case.kwargs) if isinstance(case, Call) else value


def judge(name, names):
    question = next(q for q in checks.QUESTIONS if q.id == name)
    for case in question.cases(np.random.default_rng(0)):
        given = value_of(case, names)
        if type(given).__name__ == "Tensor":
            given = given.detach().numpy()
        assert question.accepts(given, expected_value(question, case), case), name
'''


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--submissions", type=int, default=60)
    options.add_argument("--peers", type=int, default=20, help="how many of them the other two tools grade, too")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--many", type=int, default=1000, help="how many this judge grades alone; 0 leaves it out")
    options.add_argument("--labs", nargs="+", choices=list(LABS), default=list(LABS))
    options.add_argument("--fresh", action="store_true", help="forget the rounds that are known")
    given = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    make_otter()
    labs = {} if given.fresh or not RESULT.exists() else json.loads(RESULT.read_text())["labs"]
    for name in given.labs:
        with tempfile.TemporaryDirectory(prefix="bench-") as place:
            found = labs.setdefault(name, {"rounds": []})
            for _ in measure(LABS[name](Path(place) / "course"), Path(place), given, found):
                known = stamp() | {"title": "Grading a class", "command": COMMAND, "versions": versions()}
                write_text(RESULT, json.dumps(known | {"tables": tables(labs), "labs": labs}, indent=2) + "\n")
    for table in tables(labs):
        print(table["caption"], *map(str, [table["columns"], *table["rows"]]), "", sep="\n")


def numpy_course(root: Path) -> Course:
    """The course's lab 01, without the cells for the eyes, which this judge would leave out."""
    here, name = HERE.parent, "lab01_neuron"
    for path in (f"solutions/{name}/{name}.ipynb", "notebooks/01_neuron.ipynb", f"grading/checks/{name}.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here / path, root / path)
    path = root / "solutions" / name / f"{name}.ipynb"
    notebook = json.loads(path.read_bytes())
    notebook["cells"] = [cell for cell in notebook["cells"] if "show" not in cell["metadata"].get("tags", [])]
    path.write_text(json.dumps(notebook))
    return Course(root)


def torch_course(root: Path) -> Course:
    torch_lab.write_lab(root)
    return Course(root)


LABS: dict[str, Callable[[Path], Course]] = {"numpy": numpy_course, "torch": torch_course}


def measure(course: Course, place: Path, given: argparse.Namespace, found: dict) -> Iterator[None]:
    """Add to `found` rounds of seconds by tool and number of submissions, and the run with many submissions.

    Whenever it yields there is something new.
    """
    gradebook.release_labs(course)
    (name,) = course.lab_names
    gradebook.introduce(course, name)
    shutil.copy(course.work / "gradebook.db", course.work / "knows-the-lab.db")
    folder, few = hand_out(course, given.submissions), hand_out(course, given.peers)
    found |= {"lab": name, "preflight_seconds": prove(course)}
    if given.rounds:
        (place / "cases.py").write_text(CASES)
        os.environ["BENCH_CHECKS"] = str(course.lab(name).checks_path)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(place), str(HERE.parent)])
        tools = {(JUDGE, given.submissions): lambda: run_judge(course, folder), (JUDGE, given.peers):
                 lambda: run_judge(course, few), (NBGRADER, given.peers): prepare_nbgrader(course, place / "few", few),
                 (OTTER_GRADER, given.peers): prepare_otter(course, place, few)}
        for _ in range(given.rounds):
            found["rounds"].append([[tool, n, run()] for (tool, n), run in tools.items()])
            yield
        if not found.get("nbgrader_all"):
            found["nbgrader_all"] = [given.submissions, prepare_nbgrader(course, place / "all", folder)()]
            yield
        found["made_of"] = made_of(course, folder)
        yield
    if given.many:
        found["many"] = run_many(course, given.many)
        yield


def tables(labs: dict[str, dict]) -> list[dict]:
    """What was found, as the book shows it."""
    rows, parts, many = [], [], []
    for lab, found in labs.items():
        seconds: dict[tuple[str, int], list[float]] = {}
        for tool, n, value in [one for turn in found["rounds"] for one in turn]:
            seconds.setdefault((tool, n), []).append(value)
        if found.get("nbgrader_all"):
            seconds[NBGRADER, found["nbgrader_all"][0]] = [found["nbgrader_all"][1]]
        for (tool, n), values in seconds.items():
            median, mine = statistics.median(values), statistics.median(seconds[JUDGE, n])
            times = "" if tool == JUDGE else f"{median / mine:.1f}"
            spread = f"{min(values):.1f} to {max(values):.1f}"
            rows.append([lab, tool, n, len(values), f"{median:.1f}", spread, f"{median / n:.2f}", times])
        parts += [[lab, part, f"{value:.2f}"] for part, value in found.get("made_of", {}).items()]
        if "many" in found:
            many.append([lab, *(f"{value:,.4g}" for value in found["many"].values())])
    first = labs and next((found["many"] for found in labs.values() if "many" in found), None)
    return [
        {"caption": "Seconds of the whole command, two cores.", "rows": rows, "columns":
         ["lab", "tool", "submissions", "rounds", "median", "spread", "a submission", "this judge is faster, times"]},
        {"caption": "What the time of one judge in one process is made of, in seconds, without the start of Python. "
         "Cells and values are what the students' own code takes, with the way there and back; the last line is the "
         "whole, divided by these two.", "columns": ["lab", "part", "seconds"], "rows": parts},
    ] + ([{"caption": "Many submissions, this judge alone with two judges; memory of all its processes together.",
           "columns": ["lab", *(key.replace("_", " ") for key in first)], "rows": many}] if first else [])


def hand_out(course: Course, n: int) -> Path:
    """`n` submissions, from all that the lab and its checks list; the folder."""
    (name,) = course.lab_names
    lab, folder = course.lab(name), course.work / f"submitted-{n}"
    for number in range(n):
        path = folder / f"student{number:04}" / name / f"{name}.ipynb"
        write_whole(path, hand_in(lab, KINDS[number % len(KINDS)]))
    return folder


def prove(course: Course) -> float:
    """Seconds until the checks have proven themselves, which is once for each change."""
    started = time.perf_counter()
    (name,) = course.lab_names
    with WarmParent() as parent:
        if fault := first_fault(course.lab(name), course.work, parent, lambda line: None):
            raise SystemExit(f"the checks do not prove themselves: {fault}")
    return time.perf_counter() - started


def forget(course: Course) -> None:
    """Remove all that a run has written; the gradebook goes back to when it knew the lab and nobody."""
    for name in ("results", "rebuilt", "autograded", "feedback", "released"):
        shutil.rmtree(course.work / name, ignore_errors=True)
    shutil.copy(course.work / "knows-the-lab.db", course.work / "gradebook.db")


def run_judge(course: Course, folder: Path) -> float:
    forget(course)
    main = f"from grading.cli import main; from pathlib import Path; main(root=Path({str(course.root)!r}))"
    return timed([sys.executable, "-c", main, "grade", str(folder)], course.root)


def timed(command: list[str], where: Path) -> float:
    """Seconds that the command takes.

    Raises  SystemExit with its last lines if it fails.
    """
    started = time.perf_counter()
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, env=os.environ | {"PATH": path})
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise SystemExit(f"{' '.join(command[:4])} ended with {done.returncode}:\n{said}")
    return time.perf_counter() - started


def prepare_nbgrader(course: Course, place: Path, folder: Path) -> Callable[[], float]:
    """A course of plain nbgrader with the same lab; what runs its autograde."""
    (name,) = course.lab_names
    root = place
    notebook = json.loads(course.lab(name).solution_path.read_bytes())
    for cell in notebook["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
        if grade_id.startswith("test-"):
            test = f"import cases\ncases.judge({grade_id.removeprefix('test-')!r}, globals())"
            cell["source"] = "".join(cell["source"]) + f"\n### BEGIN HIDDEN TESTS\n{test}\n### END HIDDEN TESTS"
    write_whole(root / "source" / name / f"{name}.ipynb", json.dumps(notebook))
    write_whole(root / "nbgrader_config.py", f"c = get_config()\nc.CourseDirectory.root = {str(root)!r}\n")
    timed(["nbgrader", "generate_assignment", name], root)

    def run() -> float:
        shutil.rmtree(root / "autograded", ignore_errors=True)
        return timed(["nbgrader", "autograde", name], root)

    shutil.copytree(folder, root / "submitted")
    return run


def prepare_otter(course: Course, place: Path, folder: Path) -> Callable[[], float]:
    """An autograder of otter-grader with the same tests; what runs it, two submissions at a time."""
    (name,) = course.lab_names
    archive, out = place / "autograder.zip", place / "otter"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("otter_config.json", json.dumps({"show_stdout": False}))
        for question in course.lab(name).questions:
            if not question.written:
                code = f">>> import cases\n>>> cases.judge({question.id!r}, globals())"
                suite = {"cases": [{"code": code, "hidden": False}], "scored": True, "type": "doctest"}
                test = {"name": question.id, "points": question.points, "suites": [suite]}
                made.writestr(f"tests/{question.id.replace('-', '_')}.py", f"OK_FORMAT = True\ntest = {test!r}\n")
    python = OTTER_HOME / "bin" / "python"

    def one(path: Path) -> None:
        target = out / path.parent.parent.name
        target.mkdir(parents=True)
        words = [python, "-m", "otter", "run", path, "-a", archive, "-o", target, "--no-logo"]
        timed(list(map(str, words)), target)

    def run() -> float:
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        with ThreadPoolExecutor(2) as two:
            list(two.map(one, sorted(folder.rglob("*.ipynb"))))
        return time.perf_counter() - started

    return run


def make_otter() -> None:
    """Install otter-grader beside this environment, of which it sees the packages."""
    mark = OTTER_HOME / "installed.txt"
    if mark.is_file() and mark.read_text() == OTTER:
        return
    venv.create(OTTER_HOME, with_pip=True, clear=True)
    packages = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    found = [str(path) for path in map(Path, sys.path) if path.name == "site-packages"] + [str(HERE.parent)]
    (OTTER_HOME / "lib" / packages.parent.name / "site-packages" / "course.pth").write_text("\n".join(found) + "\n")
    subprocess.run([OTTER_HOME / "bin" / "python", "-m", "pip", "install", "--quiet", OTTER,
                    f"torch=={importlib.metadata.version('torch')}"], check=True)
    mark.write_text(OTTER)


def made_of(course: Course, folder: Path) -> dict[str, float]:
    """Seconds of one judge by what they were spent on; a step's own time, without the steps inside it."""
    steps = {"boot": (WarmParent, "_wait"), "fork and end": (WarmParent, "worker"), "cells": (Session, "run"),
             "values": (Session, "_ask_one"), "checks": (Judge, "judge"), "known wrong answers": (Judge, "_recognize"),
             "rebuild and write": (record, "record"), "take-in": (gradebook, "take_in"),
             "feedback": (record, "write_pages"), "grades.csv": (gradebook, "write_grades")}
    spent, running, originals = dict.fromkeys([*steps, "rest"], 0.0), ["rest"], {}
    clock = [time.perf_counter()]

    def turn(name: str) -> None:
        now = time.perf_counter()
        spent[running[-1]] += now - clock[0]
        clock[0] = now
        if name:
            running.append(name)
        else:
            running.pop()

    def watched(step: Callable, name: str) -> Callable:
        def watching(*given: object, **named: object) -> object:
            turn(name)
            try:
                return step(*given, **named)
            finally:
                turn("")

        return watching

    forget(course)
    for name, (owner, attribute) in steps.items():
        originals[name] = getattr(owner, attribute)
        setattr(owner, attribute, watched(originals[name], name))
    try:
        with WarmParent() as parent:
            clock[0] = time.perf_counter()
            record.grade(course, folder, parent, lambda line: None)
            turn("end")
    finally:
        for name, (owner, attribute) in steps.items():
            setattr(owner, attribute, originals[name])
    whole = sum(spent.values())
    return {**spent, "whole": whole, "times_the_cells_own_time": whole / (spent["cells"] + spent["values"])}


def run_many(course: Course, n: int) -> dict[str, float]:
    """This judge alone on many submissions: seconds, peak memory of all its processes, and how many were lost."""
    folder, peak, is_over = hand_out(course, n), [0], threading.Event()

    def look() -> None:
        while not is_over.wait(1):
            peak[0] = max(peak[0], memory_of(os.getpid()))

    watcher = threading.Thread(target=look)
    own = memory_of(os.getpid())
    watcher.start()
    try:
        seconds = run_judge(course, folder)
    finally:
        is_over.set()
        watcher.join()
    with (course.work / "grades.csv").open(newline="") as lines:
        points = {row["student"]: float(row["points"]) for row in csv.DictReader(lines)}
    n_pages = len(list((course.work / "feedback").rglob("*.html")))
    n_results = len(list((course.work / "results").rglob("result.json")))
    n_wrong = sum(points.get(student) != wanted for student, wanted in expected_points(course, n).items())
    return {"submissions": n, "seconds": seconds, "a_second": n / seconds, "peak_gibibytes": (peak[0] - own) / 2**30,
            "lost": n - min(len(points), n_pages, n_results), "wrong_marks": n_wrong}


def expected_points(course: Course, n: int) -> dict[str, float]:
    """What each student has to get: full points for right answers, none for wrong and blank ones."""
    (name,) = course.lab_names
    full = sum(question.points for question in course.lab(name).questions if not question.written)
    kinds = {f"student{number:04}": KINDS[number % len(KINDS)] for number in range(n)}
    return {student: 0 if kind == "blank" or kind.startswith("wrong") else full for student, kind in kinds.items()}


def memory_of(pid: int) -> int:
    """Bytes of the process and all below it; a page that several share is divided among them."""
    family, total = [str(pid)], 0
    for member in family:
        try:
            for path in Path(f"/proc/{member}/task").glob("*/children"):
                family += path.read_text().split()
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except OSError:  # it has ended meanwhile
            continue
    return total


def versions() -> dict[str, str]:
    known = {name: importlib.metadata.version(name) for name in ("nbgrader", "torch", "numpy", "ipykernel")}
    return known | {"python": platform.python_version(), "otter-grader": OTTER.split("==")[1]}


if __name__ == "__main__":
    main()
