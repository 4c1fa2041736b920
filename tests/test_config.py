import dataclasses
import json

import pytest
import torch
from conftest import LLAMA, NEOX
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt import huggingface, recipes
from minigpt.config import VERSION, ModelConfig, RunConfig, TrainConfig
from minigpt.model import GPT


def test_a_config_survives_json(tmp_path):
    for name in recipes.RECIPES:
        config = recipes.recipe(name)
        (tmp_path / "config.json").write_text(config.to_json())
        assert RunConfig.read(tmp_path / "config.json") == config


def neox(n_layers, d_model, n_heads):
    return ModelConfig(vocab_size=50_304, n_layers=n_layers, d_model=d_model, n_heads=n_heads, n_kv_heads=n_heads,
                       d_ff=4 * d_model, max_seq_len=2048, norm="layernorm", mlp="gelu", parallel=True,
                       rotary_fraction=0.25, bias=True)


LLAMA_7B = ModelConfig(vocab_size=32_000, n_layers=32, d_model=4096, n_heads=32, n_kv_heads=32, d_ff=11_008,
                       max_seq_len=2048, norm_eps=1e-6)

PUBLISHED = {
    "pythia-70m": (neox(6, 512, 8), 70_426_624, 18_915_328),
    "pythia-160m": (neox(12, 768, 12), 162_322_944, 85_056_000),
    "pythia-410m": (neox(24, 1024, 16), 405_334_016, 302_311_424),
    "pythia-1b": (neox(16, 2048, 8), 1_011_781_632, 805_736_448),
    "pythia-1.4b": (neox(24, 2048, 16), 1_414_647_808, 1_208_602_624),
    "llama-7b": (LLAMA_7B, 6_738_415_616, 6_738_415_616 - 2 * 32_000 * 4096),
    "tinyllama-1.1b": (recipes.llama_1b().model, 1_100_048_384, 1_100_048_384 - 2 * 32_000 * 2048),
}
"""Vocabularies of Pythia are padded to 50,304 (70M to 1.4B). Sources: the model cards of Pythia (both counts) and of
TinyLlama; LLaMA 7B as KerasHub's registry of presets gives it."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts_come_out_to_the_last_digit(name):
    config, total, without_embeddings = PUBLISHED[name]
    assert config.n_parameters == total
    assert config.n_parameters - config.n_embedding_parameters == without_embeddings


@pytest.mark.parametrize("name", PUBLISHED)
def test_transformers_counts_the_same_parameters(name):
    """The second witness: their model, built from our config without memory for its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config, total, _ = PUBLISHED[name]
    theirs = huggingface.to_config(config, 0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(theirs.pop("model_type"), **theirs))
    assert sum(weight.numel() for weight in model.parameters()) == total


def test_the_recipes_have_the_shapes_that_they_name():
    assert recipes.neox_125m().model == PUBLISHED["pythia-160m"][0]
    assert recipes.neox_1b().model == PUBLISHED["pythia-1b"][0]
    assert round(recipes.llama_125m().model.n_parameters / 1e6, 1) == 124.6  # model card of MobileLLM-125M


@pytest.mark.parametrize("name", ["neox_125m", "llama_125m"])
def test_the_small_recipes_read_twenty_tokens_a_parameter(name):
    config = recipes.recipe(name)
    assert config.train.steps * config.tokens_per_step == pytest.approx(20 * config.model.n_parameters, rel=0.01)


@pytest.mark.parametrize("family", [LLAMA, NEOX], ids=["llama", "neox"])
def test_the_formula_counts_the_operations_that_training_executes(family):
    """Attention without a fused kernel, because the counter books what a kernel leaves out or computes twice."""
    model, ids = GPT(family), torch.zeros(3, 32, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(ids).logsumexp(-1).sum().backward()
    assert counter.get_total_flops() == 3 * 32 * family.flops_per_token


def test_six_operations_a_parameter_are_the_formula_but_for_embedding_norms_and_attention(model_config):
    exact, c = model_config.flops_per_token, model_config
    norms_and_biases = sum(weight.numel() for weight in GPT(c).parameters() if weight.ndim == 1)
    embedding = 0 if c.tied else c.vocab_size * c.d_model
    attention = 2 * c.n_layers * c.d_model * c.max_seq_len
    assert exact == c.flops_per_token_6n + 6 * (attention - embedding - norms_and_biases)


def test_the_formula_counts_what_the_model_has(model_config):
    assert model_config.n_parameters == sum(weight.numel() for weight in GPT(model_config).parameters())


def test_heads_that_do_not_divide_the_width_are_refused_with_the_nearest_that_do():
    with pytest.raises(ValueError, match="d_model 128 is not divisible by n_heads 5; choose 4"):
        dataclasses.replace(recipes.journey().model, n_heads=5)


@pytest.mark.parametrize(("field", "value", "sentence"), [
    ("n_kv_heads", 3, "not divisible by n_kv_heads 3"), ("rotary_fraction", 1.5, "between 0 and 1"),
    ("n_layers", 0, "at least 1"), ("rotary_fraction", 0.04, "in pairs"), ("rotary_base", 0.0, "rotary_base is 0.0"),
    ("norm_eps", -1e-5, "norm_eps is -1e-05 but must be above 0"), ("norm_eps", float("nan"), "norm_eps is nan")])
def test_an_impossible_model_is_refused(field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(recipes.journey().model, **{field: value})


@pytest.mark.parametrize(("field", "value", "sentence"), [
    ("warmup_steps", 10_000, "between 0 and steps"), ("accumulate", 3, "choose accumulate 2"),
    ("min_learning_rate", 1.0, "min_learning_rate"), ("cooldown_share", 1.5, "between 0 and 1"),
    ("watts", -1.0, "must not be negative"), ("keep_every", 300, "a checkpoint comes every 200 steps"),
    ("keep_every", -200, "choose a multiple"), ("sharding", "half", "one of full, gradients, hybrid, none"),
    ("schedule", "linear", "one of cosine, wsd"), ("clip", 0.0, "clip is 0.0 .* such as 1e9 for no clipping"),
    ("clip", -1.0, "clip is -1.0"), ("clip", float("nan"), "clip is nan"), ("seed", -1, "seed is -1"),
    ("beta1", 1.0, "beta1 is 1.0 but must be at least 0 and below 1"), ("beta2", -0.1, "beta2 is -0.1"),
    ("weight_decay", -0.1, "weight_decay is -0.1 but must not be negative")])
def test_an_impossible_training_is_refused(field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(recipes.journey().train, **{field: value})


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no recipe 'jorney'; choose one of journey"):
        recipes.recipe("jorney")


def test_a_misspelt_field_in_a_file_names_its_neighbors(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(recipes.journey().to_json().replace('"n_layers"', '"n_layer"'))
    with pytest.raises(ValueError, match="near names: n_layers"):
        RunConfig.read(path)


def test_every_unknown_field_of_a_file_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(recipes.journey().to_json().replace('"steps"', '"stepz"').replace('"seed"', '"luck"'))
    with pytest.raises(ValueError, match="has 'stepz', 'luck' that TrainConfig does not know; near names: steps"):
        RunConfig.read(path)


def test_a_file_by_a_newer_minigpt_is_refused_and_one_by_an_older_is_read(tmp_path):
    path, now = tmp_path / "config.json", f'"version": {VERSION}'
    path.write_text(recipes.journey().to_json().replace(now, f'"version": {VERSION + 1}, "thoughts": 3'))
    with pytest.raises(ValueError, match=f"has version {VERSION + 1} but this minigpt reads versions up to {VERSION}"):
        RunConfig.read(path)
    younger = ('    "schedule": "cosine",\n', '    "cooldown_share": 0.2,\n', f"  {now},\n")
    text = recipes.journey().to_json()
    for line in younger:
        assert line in text
        text = text.replace(line, "")
    path.write_text(text)
    assert RunConfig.read(path) == recipes.journey()


def test_a_cooldown_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match=r"warm-up \(30\) and cooldown \(800\) take more than the 800 steps"):
        dataclasses.replace(recipes.journey().train, schedule="wsd", cooldown_share=1.0)


def test_a_field_that_is_missing_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"name": "x"}')
    with pytest.raises(ValueError, match="lacks the field 'model'"):
        RunConfig.read(path)


@pytest.mark.parametrize(("path", "value", "sentence"), [
    ((), [], "config.json has \\[\\] where the whole file should be a list of named fields"),
    (("model",), 3, "config.json has 3 where model should be a list of named fields"),
    (("version",), "2", "config.json has '2' where version should be a whole number"),
    (("train", "steps"), "300", "config.json has '300' where steps should be a whole number"),
    (("train", "steps"), True, "config.json has True where steps should be a whole number"),
    (("train", "clip"), None, "config.json has None where clip should be a number"),
    (("train", "compile"), "no", "config.json has 'no' where compile should be true or false"),
    (("data", "source"), 5, "config.json has 5 where source should be a text")])
def test_a_value_of_another_kind_names_file_and_field(tmp_path, path, value, sentence):
    values = json.loads(recipes.journey().to_json())
    if path:
        inner = values if len(path) == 1 else values[path[0]]
        inner[path[-1]] = value
    (tmp_path / "config.json").write_text(json.dumps(values if path else value))
    with pytest.raises(ValueError, match=sentence):
        RunConfig.read(tmp_path / "config.json")


def test_a_whole_number_is_a_number(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(recipes.journey().to_json().replace('"clip": 1.0', '"clip": 1'))
    assert RunConfig.read(path) == recipes.journey()


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipes.journey().train.steps = 1
    assert dataclasses.is_dataclass(ModelConfig) and dataclasses.is_dataclass(TrainConfig)
