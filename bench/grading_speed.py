"""How fast a class is graded: this judge, plain nbgrader and otter-grader on the same submissions and two cores.

    python bench/grading_speed.py                         3 rounds, then 1,000 submissions by this judge alone
    python bench/grading_speed.py --submissions 6 --peers 3 --rounds 1 --many 0        a trial

Writes bench/grading_speed.json. In each round all three tools grade the same 20 submissions, and this judge all 60
besides; that the other two need three times as long for 60 is assumed, and called so there. Every tool gets the same
lab, the same files, and tests that draw and compare the same cases: nbgrader and otter-grader as hidden tests in the
student's process, this judge from outside its sandbox. For this judge the whole command is timed, with gradebook and
feedback pages. otter-grader is installed into bench/.cache the first time. The rounds are interleaved.
"""

import argparse
import csv
import datetime
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch_lab

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
    given = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    make_otter()
    result = {"date": datetime.date.today().isoformat(), "command": " ".join(["python", *sys.argv]),
              "machine": machine(), "versions": versions(), "submissions": given.submissions,
              "submissions_of_peers": given.peers, "labs": {}}
    for name in given.labs:
        with tempfile.TemporaryDirectory(prefix="bench-") as place:
            result["labs"][name] = measure(LABS[name](Path(place) / "course"), Path(place), given)
        write_text(RESULT, json.dumps(result, indent=2) + "\n")
        show(name, result["labs"][name])


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


def measure(course: Course, place: Path, given: argparse.Namespace) -> dict:
    """Seconds of each tool by round, what this judge's time is made of, and the run with many submissions."""
    gradebook.release_labs(course)
    (name,) = course.lab_names
    folder, few = hand_out(course, given.submissions), hand_out(course, given.peers)
    proof = prove(course)
    (place / "cases.py").write_text(CASES)
    os.environ["PYTHONPATH"], os.environ["BENCH_CHECKS"] = str(place), str(course.lab(name).checks_path)
    tools = {"this judge, all": lambda: run_judge(course, folder), "this judge": lambda: run_judge(course, few),
             "nbgrader": prepare_nbgrader(course, place, few), "otter-grader": prepare_otter(course, place, few)}
    rounds = [{tool: run() for tool, run in tools.items()} for _ in range(given.rounds)]
    seconds = {tool: summary([one[tool] for one in rounds]) for tool in tools}
    peers, scale = ("nbgrader", "otter-grader"), given.submissions / given.peers
    found = {"lab": name, "seconds": seconds, "preflight_seconds": proof, "rounds": rounds,
             "times_faster_on_the_same": {p: seconds[p]["median"] / seconds["this judge"]["median"] for p in peers},
             "times_faster_on_all_if_peers_scale": {
                 p: scale * seconds[p]["median"] / seconds["this judge, all"]["median"] for p in peers},
             "made_of": made_of(course, folder)}
    if given.many:
        found["many"] = run_many(course, given.many)
    return found


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
    """Remove all that a run has written."""
    for name in ("results", "rebuilt", "autograded", "feedback", "released"):
        shutil.rmtree(course.work / name, ignore_errors=True)
    (course.work / "gradebook.db").unlink(missing_ok=True)


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
    root = place / "nbgrader"
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
    subprocess.run([OTTER_HOME / "bin" / "python", "-m", "pip", "install", "--quiet", OTTER], check=True)
    mark.write_text(OTTER)


def made_of(course: Course, folder: Path) -> dict[str, float]:
    """Seconds of one judge by what they were spent on; a step's own time, without the steps inside it."""
    steps = {"boot": (WarmParent, "_start"), "fork and end": (WarmParent, "worker"), "cells": (Session, "run"),
             "values": (Session, "_ask_one"), "checks": (Judge, "judge"), "known wrong answers": (Judge, "_recognize"),
             "rebuild and write": (record, "record"), "introduction": (record, "introduce"),
             "take-in": (record, "take_in"), "feedback": (record, "write_pages"),
             "grades.csv": (record, "write_grades")}
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
        n_graded = sum(1 for _ in csv.DictReader(lines))
    n_pages = len(list((course.work / "feedback").rglob("*.html")))
    return {"submissions": n, "seconds": seconds, "peak_gibibytes": (peak[0] - own) / 2**30,
            "lost": n - min(n_graded, n_pages)}


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


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {"processor": names[0] if names else platform.machine(), "cores_used": len(os.sched_getaffinity(0)),
            "system": platform.platform()}


def versions() -> dict[str, str]:
    known = {name: importlib.metadata.version(name) for name in ("nbgrader", "torch", "numpy", "ipykernel")}
    return known | {"python": platform.python_version(), "otter-grader": OTTER.split("==")[1]}


def show(name: str, found: dict) -> None:
    for tool, figures in found["seconds"].items():
        spread = f"{figures['lowest']:.1f} to {figures['highest']:.1f}"
        print(f"{name:6} {tool:13} median {figures['median']:8.1f} s   {spread}")
    for tool, times in found["times_faster_on_the_same"].items():
        more = found["times_faster_on_all_if_peers_scale"][tool]
        print(f"{name:6} this judge is {times:.1f} times as fast as {tool}, on all {more:.1f} times")
    for part, seconds in found["made_of"].items():
        print(f"{name:6} {part:24} {seconds:8.2f}")
    if "many" in found:
        print(f"{name:6} " + ", ".join(f"{key} {value:g}" for key, value in found["many"].items()))


if __name__ == "__main__":
    main()
