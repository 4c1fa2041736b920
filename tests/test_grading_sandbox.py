"""The sandbox: when it is asked for, what its command line holds, and what is refused without it."""

import os
import platform
import struct
import sys
from pathlib import Path

import pytest
from test_grading_tiny import LAB, tiny_course

from grading import cli, sandbox
from grading.course import CourseError, write_whole
from grading.judge import Judge
from grading.question import Read
from grading.session import Failure, Limits, Session, Step, Value, WarmParent

REPOSITORY = Path(__file__).resolve().parents[1]

needs_sandbox = pytest.mark.skipif(
    bool(sandbox.fault()) and not os.environ.get("CI"), reason=f"no sandbox: {sandbox.fault()}"
)


@pytest.fixture
def no_sandbox(monkeypatch):
    monkeypatch.setattr(sandbox, "fault", lambda: "bubblewrap is not installed")


def test_ci_has_a_sandbox():
    assert not (os.environ.get("CI") and sys.platform == "linux" and sandbox.fault()), sandbox.fault()


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
    inside = [path for path in sandbox.visible() if path.is_relative_to(REPOSITORY / "grading")]
    assert {path.name for path in inside} == {"__init__.py", "wire.py", "worker.py"}
    assert not any(REPOSITORY.is_relative_to(path) for path in sandbox.visible() if path != Path(sys.prefix))


@pytest.mark.skipif(platform.machine() not in sandbox.REFUSED, reason="no list of calls for this processor")
def test_the_filter_ends_in_allow_and_every_jump_stays_inside():
    program = list(struct.iter_unpack("=HBBI", sandbox.seccomp_filter(platform.machine())))
    assert program[-1][3] == 0x7FFF0000
    assert all(i + 1 + max(yes, no) < len(program) for i, (code, yes, no, _) in enumerate(program) if code & 7 == 5)


@needs_sandbox
def test_a_user_without_rights_gets_the_same_walls(monkeypatch):
    """What a grader who is not root gets: a user namespace; root can ask for it as well."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    source = (
        "import os\nme = [os.getuid(), os.getgid()]\n"
        "rights = [line for line in open('/proc/self/status') if 'CapEff' in line]\n"
        f"found = [p for p in ('{REPOSITORY}/solutions', '/home', '/etc/passwd') if os.path.exists(p)]\n"
        "places = [p for p in ('/', '/dev', '/sandbox', '/dev/shm') if os.access(p, os.W_OK)]"
    )
    with WarmParent() as parent, Session(parent, [Step("a", source)]) as session:
        me, rights, found, places = session.ask([Read(name) for name in ("me", "rights", "found", "places")], 5)
    assert me == Value([65534, 65534])
    assert rights.value[0].split()[1] == "0" * 16
    assert found == Value([])
    assert places == Value(["/sandbox", "/dev/shm"])


@needs_sandbox
def test_a_submission_ends_when_its_whole_time_is_over():
    limits = Limits(cell_seconds=1, grace_seconds=0.2, total_seconds=2)
    steps = [Step(f"cell-{n}", "import time\ntime.sleep(0.9)") for n in range(100)]
    with WarmParent(limits) as parent, Session(parent, [*steps, Step("last", "x = 1")]) as session:
        assert session.ask([Read("x")], 1) == [Failure("OutOfTime")]


@needs_sandbox
def test_the_judges_own_answers_run_in_another_sandbox(tmp_path):
    """The understudy holds the solution and every listed wrong answer, so no student's process may find it."""
    lab = tiny_course(tmp_path).lab("01")
    source = "import os\npids = [n for n in os.listdir('/proc') if n.isdigit()]"
    with WarmParent() as parent, Judge(lab, parent, b"secret") as judge:
        judge.understudy.ready()
        with Session(parent, [Step("a", source)]) as session:
            (pids,) = session.ask([Read("pids")], 5)
        assert len(pids.value) == 3  # the sandbox's first process, the warm parent, the worker itself
        assert judge.understudy.ask([Read("answer_seven")], 5) == [Value(7)]


@needs_sandbox
def test_the_sandbox_gives_up_root_and_refuses_deep_calls():
    source = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nme = os.getresuid()\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "facts = [status[name].strip() for name in ('CapEff', 'CapPrm', 'NoNewPrivs', 'Seccomp')]\n"
        "calls = [libc.ptrace(0, 0, 0, 0), libc.unshare(0x10000000), libc.memfd_create(b'a', 0), libc.shmget(0, 9, 0)]"
    )
    with WarmParent() as parent, Session(parent, [Step("a", source)]) as session:
        me, facts, calls = session.ask([Read(name) for name in ("me", "facts", "calls")], 5)
    assert me == Value((65534,) * 3)
    assert facts == Value(["0" * 16, "0" * 16, "1", "2"])
    assert calls == Value([-1, -1, -1, -1])
