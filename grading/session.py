"""The judge's end of a worker: start one, run a notebook in it, ask it for values, end it.

What the student's code does to its process (an endless loop, a crash) costs the cell or the question in which it
happens: the process is killed, and a new one runs the notebook without that cell.
"""

import multiprocessing
import os
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from grading import sandbox
from grading.course import CourseError
from grading.question import Call, Case, Folder, Probe
from grading.walls import DISK, MOST_FILES, Limits, Sandbox, last_line
from grading.wire import LARGEST, WireError, decode, encode, read_frame, write_frame


@dataclass(frozen=True)
class Value:
    """What the student's work returned."""

    value: Any


@dataclass(frozen=True)
class Failure:
    """Why there is no value: the kind of error, its message, and the line of a syntax error."""

    kind: str
    message: str = ""
    line: int | None = None


Outcome = Value | Failure
WORKER = [sys.executable, "-I", "-m", "grading.worker"]
START_SECONDS = 120  # for the heavy imports, on a busy machine
ORDER_SECONDS = 10  # for a fork, or for the end of a worker
LOOK_SECONDS = 0.25  # between two looks at the memory of the sandbox
LONGEST_LOOK = 1  # what a wait of that time takes on a busy machine
PAUSE_SECONDS = 5  # nothing else that goes on while a worker is at work takes as long

OVERTIME = Failure("OutOfTime")
ENDED = Failure("Ended")  # the process ended: exit, crash, out of memory
TOO_LATE = Failure("TooLate")  # the time of the whole submission is over
PAUSED = Failure("Paused")  # everything was stopped for a while (Ctrl-Z, a suspended job), so it has to run again


class Lost(Exception):
    """The worker is gone, or had to be killed."""

    def __init__(self, failure: Failure):
        super().__init__(failure)  # all that another process needs to make the same
        self.failure = failure


class Clock:
    """Counts seconds, but for those in which this process was stopped (Ctrl-Z, a suspended job)."""

    def __init__(self):
        self.seen, self.left_out = time.monotonic(), 0.0

    def now(self, longest: float = PAUSE_SECONDS) -> float:
        """The time; more than `longest` seconds since this was called last are a pause."""
        before, self.seen = self.seen, time.monotonic()
        if self.seen - before > longest:
            self.left_out += self.seen - before
        return self.seen - self.left_out


CLOCK = Clock()


class WarmParent:
    """The warm parent of all workers: a context in which workers can be started quickly.

    It runs in the sandbox and has one worker at a time, because whatever ends a submission ends all that it left
    behind. Only with `exposed` is it a plain process, which sees and can change what its user can. `modules` are
    imported before the first worker is forked.
    """

    def __init__(self, limits: Limits | None = None, exposed: bool = False, modules: Iterable[str] = ()):
        self.limits, self.exposed, self.modules = limits or Limits(), exposed, frozenset(modules)
        self.folder: Path | None = None
        self.running: Sandbox | None = None

    def __enter__(self) -> "WarmParent":
        return self

    @cached_property
    def aside(self) -> "WarmParent":
        """A second warm parent for the course's own answers, which no student's code may come near."""
        return Aside(self.limits)

    def begin(self) -> None:
        """Start the process, if there is none, and have it import the modules; wait for neither.

        If that fails, it is tried again when a worker is asked for.
        """
        try:
            self._begin()
        except OSError:
            self.close()

    def _begin(self) -> None:
        if self.running is None:
            self._launch()
            self.awaited, self.loaded = 0, None
        if self.loaded != self.modules:
            self._wait()
            self._send({"do": "import", "modules": sorted(self.modules)}, [])
            self.awaited, self.loaded = self.awaited + 1, self.modules

    def _launch(self) -> None:
        if not self.exposed and (fault := sandbox.fault()):
            raise CourseError(f"there is no sandbox, because {fault}; install bubblewrap, podman or docker")
        self.folder = Path(tempfile.mkdtemp(prefix="grading-"))
        with (self.folder / "parent.log").open("wb") as log:
            self.running = self._exposed(log.fileno()) if self.exposed else self._sandboxed(log.fileno())
        self.control = self.running.control

    def _wait(self) -> None:
        """Wait until the process has started and imported the modules."""
        self.control.settimeout(START_SECONDS)
        while self.awaited:
            self._read_line()
            self.awaited -= 1
        self.control.settimeout(ORDER_SECONDS)

    def _sandboxed(self, log: int) -> Sandbox:
        return sandbox.start([*WORKER, "sandbox"], self._environment(DISK), self.limits, log)

    def _exposed(self, log: int) -> Sandbox:
        control, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [*WORKER, "exposed", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=self.folder,
                env=self._environment(str(self.folder)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the judge
            )
        return Sandbox(process, control, lambda: str(process.pid), lambda: None)  # it ends when the channel is closed

    def _environment(self, home: str) -> dict[str, str]:
        quiet = {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "USER": "nobody"}
        places = {"HOME": home, "TMPDIR": home, "IPYTHONDIR": home, "MPLCONFIGDIR": home}
        return quiet | places | {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

    def _read_line(self) -> bytes:
        """The parent's next line.

        Raises  OSError if there is none: the parent has ended, or is silent.
        """
        line = b""
        while not line.endswith(b"\n"):
            piece = self.control.recv(1)
            if not piece:
                raise ConnectionError("the warm parent has ended")
            line += piece
        return line.strip()

    def _send(self, order: dict, descriptors: list[int]) -> None:
        socket.send_fds(self.control, [write_frame(order)], descriptors)

    def _order(self, order: dict, descriptors: list[int]) -> int:
        self._send(order, descriptors)
        return int(self._read_line())

    def __exit__(self, *_: Any) -> None:
        self.rest()

    def rest(self) -> None:
        """End this process and the one aside, until a worker is asked for again."""
        if "aside" in self.__dict__:
            self.aside.close()
        self.close()

    def close(self) -> None:
        """End the process and all that runs in its sandbox; the next worker starts another."""
        if self.running:
            self.running.end()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.running = self.folder = None

    def worker(self, forbidden: Iterable[str] = ()) -> "Worker":
        """A new worker in an empty folder, which guards these names before any of the student's code runs.

        A warm parent that has been killed meanwhile, or whose workers end at once, is started again.
        Raises  CourseError if it does not start, or if it cannot guard the names.
        """
        for _ in range(2):
            try:
                self._begin()
                self._wait()
                return _guarding(self._fork(), list(forbidden))
            except (OSError, Lost) as error:
                said = last_line((self.folder / "parent.log").read_bytes()) if self.folder else str(error)
                self.close()
        raise CourseError(f"the workers do not start ({said}); install the environment with `make class`, or, if it is "
                          "installed, run the same command once more")

    def _fork(self) -> "Worker":
        requests_read, requests_write = os.pipe()
        answers_read, answers_write = os.pipe()
        try:
            pid = self._order({"do": "fork"} | asdict(self.limits), [requests_read, answers_write])
        except OSError:
            os.close(requests_write)
            os.close(answers_read)
            raise
        finally:
            os.close(requests_read)
            os.close(answers_write)
        return Worker(requests_write, answers_read, self.is_full, lambda: self._end(pid))

    def _end(self, pid: int) -> None:
        """Kill a worker with everything it started and empty its disk, or else end the whole sandbox."""
        try:
            self._order({"do": "end", "pid": pid}, [])
        except OSError:
            self.close()

    def is_full(self) -> bool:
        """Whether the sandbox holds more than it may."""
        if self.exposed:
            return False
        n_bytes, n_files = self.running.used()
        return n_bytes > self.limits.sandbox_bytes or n_files > MOST_FILES


def _guarding(worker: "Worker", names: list[str]) -> "Worker":
    """The worker, when it guards the names."""
    try:
        error = worker.request({"do": "guard", "names": names, "seconds": ORDER_SECONDS}, ORDER_SECONDS).get("error")
    except Lost:
        worker.end()
        raise
    if error:
        worker.end()
        raise CourseError(f"the names {', '.join(names)} cannot be guarded ({error}); correct them")
    return worker


class Aside(WarmParent):
    """A warm parent that is a fork of this process, so that nothing is imported twice.

    It is no sandbox, and it needs none: it runs answers that stand in the checks, which this process has run already.
    """

    def _launch(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="grading-"))
        self.control, theirs = socket.socketpair()
        self.running = multiprocessing.get_context("fork").Process(target=self._be_warm, args=(theirs,), daemon=True)
        with theirs:
            self.running.start()

    def _be_warm(self, control: socket.socket) -> None:
        """What the fork does: it forgets the files, variables and warnings of the process that it came from."""
        log = os.open(self.folder / "parent.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(log, 2)
        os.closerange(3, control.fileno())
        os.closerange(control.fileno() + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self._environment(str(self.folder)))
        warnings.resetwarnings()
        from grading import worker  # IPython is for the workers alone

        worker.end_with_parent()
        worker.main(control, in_sandbox=False)

    def is_full(self) -> bool:
        return False

    def close(self) -> None:
        if self.running:
            self.control.close()
            self.running.kill()
            self.running.join()
            self.running = None
        super().close()


class Worker:
    """One running process and the two pipes that lead to it."""

    def __init__(self, requests: int, answers: int, is_full: Callable[[], bool], end_process: Callable[[], None]):
        self.requests, self.answers, self.is_full, self.end_process = requests, answers, is_full, end_process
        self.buffer = bytearray()
        self.next_look = 0.0
        os.set_blocking(requests, False)

    def request(self, frame: dict, patience: float) -> dict:
        """The worker's answer to one frame.

        Raises  Lost if it does not come within `patience` seconds or the process has ended.
        """
        deadline, left_out = CLOCK.now() + patience, CLOCK.left_out
        self.next_look = CLOCK.now() + LOOK_SECONDS
        try:
            self._write(write_frame(frame), deadline)
            answer = read_frame(self._read_line(deadline))
        except (BrokenPipeError, WireError):
            raise Lost(ENDED) from None
        if "error" in answer and read_failure(answer["error"]) == OVERTIME and CLOCK.left_out > left_out:
            raise Lost(PAUSED)  # the alarm inside went on during the pause
        return answer

    def _wait(self, reading: list[int], writing: list[int], deadline: float) -> None:
        """Return when a pipe is ready; meanwhile look now and then at what the sandbox holds."""
        while (now := CLOCK.now()) < deadline:
            if now >= self.next_look:
                if self.is_full():
                    raise Lost(ENDED)
                self.next_look = CLOCK.now() + LOOK_SECONDS
            is_ready = any(select.select(reading, writing, [], max(0, min(deadline, self.next_look) - CLOCK.now())))
            CLOCK.now(LONGEST_LOOK)
            if is_ready:
                return
        raise Lost(OVERTIME)

    def _write(self, data: bytes, deadline: float) -> None:
        while data:
            self._wait([], [self.requests], deadline)
            data = data[os.write(self.requests, data) :]

    def _read_line(self, deadline: float) -> bytes:
        seen = 0
        while (end := self.buffer.find(b"\n", seen)) < 0:
            seen = len(self.buffer)
            self._wait([self.answers], [], deadline)
            piece = os.read(self.answers, 2**20)
            if not piece or seen > LARGEST:
                raise Lost(ENDED)
            self.buffer += piece
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line

    def end(self) -> None:
        """End the process with everything that it started or wrote."""
        os.close(self.requests)
        os.close(self.answers)
        self.end_process()


@dataclass(frozen=True)
class Step:
    """A cell to run, under the id by which feedback speaks of it."""

    id: str
    source: str
    by_course: bool = False
    forbidden: tuple[str, ...] = ()  # names that the code must not use (guard.py)


class Session:
    """One notebook, run: a context in which its values can be asked for.

    The questions have as much time as the cells. Where the cells do not come to an end in theirs, they run once more
    without those in `spare`: their ids are asked for only then.
    """

    def __init__(
        self, parent: WarmParent, steps: list[Step], total_seconds: float | None = None,
        spare: Callable[[], Iterable[str]] = tuple,
    ):
        self.parent, self.limits, self.steps, self.spare = parent, parent.limits, steps, spare
        self.forbidden = sorted({name for step in steps for name in step.forbidden})
        self.total_seconds = total_seconds or parent.limits.total_seconds
        self.outputs: dict[str, str] = {}
        self.failures: dict[str, Failure] = {}  # by step id
        self.worker: Worker | None = None
        self.has_run = False

    def __enter__(self) -> "Session":
        self._give_time()
        return self

    def __exit__(self, *_: Any) -> None:
        self.drop()

    def _give_time(self) -> None:
        self.deadline = CLOCK.now() + self.total_seconds

    @property
    def is_over(self) -> bool:
        """Whether the whole submission has used up its time."""
        return CLOCK.now() >= self.deadline

    def drop(self) -> None:
        """End the worker; what is asked next starts another."""
        if self.worker:
            self.worker.end()
        self.worker = None

    def _start(self) -> None:
        """Run the notebook in a new worker, again and again until no cell takes the worker down."""
        while self.worker is None and not self.is_over:
            self.worker = self.parent.worker(self.forbidden)
            for step in self.steps:
                if self.failures.get(step.id) in (OVERTIME, ENDED, TOO_LATE):
                    continue
                if self.is_over:
                    self.failures[step.id] = TOO_LATE
                    continue
                try:
                    self.run(step)
                except Lost as lost:
                    self.drop()
                    if lost.failure != PAUSED:
                        self.failures[step.id] = lost.failure
                    break

    def ready(self) -> None:
        """Start the notebook, if it is not running."""
        if self.worker is None:
            self._start()
        if not self.has_run:
            self.has_run = True
            if self.worker is None or TOO_LATE in self.failures.values():
                self._start_without_spare()
            self._give_time()

    def _start_without_spare(self) -> None:
        spare = set(self.spare())
        if any(step.id in spare for step in self.steps):
            self.drop()
            self.steps = [step for step in self.steps if step.id not in spare]
            self.failures = {name: failure for name, failure in self.failures.items() if failure != TOO_LATE}
            self._give_time()
            self._start()

    def try_cell(self, step: Step) -> Failure | None:
        """Run one more cell and say how it failed; if the worker is lost, the next question starts another."""
        try:
            if self.worker:
                self.run(step)
            return self.failures.get(step.id)
        except Lost as lost:
            self.drop()
            if lost.failure == PAUSED:
                self.ready()
                return self.try_cell(step)
            return lost.failure

    def run(self, step: Step) -> None:
        """Run one cell and keep its output and its error.

        Raises  Lost if the worker did not survive it.
        """
        frame = {"do": "cell", "source": step.source, "by_course": step.by_course, "forbidden": step.forbidden}
        answer = self._request(frame, self.limits.cell_seconds)
        self.outputs[step.id] = plain_text(answer.get("output"), self.limits.output_characters + 100)
        self.failures.pop(step.id, None)
        if "error" in answer:
            self.failures[step.id] = read_failure(answer["error"])

    def _request(self, frame: dict, seconds: float) -> dict:
        """The worker's answer within these seconds, or those that are left of the whole.

        Raises  Lost if the worker did not survive it.
        """
        left = max(0.1, self.deadline - CLOCK.now())
        given = min(seconds, left)
        try:
            answer = self.worker.request(frame | {"seconds": given}, given + self.limits.grace_seconds)
        except Lost as lost:
            raise Lost(TOO_LATE) if lost.failure == OVERTIME and left < seconds else lost from None
        if "error" in answer and read_failure(answer["error"]) == OVERTIME and left < seconds:
            answer["error"] = {"kind": TOO_LATE.kind}
        return answer

    def ask(self, cases: list[Case], seconds: float, forbidden: tuple[str, ...] = ()) -> list[Outcome]:
        """One outcome for each case, all within `seconds`; what comes too late has failed."""
        outcomes: list[Outcome] = []
        remaining = seconds
        for case in cases:
            if outcomes and outcomes[-1] in (OVERTIME, ENDED, TOO_LATE):
                outcomes.append(outcomes[-1])
                continue
            outcome, used = self._ask_one(case, remaining, forbidden)
            remaining = max(0.1, remaining - used)
            outcomes.append(outcome)
        return outcomes

    def _ask_one(self, case: Case, seconds: float, forbidden: tuple[str, ...]) -> tuple[Outcome, float]:
        self.ready()
        if self.is_over:
            return TOO_LATE, 0
        started = CLOCK.now()
        try:
            answer = self._request(ask_frame(case) | {"forbidden": forbidden}, seconds)
            outcome = read_failure(answer["error"]) if "error" in answer else Value(decode(answer.get("value")))
        except Lost as lost:
            self.drop()
            if lost.failure == PAUSED:
                return self._ask_one(case, seconds, forbidden)
            outcome = lost.failure
        except WireError as error:
            self.drop()
            outcome = Failure("Unsendable", str(error))
        return outcome, CLOCK.now() - started


def read_failure(error: Any) -> Failure:
    """A worker's error frame, whatever is in it."""
    error = error if isinstance(error, dict) else {}
    line = error.get("line")
    kind = plain_text(error.get("kind", "Ended"), 100)
    if kind == OVERTIME.kind:
        return OVERTIME
    line = line if isinstance(line, int) and 0 < line < 10**6 else None
    return Failure(kind, plain_text(error.get("message"), 500), line)


def plain_text(text: Any, n_characters: int) -> str:
    """The beginning of a text that a worker sent, as characters that every file and screen can take."""
    kept = text[:n_characters] if isinstance(text, str) else ""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in kept)


def ask_frame(case: Case) -> dict:
    """The request that stands for a case."""
    if isinstance(case, Probe):
        inputs = [[name, pack(value)] for name, value in case.inputs.items()]
        return {"do": "ask", "kind": "probe", "code": case.code, "inputs": inputs}
    if isinstance(case, Call):
        args, kwargs = [pack(v) for v in case.args], [[k, pack(v)] for k, v in case.kwargs.items()]
        return {"do": "ask", "kind": "call", "name": case.name, "args": args, "kwargs": kwargs}
    return {"do": "ask", "kind": "read", "name": case.name}


def pack(value: Any) -> list:
    """An argument as a [type, content] pair."""
    if isinstance(value, Folder):
        return ["folder", [[name, encode(content)] for name, content in value.files.items()]]
    return encode(value)
