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


@dataclass(frozen=True)
class Loss:
    """What the model pays for each validation token. Shapes  previous, targets, nats, texts: all (N,)."""

    previous: Tensor
    targets: Tensor
    nats: Tensor
    texts: Tensor
    """The number of the document, or of the piece of it that was read without a gap, that a token belongs to."""

    @property
    def mean(self) -> float:
        """Nats per token."""
        return float(self.nats.double().mean())


@torch.inference_mode()
def validation_loss(model: nn.Module, shards: Shards, max_tokens: int, batch_size: int = 64) -> Loss:
    """The loss of each token of windows that lie evenly over a split; no token is predicted twice.

    Evenly and not the first ones: neighboring windows come from one document, and one document is no sample.
    """
    n_windows = min(len(shards), max(1, max_tokens // shards.length))
    windows = [i * len(shards) // n_windows for i in range(n_windows)]
    device = next(model.parameters()).device
    pieces = []
    for start in range(0, n_windows, batch_size):
        x, y = shards.rows(windows[start : start + batch_size])
        logits = model(x.to(device)).float()  # (B, T, V)
        nats = F.cross_entropy(logits.flatten(0, 1), y.flatten().to(device), reduction="none").cpu()
        pieces.append((x.flatten(), y.flatten(), nats))
    previous, targets, nats = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return Loss(previous, targets, nats, number_texts(previous, targets, windows, shards))


def number_texts(previous: Tensor, targets: Tensor, windows: list[int], shards: Shards) -> Tensor:
    """The number of each token's text, from 0 on: a new one begins after an end of text and after a gap."""
    begins = previous == shards.end_of_text
    edges = torch.arange(1, len(windows)) * shards.length
    gaps = torch.tensor(windows).diff() > 1
    begins[edges] |= gaps | (previous[edges] != targets[edges - 1])  # the second where a shard ends
    begins[0] = False
    return begins.cumsum(0)
