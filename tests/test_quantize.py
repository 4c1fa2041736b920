"""Lighter weights: what rounding may cost, and that no shape of the work changes the answer."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minigpt.corpus import Shards
from minigpt.evaluate.loss import bits_per_byte, validation_loss
from minigpt.generate import Sampling, complete, generate
from minigpt.model import GPT, Cache
from minigpt.quantize import MANY_ROWS, Int8Linear, lighter, quantize
from minigpt.train import train


def test_no_weight_moves_by_more_than_half_a_step():
    weight = torch.randn(20, 33) * torch.logspace(-4, 4, 20)[:, None]
    integers, scale = quantize(weight)
    assert integers.dtype == torch.int8 and integers.abs().max() == 127
    step = scale.float()[:, None]
    error = (integers * step - weight).abs()
    assert (error <= 0.501 * step).all() and error.max() > 0


@pytest.mark.parametrize("width", [64, 24])
def test_no_weight_of_a_layer_is_off_by_more_than_half_a_step_as_the_layer_uses_it(width):
    """Integers made for a scale that is then rounded would be off by up to a whole one."""
    layer = nn.Linear(width, 300)
    light = Int8Linear(layer)
    step = light.scale.float()[:, None]
    used = (light.integers * step)[:, :width]
    assert ((used - layer.weight).abs() <= 0.501 * step).all()


def test_a_row_of_zeros_stays_zero():
    integers, scale = quantize(torch.zeros(2, 4))
    assert not integers.any() and scale.isfinite().all()


@pytest.mark.parametrize(("width", "bias"), [(64, True), (64, False), (24, True), (344, False), (7, True)])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (1, MANY_ROWS), (1, MANY_ROWS + 1), (2, 40)], ids=str)
def test_the_product_is_that_with_the_written_out_weights_however_many_rows_and_inputs(shape, width, bias):
    """A kernel reads 16 inputs at once: of 344 or 24 it would read the last 8 together with the next row's first."""
    layer = nn.Linear(width, 96, bias=bias)
    light, x = Int8Linear(layer), torch.randn(*shape, width).bfloat16()
    wanted = F.linear(x.float(), (light.integers * light.scale.float()[:, None])[:, :width],
                      None if light.bias is None else light.bias.float())
    torch.testing.assert_close(light(x).float(), wanted, atol=0.02, rtol=0.01)


def test_in_float32_joined_matrices_give_the_same_logits_and_write_the_same_tokens(model_config):
    model = GPT(model_config, seed=1).eval()
    light, ids = lighter(model, "float32"), torch.randint(model_config.vocab_size, (3, 20))
    torch.testing.assert_close(light(ids), model(ids), atol=1e-5, rtol=1e-5)
    sampling = Sampling(temperature=0)
    assert torch.equal(generate(light, ids[:, :5], 20, sampling), generate(model, ids[:, :5], 20, sampling))


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_a_lighter_model_writes_in_a_batch_what_it_writes_alone(model_config, weights):
    light = lighter(GPT(model_config, seed=1).eval(), weights)
    ids = torch.randint(model_config.vocab_size, (3, 7), generator=torch.Generator().manual_seed(5))
    together, cache = light(ids), Cache(model_config, 1, ids.device, torch.float32, places=7)
    alone = torch.cat([light(piece, cache) for piece in ids[:1].split([4, 1, 1, 1], dim=1)], dim=1)
    rounding = {"float32": 1e-5, "bfloat16": 0.01, "int8": 0.01}[weights]
    torch.testing.assert_close(together[:1], alone, atol=rounding, rtol=0.01)


@pytest.mark.parametrize("shape", [(2, 20), (1, MANY_ROWS)], ids=str)
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_a_lighter_model_says_nearly_the_same_and_leaves_the_first_alone(model_config, weights, shape):
    model_config = dataclasses.replace(model_config, d_ff=44)
    model = GPT(model_config, seed=1).eval()
    ids = torch.randint(model_config.vocab_size, shape)
    before = model(ids)
    light = lighter(model, weights)
    after = light(ids).float()
    assert torch.equal(model(ids), before) and not torch.equal(after, before)
    assert (after - before).std() < 0.02 * before.std()
    assert not any(isinstance(layer, nn.Linear) for layer in light.modules())


@pytest.mark.parametrize("rows", [MANY_ROWS, 8192])
def test_lighter_weights_cost_less_than_a_hundredth_of_a_bit_and_write_text(prepared, monkeypatch, rows):
    config, tokenizer, folder = prepared
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, d_ff=44))
    train(config, tokenizer, folder / "shards", folder, progress=False)
    from minigpt.checkpoint import load

    model = load(folder)[0]
    split = Shards(folder / "shards", "validation", tokenizer, 16)
    monkeypatch.setattr("minigpt.evaluate.loss.AT_ONCE", rows)
    lengths = torch.from_numpy(tokenizer.byte_lengths())
    paid = {}
    for weights in ("float32", "bfloat16", "int8"):
        loss = validation_loss(lighter(model, weights), split, 2000)
        paid[weights] = bits_per_byte(loss.nats, lengths[loss.targets])
        assert all(text.startswith("the") for text in complete(lighter(model, weights), tokenizer, "the", 5, samples=3))
    assert max(paid.values()) - min(paid.values()) < 0.01
    assert paid["float32"] != paid["int8"]
