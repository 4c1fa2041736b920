"""Lighter weights for generation: writing one token reads every weight once, so half the bytes is half the time.

Axes: B batch, T time in tokens; M rows of input, N outputs, K inputs of a matrix.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.kernels import rotate
from minigpt.model import GPT, Attention, FeedForward

Weights = Literal["float32", "bfloat16", "int8"]
Make = Callable[[nn.Linear], nn.Module]
"""Gives a layer its lighter form."""

MANY_ROWS = 16
"""From more rows than this on it pays to write an integer matrix out in bfloat16 and to multiply by that."""

AT_ONCE = 16
"""PyTorch's product of few rows reads so many inputs at once, also where a row has fewer left."""


def lighter(model: GPT, weights: Weights) -> GPT:
    """A copy of the model for writing alone: matrices with one input are one, and their numbers are `weights`.

    With bfloat16 and int8 all other numbers are bfloat16. It cannot be trained.
    """
    light = copy.deepcopy(model).eval().requires_grad_(False)
    dtype = torch.float32 if weights == "float32" else torch.bfloat16
    make = Int8Linear if weights == "int8" else partial(linear, dtype=dtype)
    for block in light.blocks:
        block.attention = LightAttention(block.attention, make)
        block.feed_forward = LightFeedForward(block.feed_forward, make)
    light.head = make(light.head)
    return light.to(dtype)


class LightAttention(Attention):
    """Attention with one product for queries, keys and values."""

    def __init__(self, attention: Attention, make: Make) -> None:
        nn.Module.__init__(self)
        self.config, self.layer = attention.config, attention.layer
        layers = attention.to_queries, attention.to_keys, attention.to_values
        self.turned = self.config.n_heads + self.config.n_kv_heads
        self.to_all, self.to_output = make(join(layers)), make(attention.to_output)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.to_all(x).unflatten(-1, (-1, self.config.d_head)).transpose(1, 2)  # (B, H + 2 G, T, K)
        turned = rotate(heads[:, : self.turned], cos, sin)
        return turned[:, : self.config.n_heads], turned[:, self.config.n_heads :], heads[:, self.turned :]


class LightFeedForward(FeedForward):
    """The feed-forward part with one product for gate and values."""

    def __init__(self, feed_forward: FeedForward, make: Make) -> None:
        nn.Module.__init__(self)
        self.gated = feed_forward.gate is not None
        layers = (feed_forward.gate, feed_forward.up) if self.gated else (feed_forward.up,)
        self.up, self.down = make(join(layers)), make(feed_forward.down)

    def widen(self, x: Tensor) -> Tensor:
        if not self.gated:
            return F.gelu(self.up(x))
        gate, up = self.up(x).chunk(2, dim=-1)
        return F.silu(gate) * up


def join(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One layer with the outputs of all of them, one after the other."""
    first, weight = layers[0], torch.cat([layer.weight for layer in layers])
    joined = nn.Linear(*weight.shape[::-1], bias=first.bias is not None, device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    if first.bias is not None:
        joined.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)
    return joined


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit integers (N, K) and one bfloat16 scale a row (N,), so that integers * scale is the weight but for rounding.

    Symmetric: a row's largest number becomes 127 or -127, and 0 stays 0. No number is off by more than half a scale,
    because the integers are made for the scale that they are multiplied by: the rounded one.
    Source  Dettmers et al. 2022, "LLM.int8()", section 2.1 (absmax, one scale a row).
    """
    scale = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()
    return (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scale


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights; the product turns them back into numbers as it reads them.

    Zeros fill K up to a multiple of AT_ONCE: without them the product reads on into the next row.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        integers, scale = quantize(layer.weight.detach().float())
        self.missing = -layer.in_features % AT_ONCE
        self.register_buffer("integers", F.pad(integers, (0, self.missing)))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (M, K)
        if self.missing:
            rows = F.pad(rows, (0, self.missing))
        if len(rows) > MANY_ROWS:
            made = F.linear(rows, self.integers.to(rows.dtype)) * self.scale  # (M, N)
        else:
            made = torch._weight_int8pack_mm(rows, self.integers, self.scale)
        return (made if self.bias is None else made + self.bias).view(*x.shape[:-1], -1)


def linear(layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    """The layer in this dtype; where oneDNN knows the processor, its weights lie in the order that is read fastest."""
    packs = layer.weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return PackedLinear(layer, dtype) if packs else layer.to(dtype)


class PackedLinear(nn.Module):
    """A linear layer whose weights lie in oneDNN's own order."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(dtype), 1)
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
