"""Derivatives by hand: they are those that autograd finds, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from minigpt.corpus.shards import IGNORED
from minigpt.kernels import CausalAttention, ChunkedLoss, Rotation, mean_nats, nats_and_slopes


def draw(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.double, generator=generator).requires_grad_()


@pytest.mark.parametrize("width", [2, 4, 8])
def test_turning_back_is_the_derivative_of_turning(width):
    angles = torch.randn(5, width // 2, dtype=torch.double)
    cos, sin = torch.cat((angles.cos(), angles.cos()), dim=-1), torch.cat((-angles.sin(), angles.sin()), dim=-1)
    x = draw(2, 3, 5, 8)
    assert gradcheck(Rotation.apply, (x, cos, sin))
    torch.testing.assert_close(Rotation.apply(x, cos, sin).norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
def test_attention_in_pieces_is_attention_and_so_are_its_derivatives(pieces):
    parts = [draw(2, 3, 7, 4) for _ in range(3)]
    whole = F.scaled_dot_product_attention(*parts, is_causal=True)
    slope = torch.randn(2, 3, 7, 4, dtype=torch.double)
    wanted = torch.autograd.grad(whole, parts, slope)
    made = CausalAttention.apply(*parts, pieces)
    torch.testing.assert_close(made, whole, atol=1e-6, rtol=1e-6)  # its softmax is float32
    torch.testing.assert_close(torch.autograd.grad(made, parts, slope), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ignored", [[], [2, 3, 8]])
@pytest.mark.parametrize("chunk", [1, 4, 9, 20])
def test_a_loss_in_chunks_has_the_value_and_the_derivatives_of_the_whole(chunk, ignored):
    x, weight, targets = draw(9, 5), draw(11, 5), torch.arange(9) % 4
    targets[ignored] = IGNORED
    whole, made = F.cross_entropy(x @ weight.T, targets), ChunkedLoss.apply(x, weight, targets, chunk, nats_and_slopes)
    torch.testing.assert_close(made, whole, atol=1e-6, rtol=1e-6, check_dtype=False)
    wanted = torch.autograd.grad(3 * whole, (x, weight))
    torch.testing.assert_close(torch.autograd.grad(3 * made, (x, weight)), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mean", [
    lambda x, weight, targets: mean_nats(x @ weight.T, targets),
    lambda x, weight, targets: ChunkedLoss.apply(x, weight, targets, 4, nats_and_slopes)], ids=["at once", "in chunks"])
def test_where_nothing_is_paid_for_the_loss_is_0_and_nothing_moves(mean):
    """Divided by the number of its tokens, it would be 0 / 0, and the whole batch with it."""
    x, weight = draw(9, 5), draw(11, 5)
    loss = mean(x, weight, torch.full((9,), IGNORED))
    assert loss.item() == 0
    assert not any(slope.any() for slope in torch.autograd.grad(loss, (x, weight)))


def test_a_loss_in_chunks_has_no_second_backward_pass():
    """Its slopes are used up; going on with them would give wrong numbers without a word."""
    x, weight = draw(9, 5), draw(11, 5)
    made = ChunkedLoss.apply(x, weight, torch.arange(9), 4, nats_and_slopes)
    made.backward(retain_graph=True)
    with pytest.raises(TypeError):
        made.backward()
