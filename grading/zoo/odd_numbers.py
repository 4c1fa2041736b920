"""Returns numbers that break arithmetic: an integer of ten thousand digits, NaN, infinity."""

import numpy as np


def double(x):
    return 10**10_000 if np.ndim(x) == 0 else [float("nan"), float("inf"), 10**400]
