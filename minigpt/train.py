"""The training loop, on lightning Fabric: the same page of code on two cores, on eight GPUs and under Slurm.

Axes: B batch, T time in tokens, V vocabulary.
"""

import json
import logging
import math
import os
import signal
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
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
from minigpt.alarm import Alarm
from minigpt.config import RunConfig, TrainConfig
from minigpt.corpus import Shards
from minigpt.disk import locked, write_text
from minigpt.energy import make_meter
from minigpt.evaluate.log import Log
from minigpt.evaluate.loss import bits_per_byte, validation_loss
from minigpt.machine import note_machine
from minigpt.model import GPT
from minigpt.schedule import learning_rate
from minigpt.tokenizer import Tokenizer


def train(config: RunConfig, tokenizer: Tokenizer, shards: Path, folder: Path, *, progress: bool = True,
          fabric: Fabric | None = None) -> Path:
    """The run's folder with a trained model.safetensors; afterwards it is a checkpoint.

    Goes on from the newest checkpoint if the folder has one; a finished run is left as it is. The curve of a run
    that was stopped equals the curve of one that was not, bit for bit on one machine.
    Raises  ValueError if another process is at work in the folder, if it holds a run with other settings or a
            checkpoint that does not fit, if the text is shorter than a batch, or if a loss is not finite.
            SystemExit after SIGTERM or Ctrl-C, with a checkpoint of the last whole step.
    """
    folder = Path(folder)
    fabric = fabric or make_fabric(config.train)
    with locked(folder) if fabric.global_rank == 0 else nullcontext():
        with fabric.rank_zero_first():
            claim(folder, config)
        if not (folder / "model.safetensors").exists():
            take_steps(fabric, config, tokenizer, open_splits(config, tokenizer, shards), folder, progress)
    return folder


def take_steps(fabric: Fabric, config: RunConfig, tokenizer: Tokenizer, splits: tuple[Shards, Shards], folder: Path,
               progress: bool) -> None:
    """The loop, from the newest checkpoint to the last step.

    A step is saved, then evaluated, then logged; its checkpoint carries its row of the log, so that a run which was
    killed in between writes the row when it goes on.
    """
    settings, first_process = config.train, fabric.global_rank == 0
    model, optimizer = set_up(fabric, config)
    first, row = resume(fabric, config, model, optimizer, tokenizer, folder)
    bar = tqdm(range(first, settings.steps), initial=first, total=settings.steps, desc="training", unit="step",
               mininterval=1.0, disable=not progress or not first_process)
    with Log(folder, config, first, active=first_process) as log, stop_signals() as stopped:
        if add_up(fabric, first_process and len(log.past) < first):
            log.write(row | validate(config, model, tokenizer, splits[1], first))
            log.past.append(row)
        alarm, costs = Alarm(log.past), Costs(fabric, config, folder)
        for step in bar:
            row = {"step": step + 1, "tokens": (step + 1) * config.tokens_per_step}
            costs.start()
            row |= train_step(fabric, config, model, optimizer, splits[0], step)
            row |= costs.lap()
            if infinite := [name for name in ("loss", "gradient_norm") if not math.isfinite(row[name])]:
                what = f"the {infinite[0]} is {row[infinite[0]]} at step {step + 1}"
                raise ValueError(f"{report_batch(log, config, splits[0], step, what)}; lower the learning rate, warm "
                                 f"up longer, or look at the batch; {last_checkpoint(folder)}")
            for spike in alarm.hear(row) if first_process else ():
                tqdm.write(report_batch(log, config, splits[0], step, str(spike)))
            last, stopping = step + 1 == settings.steps, add_up(fabric, bool(stopped)) > 0
            if last or stopping or (step + 1) % settings.save_every == 0:
                save(fabric, config, model, optimizer, tokenizer, folder, row)
            log.write(row | validate(config, model, tokenizer, splits[1], step + 1))
            if (step + 1) % settings.log_every == 0:
                bar.set_postfix(loss=f"{row['loss']:.3f}", tokens_per_second=f"{row['tokens_per_second']:,.0f}")
            if stopping and not last:
                fabric.barrier()
                raise SystemExit(f"stopped after step {step + 1} with a checkpoint; the same command goes on from it")
    finish(fabric, config, model, tokenizer, folder)


def train_step(fabric: Fabric, config: RunConfig, model: nn.Module, optimizer: Optimizer, split: Shards,
               step: int) -> dict[str, float]:
    """Move the weights once; the loss before the move, the learning rate and the length of the gradient.

    The seed of the step, like its batch, is a pure function of its number: a resumed run draws what it would have
    drawn, whatever in the model is random.
    """
    settings = config.train
    torch.manual_seed(zlib.crc32(f"{settings.seed} {step} {fabric.global_rank}".encode()))
    rate = learning_rate(settings, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    started = time.perf_counter()
    x, y = split.batch(step, settings.batch_size, settings.seed, fabric.global_rank, fabric.world_size)
    data_seconds = time.perf_counter() - started
    total = torch.zeros((), device=fabric.device)
    for piece_x, piece_y in zip(x.chunk(settings.accumulate), y.chunk(settings.accumulate), strict=True):
        piece_x, piece_y = piece_x.to(fabric.device), piece_y.to(fabric.device)
        loss = model(piece_x, documents=split.documents(piece_x), targets=piece_y, loss_chunk=settings.loss_chunk)
        loss = loss / settings.accumulate
        fabric.backward(loss)
        total += loss.detach()
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # FSDP2 keeps it in shares
    total = fabric.all_reduce(total, reduce_op="mean")
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": float(total), "learning_rate": rate, "gradient_norm": float(norm), "data_seconds": data_seconds}


def validate(config: RunConfig, model: nn.Module, tokenizer: Tokenizer, split: Shards, step: int) -> dict[str, float]:
    """Loss and bits per byte on text that training never saw, if they are due after so many steps."""
    if step % config.train.evaluate_every and step < config.train.steps:
        return {}
    model.eval()
    loss = validation_loss(model, split, config.train.evaluate_tokens)
    model.train()
    lengths = torch.from_numpy(tokenizer.byte_lengths())
    return {"validation_loss": loss.mean, "validation_bits_per_byte": bits_per_byte(loss.nats, lengths[loss.targets])}


def report_batch(log: Log, config: RunConfig, split: Shards, step: int, what: str) -> str:
    """The sentence for the console; the whole list of the step's windows goes to alarms.jsonl."""
    windows = [split.whereabouts(i) for i in split.indices(step, config.train.batch_size, config.train.seed)]
    log.alarm({"step": step + 1, "what": what, "windows": windows})
    more = f" and {len(windows) - 2} more windows (alarms.jsonl)" if len(windows) > 2 else ""
    return f"{what}; the batch held {', '.join(windows[:2])}{more}"


def last_checkpoint(folder: Path) -> str:
    found = checkpoint.finished(folder / "checkpoints")
    return f"the last good checkpoint is {found[-1]}" if found else "no checkpoint had been saved yet"


class Costs:
    """What a step costs: time, energy, and the share of the machine's best rate that it used (MFU).

    The first process writes into machine.json where the best rate and the energy come from.
    """

    def __init__(self, fabric: Fabric, config: RunConfig, folder: Path) -> None:
        self.fabric, self.tokens = fabric, config.tokens_per_step
        self.flops = config.tokens_per_step * config.model.flops_per_token
        self.meter = make_meter(fabric.device, config.train.watts)
        self.counts = self.meter is not None and (self.meter.one_a_process or fabric.local_rank == 0)
        self.peak = None
        if fabric.global_rank == 0:
            self.peak = note_machine(fabric.device, config.train.precision, folder, self.meter)
        self.start()

    def start(self) -> None:
        self.started = time.perf_counter()
        if self.meter:
            self.meter.lap()

    def lap(self) -> dict[str, float]:
        """The costs since `start`, over all processes."""
        joules = add_up(self.fabric, self.meter.lap() if self.counts else 0.0)
        seconds = time.perf_counter() - self.started
        row = {"tokens_per_second": round(self.tokens / seconds, 1)}
        if self.meter:
            row["joules"] = joules
        if self.peak:
            row["flops_utilization"] = self.flops / seconds / (self.peak.flops_per_second * self.fabric.world_size)
        return row


def make_fabric(settings: TrainConfig) -> Fabric:
    """One process by itself, or one of several that `torchrun` or Slurm started: then the model is sharded."""
    for library in ("lightning.fabric", "lightning.pytorch"):  # the second speaks for the first
        logging.getLogger(library).setLevel(logging.WARNING)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch_size % (processes * settings.accumulate):
        raise ValueError(f"batch_size {settings.batch_size} cannot be shared by {processes} processes in "
                         f"{settings.accumulate} pieces each; change one of the three")
    if processes == 1:
        fabric = Fabric(devices=1, precision=settings.precision, plugins=LightningEnvironment())
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
    torch.set_float32_matmul_precision(config.train.float32_matmul)
    model = fabric.setup_module(GPT(config.model, config.train.seed))
    if config.train.compile:
        model.module.compile_parts()
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
         folder: Path, row: dict[str, float]) -> None:
    """Write checkpoints/step-NNNNNN whole and drop those that are older than the last few."""
    weights = get_model_state_dict(model.module, options=WHOLE)
    moments = get_optimizer_state_dict(model.module, optimizer.optimizer, options=WHOLE)
    if fabric.global_rank == 0:
        checkpoints = folder / "checkpoints"
        name = f"step-{row['step']:06d}"
        checkpoint.save(checkpoints / name, config, weights, tokenizer, flatten_moments(moments), row)
        for old in checkpoint.finished(checkpoints)[: -config.train.keep_checkpoints]:
            checkpoint.remove(old)
    fabric.barrier()


def resume(fabric: Fabric, config: RunConfig, model: nn.Module, optimizer: Optimizer, tokenizer: Tokenizer,
           folder: Path) -> tuple[int, dict[str, float]]:
    """Put the newest checkpoint, if there is one, into model and optimizer; the steps it has done, its row of the log.

    Raises  ValueError, naming the tensor or the tokenizer, if the checkpoint is not one of this run.
    """
    found = checkpoint.finished(folder / "checkpoints")
    if not found:
        return 0, {}
    weights_file, moments_file = found[-1] / "model.safetensors", found[-1] / "optimizer.safetensors"
    checkpoint.check_tokenizer(weights_file, tokenizer)
    weights = checkpoint.read_weights(weights_file)
    checkpoint.check_tensors(checkpoint.untied(config.model, model.module.state_dict()), weights, weights_file)
    if config.model.tied:
        weights["head.weight"] = weights["embedding.weight"]
    set_model_state_dict(model.module, weights, options=SPREAD)
    state = get_optimizer_state_dict(model.module, optimizer.optimizer, options=SPREAD)
    moments = checkpoint.read_weights(moments_file)
    checkpoint.check_tensors(flatten_moments(state), moments, moments_file)
    for key, value in moments.items():
        name, moment = key.rsplit("/", 1)
        state["state"][name][moment] = value
    set_optimizer_state_dict(model.module, optimizer.optimizer, state, options=SPREAD)
    row = json.loads((found[-1] / "row.json").read_text(encoding="utf-8"))
    return row["step"], row


def flatten_moments(state: dict) -> dict[str, Tensor]:
    """The optimizer's tensors under one name each: the weight's, a stroke, the moment's."""
    return {f"{name}/{moment}": value for name, tensors in state["state"].items() for moment, value in tensors.items()}


def finish(fabric: Fabric, config: RunConfig, model: nn.Module, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model.safetensors: its presence is what says that a run is finished."""
    weights = get_model_state_dict(model.module, options=WHOLE)
    if fabric.global_rank == 0:
        checkpoint.write_weights(folder / "model.safetensors", checkpoint.untied(config.model, weights), tokenizer)
    fabric.barrier()


def open_splits(config: RunConfig, tokenizer: Tokenizer, shards: Path) -> tuple[Shards, Shards]:
    """Training and validation text. Raises ValueError if it does not fit the model or fills no batch."""
    if tokenizer.vocab_size > config.model.vocab_size:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens but the model's vocab_size is "
                         f"{config.model.vocab_size}; make the latter at least as large")
    length, batch_size = config.model.max_seq_len, config.train.batch_size
    training = Shards(shards, "train", tokenizer, length, config.data.documents)
    validation = Shards(shards, "validation", tokenizer, length)  # across documents: the same bytes for every run
    if len(training) < batch_size:
        raise ValueError(f"the training text has {len(training)} windows of {length} tokens but a batch takes "
                         f"{batch_size}; give more text or a smaller batch_size")
    return training, validation


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


def add_up(fabric: Fabric, value: float) -> float:
    """The sum of one number over all processes."""
    return float(fabric.all_reduce(torch.tensor(float(value), device=fabric.device), reduce_op="sum"))


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
