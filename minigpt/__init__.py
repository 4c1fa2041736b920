"""minigpt: a small reference package for training language models, from a laptop to a cluster."""
