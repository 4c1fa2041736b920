"""The judges of a run, side by side: a process for each core, all fed from one list.

Each judge has a warm parent and an understudy of its own, so a submission that uses up its limits holds up one
judge and no other; the run's own warm parent proves the checks. The judges' warm parents boot while this process loads
the checks; then the judges are forked, so that what the checks import is imported once. With one judge everything runs
in this process.
"""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from grading.course import Course, CourseError, Lab
from grading.forbidden import imports
from grading.judge import Judge, course_secret
from grading.session import WarmParent

ENDED = "one of the judges was ended from outside; what is judged is kept, so call the same command again"

Task = Callable[[Judge, Path, str, Path], Any]  # judge, the course's work, student, folder


def cores() -> int:
    """How many processes this one may run at a time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Chair:
    """One judge's place: its warm parent, and the judge of the lab at hand."""

    def __init__(self, course: Course, parent: WarmParent):
        self.course, self.parent = course, parent
        self.judge: Judge | None = None

    def do(self, task: Task, lab: str, student: str, folder: Path) -> Any:
        """The task's result for one submission."""
        if self.judge is None or self.judge.lab.name != lab:
            self.leave()
            self.judge = Judge(self.course.lab(lab), self.parent, course_secret(self.course.work)).__enter__()
        return task(self.judge, self.course.work, student, folder)

    def leave(self) -> None:
        """End the judge of the last lab."""
        if self.judge:
            self.judge.__exit__()
        self.judge = None


class Panel:
    """The judges of one run: a context, because the processes stay from lab to lab."""

    def __init__(self, course: Course, parent: WarmParent, n_judges: int = 1):
        self.course, self.chair = course, Chair(course, parent)
        self.parents = [parent]
        if n_judges > 1:
            self.parents = [WarmParent(parent.limits, parent.exposed) for _ in range(n_judges)]
        self.processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Panel":
        return self

    def each(self, task: Task, lab: Lab, handed_in: list[tuple[str, Path]], warm: bool = True) -> Iterator[Any]:
        """The task's result for every submission, as they come; several judges begin at once.

        `warm` says that something will be run, so that there is no time to lose.
        """
        if self.processes is None and warm:
            for parent in self.parents:
                parent.modules = imports(lab.solution)
                parent.begin()
        lab.questions  # noqa: B018  (while the warm parents boot)
        if len(self.parents) == 1:
            return self._one_by_one(task, lab, handed_in)
        if self.processes is None:
            self._fork()
        futures = [self.processes.submit(_do, task, lab.name, student, folder) for student, folder in handed_in]
        return self._as_they_come(futures)

    def _one_by_one(self, task: Task, lab: Lab, handed_in: list[tuple[str, Path]]) -> Iterator[Any]:
        yield from (self.chair.do(task, lab.name, student, folder) for student, folder in handed_in)
        self.chair.leave()

    def _as_they_come(self, futures: list[Future]) -> Iterator[Any]:
        try:
            yield from (future.result() for future in as_completed(futures))
        except BrokenExecutor as error:
            raise CourseError(ENDED) from error

    def _fork(self) -> None:
        """Start the processes; they inherit everything that is imported, and each takes one of the warm parents."""
        self.chair.parent.rest()  # else the judges would hold its channel too
        course_secret(self.course.work)  # made once, before two could make it
        context = multiprocessing.get_context("fork")
        self.others = set(multiprocessing.active_children())
        self.place, seats = tempfile.TemporaryDirectory(prefix="grading-"), context.SimpleQueue()
        for seat in range(len(self.parents)):
            seats.put(seat)
        given = (self.course, self.parents, seats, self.place.name)
        self.processes = ProcessPoolExecutor(len(self.parents), context, _sit_down, given)

    def __exit__(self, kind: type | None, *_: Any) -> None:
        self.chair.leave()
        if self.processes is None:
            return
        if kind:  # whatever is not judged yet is judged by the next run
            for process in set(multiprocessing.active_children()) - self.others:
                process.kill()
        self.processes.shutdown(cancel_futures=True)
        for parent in self.parents:
            parent.close()
        self.place.cleanup()


_chair: Chair  # in a judge's process


def _sit_down(course: Course, parents: list[WarmParent], seats: SimpleQueue, place: str) -> None:
    """Make this process a judge: it leaves Ctrl-C to the run, and ends when the run has ended."""
    global _chair
    tempfile.tempdir = place
    _chair = Chair(course, parents[seats.get()])
    signal.signal(signal.SIGINT, lambda *_: None)
    threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _do(task: Task, lab: str, student: str, folder: Path) -> Any:
    return _chair.do(task, lab, student, folder)
