"""Plans: consistent with themselves, and refused in one sentence with the nearest choice that can."""

import dataclasses
import json

import pytest
from test_cli import call

from minigpt import recipes
from minigpt.cluster import accounting, plan
from minigpt.cluster.gpus import GPUS, find
from minigpt.cluster.network import Network
from minigpt.config import RunConfig


def recipe(name="llama_1b", model=None, **train):
    config = recipes.recipe(name)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **(model or {})),
                               train=dataclasses.replace(config.train, **train))


def cluster(gpu="h100", gpus=8, **fields):
    return plan.Cluster(gpu=find(gpu), gpus=gpus, **fields)


def test_a_plan_by_hand():
    """7.31 GFLOP a token, 8 GPUs of 989 TFLOP/s at 40 %: 432,700 tokens a second, 300 billion of them in 8.0 days."""
    found = plan.make_plan(recipe(), cluster())
    assert found["tokens"] == 143_000 * 1024 * 2048
    assert found["tokens_per_second"] == pytest.approx(8 * 989e12 * 0.4 / 7_313_817_600, rel=1e-3)
    assert found["seconds"] == pytest.approx(found["tokens"] / found["tokens_per_second"])
    assert found["seconds"] / 86_400 == pytest.approx(8.02, abs=0.01)
    assert found["joules"] == pytest.approx(8 * 700 * found["seconds"])
    assert found["money"] == pytest.approx(8 * 3.0 * found["seconds"] / 3600) and found["currency"] == "USD"
    assert found["flops_utilization"] == pytest.approx(0.4, rel=1e-3)
    assert found["data_bytes"] == 2 * found["tokens"] and found["data_files"] == 2999
    assert found["memory_bytes_per_gpu"] == sum(found["memory_parts"].values()) < 0.9 * 80e9


def test_the_keys_that_a_report_card_reads_are_there_and_flat():
    found = plan.make_plan(recipe(), cluster())
    keys = ["version", "recipe", "gpu", "gpus", "nodes", "parameters", "flops_per_token", "steps", "tokens",
            "tokens_per_second", "flops_utilization", "seconds", "memory_bytes_per_gpu", "micro_batch", "joules",
            "money", "currency", "data_bytes", "data_files", "sharding", "activation_checkpointing"]
    assert all(not isinstance(found[key], (dict, list)) for key in keys) and isinstance(found["memory_parts"], dict)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("name", ["llama_1b", "neox_1b"])
def test_the_recipes_are_what_the_plan_finds_best_for_eight_gpus_of_80_gb(name):
    config = recipe(name)
    best = plan.choices(config, cluster())[0]
    chosen = (config.train.sharding, config.train.activation_checkpointing, config.train.accumulate)
    assert chosen == (best.sharding, best.activation_checkpointing, best.accumulate)


@pytest.mark.parametrize("gpu", GPUS)
def test_the_largest_piece_is_the_largest_and_fits(gpu):
    config, place = recipe(), cluster(gpu)
    best = plan.largest(config, place, "full", True)
    assert best.memory_bytes <= place.usable and config.train.batch_size == 8 * best.micro_batch * best.accumulate
    finer = [n for n in range(1, best.accumulate) if 128 % n == 0]
    assert not finer or plan.choose(config, place, "full", True, finer[-1]).memory_bytes > place.usable


@pytest.mark.parametrize("gpu", GPUS)
def test_every_gpu_has_its_sources_and_a_dated_price_or_none(gpu):
    found = GPUS[gpu]
    assert found.source and bool(found.price_per_hour) == bool(found.price_source)
    assert not found.price_source or "2026" in found.price_source


def test_without_a_price_there_is_no_money_unless_it_is_given():
    assert plan.make_plan(recipe(accumulate=16), cluster("b200"))["money"] is None
    found = plan.make_plan(recipe(), cluster("b200", price=10.0, currency="EUR"))
    assert found["money"] == pytest.approx(10 * found["gpu_hours"]) and found["currency"] == "EUR"


def test_twice_the_gpus_take_half_the_time_and_as_many_gpu_hours_but_for_waiting():
    few, many = (plan.make_plan(recipe(accumulate=8), cluster(gpus=gpus)) for gpus in (16, 32))
    assert 0.5 < many["seconds"] / few["seconds"] < 0.51
    assert 1 < many["gpu_hours"] / few["gpu_hours"] < 1.02


def test_memory_is_given_by_part_for_each_sharding():
    found = plan.make_plan(recipe(accumulate=8), cluster(gpus=16))
    ways = {(way["sharding"], way["activation_checkpointing"]): way for way in found["memory_choices"]}
    assert {sharding for sharding, _ in ways} == {"full", "gradients", "hybrid", "none"} and len(ways) == 8
    assert ways["full", False]["memory_parts"] == found["memory_parts"]
    assert all(way["memory_bytes_per_gpu"] == sum(way["memory_parts"].values()) for way in ways.values())
    assert ways["none", False]["memory_parts"]["optimizer"] == 8 * 1_100_048_384


def test_recomputation_costs_time_and_saves_memory():
    plain, again = (plan.make_plan(recipe(activation_checkpointing=on), cluster()) for on in (False, True))
    ratio = accounting.executed_flops_per_token(recipe(activation_checkpointing=True)) / 7_313_817_600
    assert again["seconds"] / plain["seconds"] == pytest.approx(ratio, rel=1e-3)
    assert again["memory_bytes_per_gpu"] < plain["memory_bytes_per_gpu"] / 2


@pytest.mark.parametrize(("config", "place", "sentence"), [
    ({"accumulate": 8}, {}, r"pieces of 16 texts need 83\.\d GB on each GPU but 72.0 GB of a h100's 80.0 GB are "
                            r"usable; choose accumulate 16: pieces of 8, 44\.\d GB"),
    ({}, {"gpus": 12}, "12 GPUs do not fill nodes of 8; choose 8 or 16"),
    ({}, {"gpus": 24}, "batch_size 1024 cannot be shared by 24 GPUs; choose batch_size 1032 or 16 GPUs"),
    ({}, {"gpus": 128}, "each of 128 GPUs has 8 texts of a batch, which accumulate 16 does not divide; choose "
                        "accumulate 8"),
    ({}, {"gpus": 0}, "make no cluster"), ({}, {"mfu": 1.2}, "utilization is 1.2 but must lie between 0 and 1"),
    ({}, {"price": -1.0}, "must not be negative"),
    ({"model": {"attention_pieces": 4}}, {}, "choose model.attention_pieces 1"),
    ({"model": {"n_layers": 2000}, "accumulate": 128}, {}, r"and the most frugal choice needs \d+.\d GB with one text; "
                                                           r"choose a GPU with at least \d+.\d GB, or more GPUs"),
    ({"accumulate": 128}, {"gpu": "a100-40gb", "gpus": 8, "name": "neox_1b"}, None)])
def test_what_cannot_be_is_one_sentence_with_the_nearest_that_can(config, place, sentence):
    place = dict(place)
    config = recipe(place.pop("name", "llama_1b"), **config)
    if sentence is None:
        assert plan.make_plan(config, cluster(**place))["micro_batch"] == 1
        return
    with pytest.raises(ValueError, match=sentence) as fault:
        plan.make_plan(config, cluster(**place))
    assert "\n" not in str(fault.value)


def test_the_choice_that_a_refusal_names_can():
    with pytest.raises(ValueError, match="choose accumulate 16"):
        plan.make_plan(recipe(accumulate=8), cluster())
    assert plan.make_plan(recipe(accumulate=16), cluster())["micro_batch"] == 8
    with pytest.raises(ValueError, match=r"has 5; choose 16 GPUs \(2 nodes\): 4.0\d days"):
        plan.make_plan(recipe(), cluster(), days=5)
    assert plan.make_plan(recipe(accumulate=8), cluster(gpus=16), days=5)["seconds"] < 5 * 86_400
    with pytest.raises(ValueError, match=r"costs 4,\d+ USD but has 1,000; choose train.steps (\d+), or GPUs") as fault:
        plan.make_plan(recipe(), cluster(), money=1000)
    steps = int(str(fault.value).split("train.steps ")[1].split(",")[0])
    assert plan.make_plan(recipe(steps=steps), cluster(), money=1000)["money"] == pytest.approx(1000, rel=1e-3)
    with pytest.raises(ValueError, match=r"train\.steps \d+, because"):
        plan.make_plan(recipe(), cluster(), days=0.01)
    with pytest.raises(ValueError, match="no price of a b200; give --price"):
        plan.make_plan(recipe(), cluster("b200"), money=1)


def test_what_divides_badly_is_remarked():
    odd = recipe(model={"vocab_size": 50_257, "d_ff": 5000})
    remarks = plan.make_plan(odd, cluster())["remarks"]
    assert any("50,304" in remark for remark in remarks) and any("d_ff 5,000" in remark for remark in remarks)
    many = plan.make_plan(recipe(batch_size=4096, accumulate=1), cluster(gpus=4096))
    assert any("do not divide by 4096 shares" in remark for remark in many["remarks"])
    assert plan.make_plan(recipe(), cluster())["remarks"] == []


@pytest.mark.parametrize(("seconds", "text"), [(8 * 86_400, "8.0 days"), (86_400, "24.0 hours"), (3600, "60.0 minutes"),
                                               (119, "119.0 seconds"), (0.2, "0.2 seconds")])
def test_durations_are_told_in_the_unit_that_suits(seconds, text):
    assert plan.duration(seconds) == text


@pytest.mark.parametrize(("field", "value"), [("spread", -1.0), ("efficiency", 0.0), ("efficiency", 2.0),
                                              ("filesystem", 0.0), ("launch", -1e-6)])
def test_an_impossible_network_is_refused(field, value):
    with pytest.raises(ValueError, match=f"network.{field} is"):
        Network(**{field: value})


def test_an_unknown_gpu_names_near_ones():
    with pytest.raises(ValueError, match="there is no GPU 'h10' in the table; choose one of h100"):
        find("h10")


def test_a_slower_filesystem_and_slower_gpus_make_a_slower_plan():
    base = plan.make_plan(recipe(), cluster(gpus=16))["seconds"]
    assert plan.make_plan(recipe(), cluster(gpus=16, network=Network(filesystem=1e8)))["seconds"] > base
    assert plan.make_plan(recipe(), cluster(gpus=16, network=Network(spread=0.1)))["seconds"] > base


def test_the_tables_prices_are_in_dollars_and_a_given_one_in_what_is_said():
    assert plan.make_plan(recipe(), cluster(gpus=16, currency="EUR"))["currency"] == "USD"
    assert plan.make_plan(recipe(), cluster(gpus=16, currency="EUR", price=2.0))["currency"] == "EUR"
    with pytest.raises(ValueError, match=r"the run costs [\d,]+ USD but has 5; .* cost 0.00 USD an hour"):
        plan.make_plan(recipe(), cluster(gpus=16, currency="EUR"), money=5)


def test_the_word_prints_and_saves_the_plan(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, printed = call(monkeypatch, capsys, "plan", "llama_1b", "--gpus", "8", "--gpu", "h100")
    saved = json.loads((tmp_path / "runs" / "llama_1b" / "plan.json").read_text())
    assert status == 0 and saved["gpus"] == 8 and saved["recipe"] == "llama_1b"
    assert (tmp_path / "runs" / "llama_1b" / "plan.md").read_text() in printed and "8.0 days" in printed
    status, printed = call(monkeypatch, capsys, "plan", "llama_1b", "--nodes", "4", "--train.accumulate", "4",
                           "--train.steps", "14300", "--folder", tmp_path / "other", "--network.filesystem", "1e10")
    assert status == 0 and json.loads((tmp_path / "other" / "plan.json").read_text())["gpus"] == 32


@pytest.mark.parametrize(("words", "sentence"), [
    (["plan"], "plan needs a recipe; choose one of journey"),
    (["plan", "llama_1b", "--gpu", "h10"], "choose one of h100"),
    (["plan", "llama_1b", "--gpus", "0"], "0 GPUs in nodes of 8 make no cluster"),
    (["plan", "llama_1b", "--gpus", "9", "--nodes", "1"], "1 nodes of 8 are 8 GPUs but --gpus says 9")])
def test_bad_words_get_one_sentence_and_write_nothing(monkeypatch, capsys, tmp_path, words, sentence):
    monkeypatch.chdir(tmp_path)
    status, printed = call(monkeypatch, capsys, *words)
    assert status == 1 and sentence in printed and printed.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_plan_does_not_land_beside_another_run(tmp_path):
    config = recipe()
    (tmp_path / "config.json").write_text(config.to_json())
    plan.write_plan(plan.make_plan(config, cluster()), config, tmp_path)
    (tmp_path / "log.csv").touch()
    other = recipe(steps=1, warmup_steps=0)
    with pytest.raises(ValueError, match="holds a run with other settings"):
        plan.write_plan(plan.make_plan(other, cluster()), other, tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text())["steps"] == config.train.steps
    assert RunConfig.read(tmp_path / "config.json") == config
