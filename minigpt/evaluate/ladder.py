"""The ladder: three models that count, measured on the same tokens as the one that learns.

Axes: N predicted tokens, V vocabulary.
"""

import math

import numpy as np
import torch
from torch import Tensor

from minigpt.corpus import Shards
from minigpt.evaluate.loss import Loss, bits_per_byte

SMOOTHING = 0.01
"""Added to every count of a pair, so that a pair that was never seen is unlikely and not impossible."""

MOST_COUNTED, PIECE = 200_000_000, 4_000_000
"""Tokens of the training text that the simple models count at most, and how many at a time."""


def ladder(train: Shards, loss: Loss, byte_lengths: Tensor) -> dict[str, float]:
    """Bits per byte of the uniform, unigram and bigram models on the tokens of `loss`. Lower is better.

    Shapes  byte_lengths (V,): bytes that each token stands for.
    """
    bytes_of_targets = byte_lengths[loss.targets]
    return {name: bits_per_byte(nats, bytes_of_targets)
            for name, nats in counting_models(train, loss, len(byte_lengths)).items()}


def counting_models(train: Shards, loss: Loss, vocab_size: int) -> dict[str, Tensor]:
    """What the uniform, unigram and bigram models pay for each token of `loss`, in nats, each (N,)."""
    asked, place = np.unique(loss.previous.numpy() * vocab_size + loss.targets.numpy(), return_inverse=True)
    firsts, seconds, pairs = count(train, asked, vocab_size)
    unigram = (seconds + 1) / (seconds + 1).sum()
    bigram = (pairs[place] + SMOOTHING) / (firsts[loss.previous] + SMOOTHING * vocab_size)
    return {
        "uniform": torch.full((len(loss.targets),), math.log(vocab_size), dtype=torch.double),
        "unigram": torch.from_numpy(unigram[loss.targets]).log().neg(),
        "bigram": torch.from_numpy(bigram).log().neg(),
    }


def count(shards: Shards, asked: np.ndarray, vocab_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often each token comes first and second in a pair of neighbors, and how often the asked pairs come.

    Only these pairs, because a table of all would have 32,000 times 32,000 cells; and of a long text only the
    beginning.
    Shapes  asked (U,): sorted, first token times vocab_size plus second; the counts are (V,), (V,) and (U,).
    """
    firsts, seconds, pairs = np.zeros(vocab_size), np.zeros(vocab_size), np.zeros(len(asked))
    left = MOST_COUNTED
    for ids in shards.files:
        for begin in range(0, min(len(ids) - 1, left), PIECE):
            piece = ids[begin : begin + PIECE + 1].astype(np.int64)
            firsts += np.bincount(piece[:-1], minlength=vocab_size)
            seconds += np.bincount(piece[1:], minlength=vocab_size)
            codes = piece[:-1] * vocab_size + piece[1:]
            places = np.minimum(np.searchsorted(asked, codes), len(asked) - 1)
            pairs += np.bincount(places[asked[places] == codes], minlength=len(asked))
        left = max(0, left - len(ids))
    return firsts, seconds, pairs
