"""How far a measured figure may lie from the true one: intervals at 95 %.

Axes: N predicted tokens.
"""

import math

import numpy as np
from torch import Tensor

DRAWS = 1000
Z = 1.959964
"""The standard normal deviate that leaves 2.5 % above it."""

Interval = tuple[float, float]


def bits_per_byte_interval(nats: Tensor, byte_lengths: Tensor, texts: Tensor, seed: int = 0) -> Interval | None:
    """Where 95 % of the bits per byte lie if the validation texts are drawn again, with replacement; None for one text.

    Whole texts are drawn and not tokens, because the tokens of one text are hard or easy together. It is the
    bootstrap's percentile interval. It does not cover the choice of the source, nor that of the seed.
    Shapes  nats, byte_lengths, texts (N,): for each predicted token; texts tells apart the documents, from 0 on.
    """
    bits = np.bincount(texts, weights=nats.double()) / math.log(2)  # of each text
    lengths = np.bincount(texts, weights=byte_lengths.double())
    present = lengths > 0
    bits, lengths = bits[present], lengths[present]
    if len(bits) < 2:
        return None
    chance = np.random.default_rng(seed)
    drawn = [chance.integers(len(bits), size=len(bits)) for _ in range(DRAWS)]
    low, high = np.percentile([bits[some].sum() / lengths[some].sum() for some in drawn], [2.5, 97.5])
    return float(low), float(high)


def share_interval(share: float, n: int) -> Interval:
    """Wilson's interval of a share that was found in n independent trials; it stays between 0 and 1."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(0.0, middle - reach), min(1.0, middle + reach)
