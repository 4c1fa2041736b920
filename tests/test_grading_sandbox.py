"""The sandbox: when it is asked for, what its command line holds, and what is refused without it."""

import errno
import os
import platform
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_grading_tiny import LAB, tiny_course

from grading import cli, sandbox, walls
from grading.bubblewrap import Bubblewrap
from grading.container import Container
from grading.course import CourseError, write_whole
from grading.judge import Judge
from grading.question import Call, Read
from grading.session import TOO_LATE, Failure, Limits, Session, Step, Value, WarmParent

REPOSITORY = Path(__file__).resolve().parents[1]

needs_sandbox = pytest.mark.skipif(
    bool(sandbox.fault()) and not os.environ.get("CI"), reason=f"no sandbox: {sandbox.fault()}"
)


needs_bubblewrap = pytest.mark.skipif(
    bool(sandbox.choose("bubblewrap")[1]) and not os.environ.get("CI"), reason=sandbox.choose("bubblewrap")[1]
)


@pytest.fixture
def no_sandbox(monkeypatch):
    monkeypatch.setattr(sandbox, "fault", lambda: "bubblewrap is not installed")


def test_ci_has_bubblewrap():
    fault = sandbox.choose("bubblewrap")[1]
    assert not (os.environ.get("CI") and sys.platform == "linux" and fault), fault


@pytest.fixture
def fresh_choice():
    """What was found before is not known any more."""
    sandbox.choose.cache_clear()
    yield
    sandbox.choose.cache_clear()


@pytest.mark.parametrize("broken, chosen", [
    ((), "bubblewrap"), (("bubblewrap",), "podman"), (("bubblewrap", "podman"), "docker"),
    (("bubblewrap", "podman", "docker"), ""),
])  # fmt: skip
def test_the_first_that_works_is_chosen(monkeypatch, fresh_choice, broken, chosen):
    def says(name):
        return f"{name} is not installed" if name in broken else ""

    monkeypatch.delenv("GRADING_SANDBOX", raising=False)
    monkeypatch.setattr(Bubblewrap, "fault", lambda self: says("bubblewrap"))
    monkeypatch.setattr(Container, "fault", lambda self: says(self.engine))
    assert sandbox.name() == chosen
    assert sandbox.fault() == ("" if chosen else ", ".join(map(says, broken)))


def test_what_is_asked_for_is_not_replaced_by_another(monkeypatch, fresh_choice):
    monkeypatch.setenv("GRADING_SANDBOX", "podman")
    monkeypatch.setattr(Bubblewrap, "fault", lambda self: "")
    monkeypatch.setattr(Container, "fault", lambda self: "podman is not installed")
    assert (sandbox.name(), sandbox.fault()) == ("", "podman is not installed")
    monkeypatch.setenv("GRADING_SANDBOX", "chroot")
    assert "'chroot', which is none of bubblewrap, podman, docker" in sandbox.fault()


def test_an_engine_that_does_not_answer_says_why(tmp_path, monkeypatch, fresh_choice):
    engine = tmp_path / "docker"
    engine.write_text("#!/bin/sh\necho first >&2\necho 'the service is down' >&2\nexit 1\n")
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert Container("docker").fault() == "docker does not work here (the service is down)"


def test_without_a_sandbox_students_code_is_refused_in_one_sentence(tmp_path, no_sandbox, capsys):
    course = tiny_course(tmp_path)
    folder = course.work / "submitted"
    write_whole(folder / "ada" / LAB / f"{LAB}.ipynb", course.lab("01").release_path.read_bytes())
    with pytest.raises(SystemExit) as end:
        cli.main(["grade", str(folder)], root=course.root)
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "bubblewrap is not installed" in said and "--host-exposed" in said and said.count("\n") == 1
    assert not (course.work / "results").exists()


def test_host_exposed_says_so_and_runs(no_sandbox, capsys):
    with cli.strangers_parent(host_exposed=True) as parent, Session(parent, [Step("a", "x = 1")]) as session:
        assert session.ask([Read("x")], 1) == [Value(1)]
    assert capsys.readouterr().out == cli.EXPOSED + "\n"


def test_the_courses_own_code_runs_without_a_sandbox_and_says_so(no_sandbox, capsys):
    assert cli.course_parent().exposed
    assert "No sandbox, because bubblewrap is not installed" in capsys.readouterr().out


def test_a_warm_parent_is_never_exposed_by_itself(no_sandbox):
    with pytest.raises(CourseError, match="there is no sandbox"), WarmParent() as parent:
        parent.worker()


def test_nothing_of_the_judge_but_the_worker_is_bound():
    inside = [path for path in walls.visible() if path.is_relative_to(REPOSITORY / "grading")]
    assert {path.name for path in inside} == {"__init__.py", "guard.py", "wire.py", "worker.py"}
    assert not any(REPOSITORY.is_relative_to(path) for path in walls.visible() if path != Path(sys.prefix))


@pytest.mark.skipif(platform.machine() not in walls.REFUSED, reason="no list of calls for this processor")
def test_the_filter_ends_in_allow_and_every_jump_stays_inside():
    program = list(struct.iter_unpack("=HBBI", walls.seccomp_filter(platform.machine())))
    assert program[-1][3] == 0x7FFF0000
    assert all(i + 1 + max(yes, no) < len(program) for i, (code, yes, no, _) in enumerate(program) if code & 7 == 5)


@needs_bubblewrap
def test_a_user_without_rights_gets_the_same_walls(monkeypatch):
    """What a grader who is not root gets: a user namespace; root can ask for it as well."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("GRADING_SANDBOX", "bubblewrap")
    source = (
        "import os\nme = [os.getuid(), os.getgid()]\n"
        "rights = [line for line in open('/proc/self/status') if 'CapEff' in line]\n"
        f"found = [p for p in ('{REPOSITORY}/solutions', '/home', '/etc/passwd') if os.path.exists(p)]\n"
        "places = [p for p in ('/', '/dev', '/sandbox', '/dev/shm') if os.access(p, os.W_OK)]"
    )
    with WarmParent() as parent, Session(parent, [Step("a", source)]) as session:
        me, rights, found, places = session.ask([Read(name) for name in ("me", "rights", "found", "places")], 5)
    assert min(me.value) >= 60_000
    assert rights.value[0].split()[1] == "0" * 16
    assert found == Value([])
    assert places == Value(["/sandbox", "/dev/shm"])


SHORT = Limits(cell_seconds=1, grace_seconds=0.2, total_seconds=2)


@needs_sandbox
def test_the_cells_end_when_their_whole_time_is_over():
    steps = [Step(f"cell-{n}", "import time\ntime.sleep(0.9)") for n in range(100)]
    with WarmParent(SHORT) as parent, Session(parent, [*steps, Step("last", "x = 1")]) as session:
        started = time.monotonic()
        assert session.ask([Read("x")], 1) == [Failure("Undefined", "x")]
        assert session.failures["last"] == TOO_LATE and "cell-0" not in session.failures
        assert time.monotonic() < started + 15


@needs_sandbox
def test_the_questions_end_when_their_whole_time_is_over():
    with WarmParent(SHORT) as parent, Session(parent, [Step("a", "import time\ndef f(): time.sleep(0.9)")]) as session:
        outcomes = [session.ask([Call("f")], 1)[0] for _ in range(5)]
    assert outcomes == [Value(None)] * 2 + [TOO_LATE] * 3


@needs_sandbox
def test_cells_that_do_not_come_to_an_end_run_again_without_those_that_can_be_spared():
    slow = [Step(f"cell-{n}", "import time\ntime.sleep(0.9)") for n in range(9)]
    steps = [Step("first", "x = 1"), *slow, Step("last", "y = x + 1")]
    with (WarmParent(SHORT) as parent,
          Session(parent, steps, spare=lambda: [step.id for step in slow]) as session):  # fmt: skip
        assert session.ask([Read("y")], 1) == [Value(2)]


PAUSED = """
from grading.question import Call
from grading.session import Session, Step, WarmParent
from grading.walls import Limits
source = "import time\\ndef f():\\n    time.sleep(1)\\n    return 'x' * 300_000"  # more than a pipe holds
with WarmParent(Limits(grace_seconds=0.5)) as parent, Session(parent, [Step("a", source)]) as session:
    session.ready()
    print("ready", flush=True)
    (outcome,) = session.ask([Call("f")], 1.5)
    print(len(outcome.value), flush=True)
"""


@needs_sandbox
@pytest.mark.parametrize("sandbox_too", [False, True])
def test_a_pause_of_the_judge_costs_no_answer(sandbox_too):
    with subprocess.Popen([sys.executable, "-c", PAUSED], stdout=subprocess.PIPE, text=True) as judge:
        assert judge.stdout.readline() == "ready\n"
        time.sleep(0.3)
        pids = [str(judge.pid)]
        for pid in pids:
            os.kill(int(pid), signal.SIGSTOP)
            pids += walls.children_of(pid) if sandbox_too else []
        time.sleep(3)
        for pid in reversed(pids):
            os.kill(int(pid), signal.SIGCONT)
        assert judge.stdout.readline() == "300000\n"


def zoo(name):
    return (REPOSITORY / "grading" / "zoo" / f"{name}.py").read_text()


def test_no_process_can_weaken_another(backend):
    mine = "\nresource.setrlimit(resource.RLIMIT_CPU, (900, 900))\n"
    mine += "os.sched_setaffinity(0, os.sched_getaffinity(0))\nx = 1"
    with WarmParent() as parent, Session(parent, [Step("a", zoo("weakens_its_parent") + mine)]) as session:
        assert session.ask([Read("x")], 5) == [Value(1)]
        assert session.outputs["a"] == ""


@needs_bubblewrap
def test_no_memory_is_given_that_belongs_to_no_process(monkeypatch):
    monkeypatch.setenv("GRADING_SANDBOX", "bubblewrap")
    with WarmParent() as parent, Session(parent, [Step("a", zoo("hidden_memory_flood"))]) as session:
        assert session.ask([Read("kept")], 5) == [Value([])]
        assert session.outputs["a"].count("Permission denied") + session.outputs["a"].count("not permitted") == 2


@needs_bubblewrap
def test_a_flood_of_page_tables_is_ended(monkeypatch):
    monkeypatch.setenv("GRADING_SANDBOX", "bubblewrap")
    limits = Limits(sandbox_bytes=2**30)
    with WarmParent(limits) as parent, Session(parent, [Step("a", zoo("page_table_flood"))]) as session:
        session.ready()
        assert session.failures["a"] == Failure("Ended")


@needs_sandbox
def test_a_process_may_have_any_name():
    with WarmParent() as parent, Session(parent, [Step("a", zoo("odd_process_name") + "\nx = 1")]) as session:
        assert session.ask([Read("x")], 5) == [Value(1)]


HOPELESS = Limits(n_open_files=2**30)  # more than any system gives


@needs_sandbox
def test_a_warm_parent_whose_workers_end_at_once_is_started_again(monkeypatch):
    fork, limits = WarmParent._fork, iter([HOPELESS, Limits()])

    def hopeless_at_first(parent):
        parent.limits = next(limits)
        return fork(parent)

    monkeypatch.setattr(WarmParent, "_fork", hopeless_at_first)
    with WarmParent() as parent, Session(parent, [Step("a", "x = 1", forbidden=("math.fsum",))]) as session:
        assert session.ask([Read("x")], 5) == [Value(1)]


def test_workers_that_never_start_are_told_in_one_sentence():
    with pytest.raises(CourseError, match="the workers do not start"), WarmParent(HOPELESS, exposed=True) as parent:
        parent.worker()


@needs_sandbox
def test_ctrl_c_reaches_the_judge_and_not_the_sandbox():
    with WarmParent() as parent, Session(parent, [Step("a", "x = 1")]) as session:
        session.ready()
        assert os.getpgid(parent.running.process.pid) != os.getpgid(0)


@needs_sandbox
def test_the_judges_own_answers_run_outside_of_the_students_sandbox(tmp_path):
    """The understudy holds the solution and every listed wrong answer, so no student's process may find it."""
    lab = tiny_course(tmp_path).lab("01")
    source = "import os\npids = [n for n in os.listdir('/proc') if n.isdigit()]"
    with WarmParent() as parent, Judge(lab, parent, b"secret") as judge:
        judge.understudy.ready()
        with Session(parent, [Step("a", source)]) as session:
            (pids,) = session.ask([Read("pids")], 5)
        assert len(pids.value) == 3  # the sandbox's first process, the warm parent, the worker itself
        assert judge.understudy.ask([Read("answer_seven")], 5) == [Value(7)]


def test_every_sandbox_has_the_same_walls(backend):
    source = (
        "import ctypes, os, socket\nfrom pathlib import Path\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "me = min(os.getresuid() + os.getresgid()) >= 60_000\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "facts = [status[name].strip() for name in ('CapEff', 'CapPrm', 'NoNewPrivs', 'Seccomp')]\n"
        "calls = [libc.ptrace(0, 0, 0, 0), libc.unshare(0x10000000)]\n"
        "calls += [libc.memfd_create(b'a', 0), libc.shmget(0, 9, 0)]\n"
        "cards = sorted(name for _, name in socket.if_nameindex())\n"
        "places = [p for p in ('/', '/dev', '/dev/mqueue', '/run', '/sandbox', '/dev/shm') if os.access(p, os.W_OK)]\n"
        f"found = [p for p in ('{REPOSITORY}/solutions', '{REPOSITORY}/tests', '/home', '/etc/passwd', '/etc/shadow', "
        "'/var/log') if os.path.exists(p)]\n"
        "settings = sorted(os.environ)\n"
        "sizes = [d.f_blocks * d.f_frsize for d in map(os.statvfs, ('/sandbox', '/dev/shm'))]\n"
        "names = [Path(p).read_text() for p in ('/etc/hosts', '/etc/resolv.conf') if os.path.exists(p)]\n"
    )
    wanted = {
        "me": True,
        "facts": ["0" * 16, "0" * 16, "1", "2"],
        "calls": [-1, -1, -1, -1],
        "cards": ["lo"],
        "places": ["/sandbox", "/dev/shm"],
        "found": [],
        "settings": sorted(["HOME", "IPYTHONDIR", "LANG", "MPLBACKEND", "MPLCONFIGDIR", "OMP_NUM_THREADS", "PATH",
                            "TMPDIR", "TOKENIZERS_PARALLELISM", "USER"]),
        "sizes": [walls.DISK_BYTES, walls.DISK_BYTES // 4],
    }  # fmt: skip
    with WarmParent() as parent, Session(parent, [Step("a", source)]) as session:
        got = {name: session.ask([Read(name)], 5)[0] for name in wanted}
        (names,) = session.ask([Read("names")], 5)
    got["settings"].value.remove("PWD") if "PWD" in got["settings"].value else None  # bubblewrap sets it
    assert got == {name: Value(value) for name, value in wanted.items()}
    assert not any(names.value)


def test_the_channel_is_closed_to_what_runs_inside(backend):
    source = (
        "import os, socket\ndef call():\n    with socket.socket(socket.AF_UNIX) as s:\n"
        "        return s.connect_ex('/control')\n"
        "def leads_to(n):\n    try:\n        return os.readlink(f'/proc/self/fd/{n}')\n"
        "    except OSError:\n        return ''\n"
        "open_sockets = [n for n in range(1024) if leads_to(n).startswith('socket')]\nanswer = call()"
    )
    with WarmParent() as parent, Session(parent, [Step("a", source)]) as session:
        answer, sockets = session.ask([Read("answer"), Read("open_sockets")], 5)
    assert answer.value in (errno.ENOENT, errno.ECONNREFUSED)
    assert sockets == Value([])


def test_everything_inside_ends_with_the_judge(backend):
    """Also when the judge is killed and has no time to end anything."""
    program = (
        "import time\nfrom grading.session import Session, Step, WarmParent\n"
        "parent = WarmParent()\nsession = Session(parent, [Step('a', 'x = 1')]).__enter__()\nsession.ready()\n"
        "print(parent.running.first(), flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as judge:
        first = Path("/proc") / judge.stdout.readline().strip()
        assert first.exists()
        judge.kill()
    deadline = time.monotonic() + 10
    while first.exists():
        assert time.monotonic() < deadline, "the sandbox outlives its judge"
        time.sleep(0.1)


def test_an_outer_folder_shows_nothing_of_the_course(backend, monkeypatch):
    outer = [REPOSITORY.parent, *walls.visible()]
    for module in ("grading.bubblewrap", "grading.container"):
        monkeypatch.setattr(sys.modules[module], "visible", lambda: sorted(set(outer)))
    source = f"import os\nfound = sorted(os.listdir('{REPOSITORY}'))"
    with WarmParent() as parent, Session(parent, [Step("a", source)]) as session:
        (found,) = session.ask([Read("found")], 5)
    assert set(found.value) <= {"grading", "minigpt", ".venv"}


def test_a_sandbox_that_uses_up_its_processes_leaves_the_next_one_its_own(backend):
    start_all = (
        "import threading, time\nn = 0\ntry:\n    while n < {0}:\n"
        "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n        n += 1\n"
        "except RuntimeError:\n    pass"
    )
    greedy, modest = (Step("a", start_all.format(number)) for number in (400, 100))
    with (WarmParent() as first, WarmParent() as second, Session(first, [greedy]) as one,
          Session(second, [modest]) as two):  # fmt: skip
        assert one.ask([Read("n")], 10)[0].value < Limits().n_processes
        assert two.ask([Read("n")], 10) == [Value(100)]
