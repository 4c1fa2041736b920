"""The judging, spread over the jobs of a cluster; submitit speaks to Slurm, or starts processes on this machine.

A job judges its part as one machine judges a class, and hands nothing back but result.json files in the course's
folder, which all machines have to share. So whatever a lost job has written counts, the rest is given to new jobs,
and what is open after them is judged by the caller.
"""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError

from grading import sandbox
from grading.course import Course, CourseError, alone, result_place, write_whole
from grading.judge import course_secret
from grading.panel import Panel
from grading.preflight import first_fault
from grading.record import by_lab, grade_lab, is_open
from grading.session import WarmParent
from grading.walls import Limits, last_line

ROUNDS = 2
LOOK_SECONDS = 1.0
MINUTES = {"slurm": 60, "local": 24 * 60}  # that a job may take; SBATCH_TIMELIMIT overrides it
MEMORY_BYTES = Limits().sandbox_bytes + 2 * 2**30  # of one judge, with its warm parents and its disk

Open = tuple[str, str, Path]  # lab, student, folder of what was handed in


def spread(
    course: Course, folder: Path, parent: WarmParent, n_jobs: int, cluster: str, tell: Callable[[str], None] = print,
    n_judges: int = 1,
) -> int:
    """Have the jobs of a cluster judge every submission in the folder that has no result yet; how many they judged.

    Each job has as many cores as judges.
    """
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise CourseError("there is no Slurm here (sbatch is not installed); leave --cluster out and judge here")
    labs, _ = by_lab(course, folder)
    with alone(course.work):
        proven = {name: found for name, found in labs.items() if not first_fault(course.lab(name), course.work, parent)}
        parent.rest()
        course_secret(course.work)  # made once, before two jobs could make it
        jobs = Jobs(course, cluster, parent.exposed, tell, n_judges)
        first = still_open(course, proven)
        jobs.wait(first)  # for those of a call that was killed
        for _ in range(ROUNDS):
            if not (left := still_open(course, proven)):
                break
            jobs.submit([part for n in range(n_jobs) if (part := left[n::n_jobs])])
            jobs.wait(left)
        left = still_open(course, proven)
        jobs.tidy(left)
        return len(first) - len(left)


def still_open(course: Course, labs: dict[str, list[tuple[str, Path]]]) -> list[Open]:
    """What has no result yet."""
    found = []
    for name, handed_in in sorted(labs.items()):
        lab = course.lab(name)
        for student, path in handed_in:
            if is_open(course.work, lab, student, path):
                found.append((name, student, path))
    return found


def judge_part(root: Path, part: list[Open], exposed: bool, n_judges: int) -> None:
    """What a job does, until it is told to end.

    submitit has told it to ignore SIGTERM. But a sandbox ends by that, and whoever outlives it takes its end for the
    student's doing and writes wrong marks.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    course = Course(root)
    with WarmParent(exposed=exposed and bool(sandbox.fault())) as parent, Panel(course, parent, n_judges) as panel:
        for name in sorted({lab for lab, _, _ in part}):
            handed_in = [(student, path) for lab, student, path in part if lab == name]
            grade_lab(panel, course.lab(name), handed_in, print)


class Jobs:
    """The jobs of a run; their numbers are in a file, so that a second call finds those of a killed one."""

    def __init__(self, course: Course, cluster: str, exposed: bool, tell: Callable[[str], None], n_judges: int = 1):
        self.course, self.cluster, self.tell = course, cluster, tell
        self.exposed, self.n_judges = exposed, n_judges
        self.folder = course.work / "jobs"
        self.submitted: list[submitit.Job] = []

    def submit(self, parts: list[list[Open]]) -> None:
        """One job for each part."""
        executor = submitit.AutoExecutor(self.folder, cluster=self.cluster)
        executor.update_parameters(name="grading", timeout_min=MINUTES[self.cluster], stderr_to_stdout=True)
        if self.cluster == "slurm":
            executor.update_parameters(
                slurm_cpus_per_task=self.n_judges,
                slurm_mem_per_cpu=f"{MEMORY_BYTES >> 20}M",
                slurm_use_srun=False,
                slurm_additional_parameters={"requeue": True},
            )
        try:
            with executor.batch():
                self.submitted = [
                    executor.submit(judge_part, self.course.root, part, self.exposed, self.n_judges) for part in parts
                ]
        except FailedJobError as error:
            raise CourseError(f"Slurm did not take the jobs ({last_line(str(error).encode())})") from None
        ids = [job.job_id for job in self.submitted]
        write_whole(self.folder / "ids.json", json.dumps([self.cluster, ids]))
        self.tell(f"  {sum(map(len, parts))} submissions go to {len(parts)} jobs ({', '.join(ids)})")

    def wait(self, left: list[Open]) -> None:
        """Return when no job is at work any more; meanwhile tell how many results have come."""
        before, told = stamps(self.course, left), 0
        while n_jobs := len(self.at_work()):
            n_new = sum(now != then for now, then in zip(stamps(self.course, left), before, strict=True))
            if n_new > told:
                self.tell(f"  {n_new} of {len(left)} judged, {n_jobs} jobs at work")
            told = n_new
            time.sleep(LOOK_SECONDS)
        for job in self.submitted if self.cluster == "local" else []:
            job.done()  # takes note of its end

    def at_work(self) -> set[str]:
        """The numbers of the jobs that have not ended."""
        if not (self.folder / "ids.json").exists():
            return set()
        cluster, ids = json.loads((self.folder / "ids.json").read_bytes())
        return set(ids) & in_queue() if cluster == "slurm" else {number for number in ids if is_running(number)}

    def tidy(self, left: list[Open]) -> None:
        """Remove what submitit wrote, unless somebody has to look into it."""
        if left:
            self.tell(f"  {len(left)} submissions are left by jobs that ended early; their logs lie in {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def stamps(course: Course, left: list[Open]) -> list[int]:
    """When each result was written; 0 if there is none."""
    places = [result_place(course.work, student, lab) for lab, student, _ in left]
    return [place.stat().st_mtime_ns if place.exists() else 0 for place in places]


def in_queue() -> set[str]:
    """The numbers of all jobs that Slurm holds; sacct would say more, but needs a database that not every Slurm has."""
    done = subprocess.run(["squeue", "--me", "--noheader", "--array", "--format=%i"], capture_output=True)
    if done.returncode:
        raise CourseError(f"Slurm does not answer ({last_line(done.stderr)}); its jobs go on, so call the same again")
    return set(done.stdout.decode().split())


def is_running(pid: str) -> bool:
    """Whether a job on this machine is running."""
    place = Path(f"/proc/{pid}/cmdline")
    return place.exists() and b"submitit" in place.read_bytes()
