"""Checkpoints of a run: whole or not at all, kept as asked, put aside if damaged; spikes are gone back from."""

import dataclasses
import json
import threading

import pytest
import torch
from safetensors.torch import save_file
from test_laws import assert_same_weights, curve, run

from minigpt import checkpoint
from minigpt.corpus import Shards
from minigpt.evaluate import history
from minigpt.evaluate.log import LOG_COLUMNS, Log, read_alarms, read_events, read_log
from minigpt.model import GPT, FeedForward
from minigpt.resume import Progress
from minigpt.train import go_on


def names(folder):
    return [path.name for path in checkpoint.finished(folder / "checkpoints")]


def events(folder, *wanted):
    return [event for event in read_events(folder) if event["event"] in wanted]


def stopped(prepared, folder, monkeypatch, before, **changes):
    """A run that broke off in the step that reads this batch, as a kill would break it off."""
    real = Shards.batch

    def batch(self, number, *arguments):
        if number == before:
            raise KeyboardInterrupt
        return real(self, number, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Shards, "batch", batch)
        run(prepared, folder, **changes)
    return folder


@pytest.mark.parametrize("beside", [False, True])
def test_the_newest_and_every_nth_checkpoint_are_kept(prepared, tmp_path, beside):
    folder = run(prepared, tmp_path / "run", steps=20, save_every=2, keep_checkpoints=2, keep_every=6,
                 async_checkpoints=beside)
    assert names(folder) == ["step-000006", "step-000012", "step-000018", "step-000020"]
    told = events(folder, "checkpoint")
    assert [event["step"] for event in told] == list(range(2, 21, 2))
    size = sum(path.stat().st_size for path in (folder / "checkpoints" / "step-000020").iterdir())
    assert told[-1]["bytes"] == size - (folder / "checkpoints" / "step-000020" / "manifest.json").stat().st_size
    assert all(0 < event["standing_seconds"] <= event["seconds"] for event in told)


def test_checkpoints_beside_the_steps_hold_what_the_others_hold(prepared, tmp_path):
    """A copy that is taken too late would hold weights of a later step."""
    now = run(prepared, tmp_path / "now", keep_checkpoints=9)
    beside = run(prepared, tmp_path / "beside", keep_checkpoints=9, async_checkpoints=True)
    for one, two in zip(*(checkpoint.finished(folder / "checkpoints") for folder in (now, beside)), strict=True):
        for file in ("model.safetensors", "optimizer.safetensors"):
            theirs = checkpoint.read_weights(two / file)
            assert all(torch.equal(theirs[name], own) for name, own in checkpoint.read_weights(one / file).items())


def test_the_loop_goes_on_while_a_checkpoint_is_written_and_never_writes_two_at_once(prepared, tmp_path, monkeypatch):
    real, gate, at_once = checkpoint.write_weights, threading.Event(), []
    batches, batch = [], Shards.batch

    def slow(path, *arguments):
        if path.name == "model.safetensors" and path.parent.name.startswith("step-"):
            at_once.append(threading.current_thread())
            assert gate.wait(20)
            at_once.pop()
            assert not at_once
        real(path, *arguments)

    def counted(self, number, *arguments):
        batches.append(number)
        if len(batches) == 7:  # two steps after the first checkpoint was begun
            assert len(at_once) == 1 and not names(tmp_path / "run")
            gate.set()
        return batch(self, number, *arguments)

    monkeypatch.setattr(checkpoint, "write_weights", slow)
    monkeypatch.setattr(Shards, "batch", counted)
    assert names(run(prepared, tmp_path / "run", async_checkpoints=True)) == ["step-000008", "step-000012"]


@pytest.mark.parametrize("beside", [False, True])
def test_a_full_disk_leaves_the_last_good_checkpoint(prepared, tmp_path, monkeypatch, beside):
    def full(weights, path, metadata):
        full.calls += 1
        if full.calls > 2:
            raise OSError(28, "No space left on device", str(path))
        return save_file(weights, path, metadata)

    full.calls, folder = 0, tmp_path / "full"
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device"):
        patch.setattr("minigpt.checkpoint.save_file", full)
        run(prepared, folder, async_checkpoints=beside)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000004"]
    assert "No space left" in events(folder, "stop")[-1]["why"]
    assert curve(run(prepared, folder, async_checkpoints=beside)) == curve(run(prepared, tmp_path / "whole"))


def flip(path):
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("harm", "why"), [
    (lambda folder: flip(folder / "optimizer.safetensors"), "optimizer.safetensors is not what was written"),
    (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    (lambda folder: (folder / "progress.json").write_text("{"), "progress.json has 1 bytes and had"),
    (lambda folder: (folder / "manifest.json").write_text(""), "its manifest.json is missing or damaged")])
def test_a_damaged_checkpoint_is_told_of_put_aside_and_the_one_before_is_taken(prepared, tmp_path, monkeypatch, harm,
                                                                              why):
    folder = stopped(prepared, tmp_path / "run", monkeypatch, before=10)
    assert names(folder) == ["step-000004", "step-000008"]
    harm(folder / "checkpoints" / "step-000008")
    run(prepared, folder)
    (told,) = events(folder, "damaged")
    assert told["step"] == 8 and told["checkpoint"] == "step-000008.damaged" and why in told["why"]
    assert (folder / "checkpoints" / "step-000008.damaged").exists()
    assert [event["checkpoint"] for event in events(folder, "start")] == [None, "step-000004"]
    whole = run(prepared, tmp_path / "whole")
    assert curve(folder) == curve(whole)
    assert_same_weights(folder, whole)


def test_if_no_checkpoint_is_whole_a_person_is_asked_and_nothing_is_touched(prepared, tmp_path, monkeypatch):
    folder = stopped(prepared, tmp_path / "run", monkeypatch, before=10)
    for path in checkpoint.finished(folder / "checkpoints"):
        flip(path / "model.safetensors")
    with pytest.raises(ValueError, match=r"none of the 2 .* is whole \(step-000008: model.safetensors is not"):
        run(prepared, folder)
    assert names(folder) == ["step-000004", "step-000008"]


def test_half_a_checkpoint_and_a_damaged_one_do_not_count_and_many_digits_do(tmp_path):
    for name in ("step-1000000", "step-999998", "step-000002.damaged", "step-000004.partial"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoint.finished(tmp_path)] == ["step-999998", "step-1000000"]


def test_a_checkpoint_generates_as_the_run_does(prepared, tmp_path):
    folder = run(prepared, tmp_path / "run")
    model, _, _ = checkpoint.load(folder / "checkpoints" / "step-000012")
    ids = torch.arange(10)[None]
    assert torch.equal(model(ids), checkpoint.load(folder)[0](ids))


def test_activation_checkpointing_changes_no_number(prepared, tmp_path):
    plain, again = run(prepared, tmp_path / "plain"), run(prepared, tmp_path / "again", activation_checkpointing=True)
    assert curve(plain) == curve(again)
    assert_same_weights(plain, again)


def test_the_way_back_computes_every_block_again(prepared, monkeypatch, tmp_path):
    calls, real = [], FeedForward.forward
    monkeypatch.setattr(FeedForward, "forward", lambda self, x: calls.append(x.requires_grad) or real(self, x))
    run(prepared, tmp_path / "plain")
    once = sum(calls)
    run(prepared, tmp_path / "again", activation_checkpointing=True)
    assert sum(calls) - once == 2 * once


def test_a_run_may_change_how_it_computes_but_not_what(prepared, tmp_path, monkeypatch):
    folder = stopped(prepared, tmp_path / "run", monkeypatch, before=6)
    run(prepared, folder, activation_checkpointing=True, async_checkpoints=True, keep_every=4, sharding="hybrid")
    assert curve(folder) == curve(run(prepared, tmp_path / "whole"))
    assert json.loads((folder / "config.json").read_text())["train"]["keep_every"] == 4
    with pytest.raises(ValueError, match=r"train.rewind is False there and True here"):
        run(prepared, folder, rewind=True)


# Spikes: batches 41 and 52 make the loss fifty times as large, wherever in the run they are read.

SPIKED = {"steps": 64, "save_every": 8, "evaluate_every": 64}


def spike_at(patch, *bad, factor=50.0):
    """Let these batches, counted from 0, and no others have a loss that is so many times as large."""
    batch, loss, now = Shards.batch, GPT.loss, []

    def read(self, number, *arguments):
        now[:] = [number]
        return batch(self, number, *arguments)

    patch.setattr(Shards, "batch", read)
    patch.setattr(GPT, "loss", lambda self, *given: loss(self, *given) * (factor if now[0] in bad else 1.0))


@pytest.mark.parametrize("factor", [50.0, float("nan")])
def test_a_spike_is_gone_back_from_and_its_batches_are_left_out(prepared, tmp_path, monkeypatch, factor):
    spike_at(monkeypatch, 41, 52, factor=factor)
    folder = run(prepared, tmp_path / "run", rewind=True, **SPIKED)
    told = events(folder, "rewind")
    assert [(event["to_step"], event["skipped"]) for event in told] == [(40, [40, 41]), (48, [50, 52])]
    assert [event["step"] for event in told] == [42, 51]
    assert max(float(row["loss"]) for row in curve(folder)) < 10 and len(curve(folder)) == 64
    assert {alarm["batch"] for alarm in read_alarms(folder / "alarms.jsonl")} == {42, 53}
    kept = json.loads((folder / "checkpoints" / "step-000064" / "progress.json").read_text())
    assert kept["skipped"] == [[40, 2], [48, 3]]
    said = [history.sentence(event) for event in read_events(folder)]
    assert all(said) and "went back to step 40 and skipped the batches 40 to 41" in said


@pytest.mark.parametrize("kills", [(41,), (45,), (51, 53), (43, 46, 60)])
def test_a_rewound_run_killed_anywhere_has_the_curve_of_one_never_killed(prepared, tmp_path, monkeypatch, kills):
    spike_at(monkeypatch, 41, 52)
    whole = run(prepared, tmp_path / "whole", rewind=True, **SPIKED)
    for kill in kills:
        stopped(prepared, tmp_path / "run", monkeypatch, before=kill, rewind=True, **SPIKED)
    folder = run(prepared, tmp_path / "run", rewind=True, **SPIKED)
    assert curve(folder) == curve(whole)
    assert_same_weights(folder, whole)
    assert read_alarms(folder / "alarms.jsonl") == read_alarms(whole / "alarms.jsonl")


def test_a_run_that_spikes_again_and_again_asks_a_person(prepared, tmp_path, monkeypatch):
    spike_at(monkeypatch, *range(41, 100))
    with pytest.raises(ValueError, match=r"spiked again at step 41 after 3 rewinds to step 40 and 3 in all"):
        run(prepared, tmp_path / "run", rewind=True, **SPIKED)
    assert len(events(tmp_path / "run", "rewind")) == 3


def test_before_the_first_checkpoint_a_spike_is_only_told(prepared, tmp_path, monkeypatch):
    spike_at(monkeypatch, 41)
    folder = run(prepared, tmp_path / "run", rewind=True, **(SPIKED | {"save_every": 64}))
    assert not events(folder, "rewind") and {event["step"] for event in events(folder, "alarm")} == {42}


def test_a_torn_line_of_the_history_costs_nothing_but_itself(prepared, tmp_path):
    folder = prepared[2]
    (folder / "events.jsonl").write_text('{"time": 1.0, "event": "start", "step": 0}\n{"time": 2.0, "ev')
    run(prepared, folder)
    assert [event["event"] for event in read_events(folder)] == ["start", "start", *["checkpoint"] * 3, "finish"]
    assert events(folder, "start")[1]["restart"] == 1


def test_the_history_says_what_ran_where(prepared, tmp_path):
    start = events(run(prepared, tmp_path / "run"), "start")[0]
    assert [start[name] for name in ("ranks", "nodes", "restart", "checkpoint", "gpu")] == [1, 1, 0, None, None]
    assert start["torch"] == torch.__version__ and start["host"] and start["python"].startswith("3.")


def test_settings_of_the_run_in_the_checkpoint_are_those_that_wrote_it(prepared, tmp_path):
    folder = run(prepared, tmp_path / "run", async_checkpoints=True)
    _, _, config = checkpoint.load(folder / "checkpoints" / "step-000008")
    assert config.train == dataclasses.replace(prepared[0].train, async_checkpoints=True)


def test_a_log_that_lost_its_last_rows_gets_the_row_of_the_checkpoint_once(short_run, tmp_path):
    def row(step):
        return dict.fromkeys(LOG_COLUMNS, 1.0) | {"step": step}

    with Log(tmp_path, short_run, active=True) as log:
        go_on(log, Progress())
        for step in range(1, 7):
            log.write(row(step))
    for _ in range(3):
        with Log(tmp_path, short_run, active=True) as log:
            go_on(log, Progress(8, row(8)))
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == [1, 2, 3, 4, 5, 6, 8]
