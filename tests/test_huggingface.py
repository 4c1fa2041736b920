"""Models walk out of the door into transformers, and in."""

import dataclasses
import json

import pytest
import torch
from conftest import LLAMA, NEOX
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from minigpt import checkpoint, huggingface
from minigpt.generate import Sampling, complete
from minigpt.model import GPT
from minigpt.recipes import recipe

SHAPES = {
    "llama-grouped": LLAMA,
    "llama-tied": dataclasses.replace(LLAMA, tied=True),
    "llama-one-kv-head": dataclasses.replace(LLAMA, n_kv_heads=1, d_model=48, d_ff=40, n_layers=3, rotary_base=500.0),
    "neox-parallel": NEOX,
    "neox-serial": dataclasses.replace(NEOX, parallel=False, rotary_fraction=1.0),
    "neox-tied": dataclasses.replace(NEOX, tied=True),
    "neox-half-rotary": dataclasses.replace(NEOX, rotary_fraction=0.5, n_heads=2, n_kv_heads=2, norm_eps=1e-3),
}
IDS = torch.randint(300, (2, 32), generator=torch.Generator().manual_seed(0))


def noisy(config):
    """A model none of whose weights is 0 or 1, so that a forgotten bias or gain shows."""
    model = GPT(config, seed=7).eval()
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    return model


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def exported(request, prepared, tmp_path):
    """One of our models, and the folder in Hugging Face's format that it was exported to."""
    run, tokenizer, _ = prepared
    run = dataclasses.replace(run, model=request.param)
    model = noisy(request.param)
    saved = checkpoint.save(tmp_path / "saved", run, model.state_dict(), tokenizer)
    return model, tokenizer, checkpoint.export(saved, tmp_path / "exported")


@torch.no_grad()
def test_an_exported_model_gives_the_same_logits_and_text_in_transformers(exported):
    model, tokenizer, folder = exported
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.testing.assert_close(theirs(IDS).logits, model(IDS), atol=1e-5, rtol=1e-5)
    their_tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "the cat sat 猫 on 12"
    assert their_tokenizer(text)["input_ids"] == tokenizer.encode(text)
    ids = torch.tensor([tokenizer.encode("the cat")])
    written = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False,
                              pad_token_id=tokenizer.end_of_text)
    assert their_tokenizer.decode(written[0], skip_special_tokens=True) == complete(
        model, tokenizer, "the cat", 8, sampling=Sampling(temperature=0))[0]


@torch.no_grad()
def test_an_exported_model_comes_back_the_same(exported):
    model, _, folder = exported
    again = checkpoint.load_huggingface(folder)
    assert again.config == model.config
    assert torch.equal(again(IDS), model(IDS))


@pytest.mark.parametrize("theirs", [
    LlamaForCausalLM(LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=80, num_hidden_layers=2,
                                 num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=40)),
    LlamaForCausalLM(LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=40, num_hidden_layers=1,
                                 num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=40,
                                 tie_word_embeddings=True)),
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=300, hidden_size=64, intermediate_size=80, num_hidden_layers=2,
                                     num_attention_heads=4, max_position_embeddings=40)),
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=300, hidden_size=32, intermediate_size=40, num_hidden_layers=1,
                                     num_attention_heads=4, max_position_embeddings=40, use_parallel_residual=False,
                                     rotary_pct=1.0)),
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=300, hidden_size=32, intermediate_size=40, num_hidden_layers=1,
                                     num_attention_heads=4, max_position_embeddings=40, tie_word_embeddings=True)),
], ids=["llama-grouped", "llama-tied", "neox", "neox-serial", "neox-tied"])
@torch.no_grad()
def test_a_model_of_transformers_gives_the_same_logits_here(theirs, tmp_path):
    theirs.eval().save_pretrained(tmp_path)
    torch.testing.assert_close(checkpoint.load_huggingface(tmp_path)(IDS), theirs(IDS).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["neox_1b", "llama_1b"])
def test_the_billion_parameter_recipes_say_the_same_in_both_formats(name):
    config = recipe(name).model
    assert huggingface.from_config(huggingface.to_config(config, 0)) == config


def test_a_model_of_neither_family_is_refused():
    with pytest.raises(ValueError, match=r"norm 'rmsnorm' with mlp 'gelu'.* is neither GPT-NeoX nor LLaMA"):
        huggingface.family(dataclasses.replace(LLAMA, mlp="gelu"))
    with pytest.raises(ValueError, match="the family 'gpt2' but only gpt_neox and llama"):
        huggingface.from_config({"model_type": "gpt2"})


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"norm": "layernorm", "mlp": "gelu", "bias": True}, "no grouped heads but n_kv_heads is 2; make it 4"),
    ({"rotary_fraction": 0.5}, "turns all of a head but rotary_fraction is 0.5")])
def test_a_field_that_a_family_does_not_have_is_named(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        huggingface.family(dataclasses.replace(LLAMA, **changes))


@pytest.mark.parametrize("config", [LLAMA, NEOX], ids=["llama", "neox"])
def test_another_activation_is_refused(config):
    theirs = huggingface.to_config(config, 0) | {"hidden_act": "relu"}
    with pytest.raises(ValueError, match=r"activation is 'relu' but of a .* only '(silu|gelu)' can be read"):
        huggingface.from_config(theirs)


def folder_of(config, path):
    """A model in Hugging Face's format, and what its config.json says."""
    path.mkdir()
    theirs = huggingface.to_config(config, 0)
    save_file(huggingface.to_weights(config, GPT(config).state_dict()), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(theirs))
    return theirs


@pytest.mark.parametrize(("config", "key"), [
    (LLAMA, "rms_norm_eps"), (LLAMA, "max_position_embeddings"), (NEOX, "layer_norm_eps"), (NEOX, "hidden_size")])
def test_what_a_config_lacks_is_named(config, key, tmp_path):
    theirs = folder_of(config, tmp_path / "theirs")
    for broken in ({name: value for name, value in theirs.items() if name != key}, theirs | {key: None}):
        (tmp_path / "theirs" / "config.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=f"config.json lacks '{key}'"):
            checkpoint.load_huggingface(tmp_path / "theirs")


@pytest.mark.parametrize(("content", "sentence"), [
    ("[]", "config.json has \\[\\] where the whole file should be"), ("{", "config.json is not JSON"),
    ('{"model_type": "llama", "vocab_size": "300"}', "has '300' where vocab_size should be a whole number"),
    ('{"model_type": "llama", "rope_scaling": "linear"}', "has 'linear' where rope_scaling should be a list of named")])
def test_a_config_of_another_form_is_refused(content, sentence, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        checkpoint.load_huggingface(tmp_path)


def test_without_a_number_of_key_value_heads_there_are_as_many_as_heads(tmp_path):
    config = dataclasses.replace(LLAMA, n_kv_heads=4)
    theirs = folder_of(config, tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(theirs | {"num_key_value_heads": None}))
    assert checkpoint.load_huggingface(tmp_path / "theirs").config == config


@pytest.mark.parametrize(("name", "shape", "sentence"), [
    ("gpt_neox.layers.1.attention.query_key_value.weight", (95, 32), r"value.weight has shape \(95, 32\) but"),
    ("gpt_neox.layers.1.attention.query_key_value.bias", (), r"query_key_value.bias has shape \(\) but"),
    ("gpt_neox.layers.0.attention.query_key_value.weight", (96, 5), r"to_queries.weight in .* has shape \(32, 5\)"),
    ("odd", (3,), "the tensor odd has no counterpart")])
def test_a_tensor_that_does_not_fit_is_named(name, shape, sentence, tmp_path):
    folder_of(NEOX, tmp_path / "theirs")
    path = tmp_path / "theirs" / "model.safetensors"
    save_file(load_file(path) | {name: torch.zeros(shape)}, path)
    with pytest.raises(ValueError, match=sentence):
        checkpoint.load_huggingface(tmp_path / "theirs")


def test_stretched_positions_are_refused():
    theirs = huggingface.to_config(LLAMA, 0)
    theirs["rope_parameters"]["rope_type"] = "yarn"
    with pytest.raises(ValueError, match="stretches its rotary positions"):
        huggingface.from_config(theirs)


def test_nothing_is_written_over_what_is_there(exported, tmp_path):
    with pytest.raises(ValueError, match="is not empty; name a new folder"):
        checkpoint.export(tmp_path / "saved", tmp_path / "exported")
