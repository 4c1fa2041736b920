import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import LLAMA, NEOX
from safetensors import SafetensorError
from safetensors.torch import save_file

from minigpt import checkpoint
from minigpt.corpus import Shards
from minigpt.evaluate import read_log
from minigpt.evaluate.log import read_rows
from minigpt.model import GPT
from minigpt.schedule import learning_rate
from minigpt.train import make_optimizer, next_token_loss, train

COLUMNS = ("step", "tokens", "loss", "learning_rate", "gradient_norm", "validation_loss", "validation_bits_per_byte")

SMALL = ["--data.validation-share", "0.3", "--model.vocab-size", "300", "--model.d-model", "32", "--model.d-ff", "64"]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def curve(folder):
    """What must repeat to the letter: all of the log but the speed."""
    return [{name: row[name] for name in COLUMNS} for row in read_rows(folder / "log.csv")]


def run(prepared, folder, **changes):
    config, tokenizer, home = prepared
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))
    return train(config, tokenizer, home / "shards", folder, progress=False)


def weights(folder):
    return checkpoint.read_weights(folder / "model.safetensors")


def assert_same_weights(one, two, tolerance=0.0):
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(two)[name], tensor, atol=tolerance, rtol=tolerance)


def test_training_lowers_the_loss_and_leaves_a_checkpoint(prepared):
    folder = run(prepared, prepared[2])
    log = read_log(folder / "log.csv")
    assert [row["step"] for row in log] == list(range(1, 13))
    assert log[-1]["loss"] < log[0]["loss"] - 0.5
    assert [row["step"] for row in log if "validation_loss" in row] == [6, 12]
    _model, tokenizer, config = checkpoint.load(folder)
    assert config == prepared[0] and tokenizer.fingerprint == prepared[1].fingerprint
    assert [path.name for path in checkpoint.finished(folder / "checkpoints")] == ["step-000008", "step-000012"]
    assert list((folder / "tensorboard").iterdir())


def test_the_same_seed_gives_the_same_run(prepared, tmp_path):
    assert curve(run(prepared, tmp_path / "a")) == curve(run(prepared, tmp_path / "b"))
    assert curve(run(prepared, tmp_path / "c", seed=1)) != curve(tmp_path / "a")


def test_accumulated_pieces_equal_the_big_batch(prepared, tmp_path):
    run(prepared, tmp_path / "whole")
    run(prepared, tmp_path / "pieces", accumulate=4)
    assert_same_weights(tmp_path / "whole", tmp_path / "pieces", 2e-4)


@pytest.mark.parametrize("stop", [4, 6, 11])
def test_a_run_that_was_stopped_has_the_curve_of_one_that_was_not(prepared, tmp_path, monkeypatch, stop):
    run(prepared, tmp_path / "whole")
    real, calls = Shards.batch, []

    def batch(self, step, *arguments):
        calls.append(step)
        if len(calls) == stop + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, step, *arguments)

    monkeypatch.setattr(Shards, "batch", batch)
    with pytest.raises(SystemExit, match=f"stopped after step {stop + 1}" if stop < 11 else "trained"):
        run(prepared, tmp_path / "stopped")
        raise SystemExit("trained")  # a signal in the last step changes nothing
    run(prepared, tmp_path / "stopped")
    assert curve(tmp_path / "stopped") == curve(tmp_path / "whole")
    assert_same_weights(tmp_path / "stopped", tmp_path / "whole")


def test_a_row_that_a_kill_cut_short_is_dropped(prepared):
    folder = run(prepared, prepared[2])
    *rows, last = (folder / "log.csv").read_text().splitlines()
    (folder / "log.csv").write_text("\n".join([*rows, last[:12]]))
    assert [row["step"] for row in read_log(folder / "log.csv")] == list(range(1, 12))


@pytest.mark.slow
def test_a_killed_process_goes_on_with_the_same_curve(prepared, tmp_path):
    config, _tokenizer, _home = prepared
    program = "import sys; from minigpt.cli import main; sys.argv[0] = 'minigpt'; main()"
    common = ["train", "journey", *SMALL, "--data.source", config.data.source, "--train.steps", "60",
              "--train.save-every", "10"]

    def start(folder):
        return subprocess.Popen([sys.executable, "-c", program, *common, "--folder", str(folder)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ONE_THREAD)

    killed = start(tmp_path / "killed")
    while not checkpoint.finished(tmp_path / "killed" / "checkpoints") and killed.poll() is None:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    assert start(tmp_path / "killed").wait() == 0
    assert start(tmp_path / "whole").wait() == 0
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(prepared, tmp_path):
    """FSDP2 over gloo, through the same code, started by torchrun."""
    config, _tokenizer, _home = prepared
    program = tmp_path / "go.py"
    program.write_text("from minigpt.cli import main\nmain()\n")
    command = ["train", "journey", *SMALL, "--data.source", config.data.source, "--train.steps", "40",
               "--train.precision", "32-true", "--train.save-every", "20"]

    def go(processes):
        folder = tmp_path / f"p{processes}"
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                        str(processes), str(program), *command, "--folder", str(folder)], check=True, timeout=300,
                       env=ONE_THREAD)
        return folder

    one, two = go(1), go(2)
    losses = [(float(a["loss"]), float(b["loss"])) for a, b in zip(curve(one), curve(two), strict=True)]
    assert max(abs(a - b) for a, b in losses) < 1e-4
    assert_same_weights(one, two, 1e-3)
    whole = curve(two)
    (two / "model.safetensors").unlink()
    shutil.rmtree(two / "checkpoints" / "step-000040")
    go(2)
    assert curve(two) == whole


def test_a_finished_run_is_left_as_it_is(prepared):
    folder = run(prepared, prepared[2])
    before = (folder / "model.safetensors").stat().st_mtime_ns
    run(prepared, folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_with_another_run_is_refused(prepared):
    folder = run(prepared, prepared[2])
    with pytest.raises(ValueError, match=r"train.steps is 12 there and 13 here"):
        run(prepared, folder, steps=13)


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(prepared, tmp_path, monkeypatch):
    def broken(logits, targets):
        loss = next_token_loss(logits, targets)
        broken.calls += 1
        return loss * float("nan") if broken.calls > 6 else loss

    broken.calls = 0
    monkeypatch.setattr("minigpt.train.next_token_loss", broken)
    with pytest.raises(ValueError, match="the loss is nan at step 7"):
        run(prepared, tmp_path / "nan")
    assert [path.name for path in checkpoint.finished(tmp_path / "nan" / "checkpoints")] == ["step-000004"]


def test_a_full_disk_leaves_the_last_good_checkpoint(prepared, tmp_path, monkeypatch):
    def full(weights, path, metadata):
        full.calls += 1
        if full.calls > 2:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        return save_file(weights, path, metadata)

    full.calls = 0
    monkeypatch.setattr("minigpt.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        run(prepared, tmp_path / "full")
    assert [path.name for path in checkpoint.finished(tmp_path / "full" / "checkpoints")] == ["step-000004"]
    monkeypatch.undo()
    assert curve(run(prepared, tmp_path / "full")) == curve(run(prepared, tmp_path / "whole"))


@pytest.mark.parametrize("model", [LLAMA, NEOX], ids=["llama", "neox"])
def test_one_batch_can_be_learned_by_heart(model):
    torch.manual_seed(0)
    ids = torch.randint(300, (2, 17))
    gpt = GPT(model)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-2)
    for _ in range(60):
        loss = next_token_loss(gpt(ids[:, :-1]), ids[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.05


def test_the_learning_rate_climbs_and_comes_down(short_run):
    settings = dataclasses.replace(short_run.train, steps=100, warmup_steps=10, learning_rate=1.0,
                                   min_learning_rate=0.1)
    rates = [learning_rate(settings, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)


def test_constant_with_cooldown_stays_up_and_comes_down_straight(short_run):
    settings = dataclasses.replace(short_run.train, steps=100, warmup_steps=10, learning_rate=1.0, schedule="wsd",
                                   min_learning_rate=0.1, cooldown_share=0.2)
    rates = [learning_rate(settings, step) for step in range(101)]
    assert rates[4] == pytest.approx(0.5) and set(rates[9:81]) == {1.0}
    assert rates[90] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    never = dataclasses.replace(settings, cooldown_share=0.0)
    assert {learning_rate(never, step) for step in range(10, 100)} == {1.0}


def test_a_longer_run_with_cooldown_begins_as_the_shorter_one(short_run):
    """What a cosine cannot: its rate at every step depends on the length of the run."""
    def beginning(schedule, steps):
        settings = dataclasses.replace(short_run.train, schedule=schedule, steps=steps, warmup_steps=10)
        return [learning_rate(settings, step) for step in range(80)]

    assert beginning("wsd", 100) == beginning("wsd", 200)
    assert beginning("cosine", 100) != beginning("cosine", 200)


def test_only_matrices_decay(short_run):
    decayed, kept = make_optimizer(GPT(NEOX), short_run.train).param_groups
    assert all(weight.ndim == 2 for weight in decayed["params"]) and decayed["weight_decay"] == 0.1
    assert all(weight.ndim == 1 for weight in kept["params"]) and kept["weight_decay"] == 0


def test_bf16_stays_near_float32(prepared, tmp_path):
    exact = curve(run(prepared, tmp_path / "exact"))
    rough = curve(run(prepared, tmp_path / "rough", precision="bf16-mixed"))
    assert abs(float(exact[-1]["loss"]) - float(rough[-1]["loss"])) < 0.1
