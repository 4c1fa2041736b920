import dataclasses
import json
import math
import sys
from importlib import import_module

import numpy as np
import pytest
import torch

from minigpt import journey
from minigpt.config import DataConfig
from minigpt.corpus import Shards, read_documents, write_shards
from minigpt.disk import locked
from minigpt.evaluate import bits_per_byte, evaluate_run, ladder, parses, validation_loss
from minigpt.evaluate.ladder import count
from minigpt.evaluate.parsing import PROMPT, parse_rate
from minigpt.evaluate.statistics import bits_per_byte_interval, share_interval
from minigpt.model import GPT
from minigpt.train import train


def test_a_byte_that_costs_ln_2_is_one_bit():
    assert bits_per_byte(torch.full((10,), math.log(2)), torch.ones(10)) == pytest.approx(1.0)
    assert bits_per_byte(torch.full((10,), math.log(2)), torch.full((10,), 2)) == pytest.approx(0.5)


def test_bits_per_byte_of_no_text_is_refused():
    with pytest.raises(ValueError, match="stand for no byte"):
        bits_per_byte(torch.ones(3), torch.zeros(3))


def test_every_validation_token_is_predicted_once(prepared):
    config, tokenizer, folder = prepared
    split = Shards(folder / "shards", "validation", tokenizer, config.model.max_seq_len)
    loss = validation_loss(GPT(config.model), split, 10**9)
    stream = torch.from_numpy(split.files[0].astype("int64"))
    assert torch.equal(loss.targets, stream[1 : len(loss.targets) + 1])
    assert torch.equal(loss.previous, stream[: len(loss.targets)])
    assert loss.mean == pytest.approx(math.log(config.model.vocab_size), abs=0.1)


@pytest.mark.parametrize("tokens_per_shard", [10**9, 500])
def test_every_target_is_told_its_document(prepared, tmp_path, tokens_per_shard):
    config, tokenizer, _folder = prepared
    write_shards(read_documents(config.data), tokenizer, tmp_path / "shards", validation_share=0.3,
                 tokens_per_shard=tokens_per_shard)
    split = Shards(tmp_path / "shards", "train", tokenizer, 32)
    _, targets = split.rows(range(len(split)))
    ends = [np.flatnonzero(file == tokenizer.end_of_text) for file in split.files]
    streams = [np.searchsorted(found, np.arange(len(file))) + sum(map(len, ends[:n]))
               for n, (file, found) in enumerate(zip(split.files, ends, strict=True))]
    wanted = np.concatenate([stream[1 : 1 + (len(stream) - 1) // 32 * 32] for stream in streams])
    texts = split.texts(range(len(split)))
    assert texts.shape == targets.shape and texts.flatten().tolist() == wanted.tolist()
    assert torch.equal(split.texts([3, 5]), texts[[3, 5]])


def test_an_interval_holds_the_true_figure_about_as_often_as_it_says():
    """Texts are hard or easy as a whole: an interval that drew single tokens would hold it 27 times of 100."""
    dice, held = torch.Generator().manual_seed(0), 0
    texts = torch.arange(40).repeat_interleave(50)
    for seed in range(100):
        nats = (2 + torch.randn(40, generator=dice)).repeat_interleave(50) + torch.randn(2000, generator=dice)
        low, high = bits_per_byte_interval(nats, torch.ones(2000), texts, seed)
        held += low < 2 / math.log(2) < high
    assert 88 <= held <= 98


def test_an_interval_of_one_text_is_not_known():
    assert bits_per_byte_interval(torch.ones(9), torch.ones(9), torch.zeros(9, dtype=torch.long)) is None


def test_wilsons_interval_by_hand():
    assert share_interval(0.5, 4) == pytest.approx((0.1500, 0.8500), abs=1e-4)
    assert share_interval(0.0, 128)[0] == 0.0 and share_interval(0.0, 128)[1] == pytest.approx(0.0291, abs=1e-4)


@pytest.mark.parametrize("piece", [1, 2, 100])
def test_pairs_are_counted_by_hand(monkeypatch, piece):
    class Two:
        files = (np.array([0, 1, 1, 2]), np.array([1, 0]))

    module = sys.modules[count.__module__]  # the package has a function of its name
    monkeypatch.setattr(module, "PIECE", piece)
    every_pair = np.arange(9)  # of three tokens
    firsts, seconds, pairs = count(Two, every_pair, 3)
    assert pairs.reshape(3, 3).tolist() == [[0, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert firsts.tolist() == [1, 3, 0] and seconds.tolist() == [1, 2, 1]
    assert count(Two, np.array([1, 5]), 3)[2].tolist() == [1, 1]
    monkeypatch.setattr(module, "MOST_COUNTED", 2)
    assert count(Two, every_pair, 3)[2].sum() in (2, 3) and count(Two, every_pair, 3)[2][3] == 0


def test_the_ladder_goes_down(prepared):
    config, tokenizer, folder = prepared
    train_split, validation = (Shards(folder / "shards", split, tokenizer, 32) for split in ("train", "validation"))
    lengths = torch.from_numpy(tokenizer.byte_lengths())
    loss = validation_loss(GPT(config.model), validation, 10**9)
    rungs = ladder(train_split, loss, lengths)
    assert list(rungs) == ["uniform", "unigram", "bigram"]
    assert rungs["uniform"] > rungs["unigram"] > rungs["bigram"]
    tokens_per_byte = len(loss.targets) / int(lengths[loss.targets].sum())
    assert rungs["uniform"] == pytest.approx(math.log2(300) * tokens_per_byte)


@pytest.mark.parametrize(("text", "answer"), [
    ("\n\ndef f(x):\n    return x\n\ndef g", True), ("def f(x):\n    return x\n", False),
    ("def f(x:\n    return\n\nclass A:", False), ("def f(\n    x,\n):\n    return x\n\n\nx = 1", True),
    ("def ", False), ("def f():\n\nx = 1", False), ("def f():\n    '\\d'\n\nx", True)])
def test_a_function_parses_only_if_it_is_whole_and_correct(text, answer):
    assert parses(text) is answer


def test_a_model_too_short_to_begin_a_function_is_refused(prepared):
    config, tokenizer, _folder = prepared
    n = len(tokenizer.encode(PROMPT))
    with pytest.raises(ValueError, match=f"has {n} tokens but max_seq_len is {n}; train a model of at least {n + 1}"):
        parse_rate(GPT(dataclasses.replace(config.model, max_seq_len=n)), tokenizer, samples=2)
    rate, texts = parse_rate(GPT(dataclasses.replace(config.model, max_seq_len=n + 1)), tokenizer, samples=2)
    assert rate == 0 and len(texts) == 2


def test_the_journey_leaves_every_artifact_and_a_second_one_leaves_them_alone(short_run, tmp_path):
    folder, said = tmp_path / "whole", []
    card = journey.travel(short_run, folder, said.append)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "log.csv", "scores.json", "report.md",
                 "report.html", "report.json", "loss.png", "speed.png", "ladder.png", "shards", "tensorboard",
                 "checkpoints"):
        assert (folder / name).exists(), name
    assert [line[:3] for line in said] == ["1/4", "2/4", "3/4", "4/4"]
    assert card["parameters"] == short_run.model.n_parameters
    assert card["training_flops"] == 12 * 4 * 32 * short_run.model.flops_per_token
    assert json.loads((folder / "report.json").read_text())["bits_per_byte"] == card["bits_per_byte"]
    page = (folder / "report.md").read_text()
    for line in ("| model FLOPs utilization | ", "| energy | ", "| waiting for data | ", "| alarms | 0 |",
                 "| learning rate | 2 steps up to 0.01, a cosine down to 0 |"):
        assert line in page
    assert "measured with a matrix product" in page and card["flops_utilization"] > 0 and card["joules"] > 0
    assert 0 < card["data_seconds"] < card["training_seconds"]
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert journey.travel(short_run, folder, said.append) == card
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_journey_by_other_code_is_made_again(short_run, tmp_path):
    folder = tmp_path / "run"
    journey.travel(short_run, folder, lambda line: None)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    (folder / "code.json").write_text('{"minigpt": "another"}')
    journey.travel(short_run, folder, lambda line: None)
    assert (folder / "model.safetensors").stat().st_mtime_ns != before


def test_a_journey_never_removes_other_files(short_run, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds other files and no run"):
        journey.travel(short_run, tmp_path, lambda line: None)
    assert (tmp_path / "thesis.txt").exists()


def test_a_journey_by_other_code_removes_what_runs_write_and_nothing_else(short_run, tmp_path):
    folder = tmp_path / "run"
    journey.travel(short_run, folder, lambda line: None)
    assert {path.name for path in folder.iterdir()} <= journey.WRITTEN | journey.BEFORE
    (folder / "code.json").write_text('{"minigpt": "another"}')
    for name in ("thesis.txt", "plan.json", "shards.partial"):
        (folder / name).touch()
    with locked(folder):
        journey.forget_other_code(folder)
    assert {path.name for path in folder.iterdir()} == {"thesis.txt", "plan.json", "code.json", "lock"}


def test_a_journey_goes_where_its_plan_lies(short_run, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("plan.json", "plan.md"):
        (tmp_path / "run" / name).write_text("{}")
    journey.refuse_other_files(tmp_path / "run")
    (tmp_path / "run" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds other files and no run"):
        journey.refuse_other_files(tmp_path / "run")


def test_a_journey_that_stopped_over_its_text_keeps_the_settings_of_its_tokenizer(short_run, tmp_path, monkeypatch):
    """And one that was refused before there was a tokenizer keeps none."""
    folder, wrong = tmp_path / "run", DataConfig(source=str(tmp_path / "typo"))
    with pytest.raises(ValueError, match="there is no text at"):
        journey.travel(dataclasses.replace(short_run, data=wrong), folder, lambda line: None)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(import_module("minigpt.corpus.prepare"), "write_shards", stop)
        journey.travel(short_run, folder, lambda line: None)
    larger = dataclasses.replace(short_run, model=dataclasses.replace(short_run.model, vocab_size=400))
    with pytest.raises(ValueError, match=r"model.vocab_size is 300 there and 400 here"):
        journey.travel(larger, folder, lambda line: None)


def test_of_two_journeys_in_one_folder_the_second_is_refused_before_it_reads_text(short_run, tmp_path, monkeypatch):
    def second(*_, **__):
        with pytest.raises(ValueError, match="another process is at work"):
            journey.travel(short_run, tmp_path / "run", lambda line: None)
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("minigpt.corpus.prepare"), "write_shards", second)
    with pytest.raises(KeyboardInterrupt):
        journey.travel(short_run, tmp_path / "run", lambda line: None)


def test_a_journey_never_removes_a_run_that_was_trained_without_it(prepared):
    config, _tokenizer, folder = prepared
    (folder / "checkpoints" / "step-000004").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run that no journey made"):
        journey.travel(config, folder, lambda line: None)
    assert (folder / "checkpoints" / "step-000004").exists()


def test_a_journey_by_other_code_leaves_a_folder_in_which_someone_works(short_run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "code.json").write_text('{"minigpt": "another"}')
    (folder / "log.csv").write_text("step\n")
    with locked(folder), pytest.raises(ValueError, match="another process is at work"):
        journey.travel(short_run, folder, lambda line: None)
    assert (folder / "log.csv").exists()


def test_scores_of_a_trained_run_beat_those_of_the_counting_models(prepared):
    config, tokenizer, folder = prepared
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=60))
    train(config, tokenizer, folder / "shards", folder, progress=False)
    scores = evaluate_run(folder)
    assert scores["bits_per_byte"]["model"] < scores["bits_per_byte"]["unigram"]
    assert scores["parse_rate"]["before"] == 0
    for name, (low, high) in scores["intervals"]["bits_per_byte"].items():
        assert low < scores["bits_per_byte"][name] < high
