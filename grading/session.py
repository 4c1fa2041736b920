"""The judge's end of a worker: start one, run a notebook in it, ask it for values, end it.

What the student's code does to its process (an endless loop, a crash) costs the cell or the question in which it
happens: the process is killed, and a new one runs the notebook without that cell.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grading.course import CourseError
from grading.question import Call, Case, Folder, Probe
from grading.wire import LARGEST, WireError, decode, encode, read_frame, write_frame


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one submission may use."""

    cell_seconds: float = 20
    total_seconds: float = 240
    grace_seconds: float = 2  # between the alarm inside and the kill from outside
    memory_bytes: int = 4 * 2**30
    file_bytes: int = 256 * 2**20
    output_characters: int = 4000


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
OVERTIME = Failure("OutOfTime")
ENDED = Failure("Ended")  # the process ended: exit, crash, out of memory


class Lost(Exception):
    """The worker is gone, or had to be killed."""

    def __init__(self, failure: Failure):
        super().__init__(failure.kind)
        self.failure = failure


class WarmParent:
    """The warm parent of all workers: a context in which workers can be started quickly."""

    def __init__(self, limits: Limits | None = None):
        self.limits = limits or Limits()
        self.folder: Path | None = None

    def __enter__(self) -> "WarmParent":
        return self

    def _start(self) -> None:
        """Start the process; it is needed only when there is something to run."""
        self.folder = Path(tempfile.mkdtemp(prefix="grading-"))
        self.control, theirs = socket.socketpair()
        with theirs, (self.folder / "parent.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-m", "grading.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        if self._read_line() != b"ready":
            reason = (self.folder / "parent.log").read_text(errors="replace").strip().rsplit("\n", 1)[-1]
            raise CourseError(f"the worker did not start ({reason}); install the environment with `make class`")

    def _environment(self) -> dict[str, str]:
        home = str(self.folder)
        quiet = {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        places = {"HOME": home, "TMPDIR": home, "IPYTHONDIR": home, "MPLCONFIGDIR": home}
        return quiet | places | {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n") and (piece := self.control.recv(1)):
            line += piece
        return line.strip()

    def __exit__(self, *_: Any) -> None:
        if self.folder is None:
            return
        self.control.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def worker(self) -> "Worker":
        """A new worker in an empty folder."""
        if self.folder is None:
            self._start()
        folder = tempfile.mkdtemp(dir=self.folder)
        order = {
            "folder": folder,
            "memory_bytes": self.limits.memory_bytes,
            "file_bytes": self.limits.file_bytes,
            "output_characters": self.limits.output_characters,
        }
        requests_read, requests_write = os.pipe()
        answers_read, answers_write = os.pipe()
        socket.send_fds(self.control, [write_frame(order)], [requests_read, answers_write])
        os.close(requests_read)
        os.close(answers_write)
        return Worker(int(self._read_line()), requests_write, answers_read, Path(folder))


class Worker:
    """One running process and the two pipes that lead to it."""

    def __init__(self, pid: int, requests: int, answers: int, folder: Path):
        self.pid, self.requests, self.answers, self.folder = pid, requests, answers, folder
        self.buffer = b""
        os.set_blocking(requests, False)

    def request(self, frame: dict, patience: float) -> dict:
        """The worker's answer to one frame.

        Raises  Lost if it does not come within `patience` seconds or the process has ended.
        """
        deadline = time.monotonic() + patience
        try:
            self._write(write_frame(frame), deadline)
            return read_frame(self._read_line(deadline))
        except (BrokenPipeError, WireError):
            raise Lost(ENDED) from None

    def _write(self, data: bytes, deadline: float) -> None:
        while data:
            _, ready, _ = select.select([], [self.requests], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise Lost(OVERTIME)
            data = data[os.write(self.requests, data) :]

    def _read_line(self, deadline: float) -> bytes:
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise Lost(OVERTIME)
            piece = os.read(self.answers, 2**20)
            if not piece:
                raise Lost(ENDED)
            self.buffer += piece
            if len(self.buffer) > 2 * LARGEST:
                raise Lost(ENDED)
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def end(self) -> None:
        """Kill the process with everything it started, and remove its folder."""
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)
        os.close(self.requests)
        os.close(self.answers)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Step:
    """A cell to run, under the id by which feedback speaks of it."""

    id: str
    source: str


class Session:
    """One notebook, run: a context in which its values can be asked for."""

    def __init__(self, parent: WarmParent, steps: list[Step], total_seconds: float | None = None):
        self.parent, self.limits, self.steps = parent, parent.limits, steps
        self.total_seconds = total_seconds or parent.limits.total_seconds
        self.outputs: dict[str, str] = {}
        self.failures: dict[str, Failure] = {}  # by step id
        self.worker: Worker | None = None

    def __enter__(self) -> "Session":
        self.deadline = time.monotonic() + self.total_seconds
        return self

    def __exit__(self, *_: Any) -> None:
        self._drop()

    def _drop(self) -> None:
        if self.worker:
            self.worker.end()
        self.worker = None

    def _start(self) -> None:
        """Run the notebook in a new worker, again and again until no cell takes the worker down."""
        while self.worker is None:
            self.worker = self.parent.worker()
            for step in self.steps:
                if self.failures.get(step.id) in (OVERTIME, ENDED):
                    continue
                try:
                    self.run(step)
                except Lost as lost:
                    self.failures[step.id] = lost.failure
                    self._drop()
                    break

    def ready(self) -> None:
        """Start the notebook, if it is not running."""
        if self.worker is None:
            self._start()

    def try_cell(self, step: Step) -> Failure | None:
        """Run one more cell and say how it failed; if the worker is lost, the next question starts another."""
        try:
            if self.worker:
                self.run(step)
            return self.failures.get(step.id)
        except Lost as lost:
            self._drop()
            return lost.failure

    def run(self, step: Step) -> None:
        """Run one cell and keep its output and its error.

        Raises  Lost if the worker did not survive it.
        """
        seconds = min(self.limits.cell_seconds, max(0.1, self.deadline - time.monotonic()))
        frame = {"do": "cell", "source": step.source, "seconds": seconds}
        answer = self.worker.request(frame, seconds + self.limits.grace_seconds)
        self.outputs[step.id] = str(answer.get("output", ""))
        self.failures.pop(step.id, None)
        if "error" in answer:
            self.failures[step.id] = read_failure(answer["error"])

    def ask(self, cases: list[Case], seconds: float) -> list[Outcome]:
        """One outcome for each case, all within `seconds`; what comes too late has failed."""
        outcomes: list[Outcome] = []
        remaining = seconds
        for case in cases:
            if outcomes and outcomes[-1] in (OVERTIME, ENDED):
                outcomes.append(outcomes[-1])
                continue
            outcome, used = self._ask_one(case, remaining)
            remaining = max(0.1, remaining - used)
            outcomes.append(outcome)
        return outcomes

    def _ask_one(self, case: Case, seconds: float) -> tuple[Outcome, float]:
        self.ready()
        seconds = min(seconds, max(0.1, self.deadline - time.monotonic()))
        started = time.monotonic()
        try:
            answer = self.worker.request(ask_frame(case, seconds), seconds + self.limits.grace_seconds)
            outcome = read_failure(answer["error"]) if "error" in answer else Value(decode(answer.get("value")))
        except Lost as lost:
            self._drop()
            outcome = lost.failure
        except WireError as error:
            self._drop()
            outcome = Failure("Unsendable", str(error))
        return outcome, time.monotonic() - started


def read_failure(error: Any) -> Failure:
    """A worker's error frame, whatever is in it."""
    error = error if isinstance(error, dict) else {}
    line = error.get("line")
    kind = str(error.get("kind", "Ended"))
    if kind == OVERTIME.kind:
        return OVERTIME
    return Failure(kind, str(error.get("message", ""))[:500], line if isinstance(line, int) else None)


def ask_frame(case: Case, seconds: float) -> dict:
    """The request that stands for a case."""
    if isinstance(case, Probe):
        inputs = [[name, pack(value)] for name, value in case.inputs.items()]
        return {"do": "ask", "kind": "probe", "seconds": seconds, "code": case.code, "inputs": inputs}
    if isinstance(case, Call):
        args, kwargs = [pack(v) for v in case.args], [[k, pack(v)] for k, v in case.kwargs.items()]
        frame = {"do": "ask", "kind": "call", "seconds": seconds, "name": case.name}
        return frame | {"args": args, "kwargs": kwargs}
    return {"do": "ask", "kind": "read", "seconds": seconds, "name": case.name}


def pack(value: Any) -> list:
    """An argument as a [type, content] pair."""
    if isinstance(value, Folder):
        return ["folder", [[name, encode(content)] for name, content in value.files.items()]]
    return encode(value)
