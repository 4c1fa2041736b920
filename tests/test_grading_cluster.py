"""A class judged by the jobs of a cluster has the same marks as a class judged here."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from slurm import Slurm, fault, wait
from test_grading_judge import command_lines
from test_grading_tiny import EXPOSED, LAB, tiny_course

from grading.cli import main
from grading.cluster import Jobs, in_queue, spread
from grading.course import CourseError, write_whole
from grading.demonstration import build_class, hand_in
from grading.record import grade

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are for Linux")
SLOW = "import time\ntime.sleep(1)\n"


def silent(line):
    """Where a run tells its progress to nobody."""


def hand_in_all(course):
    """The demonstration class without the student whose progress bar shows times; the folder."""
    folder = build_class(course, [course.lab("01")], silent)
    shutil.rmtree(folder / "chen")
    return folder


def results(course):
    """The bytes of every result, by student."""
    return {path.parts[-3]: path.read_bytes() for path in (course.work / "results").glob("*/*/result.json")}


@pytest.fixture(scope="module")
def here(tmp_path_factory, parent):
    """The demonstration class, graded on this machine."""
    course = tiny_course(tmp_path_factory.mktemp("here"))
    grade(course, hand_in_all(course), parent, silent)
    return course


@pytest.fixture
def course(tmp_path, here):
    """The same class with the same secret, not graded yet."""
    course = tiny_course(tmp_path / "course")
    hand_in_all(course)
    write_whole(course.work / "secret", (here.work / "secret").read_bytes())
    write_whole(course.work / "proven" / LAB, (here.work / "proven" / LAB).read_bytes())
    return course


@pytest.fixture
def slow_course(course):
    """Six students whose cell takes a second."""
    folder = course.work / "slow"
    notebook = json.loads(hand_in(course.lab("01"), "solution"))
    next(cell for cell in notebook["cells"] if cell["id"] == "double")["source"] += "\n" + SLOW
    for number in range(6):
        write_whole(folder / f"student{number}" / LAB / f"{LAB}.ipynb", json.dumps(notebook))
    return course, folder


@pytest.fixture(scope="module")
def slurm():
    if (why := fault()) and not os.environ.get("CI"):
        pytest.skip(why)
    with Slurm() as slurm:
        yield slurm


def test_ci_has_a_slurm():
    assert not (os.environ.get("CI") and sys.platform == "linux" and fault()), fault()


@pytest.mark.slow
def test_two_jobs_of_this_machine_give_the_same_results(here, course, parent):
    n_judged = spread(course, course.work / "submitted", parent, 2, "local", silent)
    assert n_judged == 11
    assert results(course) == results(here)
    assert not (course.work / "jobs").exists()


@pytest.mark.slow
def test_an_array_of_slurm_gives_the_same_results_and_the_gradebook_takes_them_in(slurm, here, course, capsys):
    with pytest.raises(SystemExit) as end:
        exposed = ["--host-exposed"] if EXPOSED else []
        main(["grade", str(course.work / "submitted"), "--jobs", "3", "--cluster", "slurm", *exposed], root=course.root)
    assert end.value.code == 0
    assert results(course) == results(here)
    assert (course.work / "grades.csv").read_bytes() == (here.work / "grades.csv").read_bytes()
    assert "11 submissions go to 3 jobs" in (said := capsys.readouterr().out)
    assert "11 submissions, 11 judged now" in said


@pytest.mark.slow
def test_a_killed_task_costs_nothing(slurm, slow_course, parent):
    """The first task of the array is cancelled as soon as it is at work; its part goes to a second job."""
    course, folder = slow_course
    told = []

    def tell(line):
        told.append(line)
        if "go to 2 jobs" in line and len(told) == 1:
            wait(lambda: slurm.says("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i"), "no job starts")
            subprocess.run(["scancel", sorted(in_queue())[0]], check=True)

    assert spread(course, folder, parent, 2, "slurm", tell) == 6
    assert "3 submissions go to" in "\n".join(told[1:])
    assert len(results(course)) == 6


@pytest.mark.slow
def test_when_every_job_is_lost_this_machine_judges(slurm, slow_course, parent):
    course, folder = slow_course

    def tell(line):
        if " jobs (" in line:
            subprocess.run(["scancel", "--me"], check=True)

    assert spread(course, folder, parent, 2, "slurm", tell) < 6
    graded = grade(course, folder, parent, silent)
    assert [result["points"] for result in graded.results] == [90] * 6


@pytest.mark.slow
def test_a_second_call_waits_for_the_jobs_of_a_killed_one(slurm, slow_course, parent):
    course, folder = slow_course
    words = ["grade", str(folder), "--jobs", "2", "--cluster", "slurm", *(["--host-exposed"] if EXPOSED else [])]
    program = "import pathlib, sys\nfrom grading.cli import main\nmain(sys.argv[2:], pathlib.Path(sys.argv[1]))"
    caller = subprocess.Popen([sys.executable, "-c", program, str(course.root), *words], stdout=subprocess.DEVNULL)
    wait(lambda: (course.work / "jobs" / "ids.json").exists(), "no job is submitted")
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    ids = in_queue()
    told = []
    assert len(ids) == 2
    assert spread(course, folder, parent, 2, "slurm", told.append) == 6
    assert not any("go to" in line for line in told)
    assert len(results(course)) == 6


def test_a_job_that_has_ended_is_not_at_work(tmp_path):
    course = tiny_course(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "import time; 'submitit'; time.sleep(60)"]) as process:
        write_whole(course.work / "jobs" / "ids.json", json.dumps(["local", [str(process.pid)]]))
        jobs = Jobs(course, "local", False, silent)
        wait(lambda: jobs.at_work() == {str(process.pid)}, "the job is not seen")
        process.kill()
        process.wait()
        assert jobs.at_work() == set()


def test_a_job_that_is_told_to_end_writes_no_marks(tmp_path):
    """The signal reaches all of a job's processes, the sandbox among them."""
    course = tiny_course(tmp_path / "course")
    notebook = json.loads(hand_in(course.lab("01"), "solution"))
    next(cell for cell in notebook["cells"] if cell["id"] == "double")["source"] += "\n!sleep 5.3125"
    folder = course.work / "submitted" / "ada" / LAB
    write_whole(folder / f"{LAB}.ipynb", json.dumps(notebook))
    program = f"""
import pathlib, signal, sys
from grading.cluster import judge_part
signal.signal(signal.SIGTERM, lambda *_: None)  # as submitit does
judge_part(pathlib.Path(sys.argv[1]), [({LAB!r}, "ada", pathlib.Path(sys.argv[2]))], {EXPOSED}, 1)"""
    words = [sys.executable, "-c", program, str(course.root), str(folder)]
    with subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL) as job:
        wait(lambda: job.poll() is not None or any(b"5.3125" in words for words in command_lines()), "nothing runs")
        os.killpg(job.pid, signal.SIGTERM)
    assert job.returncode == -signal.SIGTERM and results(course) == {}


def test_without_slurm_there_is_one_sentence(parent, monkeypatch, tmp_path):
    course = tiny_course(tmp_path / "course")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CourseError, match="there is no Slurm here"):
        spread(course, course.work / "submitted", parent, 2, "slurm", silent)


@pytest.mark.slow
def test_jobs_that_slurm_refuses_are_told_in_one_sentence(slurm, course, parent, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    with pytest.raises(CourseError, match=r"Slurm did not take the jobs .*Invalid partition"):
        spread(course, course.work / "submitted", parent, 2, "slurm", silent)
