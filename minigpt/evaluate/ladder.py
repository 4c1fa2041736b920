"""The ladder: three models that count, measured on the same tokens as the one that learns.

Axes: N predicted tokens, V vocabulary.
"""

import torch
from torch import Tensor

from minigpt.corpus import Shards
from minigpt.evaluate.loss import Loss, bits_per_byte

SMOOTHING = 0.01
"""Added to every count of a pair, so that a pair that was never seen is unlikely and not impossible."""


def ladder(train: Shards, loss: Loss, byte_lengths: Tensor) -> dict[str, float]:
    """Bits per byte of the uniform, unigram and bigram models on the tokens of `loss`. Lower is better.

    Shapes  byte_lengths (V,): bytes that each token stands for.
    """
    bytes_of_targets = byte_lengths[loss.targets]
    return {name: bits_per_byte(nats, bytes_of_targets)
            for name, nats in counting_models(train, loss, len(byte_lengths)).items()}


def counting_models(train: Shards, loss: Loss, vocab_size: int) -> dict[str, Tensor]:
    """What the uniform, unigram and bigram models pay for each token of `loss`, in nats, each (N,)."""
    pairs = count_pairs(train, vocab_size)  # (V, V)
    unigram = pairs.sum(dim=0) + 1
    bigram = pairs + SMOOTHING
    return {
        "uniform": torch.full((len(loss.targets),), 1 / vocab_size).log().neg(),
        "unigram": (unigram / unigram.sum())[loss.targets].log().neg(),
        "bigram": (bigram / bigram.sum(dim=1, keepdim=True))[loss.previous, loss.targets].log().neg(),
    }


def count_pairs(shards: Shards, vocab_size: int) -> Tensor:
    """How often each token follows each token. Shapes  (V, V): row = first token, column = second."""
    counts = torch.zeros(vocab_size * vocab_size, dtype=torch.double)
    for file in shards.files:
        ids = torch.from_numpy(file.astype("int64"))
        counts += torch.bincount(ids[:-1] * vocab_size + ids[1:], minlength=len(counts))
    return counts.view(vocab_size, vocab_size)
