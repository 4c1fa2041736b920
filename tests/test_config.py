import dataclasses

import pytest

from minigpt import recipes
from minigpt.config import ModelConfig, RunConfig, TrainConfig
from minigpt.model import GPT


def test_a_config_survives_json(tmp_path):
    for name in recipes.RECIPES:
        config = recipes.recipe(name)
        (tmp_path / "config.json").write_text(config.to_json())
        assert RunConfig.read(tmp_path / "config.json") == config


@pytest.mark.parametrize(("name", "published"), [("neox_1b", 1_011_781_632), ("llama_1b", 1_100_048_384)])
def test_published_parameter_counts_come_out_exactly(name, published):
    """Pythia-1B and TinyLlama-1.1B, as their model cards give them."""
    assert recipes.recipe(name).model.n_parameters == published


def test_the_formula_counts_what_the_model_has(model_config):
    assert model_config.n_parameters == sum(weight.numel() for weight in GPT(model_config).parameters())


def test_heads_that_do_not_divide_the_width_are_refused_with_the_nearest_that_do():
    with pytest.raises(ValueError, match="d_model 128 is not divisible by n_heads 5; choose 4"):
        dataclasses.replace(recipes.journey().model, n_heads=5)


@pytest.mark.parametrize(("field", "value", "sentence"), [
    ("n_kv_heads", 3, "not divisible by n_kv_heads 3"), ("rotary_fraction", 1.5, "between 0 and 1"),
    ("n_layers", 0, "at least 1"), ("rotary_fraction", 0.04, "in pairs")])
def test_an_impossible_model_is_refused(field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(recipes.journey().model, **{field: value})


@pytest.mark.parametrize(("field", "value", "sentence"), [
    ("warmup_steps", 10_000, "between 0 and steps"), ("accumulate", 3, "choose accumulate 2"),
    ("min_learning_rate", 1.0, "min_learning_rate")])
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


def test_a_field_that_is_missing_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"name": "x"}')
    with pytest.raises(ValueError, match="lacks the field 'model'"):
        RunConfig.read(path)


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipes.journey().train.steps = 1
    assert dataclasses.is_dataclass(ModelConfig) and dataclasses.is_dataclass(TrainConfig)
