"""Several processes over gloo on this machine, through the code that runs on a cluster."""

import dataclasses
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_laws import ONE_THREAD, assert_same_weights, columns, curve, run
from test_resume import SPIKED, events, flip, names, spike_at

from minigpt import checkpoint
from minigpt.config import TrainConfig
from minigpt.distributed import count_processes, make_fabric
from minigpt.evaluate import read_log

NEAR = 1e-5
"""How far the losses of several processes may lie from those of one, in nats.

They add the same numbers in another order: over twelve steps that makes 1e-6. The nearest mistake, gradients that are
added and not averaged, makes gradient_norm as many times as large as there are processes, in the first step.
"""

PROGRAM = """
import dataclasses, os, pickle, signal, sys, time, warnings
from pathlib import Path

warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="lightning")
warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated")  # torch.compile's own import
warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")  # torch.compile looks at a block's input
warnings.filterwarnings("ignore", "<class .torch.autograd.function.Function")  # it traces minigpt.kernels
rank, nodes = int(os.environ.get("RANK") or os.environ["SLURM_PROCID"]), int(os.environ.get("NODES", 1))
if nodes > 1:  # torchrun takes all processes for one machine's: let them be several machines'
    here = int(os.environ["WORLD_SIZE"]) // nodes
    os.environ |= {"LOCAL_WORLD_SIZE": str(here), "LOCAL_RANK": str(rank % here), "GROUP_RANK": str(rank // here)}

import torch.distributed as dist
from torch.distributed.checkpoint import HuggingFaceStorageWriter as Writer
from minigpt.corpus import Shards
from minigpt.distributed import leave
from minigpt.model import GPT, Block
from minigpt.tokenizer import Tokenizer
from minigpt.train import Stopped, make_fabric, train

config, tokenizer, shards, jobs, happens = pickle.loads(Path(sys.argv[1]).read_bytes())
read, compute, measure, write, now = Shards.batch, Block.forward, GPT.loss, Writer.write_data, []
config, add_up, exchanges = dataclasses.replace(config, data=happens.get("data", config.data)), dist.all_reduce, []

def batch(self, number, *arguments):
    now[:] = [number]
    if number == happens.get("stop") and rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return read(self, number, *arguments)

def loss(self, *given):
    return measure(self, *given) * (50 if now[0] in happens["spikes"] else 1)

def forward(self, *given):
    time.sleep(0.02 * (rank == happens["slow"]))
    return compute(self, *given)

def write_data(self, *given):
    if rank == 1 and happens["full"] in str(self.path):
        raise OSError(28, "No space left on device")
    return write(self, *given)

def all_reduce(*given, **named):
    exchanges.append(1)
    return add_up(*given, **named)

Shards.batch = batch
if "count" in happens:
    dist.all_reduce = all_reduce
if "spikes" in happens:
    GPT.loss = loss
if "slow" in happens:
    Block.forward = forward
if "full" in happens:
    Writer.write_data = write_data
for folder, changes in jobs:
    settings = dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))
    fabric = make_fabric(settings.train)
    try:
        train(settings, Tokenizer.load(tokenizer), shards, folder, progress=False, fabric=fabric)
    except (Stopped, OSError) as end:
        print(f"rank {rank} ended: {end}", flush=True)
if "count" in happens and rank == 0:
    happens["count"].write_text(str(len(exchanges)))
leave(fabric)
"""


@pytest.fixture
def several(prepared, tmp_path):
    """A function that trains in several processes and gives back what they printed."""
    config, _tokenizer, home = prepared

    def write(*jobs, **happens):
        job, program = tmp_path / "job", tmp_path / "program.py"
        job.write_bytes(pickle.dumps((config, home / "tokenizer.json", home / "shards", jobs, happens)))
        program.write_text(PROGRAM)
        return [str(program), str(job)]

    def start(processes, *jobs, nodes=1, **happens):
        return subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                                 str(processes), *write(*jobs, **happens)], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, env=ONE_THREAD | {"NODES": str(nodes)})

    def go(processes, *jobs, **happens):
        process = start(processes, *jobs, **happens)
        printed = process.communicate(timeout=300)[0]
        assert process.returncode == 0, printed
        return printed

    go.start, go.write = start, write
    return go


def assert_near(one, two):
    for name in ("loss", "gradient_norm", "validation_loss"):
        torch.testing.assert_close(given(one, name), given(two, name), atol=NEAR, rtol=NEAR)


def given(folder, name):
    return torch.tensor([row[name] for row in read_log(folder / "log.csv") if name in row], dtype=torch.float64)


@pytest.mark.slow
def test_each_way_of_sharding_trains_as_one_process_does(prepared, several, tmp_path):
    one = run(prepared, tmp_path / "one")
    ways = {name: {"sharding": name} for name in ("full", "gradients", "none")}
    ways["pieces"] = {"sharding": "none", "accumulate": 2}
    ways["less_memory"] = {"activation_checkpointing": True, "async_checkpoints": True, "loss_chunk": 16}
    several(2, *((tmp_path / name, changes) for name, changes in ways.items()))
    for name in ways:
        assert_near(tmp_path / name, one)
        assert_same_weights(tmp_path / name, one, 1e-4)
    assert curve(tmp_path / "full") == curve(tmp_path / "gradients")
    for name in ("full", "none"):  # a checkpoint in shares is a checkpoint
        model, _, _ = checkpoint.load(tmp_path / name / "checkpoints" / "step-000012")
        last = checkpoint.read_weights(tmp_path / name / "model.safetensors")
        assert all(torch.equal(weight, last[key]) for key, weight in model.state_dict().items())
    shares = list((tmp_path / "full" / "checkpoints" / "step-000012").glob("shard-*"))
    sizes = sorted(path.stat().st_size for path in shares)
    assert len(sizes) == 2 and sizes[0] > 0.9 * sizes[1]


@pytest.mark.slow
def test_compiled_blocks_are_spread_too(prepared, several, tmp_path):
    one = run(prepared, tmp_path / "one", steps=6)
    several(2, (tmp_path / "two", {"compile": True, "activation_checkpointing": True, "steps": 6}))
    assert_near(tmp_path / "two", one)


@pytest.mark.slow
def test_packed_documents_are_paid_for_as_in_one_process(prepared, several, tmp_path):
    config, tokenizer, home = prepared
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, documents="pack"))
    one = run((config, tokenizer, home), tmp_path / "one")
    several(2, (tmp_path / "two", {"sharding": "none", "accumulate": 2, "loss_chunk": 16}), data=config.data)
    assert_near(tmp_path / "two", one)


@pytest.mark.slow
def test_copies_exchange_their_gradients_once_a_batch(several, tmp_path):
    counts = []
    for pieces in (1, 2):
        changes = {"sharding": "none", "accumulate": pieces, "steps": 4}
        several(2, (tmp_path / f"run{pieces}", changes), count=tmp_path / "count")
        counts.append(int((tmp_path / "count").read_text()))
    assert counts[0] == counts[1] > 0


@pytest.mark.slow
def test_two_processes_in_bf16_stay_near_one(prepared, several, tmp_path):
    one = run(prepared, tmp_path / "one", precision="bf16-mixed")
    several(2, *((tmp_path / name, {"precision": "bf16-mixed", "sharding": name}) for name in ("full", "none")))
    for name in ("full", "none"):  # 2e-4 and 6e-4 at most: the sums are in another order, of numbers with eight bits
        torch.testing.assert_close(given(tmp_path / name, "loss"), given(one, "loss"), atol=3e-3, rtol=0)
        torch.testing.assert_close(given(tmp_path / name, "gradient_norm"), given(one, "gradient_norm"),
                                   atol=0, rtol=0.03)


@pytest.mark.slow
def test_two_machines_with_two_processes_each_train_as_one_process_does(prepared, several, tmp_path):
    one = run(prepared, tmp_path / "one")
    several(4, (tmp_path / "hybrid", {"sharding": "hybrid"}), (tmp_path / "full", {}), nodes=2)
    for name in ("hybrid", "full"):
        assert_near(tmp_path / name, one)
        start = events(tmp_path / name, "start")[0]
        assert (start["ranks"], start["nodes"]) == (4, 2)
    for name, shares in (("hybrid", 2), ("full", 4)):  # copies are written once
        size = sum(path.stat().st_size for path in (tmp_path / name / "checkpoints" / "step-000012").glob("shard-*"))
        whole = sum((one / "checkpoints" / "step-000012" / f"{file}.safetensors").stat().st_size
                    for file in ("model", "optimizer"))
        assert size < 1.5 * whole, shares


@pytest.mark.slow
def test_two_tasks_of_srun_are_two_processes(prepared, several, tmp_path):
    """Slurm tells a task its place in other words than torchrun does."""
    words = several.write((tmp_path / "run", {}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    job = {f"SLURM_{name}": value for name, value in (
        ("JOB_ID", "7"), ("JOB_NAME", "run"), ("NTASKS", "2"), ("NTASKS_PER_NODE", "1"), ("NNODES", "2"),
        ("STEP_NUM_TASKS", "2"), ("STEP_NUM_NODES", "2"), ("LOCALID", "0"))}
    tasks = [subprocess.Popen([sys.executable, *words], env=ONE_THREAD | job | {
        "SLURM_PROCID": place, "SLURM_NODEID": place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
        for place in "01"]
    assert [task.wait(timeout=120) for task in tasks] == [0, 0]
    start = events(tmp_path / "run", "start")[0]
    assert (start["ranks"], start["nodes"]) == (2, 2)
    assert_near(tmp_path / "run", run(prepared, tmp_path / "one"))


@pytest.mark.slow
def test_a_run_moves_from_two_processes_to_one_and_back(prepared, several, tmp_path, monkeypatch):
    one, folder = run(prepared, tmp_path / "one"), tmp_path / "moved"
    said = several(2, (folder, {}), stop=4)
    assert said.count("stopped after step 5 with a checkpoint; the same") == 2 and names(folder)[-1] == "step-000005"
    assert events(folder, "stop")[0]["why"] == "SIGTERM"
    monkeypatch.setattr("minigpt.train.stop_signals", lambda: StopAfter(4))
    with pytest.raises(SystemExit, match="stopped after step 9"):
        run(prepared, folder)
    monkeypatch.undo()
    several(2, (folder, {}))
    assert [event["ranks"] for event in events(folder, "start")] == [2, 1, 2]
    assert [event["checkpoint"] for event in events(folder, "start")] == [None, "step-000005", "step-000009"]
    assert_near(folder, one)
    assert_same_weights(folder, one, 1e-4)


class StopAfter(list):
    """Signals: one that arrives in the step of this number, counted from 1 at the start."""

    def __init__(self, steps):
        super().__init__([signal.SIGTERM])
        self.steps = steps

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __bool__(self):
        self.steps -= 1
        return self.steps <= 0


@pytest.mark.slow
def test_a_killed_process_and_a_damaged_checkpoint_cost_nothing_but_time(several, tmp_path):
    """The same curve bit for bit, with as many processes; whichever process dies, wherever it is."""
    dice, whole, folder = random.Random(3), tmp_path / "whole", tmp_path / "killed"
    settings = {"steps": 40, "save_every": 3, "evaluate_every": 20, "async_checkpoints": True}
    several(2, (whole, settings))
    for goal in (8, 24):
        process = several.start(2, (folder, settings))
        while process.poll() is None and (not (folder / "log.csv").exists() or len(curve(folder)) < goal):
            time.sleep(0.002)
        os.kill(dice.choice(children(process.pid)), signal.SIGKILL)
        process.communicate(timeout=120)
        assert process.returncode and not (folder / "model.safetensors").exists()
    newest = checkpoint.finished(folder / "checkpoints")[-1]
    flip(next(newest.glob("shard-00002-*")))
    several(2, (folder, settings))
    assert [event["checkpoint"] for event in events(folder, "damaged")] == [f"{newest.name}.damaged"]
    assert curve(folder) == curve(whole)
    assert_same_weights(folder, whole)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_process_stops_all_and_leaves_the_last_good_checkpoint(prepared, several, tmp_path):
    ways = {"beside": {"async_checkpoints": True}, "now": {}}
    said = several(2, *((tmp_path / name, changes) for name, changes in ways.items()), full="step-000008")
    assert said.count("No space left on device") == 4  # two processes, two runs
    for name, changes in ways.items():
        folder = tmp_path / name
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000004"]
        assert "No space left" in events(folder, "stop")[0]["why"]
        assert curve(run(prepared, folder, **changes))[-1]["step"] == "12"


@pytest.mark.slow
def test_several_processes_go_back_from_a_spike_as_one_does(prepared, several, tmp_path, monkeypatch):
    settings = SPIKED | {"rewind": True}
    several(2, (tmp_path / "two", settings), spikes=(41, 52))
    spike_at(monkeypatch, 41, 52)
    one = run(prepared, tmp_path / "one", **settings)
    told = [[(event["step"], event["to_step"], event["skipped"]) for event in events(folder, "rewind")]
            for folder in (one, tmp_path / "two")]
    assert told[0] == told[1] and len(told[0]) == 2
    torch.testing.assert_close(columns(one, "loss"), columns(tmp_path / "two", "loss"), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_the_log_names_the_slow_process(several, tmp_path):
    """It sleeps 40 ms a step; what the others compute takes about 2 ms, and they wait for it in every block."""
    several(2, (tmp_path / "run", {}), slow=1)
    ranks, slowest = (columns(tmp_path / "run", f"slowest_{what}") for what in ("rank", "seconds"))
    assert ranks.median() == 1 and slowest.median() > 0.04 > columns(tmp_path / "run", "median_seconds").median()


@pytest.mark.slow
def test_a_folder_that_another_run_has_is_refused_by_all_processes(several, tmp_path):
    """None of them waits for the one that was refused."""
    several(2, (tmp_path / "run", {}))
    process = several.start(2, (tmp_path / "run", {"steps": 13}))
    said = process.communicate(timeout=120)[0]
    assert said.count("ValueError: ") >= 2 and "train.steps is 12 there and 13 here" in said and process.returncode


def test_slurm_tells_how_many_processes_there_are(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert count_processes() == (1, 1)
    monkeypatch.setenv("SLURM_NTASKS", "8")  # a job's script sees this too, and is no task of srun's
    assert count_processes() == (1, 1)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    assert count_processes() == (8, 4)
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "3")
    with pytest.raises(ValueError, match="8 tasks do not spread evenly over 3 nodes; give srun --ntasks-per-node"):
        count_processes()


def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared by 3 processes in 1 pieces"):
        make_fabric(TrainConfig(steps=1, batch_size=4))

