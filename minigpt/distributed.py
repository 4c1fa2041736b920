"""The processes of a run: how many there are, how the model is spread over them, and what they tell each other."""

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.fabric.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from minigpt.config import TrainConfig

T = TypeVar("T")


def make_fabric(settings: TrainConfig) -> Fabric:
    """One process by itself, or one of several that `torchrun` or Slurm's `srun` started: then the model is spread.

    Raises  ValueError if the batch cannot be shared by the processes, or the processes by the machines.
    """
    for library in ("lightning.fabric", "lightning.pytorch"):  # the second speaks for the first
        logging.getLogger(library).setLevel(logging.WARNING)
    processes, here = count_processes()
    if settings.batch_size % (processes * settings.accumulate):
        raise ValueError(f"batch_size {settings.batch_size} cannot be shared by {processes} processes in "
                         f"{settings.accumulate} pieces each; change one of the three")
    if processes == 1:
        fabric = Fabric(devices=1, precision=settings.precision, plugins=LightningEnvironment())
    else:
        shares = {"full": processes, "gradients": processes, "hybrid": here, "none": 1}[settings.sharding]
        strategy = ModelParallelStrategy(partial(spread, settings=settings), data_parallel_size=processes // shares,
                                         tensor_parallel_size=shares)  # lightning's names of the mesh's two sides
        plugins = SLURMEnvironment(auto_requeue=False) if by_slurm() else None
        fabric = Fabric(devices=here, num_nodes=processes // here, precision=settings.precision, strategy=strategy,
                        plugins=plugins)
    fabric.launch()
    return fabric


def leave(fabric: Fabric) -> None:
    """End the processes' connection once none of them needs it any more."""
    if fabric.world_size > 1:
        fabric.barrier()  # without it some abort
        dist.destroy_process_group()


def by_slurm() -> bool:
    return "TORCHELASTIC_RUN_ID" not in os.environ and "SLURM_STEP_NUM_TASKS" in os.environ


def count_processes() -> tuple[int, int]:
    """How many processes the run has, and how many of them are on this machine."""
    if by_slurm():
        processes, machines = (int(os.environ[f"SLURM_STEP_NUM_{what}"]) for what in ("TASKS", "NODES"))
        if processes % machines:
            raise ValueError(f"{processes} tasks do not spread evenly over {machines} nodes; "
                             "give srun --ntasks-per-node")
        return processes, processes // machines
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return processes, int(os.environ.get("LOCAL_WORLD_SIZE", processes))


def spread(model: nn.Module, mesh: dist.DeviceMesh, settings: TrainConfig) -> nn.Module:
    """FSDP2: a block's weights lie in shares along the mesh's second side and in copies along its first.

    Before a process computes a block it gathers its shares; afterwards it drops what is not its own, unless the
    settings keep it for the way back.
    """
    mesh = mesh if mesh.size(0) > 1 else mesh["tensor_parallel"]
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=settings.sharding in ("full", "hybrid"))
    return fully_shard(model, mesh=mesh)


def delay_copies(model: nn.Module, until_later: bool) -> None:
    """Let gradients wait, or not, before they travel between copies of the weights: once a batch is enough."""
    if isinstance(model, FSDPModule):  # of one process the model is none
        model.set_requires_all_reduce(not until_later)


def gather(fabric: Fabric, *numbers: float) -> Tensor:
    """These numbers of every process, (processes, numbers), in float32 on the CPU."""
    mine = torch.tensor(numbers, dtype=torch.float32, device=fabric.device)
    return fabric.all_gather(mine).view(fabric.world_size, len(numbers)).cpu()


def exchange(thing: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """What each process gives, first process first; none goes on before all have given."""
    if not dist.is_initialized():
        return [thing]
    things: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(things, thing, group=group)
    return things


def together(action: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """What the action returns here. What fails in one process fails in all: none waits for another for ever.

    Raises  the ValueError or OSError of the first process that had one.
    """
    done, fault = None, None
    try:
        done = action()
    except (ValueError, OSError) as here:
        fault = here
    if fault := next(filter(None, exchange(fault, group)), None):
        raise fault
    return done


def by_the_first(action: Callable[[], object], group: dist.ProcessGroup | None = None) -> None:
    """The first process acts, the others wait for it; its ValueError or OSError is everybody's."""
    first = not dist.is_initialized() or dist.get_rank(group) == 0
    together(action if first else lambda: None, group)


class Stopwatch:
    """Seconds that this process computed forward through its blocks: its own work, without waiting for others.

    The length of a step tells nothing about who is slow, because all wait for the slowest in every block.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.on_gpu, self.marks = device.type == "cuda", []
        for block in model.blocks:
            block.register_forward_pre_hook(lambda *_: self.mark())  # after FSDP's own, which waits for the weights
            block.register_forward_hook(lambda *_: self.mark(), prepend=True)

    def mark(self) -> None:
        if self.on_gpu:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())

    def lap(self) -> float:
        """The seconds since the lap before; on a GPU the last mark must have passed."""
        marks, self.marks = self.marks, []
        pairs = zip(marks[::2], marks[1::2], strict=True)
        if self.on_gpu:
            return sum(begin.elapsed_time(end) for begin, end in pairs) / 1000
        return sum(end - begin for begin, end in pairs)
