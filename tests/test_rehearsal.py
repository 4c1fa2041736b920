"""The rehearsal of a run of a billion: the generated job on a real Slurm, a thousandth the size, with all that fails.

Each time the job comes back by itself, and its curve equals that of the undisturbed run bit for bit. So that a
disturbance hits in the middle of a run, the ranks are held while it is prepared.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from slurm import Slurm, fault, wait

from minigpt import checkpoint, cli
from minigpt.corpus import check_shards
from minigpt.evaluate.log import read_events, read_rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="Slurm is for Linux")]

STEPS, SAVED = 24, 6
RECIPE = ["llama_1b", "--model.vocab-size", "512", "--model.n-layers", "6", "--model.d-model", "128",
          "--model.n-heads", "8", "--model.n-kv-heads", "1", "--model.d-ff", "352", "--model.max-seq-len", "64",
          "--data.validation-share", "0.2", "--train.steps", str(STEPS), "--train.batch-size", "32",
          "--train.accumulate", "2", "--train.warmup-steps", "4", "--train.save-every", str(SAVED),
          "--train.evaluate-every", "12", "--train.evaluate-tokens", "2000"]
"""The recipe of the run of a billion with 1.1 million parameters."""

JOB = ["--nodes", "2", "--gpus-per-node", "1", "--vendor", "cpu", "--cpus-per-gpu", "1", "--time", "00:20:00",
       "--warning-seconds", "58", "--slow", "0.05", "--faults", "1"]
"""Two nodes that speak over gloo. Both are this machine, and other work may slow one of them down."""

CURVE = ("step", "tokens", "loss", "learning_rate", "gradient_norm", "validation_loss", "validation_bits_per_byte")


def curve(folder):
    return [{name: row[name] for name in CURVE} for row in read_rows(folder / "log.csv")]


def events(folder, name):
    return [event for event in read_events(folder) if event["event"] == name]


@pytest.fixture(scope="module")
def slurm():
    if (why := fault()) and not os.environ.get("CI"):
        pytest.skip(why)
    with pytest.MonkeyPatch.context() as patch, Slurm(nodes=3) as slurm:  # one node to spare
        patch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[1]))
        yield slurm


class Rehearsal:
    """One run on the cluster, in a folder of its own, with the shards of `data`."""

    def __init__(self, slurm, source, folder):
        self.slurm, self.folder, self.words = slurm, folder, [*RECIPE, "--data.source", str(source)]
        self.disk = folder.with_name("a node's own disk")

    def submit(self, *more):
        """Write the script and hand it in with `minigpt slurm --submit`."""
        cli.slurm([*self.words, *JOB, "--folder", str(self.folder), "--local", str(self.disk), *more, "--submit"])
        lines = self.slurm.says("squeue", "-h", "-o", "%F %k").splitlines()
        self.job = next(line.split()[0] for line in lines if line.endswith(str(self.folder)))
        return self

    def said(self):
        """What the script has said so far."""
        path = self.folder / "slurm" / "train.out"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def until(self, is_so, what, seconds=120):
        """Wait until it is so; if that takes too long, tell what the script said."""
        try:
            wait(is_so, what, seconds)
        except TimeoutError:
            raise AssertionError(f"{what} ({self.slurm.state(self.job)}):\n{self.said()}") from None

    def ranks(self):
        """The processes of this run's ranks, by their numbers; not the shells around them."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
                if b"train" in words[2:3] and str(self.folder).encode() in words:
                    variables = dict(line.split(b"=", 1) for line in (path / "environ").read_bytes().split(b"\0")[:-1])
                    found[int(variables[b"SLURM_PROCID"])] = int(path.name)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def hold_at(self, step):
        """Hold all ranks once so many steps are in the log; their processes."""
        log = self.folder / "log.csv"
        self.until(lambda: log.exists() and len(log.read_text().splitlines()) > step, f"no step {step}")
        ranks = self.ranks()
        assert sorted(ranks) == [0, 1], ranks
        for process in ranks.values():
            os.kill(process, signal.SIGSTOP)
        assert not (self.folder / "model.safetensors").exists()
        return ranks

    def let_go_after(self, ranks, kind=None):
        """Let the ranks go on, once each of them has been sent this signal; with some, Slurm itself lets them go on."""
        if kind:
            self.until(lambda: not any(held(process, kind) for process in ranks.values()), f"no {kind.name} comes")
        for process in ranks.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    def wait_in_queue(self):
        self.until(lambda: self.slurm.state(self.job).startswith("PENDING"), "the job does not come back")

    def come_back(self):
        """Spare the job that is back in the queue most of the two minutes that Slurm makes it wait.

        Not all: a node takes a job that starts in the second in which it ended for the one that ended.
        """
        self.wait_in_queue()
        self.slurm.says("scontrol", "update", f"jobid={self.job}", "StartTime=now+3")
        return self

    def finish(self):
        """Wait for the end of the training; the report card is for the undisturbed run alone."""
        self.until(lambda: events(self.folder, "finish"), "the run does not end")
        assert [event["step"] for event in events(self.folder, "finish")] == [STEPS], self.said()
        subprocess.run(["scancel", self.job], check=True)
        self.until(lambda: not self.slurm.state(self.job), "the job does not end")
        return self


def held(process, kind):
    """Whether a process is held and has not been sent the signal."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    pending = int(re.search(r"ShdPnd:\s*(\w+)", status)[1], 16)
    return "State:\tT" in status and not pending >> (kind - 1) & 1


@pytest.fixture(scope="module")
def data(slurm, tmp_path_factory):
    """A text, and a run's folder with its shards, which an array of two tasks writes."""
    home = tmp_path_factory.mktemp("home")
    (home / "texts").mkdir()
    for path in sorted(Path(os.__file__).parent.glob("*.py"))[:40]:
        shutil.copy(path, home / "texts")
    array = Rehearsal(slurm, home / "texts", home / "data").submit("--parts", "2")
    array.until(lambda: not slurm.state(array.job), "the array does not end")
    return home / "texts", home / "data"


@pytest.fixture
def rehearsal(slurm, data, tmp_path):
    """A run with a name that needs quotes everywhere."""
    folder = tmp_path / "it's 100% odd #1"
    shutil.copytree(data[1], folder, ignore=shutil.ignore_patterns("slurm"))
    return Rehearsal(slurm, data[0], folder)


@pytest.fixture(scope="module")
def undisturbed(slurm, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    shutil.copytree(data[1], folder, ignore=shutil.ignore_patterns("slurm"))
    run = Rehearsal(slurm, data[0], folder).submit()
    held = run.hold_at(7)
    run.second = subprocess.run(["sbatch", "--parsable", str(folder / "slurm" / "train.sh")], capture_output=True,
                                text=True, check=True).stdout.strip()
    with pytest.raises(ValueError, match=rf"job .*{run.job}.* works in .* already"):
        Rehearsal(slurm, data[0], folder).submit()
    run.until(lambda: not slurm.state(run.second), "the second job does not end")
    run.let_go_after(held)
    run.until(lambda: not slurm.state(run.job), "the job does not end")
    return run


def test_an_array_of_jobs_has_written_all_shards(data):
    manifest = check_shards(data[1] / "shards")
    assert manifest["documents"] == 40
    assert not list(data[1].glob("*.partial")) and not (data[1] / "shards.parts").exists()


def test_the_undisturbed_run_ends_with_its_report(undisturbed):
    assert len(curve(undisturbed.folder)) == STEPS
    said = undisturbed.said()
    assert "health: 2 ranks and 1 links are well" in said and said.count("their hashes compared") >= 2
    assert "The run is finished; its report card is" in said and (undisturbed.folder / "report.md").exists()
    assert {path.name.split("-")[1] for path in undisturbed.disk.iterdir()} == {undisturbed.second}
    stay = undisturbed.folder / "slurm" / f"{undisturbed.job}.0"
    assert {path.name for path in stay.iterdir()} >= {"rank-0000.log", "rank-0001.log", "exit-0", "exit-1"}
    assert [event["ranks"] for event in events(undisturbed.folder, "start")] == [2]


def test_a_second_job_on_the_same_folder_refuses_and_stays_away(undisturbed):
    stay = undisturbed.folder / "slurm" / f"{undisturbed.second}.0"
    assert "is at work in" in (stay / "rank-0000.log").read_text()
    assert "The job stays away: a rank asks for you" in undisturbed.said()


def test_slurm_takes_the_script_for_gpus(slurm, data, tmp_path):
    """The nodes pretend to have two GPUs each."""
    folder = tmp_path / "it's 100% odd #1"
    shutil.copytree(data[1], folder, ignore=shutil.ignore_patterns("slurm"))
    cli.slurm([*RECIPE, "--data.source", str(data[0]), "--folder", str(folder), "--nodes", "2", "--gpus-per-node", "2",
               "--cpus-per-gpu", "1", "--partition", "main"])
    done = subprocess.run(["sbatch", "--test-only", str(folder / "slurm" / "train.sh")], capture_output=True, text=True)
    assert done.returncode == 0 and "using 4 processors on nodes n[1-2]" in done.stderr, done.stderr


def test_preempted_it_comes_back(slurm, rehearsal, undisturbed):
    ranks = rehearsal.submit().hold_at(7)
    subprocess.run(["sbatch", "--partition=urgent", "--nodes=3", "--exclusive", "--output=/dev/null",
                    "--wrap=sleep 1"], check=True)
    rehearsal.let_go_after(ranks, signal.SIGTERM)
    rehearsal.come_back().finish()
    assert curve(rehearsal.folder) == curve(undisturbed.folder)
    assert [event["why"] for event in events(rehearsal.folder, "stop")] == ["SIGTERM"]
    assert "comes back: it was told to stop, and saved" in rehearsal.said()


def test_when_its_time_is_over_it_comes_back(slurm, rehearsal, undisturbed):
    ranks = rehearsal.submit().hold_at(7)
    slurm.says("scontrol", "update", f"jobid={rehearsal.job}", "TimeLimit=1")
    rehearsal.let_go_after(ranks, signal.SIGUSR1)
    rehearsal.wait_in_queue()
    slurm.says("scontrol", "update", f"jobid={rehearsal.job}", "TimeLimit=20")
    rehearsal.come_back().finish()
    assert curve(rehearsal.folder) == curve(undisturbed.folder)
    assert [event["why"] for event in events(rehearsal.folder, "stop")] == ["SIGUSR1"]


def test_when_a_node_is_lost_it_goes_on_with_another(slurm, rehearsal, undisturbed):
    ranks = rehearsal.submit().hold_at(7)
    slurm.lose("n2")
    os.kill(ranks[1], signal.SIGKILL)
    try:
        rehearsal.come_back().finish()
    finally:
        slurm.find("n2")
    assert curve(rehearsal.folder) == curve(undisturbed.folder)
    assert "on n[1-2];" in rehearsal.said() and "on n[1,3];" in rehearsal.said()
    assert [event["step"] for event in events(rehearsal.folder, "start")] == [0, SAVED]


def test_when_a_rank_is_killed_it_comes_back(rehearsal, undisturbed):
    ranks = rehearsal.submit().hold_at(7)
    os.kill(ranks[1], signal.SIGKILL)
    rehearsal.let_go_after({0: ranks[0]})
    rehearsal.come_back().finish()
    assert curve(rehearsal.folder) == curve(undisturbed.folder)
    assert "The job comes back: a rank ended with exit code 137 (fault 1 of 1" in rehearsal.said()


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can make a small disk to fill")
def test_when_the_disk_is_full_it_comes_back_once_there_is_room(rehearsal, undisturbed):
    disk = rehearsal.folder / "checkpoints"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a small disk to fill")
    try:
        ranks = rehearsal.submit().hold_at(7)
        rest = disk / "somebody else's"
        with pytest.raises(OSError, match="No space left"), open(rest, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        os.truncate(rest, rest.stat().st_size - 300_000)  # enough for the small files of a checkpoint
        rehearsal.let_go_after(ranks)
        rehearsal.wait_in_queue()
        assert [path.name for path in checkpoint.finished(disk)] == ["step-000006"]
        rest.unlink()
        rehearsal.come_back().finish()
        assert curve(rehearsal.folder) == curve(undisturbed.folder)
        assert "No space left" in events(rehearsal.folder, "stop")[0]["why"]
        assert "The job comes back: the disk is full or fails (fault 1 of 1" in rehearsal.said()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_when_the_newest_checkpoint_is_damaged_it_goes_on_from_the_one_before(rehearsal, undisturbed):
    ranks = rehearsal.submit().hold_at(13)
    os.kill(ranks[0], signal.SIGKILL)
    rehearsal.let_go_after({1: ranks[1]})
    rehearsal.wait_in_queue()
    newest = checkpoint.finished(rehearsal.folder / "checkpoints")[-1]
    path = next(newest.glob("shard-*.safetensors"))
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    path.write_bytes(damaged)
    rehearsal.come_back().finish()
    assert curve(rehearsal.folder) == curve(undisturbed.folder)
    assert newest.name == "step-000012" and newest.with_name("step-000012.damaged").exists()
    assert [event["step"] for event in events(rehearsal.folder, "start")] == [0, SAVED]
    assert [event["checkpoint"] for event in events(rehearsal.folder, "damaged")] == ["step-000012.damaged"]
