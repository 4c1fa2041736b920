"""A worker runs one student's notebook and serves its values.

`python -I -m grading.worker sandbox FD` is the warm parent: it imports what the lab imports, once, and forks a child
for every notebook. A child gets two pipes, an empty folder and a clean environment; no check and no expected
value is ever sent to it. The judge starts the warm parent in a sandbox (sandbox.py). With `exposed` in place of
`sandbox` it is a plain process, which can read and change what its user can.
"""

import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from IPython.core.compilerop import CachingCompiler
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from grading.guard import COURSE, Guard
from grading.wire import WireError, decode, encode, write_frame

WRITABLE = ("/sandbox", "/dev/shm")  # in the sandbox
CLEANING_SECONDS = 4
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class OutOfTime(BaseException):
    """Raised inside the student's code when its time is over; not an Exception, so few `except` catch it."""


class CappedText(io.TextIOBase):
    """A standard stream that keeps the first `limit` characters and counts the rest."""

    encoding = "utf-8"

    def __init__(self, limit: int):
        self.limit, self.kept, self.n_dropped = limit, [], 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        keep = text[: self.limit]
        self.limit -= len(keep)
        self.n_dropped += len(text) - len(keep)
        if keep:
            self.kept.append(keep)
        return len(text)

    def read_all(self) -> str:
        """The text as a terminal shows it: no colors, and of a progress bar only its last state."""
        text = ESCAPES.sub("", "".join(self.kept)).replace("\r\n", "\n")
        lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
        more = f"\n... {self.n_dropped:,} more characters" if self.n_dropped else ""
        return "\n".join(lines).strip("\n") + more


class PlainDisplay(DisplayPublisher):
    """Rich displays arrive as their plain text."""

    def publish(self, data: dict, metadata: dict | None = None, **_: Any) -> None:
        print(data.get("text/plain", "<display>"))


class Compiler(CachingCompiler):
    """Names the code of a cell, and says whether it is the course's own."""

    by_course = False

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        name = super().get_code_name(raw_code, transformed_code, number)
        return f"{COURSE}{name.strip('<>')}>" if self.by_course else name


class Shell(InteractiveShell):
    """IPython without a history, a terminal or a window."""

    compiler_class = Compiler

    def enable_gui(self, gui: str | None = None) -> None:
        """Plots are drawn in memory, so `%matplotlib inline` needs no event loop."""


def make_shell() -> Shell:
    """A fresh shell, in which cells run as they do in Jupyter."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"
    config.InteractiveShell.display_pub_class = PlainDisplay
    config.InteractiveShell.xmode = "Context"
    return Shell.instance(config=config)


def seed(number: int = 0) -> None:
    """Make the global random generators start alike, so that a second run gives the same values."""
    random.seed(number)
    np.random.seed(number)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(number)


class Notebook:
    """One student's namespace: cells are run in it, then values are asked of it."""

    def __init__(self, shell: Shell, output_limit: int):
        self.shell, self.output_limit, self.guard = shell, output_limit, None

    def answer(self, frame: dict) -> dict:
        """The answer to one request: {"do": "guard" | "cell" | "ask", "seconds": ...}."""
        stream = CappedText(self.output_limit)
        answer: dict = {}
        sys.stdout, sys.stderr = stream, stream
        signal.setitimer(signal.ITIMER_REAL, frame["seconds"])
        try:
            seed()
            with self.guard.holding(frame.get("forbidden", ())) if self.guard else contextlib.nullcontext():
                answer = {"guard": self.set_guard, "cell": self.run_cell, "ask": self.ask}[frame["do"]](frame)
        except BaseException as error:
            answer = {"error": describe(error)}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        return answer | {"output": stream.read_all()}

    def set_guard(self, frame: dict) -> dict:
        """Prepare for the names that the lab forbids, before any of the student's code runs."""
        if frame["names"]:
            self.guard = Guard(frame["names"], (os.getcwd(), *WRITABLE))
        return {}

    def run_cell(self, frame: dict) -> dict:
        """Run the source as a notebook would."""
        self.shell.compile.by_course = frame.get("by_course", False)
        result = self.shell.run_cell(frame["source"], store_history=False)
        error = result.error_before_exec or result.error_in_exec
        return {"error": describe(error)} if error else {}

    def ask(self, frame: dict) -> dict:
        """The value of a variable, of a call, or of `answer` after a few lines."""
        names = self.shell.user_ns
        if frame["kind"] == "probe":
            scope = dict(names) | {name: unpack(value) for name, value in frame["inputs"]}
            exec(compile(frame["code"], f"{COURSE}probe>", "exec"), scope)
            return {"value": encode(scope["answer"])}
        if frame["name"] not in names:
            return {"error": {"kind": "Undefined", "message": frame["name"], "line": None}}
        value = names[frame["name"]]
        if frame["kind"] == "call":
            args = [unpack(value) for value in frame["args"]]
            value = value(*args, **{name: unpack(value) for name, value in frame["kwargs"]})
        return {"value": encode(value)}


def unpack(pair: list) -> Any:
    """An argument; a folder is made anew on the disk and handed over as its path."""
    if pair[0] != "folder":
        return decode(pair)
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    for name, content in pair[1]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(decode(content))
    return folder


def describe(error: BaseException) -> dict:
    """What a sentence about the error needs."""
    kind = "Unsendable" if isinstance(error, WireError) else type(error).__name__
    line = error.lineno if isinstance(error, SyntaxError) else None
    return {"kind": kind, "message": str(error)[:500], "line": line}


def out_of_time(*_: Any) -> None:
    """The alarm's handler."""
    raise OutOfTime("the time for this cell is over")


def serve(shell: Shell, requests: int, answers: int, output_limit: int) -> None:
    """Answer one line after another until the judge closes the pipe."""
    signal.signal(signal.SIGALRM, out_of_time)
    notebook = Notebook(shell, output_limit)
    with open(requests, "rb") as lines, open(answers, "wb", buffering=0) as out:
        for line in lines:
            answer = notebook.answer(json.loads(line))
            try:
                frame = write_frame(answer)
            except WireError as error:
                frame = write_frame({"error": describe(error)})
            send(out.fileno(), frame)


def send(pipe: int, frame: bytes) -> None:
    """Write all of the frame; a pipe takes it in pieces."""
    view = memoryview(frame)
    while view:
        view = view[os.write(pipe, view) :]


def control_process(option: int, value: int) -> None:
    """Linux's prctl; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_with_parent() -> None:
    """Let the system end this process when its parent ends, however that happens."""
    control_process(PR_SET_PDEATHSIG, signal.SIGKILL)


def set_limits(order: dict, in_sandbox: bool) -> None:
    """Limits that neither this process nor its children can raise."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: order["file_bytes"],
        resource.RLIMIT_DATA: order["memory_bytes"],
        resource.RLIMIT_NOFILE: order["n_open_files"],
    }
    if in_sandbox:  # outside it would count all processes of the user
        limits[resource.RLIMIT_NPROC] = order["n_processes"]
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def become_child(shell: Shell, order: dict, requests: int, answers: int, in_sandbox: bool) -> None:
    """Turn the forked process into a worker in its own folder and within its limits, and serve."""
    os.setsid()
    end_with_parent()
    control_process(PR_SET_DUMPABLE, 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stderr__.fileno())  # the log is a file of the judge
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    folder = tempfile.mkdtemp(dir=Path.cwd())
    os.chdir(folder)
    for name in ("HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        os.environ[name] = folder
    tempfile.tempdir = None
    sys.path.insert(0, "")  # as in Jupyter, a notebook may import a file that lies beside it
    set_limits(order, in_sandbox)
    serve(shell, requests, answers, order["output_characters"])


def end_all() -> None:
    """Kill every other process of the sandbox and empty what can be written in it.

    If that takes too long, this process ends, and the judge starts a new sandbox.
    """
    if os.getpid() != 1 and Path("/proc/1/comm").read_text() != "bwrap\n":
        sys.exit("this is no sandbox, so nothing was killed")
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))  # of itself, the alarm does not end a first process
    signal.alarm(CLEANING_SECONDS)
    mine = {"1", str(os.getpid())}
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        if {name for name in os.listdir("/proc") if name.isdigit()} <= mine:
            break
        time.sleep(0.001)
    for entry in (entry for place in WRITABLE for entry in os.scandir(place)):
        shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
    signal.alarm(0)


def end_one(pid: int) -> None:
    """Kill a worker outside of a sandbox, with its group, and empty the folder of all workers."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    for entry in os.scandir():
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry, ignore_errors=True)


def fork(shell: Shell, order: dict, descriptors: list[int], control: socket.socket, in_sandbox: bool) -> int:
    """Start a worker; its process id."""
    if (pid := os.fork()) == 0:
        try:
            control.close()
            become_child(shell, order, *descriptors, in_sandbox)
        finally:
            os._exit(0)
    return pid


def load(modules: list[str]) -> None:
    """Import the modules, so that no child waits for them; what fails here fails again in the cell that needs it."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection in every child looks through all of it


def main(control: socket.socket, in_sandbox: bool) -> None:
    """Import modules, fork a child or end it for every order that arrives, and answer with the child's process id."""
    control_process(PR_SET_DUMPABLE, 0)  # so that no process of the same user may look into this one or trace it
    shell = make_shell()
    Notebook(shell, 0).answer({"do": "cell", "source": "pass", "seconds": 60})  # what a first cell has to load
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the system
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 65536, 2)
        if not message:
            return
        order = json.loads(message)
        pid = order.get("pid", 0)
        if order["do"] == "import":
            load(order["modules"])
        elif order["do"] == "fork":
            pid = fork(shell, order, descriptors, control, in_sandbox)
        elif in_sandbox:
            end_all()
        else:
            end_one(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(b"%d\n" % pid)


if __name__ == "__main__":
    end_with_parent()
    main(socket.socket(fileno=int(sys.argv[2])), in_sandbox=sys.argv[1] == "sandbox")
