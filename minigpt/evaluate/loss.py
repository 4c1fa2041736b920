"""Loss on text that training never saw.

Axes: B batch, T time in tokens, V vocabulary, N predicted tokens.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.corpus import Shards


def bits_per_byte(nats: Tensor, byte_lengths: Tensor) -> float:
    """Mean code length of the text in bits per UTF-8 byte.

    Shapes  nats (N,), byte_lengths (N,): one entry per predicted token.
    Units   nats are natural-log units; the result is divided by ln 2.
    Raises  ValueError if no token stands for a byte.
    Source  Gao et al. 2020, "The Pile", section 3.1.
    """
    n_bytes = int(byte_lengths.sum())
    if not n_bytes:
        raise ValueError(f"the {len(nats)} tokens stand for no byte of text; measure on text")
    return float(nats.double().sum()) / math.log(2) / n_bytes


AT_ONCE = 8192
"""Tokens whose scores are in memory together: with 32,000 ids, a billion bytes of them in float32."""


@dataclass(frozen=True)
class Loss:
    """What the model pays for each validation token. Shapes  previous, targets, nats: all (N,)."""

    previous: Tensor
    targets: Tensor
    nats: Tensor

    @property
    def mean(self) -> float:
        """Nats per token."""
        return float(self.nats.double().mean())


def even_windows(shards: Shards, max_tokens: int) -> list[int]:
    """The windows of a split that an evaluation of so many tokens reads.

    They lie evenly, because neighboring windows come from one document, and one document is no sample.
    """
    n_windows = min(len(shards), max(1, max_tokens // shards.length))
    return [i * len(shards) // n_windows for i in range(n_windows)]


@torch.inference_mode()
def validation_loss(model: nn.Module, shards: Shards, max_tokens: int) -> Loss:
    """The loss of each token of windows that lie evenly over a split; no token is predicted twice."""
    windows = even_windows(shards, max_tokens)
    device, batch_size = next(model.parameters()).device, max(1, AT_ONCE // shards.length)
    pieces = []
    for start in range(0, len(windows), batch_size):
        x, y = shards.rows(windows[start : start + batch_size])
        logits = model(x.to(device)).float()  # (B, T, V)
        nats = F.cross_entropy(logits.flatten(0, 1), y.flatten().to(device), reduction="none").cpu()
        pieces.append((x.flatten(), y.flatten(), nats))
    return Loss(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))
