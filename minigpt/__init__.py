"""minigpt: a small reference package for training language models, from a laptop to a cluster."""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch, on Linux: large tensors in pages of 2 MB, not of 4 kB
