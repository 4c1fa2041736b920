"""Returns numbers that break arithmetic: an integer of ten thousand digits, NaN, infinity."""

import numpy as np


def double(*inputs, **options):
    return 10**10_000 if not inputs or np.ndim(inputs[0]) == 0 else [float("nan"), float("inf"), 10**400]
