"""The training loop, on lightning Fabric: the same page of code on two cores, on eight GPUs and under Slurm.

Axes: B batch, T time in tokens, V vocabulary.
"""

import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from lightning.fabric.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from tqdm import tqdm

from minigpt import checkpoint
from minigpt.config import RunConfig, TrainConfig
from minigpt.corpus import Shards
from minigpt.disk import write_text
from minigpt.evaluate.log import Log
from minigpt.evaluate.loss import bits_per_byte, validation_loss
from minigpt.model import GPT
from minigpt.schedule import learning_rate
from minigpt.tokenizer import Tokenizer


def train(config: RunConfig, tokenizer: Tokenizer, shards: Path, folder: Path, *, progress: bool = True,
          fabric: Fabric | None = None) -> Path:
    """The run's folder with a trained model.safetensors; afterwards it is a checkpoint.

    Goes on from the newest checkpoint if the folder has one; a finished run is left as it is. The curve of a run
    that was stopped equals the curve of one that was not, bit for bit on one machine.
    Raises  ValueError if the folder holds a run with other settings, or if the loss is not a finite number.
            SystemExit after SIGTERM or Ctrl-C, with a checkpoint of the last whole step.
    """
    folder = Path(folder)
    fabric = fabric or make_fabric(config.train)
    with fabric.rank_zero_first():
        claim(folder, config)
    if (folder / "model.safetensors").exists():
        return folder
    model, optimizer = set_up(fabric, config)
    first = resume(fabric, config, model, optimizer, folder)
    train_split, validation_split = (Shards(shards, split, tokenizer, config.model.max_seq_len)
                                     for split in ("train", "validation"))
    lengths = torch.from_numpy(tokenizer.byte_lengths())
    bar = tqdm(range(first, config.train.steps), initial=first, total=config.train.steps, desc="training",
               unit="step", mininterval=1.0, disable=not progress or fabric.global_rank > 0)
    with Log(folder, first, active=fabric.global_rank == 0) as log, stop_signals() as stopped:
        for step in bar:
            started = time.perf_counter()
            row = {"step": step + 1, "tokens": (step + 1) * config.tokens_per_step}
            row |= train_step(fabric, config, model, optimizer, train_split, step)
            row["tokens_per_second"] = round(config.tokens_per_step / (time.perf_counter() - started))
            last = step + 1 == config.train.steps
            stopping = agree(fabric, bool(stopped))
            if last or stopping or (step + 1) % config.train.save_every == 0:
                save(fabric, config, model, optimizer, tokenizer, folder, step + 1)
            if last or (step + 1) % config.train.evaluate_every == 0:
                loss = validation_loss(model, validation_split, config.train.evaluate_tokens)
                row["validation_loss"] = loss.mean
                row["validation_bits_per_byte"] = bits_per_byte(loss.nats, lengths[loss.targets])
            log.write(row)
            if (step + 1) % config.train.log_every == 0:
                bar.set_postfix(loss=f"{row['loss']:.3f}", tokens_per_second=f"{row['tokens_per_second']:,}")
            if stopping and not last:
                fabric.barrier()
                raise SystemExit(f"stopped after step {step + 1} with a checkpoint; the same command goes on from it")
    finish(fabric, config, model, tokenizer, folder)
    return folder


def train_step(fabric: Fabric, config: RunConfig, model: nn.Module, optimizer: Optimizer, split: Shards,
               step: int) -> dict[str, float]:
    """Move the weights once; the loss before the move, the learning rate and the length of the gradient."""
    settings = config.train
    rate = learning_rate(settings, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    x, y = split.batch(step, settings.batch_size, settings.seed, fabric.global_rank, fabric.world_size)
    total = torch.zeros((), device=fabric.device)
    for piece_x, piece_y in zip(x.chunk(settings.accumulate), y.chunk(settings.accumulate), strict=True):
        loss = next_token_loss(model(piece_x.to(fabric.device)), piece_y.to(fabric.device)) / settings.accumulate
        fabric.backward(loss)
        total += loss.detach()
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # FSDP2 keeps it in shares
    total = fabric.all_reduce(total, reduce_op="mean")
    if not math.isfinite(float(total)):
        raise ValueError(f"the loss is {float(total)} at step {step + 1}; lower the learning rate, warm up longer, "
                         "or look at the batch; the last checkpoint is untouched")
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": float(total), "learning_rate": rate, "gradient_norm": float(norm)}


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean nats per token. Shapes  logits (B, T, V), targets (B, T)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def make_fabric(settings: TrainConfig) -> Fabric:
    """One process by itself, or one of several that `torchrun` or Slurm started: then the model is sharded."""
    for library in ("lightning.fabric", "lightning.pytorch"):  # the second speaks for the first
        logging.getLogger(library).setLevel(logging.WARNING)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch_size % (processes * settings.accumulate):
        raise ValueError(f"batch_size {settings.batch_size} cannot be shared by {processes} processes in "
                         f"{settings.accumulate} pieces each; change one of the three")
    if processes == 1:
        fabric = Fabric(devices=1, precision=settings.precision)
    else:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
        fabric = Fabric(devices=here, num_nodes=processes // here, precision=settings.precision,
                        strategy=ModelParallelStrategy(shard, data_parallel_size=processes, tensor_parallel_size=1))
    fabric.launch()
    return fabric


def shard(model: nn.Module, mesh: torch.distributed.DeviceMesh) -> nn.Module:
    """FSDP2: each process keeps its share of every block and gathers a block only while it computes it."""
    for block in model.blocks:
        fully_shard(block, mesh=mesh["data_parallel"])
    return fully_shard(model, mesh=mesh["data_parallel"])


def set_up(fabric: Fabric, config: RunConfig) -> tuple[nn.Module, Optimizer]:
    """The model on its device, sharded where there are several processes, and its optimizer."""
    model = fabric.setup_module(GPT(config.model, config.train.seed))
    if config.train.compile:
        model.module.compile()
    return model, fabric.setup_optimizers(make_optimizer(model, config.train))


def make_optimizer(model: nn.Module, settings: TrainConfig) -> AdamW:
    """AdamW that decays matrices and leaves gains and biases alone.

    Source  Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
    """
    weights = list(model.parameters())
    groups = [{"params": [w for w in weights if w.ndim >= 2], "weight_decay": settings.weight_decay},
              {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0}]
    return AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), fused=True)


WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""Collect a sharded model's weights into whole tensors, on the first process only."""

SPREAD = StateDictOptions(full_state_dict=True)
"""Spread whole tensors, which every process has, over the shards."""


def save(fabric: Fabric, config: RunConfig, model: nn.Module, optimizer: Optimizer, tokenizer: Tokenizer,
         folder: Path, step: int) -> None:
    """Write checkpoints/step-NNNNNN whole and drop those that are older than the last few."""
    weights = get_model_state_dict(model.module, options=WHOLE)
    moments = get_optimizer_state_dict(model.module, optimizer.optimizer, options=WHOLE)
    if fabric.global_rank == 0:
        flat = {f"{name}/{moment}": value
                for name, state in moments["state"].items() for moment, value in state.items()}
        checkpoints = folder / "checkpoints"
        checkpoint.save(checkpoints / f"step-{step:06d}", config, weights, tokenizer, flat)
        for old in checkpoint.finished(checkpoints)[: -config.train.keep_checkpoints]:
            checkpoint.remove(old)
    fabric.barrier()


def resume(fabric: Fabric, config: RunConfig, model: nn.Module, optimizer: Optimizer, folder: Path) -> int:
    """Put the newest checkpoint, if there is one, into model and optimizer; the number of steps it has done."""
    found = checkpoint.finished(folder / "checkpoints")
    if not found:
        return 0
    weights = checkpoint.read_weights(found[-1] / "model.safetensors")
    if config.model.tied:
        weights["head.weight"] = weights["embedding.weight"]
    set_model_state_dict(model.module, weights, options=SPREAD)
    state = get_optimizer_state_dict(model.module, optimizer.optimizer, options=SPREAD)
    for key, value in checkpoint.read_weights(found[-1] / "optimizer.safetensors").items():
        name, moment = key.rsplit("/", 1)
        state["state"][name][moment] = value
    set_optimizer_state_dict(model.module, optimizer.optimizer, state, options=SPREAD)
    return int(found[-1].name.removeprefix("step-"))


def finish(fabric: Fabric, config: RunConfig, model: nn.Module, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model.safetensors: its presence is what says that a run is finished."""
    weights = get_model_state_dict(model.module, options=WHOLE)
    if fabric.global_rank == 0:
        checkpoint.write_weights(folder / "model.safetensors", checkpoint.untied(config.model, weights), tokenizer)
    fabric.barrier()


def claim(folder: Path, config: RunConfig) -> None:
    """Make the folder this run's. Raises ValueError, naming a field, if it is already another run's."""
    path = folder / "config.json"
    if path.exists():
        if differences := config.differences(RunConfig.read(path)):
            raise ValueError(f"{folder} holds a run with other settings ({differences[0]}); "
                             "choose another folder or remove that one")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, config.to_json())


def agree(fabric: Fabric, flag: bool) -> bool:
    """True on every process as soon as it is true on one."""
    return bool(fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum") > 0)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that SIGTERM, SIGUSR1 and Ctrl-C append to: the loop looks at it between two steps."""
    received: list[int] = []
    watched = [signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGUSR1") if name in signal.Signals.__members__]
    before = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in watched}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
