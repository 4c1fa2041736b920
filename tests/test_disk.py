"""One process at a time works in a folder, whatever machine it is on."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from minigpt import disk


@pytest.fixture
def elsewhere(tmp_path):
    """A lease that a process of another machine holds, so many seconds after its last sign of life."""
    def hold(seconds, job=""):
        lease = {"host": "far", "kernel": "another", "process": 7, "job": job, "token": "x"}
        (tmp_path / "lease.json").write_text(json.dumps(lease))
        os.utime(tmp_path / "lease.json", (time.time() - seconds,) * 2)
        return tmp_path
    return hold


def test_a_folder_that_another_machine_works_in_is_refused(elsewhere):
    folder = elsewhere(12)
    said = r"process 7 of far \(job none\) is at work in .* sign of life is 1[23] s old"
    with pytest.raises(ValueError, match=said), disk.locked(folder):
        pass
    assert json.loads((folder / "lease.json").read_text())["host"] == "far"
    assert sorted(path.name for path in folder.iterdir()) == ["lease.json", "lock"]


def test_a_lease_without_a_sign_of_life_for_a_minute_is_taken_over(elsewhere):
    folder = elsewhere(disk.LIMIT + 1)
    with disk.locked(folder):
        assert disk.read_lease(folder / "lease.json")["process"] == os.getpid()


def test_a_job_that_comes_back_waits_for_its_own_earlier_start(elsewhere, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    folder = elsewhere(disk.LIMIT - 1, job="42")
    with disk.locked(folder):
        assert disk.read_lease(folder / "lease.json")["job"] == "42"
    with pytest.raises(ValueError, match=r"\(job 43\) is at work"), disk.locked(elsewhere(1, job="43")):
        pass


def test_on_one_machine_too_a_job_waits_until_its_earlier_start_has_ended(tmp_path, monkeypatch):
    program = ("import sys, time, pathlib, minigpt.disk as disk\nwith disk.locked(pathlib.Path(sys.argv[1])):\n"
               "    print('locked', flush=True)\n    time.sleep(float(sys.argv[2]))")
    for job, ends in (("42", True), ("43", False)):
        other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), "1"], stdout=subprocess.PIPE, text=True,
                                 env=os.environ | {"SLURM_JOB_ID": "42"})
        assert other.stdout.readline() == "locked\n"
        monkeypatch.setenv("SLURM_JOB_ID", job)
        refusal = nullcontext() if ends else pytest.raises(ValueError, match="another process is at work")
        with refusal, disk.locked(tmp_path):
            assert other.wait(timeout=20) == 0
        other.communicate()


def test_a_dead_process_of_this_machine_leaves_nothing_that_anybody_waits_for(tmp_path):
    lease = {"host": "here", "kernel": disk.kernel(), "process": 1, "job": "", "token": "x"}
    (tmp_path / "lease.json").write_text(json.dumps(lease))
    with disk.locked(tmp_path):
        pass
    assert not (tmp_path / "lease.json").exists()


def test_a_lease_is_touched_while_it_lasts_and_whoever_loses_it_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "BEAT", 0.05)
    stopped, before = [], signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
    try:
        with disk.locked(tmp_path):
            path = tmp_path / "lease.json"
            os.utime(path, (0, 0))
            wait_for(lambda: path.stat().st_mtime > 1)
            disk.write_text(path, json.dumps({"host": "far"}))
            wait_for(lambda: stopped)
        assert json.loads(path.read_text()) == {"host": "far"}
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_block_that_loses_its_lease_ends_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "BEAT", 0.05)
    said = r"another process has taken .*, because this one gave no sign of life"
    with pytest.raises(disk.Lost, match=said), disk.locked(tmp_path) as lease:
        assert not lease.lost
        disk.write_text(tmp_path / "lease.json", json.dumps({"host": "far"}))
        wait_for(lambda: False)
    assert json.loads((tmp_path / "lease.json").read_text()) == {"host": "far"}


@pytest.mark.parametrize("fails", ["write_text", "replace"])
def test_a_full_disk_keeps_what_was_there_and_nothing_beside_it(tmp_path, monkeypatch, fails):
    path, real = tmp_path / "notes.json", getattr(Path, fails)

    def full(self, *arguments, **named):
        real(self, *arguments, **named) if fails == "write_text" else None
        raise OSError(28, "No space left on device", str(self))

    disk.write_text(path, "old")
    monkeypatch.setattr(Path, fails, full)
    with pytest.raises(OSError, match="No space left"):
        disk.write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def wait_for(is_so):
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)
