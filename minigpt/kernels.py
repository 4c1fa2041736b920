"""Three parts of the model whose derivatives are worked out by hand: that is faster than what autograd finds.

Each is a `torch.autograd.Function`; `torch.compile` turns both of its directions into kernels.

Axes: B batch, T time in tokens, H heads, K width of one head, R numbers of a head that turn, N tokens of a batch,
n tokens of a piece, D model width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first R numbers of every head, (B, H, T, K), by the angles (T, R); leave the others.

    The number i turns together with i + R/2.
    """
    half = cos.shape[-1] // 2
    first, second, kept = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    cos, sin = cos[:, :half].to(x.dtype), sin[:, half:].to(x.dtype)
    turned = first * cos - second * sin, second * cos + first * sin
    return torch.cat((*turned, kept) if kept.shape[-1] else turned, dim=-1)


class Rotation(Function):
    """`rotate`, whose derivative is the turn back by the same angles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotate(slope, cos, -sin), None, None


class CausalAttention(Function):
    """Attention of a whole text to itself, in plain matrix products.

    The text is cut into pieces. Each piece of the queries meets the keys up to its own end, so most of the scores
    that the mask would remove are never computed. In bf16 on a CPU this beats PyTorch's fused kernel.

    Shapes  queries, keys, values (B, H, T, K) -> (B, H, T, K).
    Source  Dao et al. 2022, "FlashAttention", appendix B: a row of the scores' slopes needs of the others only
            the product of the output with its own slope.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, pieces: int) -> Tensor:
        T, K = queries.shape[2:]
        ctx.step, shares, mixed = -(-T // pieces), [], []
        for start in range(0, T, ctx.step):
            end = min(start + ctx.step, T)
            scores = queries[:, :, start:end] @ keys[:, :, :end].transpose(-1, -2)  # (B, H, n, end)
            later = torch.ones(end - start, end, dtype=torch.bool, device=scores.device).triu(start + 1)
            scores = (scores.float() * K**-0.5).masked_fill(later, -torch.inf)
            shares.append(scores.softmax(dim=-1).to(values.dtype))
            mixed.append(shares[-1] @ values[:, :, :end])
        output = torch.cat(mixed, dim=2)
        ctx.save_for_backward(queries, keys, values, output, *shares)
        return output

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, output, *shares = ctx.saved_tensors
        T, K = queries.shape[2:]
        common = (slope.float() * output.float()).sum(dim=-1, keepdim=True)  # (B, H, T, 1)
        to_queries, to_keys, to_values = [], torch.zeros_like(keys), torch.zeros_like(values)
        for start, share in zip(range(0, T, ctx.step), shares, strict=True):
            end = start + share.shape[2]
            mine, rest = slope[:, :, start:end], (0, 0, 0, T - end)
            to_shares = mine @ values[:, :, :end].transpose(-1, -2)  # (B, H, n, end)
            to_scores = share.float() * (to_shares.float() - common[:, :, start:end]) * K**-0.5
            to_scores = to_scores.to(queries.dtype)
            to_queries.append(to_scores @ keys[:, :, :end])
            to_keys = to_keys + F.pad(to_scores.transpose(-1, -2) @ queries[:, :, start:end], rest)
            to_values = to_values + F.pad(share.transpose(-1, -2) @ mine, rest)
        return torch.cat(to_queries, dim=2), to_keys, to_values, None


def mean_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats per token, in float32 whatever the logits are; where no token is paid for, 0.

    Shapes  logits (N, V), targets (N,), below 0 where nothing is paid -> ().
    """
    logits = logits.float()  # from here on the narrower ones are free
    return F.cross_entropy(logits, targets, reduction="sum") / n_paid(targets)


def n_paid(targets: Tensor) -> Tensor:
    """By how many tokens a sum is divided for its mean: by those that are paid for, and by 1 if none is."""
    return (targets >= 0).sum().clamp(min=1)


def nats_and_slopes(states: Tensor, matrix: Tensor, targets: Tensor, matrix_slope: Tensor) -> tuple[Tensor, Tensor]:
    """What n tokens cost together, and how that changes with each state; for targets below 0 nothing is paid.

    How it changes with the matrix is added to matrix_slope. Between the products everything is float32.

    Shapes  states (n, D), matrix (V, D), targets (n,), matrix_slope (V, D) -> (), (n, D).
    """
    logits = states @ matrix.T  # (n, V)
    exact = logits.float()
    nats = F.cross_entropy(exact, targets, reduction="sum")
    shares = exact.softmax(dim=-1)
    del exact  # it is large
    hit = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    slopes = shares.sub_(hit.float()).to(logits.dtype)  # (n, V)
    paid = (targets >= 0)[:, None]
    matrix_slope += slopes.T @ (states * paid)
    return nats, slopes @ matrix * paid


class ChunkedLoss(Function):
    """Mean nats per token, of the logits of so many tokens at a time: a (N, V) tensor never exists.

    Tokens with targets below 0 are left out of the mean; where all are, it is 0.
    The slopes are worked out along with the loss, while a chunk's logits are at hand, so that the backward pass
    need not compute the logits again. `derive` is `nats_and_slopes`, compiled or not.

    Shapes  x (N, D), weight (V, D), targets (N,) -> ().
    Source  Hsu et al. 2024, "Liger Kernel: Efficient Triton Kernels for LLM Training" (fused linear cross-entropy).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, chunk: int, derive: Callable) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        states, matrix, total = x.to(dtype), weight.to(dtype), 0.0
        exact = torch.promote_types(weight.dtype, torch.float32)  # chunks add up in it
        x_slope, weight_slope = torch.empty_like(x), torch.zeros_like(weight, dtype=exact)
        for start in range(0, len(x), chunk):
            rows = slice(start, start + chunk)
            nats, x_slope[rows] = derive(states[rows], matrix, targets[rows], weight_slope)
            total = total + nats
        ctx.slopes, ctx.dtype, ctx.n_paid = (x_slope, weight_slope), weight.dtype, n_paid(targets)
        return total / ctx.n_paid

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (x_slope, weight_slope), ctx.slopes = ctx.slopes, None
        share = slope / ctx.n_paid
        return x_slope.mul_(share), weight_slope.mul_(share).to(ctx.dtype), None, None, None
