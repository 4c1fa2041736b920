"""Lighter weights for generation: writing one token reads every weight once, so half the bytes is half the time.

Axes: M rows of input, N outputs, K inputs of a matrix.
"""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.model import GPT

Weights = Literal["float32", "bfloat16", "int8"]

MANY_ROWS = 16
"""From more rows than this on it pays to write an integer matrix out in bfloat16 and to multiply by that."""


def lighter(model: GPT, weights: Weights) -> GPT:
    """A copy of the model that computes in bfloat16 and keeps its matrices in bfloat16 or in 8-bit integers.

    The embedding and the norms stay in bfloat16; `float32` is the model itself. It cannot be trained.
    """
    if weights == "float32":
        return model
    light = copy.deepcopy(model).to(torch.bfloat16).eval().requires_grad_(False)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            light.set_submodule(name, Int8Linear(layer) if weights == "int8" else bfloat16_linear(layer))
    return light


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit integers (N, K) and one scale a row (N,), so that integers * scale is the weight but for rounding.

    Symmetric: a row's largest number becomes 127 or -127, and 0 stays 0. No number is off by more than half a scale.
    Source  Dettmers et al. 2022, "LLM.int8()", section 2.1 (absmax, one scale a row).
    """
    scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights; the product turns them back into numbers as it reads them."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        integers, scale = quantize(layer.weight.detach().float())
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale.bfloat16())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (M, K)
        if len(rows) > MANY_ROWS:
            return F.linear(x, self.integers.to(x.dtype) * self.scale[:, None], self.bias)
        made = torch._weight_int8pack_mm(rows, self.integers, self.scale)  # (M, N)
        return (made if self.bias is None else made + self.bias).view(*x.shape[:-1], -1)


def bfloat16_linear(layer: nn.Linear) -> nn.Module:
    """The layer in bfloat16; on a processor that oneDNN knows, with the weights in the order in which it reads them."""
    packs = layer.weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return PackedLinear(layer) if packs else copy.deepcopy(layer).to(torch.bfloat16)


class PackedLinear(nn.Module):
    """A linear layer whose bfloat16 weights lie in oneDNN's own order."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().bfloat16(), 1)
        self.bias = None if layer.bias is None else layer.bias.detach().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
