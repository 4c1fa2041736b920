import dataclasses
import json
import os
import signal
import struct
import subprocess
import sys

import pytest
import torch
from conftest import LLAMA, NEOX
from safetensors import SafetensorError
from safetensors.torch import save_file
from test_resume import SPIKED, spike_at
from torch.optim.optimizer import register_optimizer_step_pre_hook
from tqdm import tqdm

from minigpt import checkpoint
from minigpt.config import RunConfig
from minigpt.corpus import Shards
from minigpt.corpus.shards import IGNORED
from minigpt.disk import Lost
from minigpt.evaluate import read_log
from minigpt.evaluate.log import read_alarms, read_events, read_rows
from minigpt.model import GPT
from minigpt.schedule import learning_rate
from minigpt.train import claim, make_optimizer, train

COLUMNS = ("step", "tokens", "loss", "learning_rate", "gradient_norm", "validation_loss", "validation_bits_per_byte")

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


def test_a_loss_in_chunks_is_the_loss_at_once_and_so_is_its_gradient():
    ids = torch.randint(300, (2, 21), generator=torch.Generator().manual_seed(1))
    whole, pieces = GPT(LLAMA), GPT(LLAMA)
    losses = [model(ids[:, :-1], targets=ids[:, 1:], loss_chunk=chunk) for model, chunk in ((whole, 0), (pieces, 7))]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    logits = whole(ids[:, :-1])
    torch.testing.assert_close(losses[0], torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))
    for one, two in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch.compile's own import
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile looks at a block's input
@pytest.mark.filterwarnings("ignore:<class .torch.autograd.function.Function")  # torch.compile traces minigpt.kernels
def test_a_compiled_run_in_pieces_has_the_curve_of_a_plain_one(prepared, tmp_path):
    plain = run(prepared, tmp_path / "plain")
    config, *others = prepared
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, attention_pieces=4))
    fast = run((config, *others), tmp_path / "fast", compile=True, loss_chunk=16)
    for one, two in zip(read_log(plain / "log.csv"), read_log(fast / "log.csv"), strict=True):
        assert abs(one["loss"] - two["loss"]) < 1e-3
    assert weights(fast).keys() == weights(plain).keys()
    again = run((config, *others), tmp_path / "again", compile=True, loss_chunk=16)
    assert curve(again) == curve(fast)


def test_the_same_seed_gives_the_same_run(prepared, tmp_path):
    assert curve(run(prepared, tmp_path / "a")) == curve(run(prepared, tmp_path / "b"))
    assert curve(run(prepared, tmp_path / "c", seed=1)) != curve(tmp_path / "a")


def test_a_row_that_a_kill_cut_short_is_dropped(prepared):
    folder = run(prepared, prepared[2])
    *rows, last = (folder / "log.csv").read_text().splitlines()
    (folder / "log.csv").write_text("\n".join([*rows, last[:12]]))
    assert [row["step"] for row in read_log(folder / "log.csv")] == list(range(1, 12))


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
    real = GPT.loss

    def broken(self, x, targets, chunk):
        loss = real(self, x, targets, chunk)
        broken.calls += 1
        return loss * float("nan") if broken.calls > 6 else loss

    broken.calls = 0
    monkeypatch.setattr(GPT, "loss", broken)
    with pytest.raises(ValueError, match=r"the loss is nan at step 7; the batch held train_00000.npy tokens \d+ to "
                       r"\d+ \(documents .* and 2 more windows .*; the last good checkpoint is .*step-000004"):
        run(prepared, tmp_path / "nan")
    assert len(read_alarms(tmp_path / "nan" / "alarms.jsonl")[-1]["windows"]) == 4
    assert [path.name for path in checkpoint.finished(tmp_path / "nan" / "checkpoints")] == ["step-000004"]


def interrupted(prepared, folder, monkeypatch):
    """A run that stopped after its checkpoint of step 4."""
    real = Shards.batch

    def batch(self, step, *arguments):
        if step == 5:
            raise KeyboardInterrupt
        return real(self, step, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Shards, "batch", batch)
        run(prepared, folder)
    return checkpoint.finished(folder / "checkpoints")[-1]


def sign_again(path, tokenizer):
    """A manifest for files that a test has changed."""
    folder = path.parent
    names = [name.name for name in folder.iterdir() if name.name != checkpoint.MANIFEST]
    checkpoint.write_manifest(folder, tokenizer, {name: checkpoint.stamp(folder / name) for name in names})


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize(("change", "sentence"), [
    (lambda tensors: tensors.pop(next(iter(tensors))), "lacks tensor"),
    (lambda tensors: tensors.update(extra=torch.ones(1)), "has an extra tensor extra"),
    (lambda tensors: tensors.update({next(iter(tensors)): torch.ones(3)}), r"has shape \(3,\) but")])
def test_a_run_refuses_a_checkpoint_that_does_not_fit(prepared, tmp_path, monkeypatch, file, change, sentence):
    path = interrupted(prepared, tmp_path / "run", monkeypatch) / file
    tensors = checkpoint.read_weights(path)
    change(tensors)
    checkpoint.write_weights(path, tensors, prepared[1])
    sign_again(path, prepared[1])
    with pytest.raises(ValueError, match=sentence):
        run(prepared, tmp_path / "run")


def test_a_run_refuses_a_checkpoint_of_another_tokenizer(prepared, tmp_path, monkeypatch):
    path = interrupted(prepared, tmp_path / "run", monkeypatch) / "model.safetensors"
    save_file(checkpoint.read_weights(path), path, {"tokenizer": "another"})
    sign_again(path, prepared[1])
    with pytest.raises(ValueError, match=f"trained with tokenizer another .* {prepared[1].fingerprint}"):
        run(prepared, tmp_path / "run")


def test_less_text_than_a_batch_is_refused(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"windows of 32 tokens but a batch takes 4000; give more text"):
        run(prepared, tmp_path / "run", batch_size=4000)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(prepared, tmp_path):
    config, tokenizer, home = prepared
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=299))
    with pytest.raises(ValueError, match="the tokenizer has 300 tokens but the model's vocab_size is 299"):
        train(config, tokenizer, home / "shards", tmp_path / "run", progress=False)


def test_a_second_run_in_the_same_folder_is_refused(prepared, tmp_path):
    program = ("import sys, pathlib, minigpt.disk as disk\nwith disk.locked(pathlib.Path(sys.argv[1])):\n"
               "    print('locked', flush=True)\n    sys.stdin.read()")
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "new")], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(ValueError, match=r"another process is at work in .*new; wait for it"):
        run(prepared, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"lock", "lease.json"}
    other.kill()
    other.communicate()
    run(prepared, tmp_path / "new")


def test_a_batch_of_which_nothing_is_asked_costs_nothing(prepared, tmp_path, monkeypatch):
    """Packed documents may leave a piece of a batch without a token that is paid for: its mean is no 0 / 0."""
    config, *others = prepared
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, documents="pack"))
    real = Shards.batch

    def batch(self, step, *arguments):
        x, y = real(self, step, *arguments)
        y[: {3: 4, 5: 2}.get(step, 0)] = IGNORED
        return x, y

    monkeypatch.setattr(Shards, "batch", batch)
    log = read_log(run((config, *others), tmp_path / "run", accumulate=2) / "log.csv")
    assert (log[3]["loss"], log[3]["gradient_norm"]) == (0, 0)
    assert all(row["loss"] > 1 for row in log if row["step"] != 4)


def test_a_spike_is_told_and_does_not_stop_the_run(prepared, tmp_path, monkeypatch, capsys):
    real = GPT.loss

    def spiked(self, x, targets, chunk):
        spiked.calls += 1
        return real(self, x, targets, chunk) * (50 if spiked.calls == 41 else 1)

    spiked.calls = 0
    monkeypatch.setattr(GPT, "loss", spiked)
    folder = run(prepared, tmp_path / "run", steps=44)
    told = read_alarms(folder / "alarms.jsonl")
    assert {alarm["step"] for alarm in told} == {41} and "step 41: loss" in told[0]["what"]
    assert len(told[0]["windows"]) == 4 and "train_00000.npy tokens" in told[0]["windows"][0]
    assert "step 41: loss" in capsys.readouterr().out and len(read_log(folder / "log.csv")) == 44


def test_weights_and_biases_gets_the_log_offline_and_only_if_asked(prepared, tmp_path, monkeypatch):
    """Every row, also those that a rewind writes again: of its own steps W&B keeps the first row alone."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not (run(prepared, tmp_path / "without") / "wandb").exists()
    spike_at(monkeypatch, 43)
    folder = run(prepared, tmp_path / "with", wandb="seed-class", rewind=True, **(SPIKED | {"steps": 48}))
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    rows = wandb_rows(file)
    assert [row["step"] for row in rows] == [*range(1, 44), *range(41, 49)]
    assert {row["step"]: row["loss"] for row in rows} == {row["step"]: row["loss"]
                                                          for row in read_log(folder / "log.csv")}


def wandb_rows(path):
    """What was logged, from the file of an offline run: blocks of 32 KiB that hold records, whole or in pieces."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, piece, rows = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        length, kind = struct.unpack_from("<HB", data, at + 4)
        if not kind or at % 2**15 > 2**15 - 7:  # the rest of a block
            at += 2**15 - at % 2**15
            continue
        piece, at = piece + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last piece
            items, piece = Record.FromString(piece).history.item, b""
            rows += [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}] if items else []
    return rows


def test_tensorboard_shows_the_log(prepared, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run(prepared, tmp_path / "run")
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    for name, steps in (("loss", range(1, 13)), ("validation_loss", (6, 12))):
        log = {row["step"]: row[name] for row in read_log(folder / "log.csv") if name in row}
        assert {event.step: event.value for event in board.Scalars(name)} == pytest.approx(log)
        assert list(log) == list(steps)


def test_without_weights_and_biases_asking_for_it_is_one_sentence(prepared, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"not installed; pip install 'seed-class\[wandb\]'"):
        run(prepared, tmp_path / "run", wandb="seed-class")


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


def test_a_run_that_was_refused_before_its_first_step_may_be_corrected(prepared, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="a batch takes 4000"):
        run(prepared, folder, batch_size=4000)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="not installed"):
        patch.setitem(sys.modules, "wandb", None)
        run(prepared, folder, wandb="seed-class")
    assert checkpoint.load(run(prepared, folder))[2] == prepared[0]
    with pytest.raises(ValueError, match=r"train.batch_size is 4 there and 2 here"):
        run(prepared, folder, batch_size=2)


def test_of_text_as_tokens_only_the_settings_that_made_it_are_kept(prepared):
    config, _, folder = prepared
    claim(folder, config)
    claim(folder, dataclasses.replace(config, train=dataclasses.replace(config.train, steps=13)))
    assert RunConfig.read(folder / "config.json").train.steps == 13
    for other, field in ((dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=301)),
                          "model.vocab_size is 300 there and 301 here"),
                         (dataclasses.replace(config, data=dataclasses.replace(config.data, validation_share=0.2)),
                          "data.validation_share is 0.3 there and 0.2 here")):
        with pytest.raises(ValueError, match=field):
            claim(folder, other)


def test_the_bar_ends_full_and_counts_no_step_of_an_earlier_start(prepared, tmp_path, monkeypatch):
    seen = []

    class Bar(tqdm):
        def close(self):
            seen.append((self.initial, self.n))
            super().close()

    interrupted(prepared, tmp_path / "run", monkeypatch)
    monkeypatch.setattr("minigpt.train.tqdm", Bar)
    config, tokenizer, home = prepared
    for steps, folder in ((12, "run"), (1, "one")):
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps, warmup_steps=min(
            steps - 1, config.train.warmup_steps)))
        train(config, tokenizer, home / "shards", tmp_path / folder)
        assert seen[0] == ((4, 12) if steps == 12 else (0, 1))
        seen.clear()


def test_a_run_that_lost_its_folder_writes_nothing_more(prepared, tmp_path, monkeypatch):
    """Another machine took it while this one was silent; its lease stands there from the eighth step on."""
    real, folder = Shards.batch, tmp_path / "run"

    def batch(self, step, *arguments):
        if step == 7:
            (folder / "lease.json").write_text('{"host": "far"}')
            os.kill(os.getpid(), signal.SIGINT)  # as the lease does, sooner or later
        return real(self, step, *arguments)

    monkeypatch.setattr(Shards, "batch", batch)
    with pytest.raises(Lost, match=r"another process has taken .*run, because this one gave no sign of life"):
        run(prepared, folder)
    assert [path.name for path in checkpoint.finished(folder / "checkpoints")] == ["step-000004"]
    assert len(read_log(folder / "log.csv")) == 7
    assert [event["event"] for event in read_events(folder)] == ["start", "checkpoint"]
    assert (folder / "lease.json").read_text() == '{"host": "far"}'


@pytest.mark.parametrize("model", [LLAMA, NEOX], ids=["llama", "neox"])
def test_one_batch_can_be_learned_by_heart(model):
    torch.manual_seed(0)
    ids = torch.randint(300, (2, 17))
    gpt = GPT(model)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-2)
    for _ in range(60):
        loss = gpt(ids[:, :-1], targets=ids[:, 1:])
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


def test_a_gradient_longer_than_clip_is_scaled_down_to_it_and_no_other(prepared, tmp_path):
    """Seen by the optimizer: after a step of AdamW, which divides by the gradient's length, little of it shows."""
    lengths = []

    def measure(optimizer, *_):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        lengths.append(float(torch.cat([weight.grad.flatten() for weight in weights]).norm()))

    hook = register_optimizer_step_pre_hook(measure)
    try:
        folder = run(prepared, tmp_path / "run", clip=1.65)
    finally:
        hook.remove()
    before = [row["gradient_norm"] for row in read_log(folder / "log.csv")]
    assert min(before) < 1.65 < max(before)
    assert lengths == pytest.approx([min(length, 1.65) for length in before], rel=1e-3)


def test_only_matrices_decay(short_run):
    decayed, kept = make_optimizer(GPT(NEOX), short_run.train).param_groups
    assert all(weight.ndim == 2 for weight in decayed["params"]) and decayed["weight_decay"] == 0.1
    assert all(weight.ndim == 1 for weight in kept["params"]) and kept["weight_decay"] == 0
