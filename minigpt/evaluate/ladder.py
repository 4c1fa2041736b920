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
    vocab_size = len(byte_lengths)
    pairs = count_pairs(train, vocab_size)  # (V, V)
    bytes_of_targets = byte_lengths[loss.targets]
    unigram = pairs.sum(dim=0) + 1
    bigram = pairs + SMOOTHING
    nats = {
        "uniform": torch.full((len(loss.targets),), 1 / vocab_size).log().neg(),
        "unigram": (unigram / unigram.sum())[loss.targets].log().neg(),
        "bigram": (bigram / bigram.sum(dim=1, keepdim=True))[loss.previous, loss.targets].log().neg(),
    }
    return {name: bits_per_byte(values, bytes_of_targets) for name, values in nats.items()}


def count_pairs(shards: Shards, vocab_size: int) -> Tensor:
    """How often each token follows each token. Shapes  (V, V): row = first token, column = second."""
    counts = torch.zeros(vocab_size * vocab_size, dtype=torch.double)
    for file in shards.files:
        ids = torch.from_numpy(file.astype("int64"))
        counts += torch.bincount(ids[:-1] * vocab_size + ids[1:], minlength=len(counts))
    return counts.view(vocab_size, vocab_size)
