"""Peaks of memory as torch's own trackers see them, on fake tensors: a billion parameters fit, nothing is computed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from minigpt.config import RunConfig
from minigpt.model import GPT

MESHES = {"full": (1, 8), "gradients": (1, 8), "hybrid": (2, 4), "none": (8, 1)}
"""Copies and shares of eight ranks, four a node."""


@contextmanager
def imagined_ranks(ranks: int, rank: int = 0) -> Iterator[None]:
    """A process group of which this process is one rank and the others exist on paper."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def peak(config: RunConfig, texts: int, sharding: str | None = None) -> int:
    """Bytes at the fullest moment of the second of two steps, two pieces of `texts` texts each.

    With a sharding, of one rank of eight: call it within imagined_ranks(8).
    """
    mesh = make_mesh(sharding) if sharding else None
    with FakeTensorMode():
        model = GPT(config.model)
        if config.train.activation_checkpointing:
            recompute_blocks(model)
        if mesh:
            spread(model, mesh, sharding)
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        ids = torch.zeros(texts, config.model.max_seq_len, dtype=torch.long)
        tracker = FSDPMemTracker(model, optimizer) if mesh else MemTracker()
        if mesh:
            tracker.track_inputs((ids,))
        else:
            tracker.track_external(model, optimizer)
        with tracker:
            for _ in range(2):
                take_step(config, model, optimizer, ids, tracker)
        (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    return snapshot["Total"]


def make_mesh(sharding: str) -> DeviceMesh:
    mesh = init_device_mesh("cpu", MESHES[sharding], mesh_dim_names=("copies", "shares"))
    return mesh["shares"] if MESHES[sharding][0] == 1 else mesh


def spread(model: GPT, mesh: DeviceMesh, sharding: str) -> None:
    """As minigpt.distributed spreads a model."""
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=sharding in ("full", "hybrid"))
    fully_shard(model, mesh=mesh)


def recompute_blocks(model: GPT) -> None:
    for i, block in enumerate(model.blocks):
        model.blocks[i] = checkpoint_wrapper(block)


def take_step(config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer, ids: torch.Tensor,
              tracker: MemTracker, pieces: int = 2) -> None:
    for piece in range(pieces):
        if isinstance(model, FSDPModule):
            model.set_requires_all_reduce(piece == pieces - 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "bf16-mixed"):
            loss = model(ids, targets=ids, loss_chunk=config.train.loss_chunk)
        loss.backward()
        tracker.reset_mod_stats()
    optimizer.step()
    optimizer.zero_grad()
