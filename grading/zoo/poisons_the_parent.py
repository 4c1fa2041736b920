"""Changes modules, caches and shared objects, hoping that the next worker inherits them."""

import builtins
import sys

import numpy as np
import torch

builtins.print = builtins.len = builtins.sum = lambda *_, **__: 0
np.ndarray, torch.Tensor, np.multiply = None, None, None
sys.path[:] = []
sys.modules.clear()
