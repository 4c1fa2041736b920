"""The training loop, on lightning Fabric: the same page of code on two cores, on eight GPUs and under Slurm.

Axes: B batch, T time in tokens, V vocabulary.
"""

import math
import platform
import signal
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from torch.utils.checkpoint import checkpoint as compute_again
from tqdm import tqdm

from minigpt import checkpoint
from minigpt.alarm import WINDOW, Alarm
from minigpt.config import RunConfig, TrainConfig
from minigpt.corpus import Shards
from minigpt.corpus.prepare import PARTS
from minigpt.corpus.shards import IGNORED
from minigpt.disk import Lease, Lost, locked, taken, write_text
from minigpt.distributed import (
    Fabric,
    Stopwatch,
    by_the_first,
    count_processes,
    delay_copies,
    exchange,
    gather,
    make_fabric,
    together,
)
from minigpt.energy import make_meter
from minigpt.evaluate.log import Log, read_events, read_log, write_event
from minigpt.evaluate.loss import bits_per_byte, validation_loss
from minigpt.machine import note_machine
from minigpt.memory import keep_memory
from minigpt.model import GPT
from minigpt.resume import Checkpoints, Progress, Tell
from minigpt.schedule import learning_rate
from minigpt.tokenizer import Tokenizer

REWINDS, REWINDS_TO_ONE = 20, 3
"""How often a run goes back from spikes before a person must look at it: in all, and to the same checkpoint.

Source  Chowdhery et al. 2022, "PaLM", section 5.1: roughly 20 spikes in the largest run; after going back and leaving
        out the batches around a spike, the loss did not rise again at the same point.
"""


class Stopped(SystemExit):
    """A signal stopped the run, and a checkpoint has all of it: the exit status asks for another start."""

    def __init__(self, step: int, received: list[list[int]]) -> None:
        super().__init__(f"stopped after step {step} with a checkpoint; the same command goes on from it")
        self.code = 75
        self.why = signal.Signals(next(filter(None, received))[0]).name


def train(config: RunConfig, tokenizer: Tokenizer, shards: Path, folder: Path, *, progress: bool = True,
          fabric: Fabric | None = None) -> Path:
    """The run's folder with a trained model.safetensors; afterwards it is a checkpoint.

    Goes on from the newest whole checkpoint if the folder has one; a finished run is left as it is. The curve of a
    run that was stopped equals the curve of one that was not, bit for bit on one machine with as many processes.
    Raises  ValueError if another process is at work in the folder, if it holds a run with other settings or a
            checkpoint that does not fit, if the text is shorter than a batch, or if a loss is not finite.
            Lost, with nothing more written, if another process has taken the folder.
            Stopped after SIGTERM, SIGUSR1 or Ctrl-C, with a checkpoint of the last whole step.
    """
    folder = Path(folder)
    fabric = fabric or make_fabric(config.train)
    tell = partial(write_event, folder) if fabric.global_rank == 0 else lambda *_, **__: None
    with ExitStack() as lock:
        lease = together(lambda: lock.enter_context(locked(folder)) if fabric.global_rank == 0 else None)
        by_the_first(lambda: claim(folder, config))
        if not exchange((folder / "model.safetensors").exists())[0]:
            try:
                splits = together(lambda: open_splits(config, tokenizer, shards))
                take_steps(fabric, config, tokenizer, splits, folder, tell, lease, progress)
            except Lost:
                raise
            except (ValueError, OSError, Stopped) as end:
                with suppress(OSError):
                    tell("stop", steps_done(folder), why=end.why if isinstance(end, Stopped) else str(end))
                raise
    return folder


def take_steps(fabric: Fabric, config: RunConfig, tokenizer: Tokenizer, splits: tuple[Shards, Shards], folder: Path,
               tell: Tell, lease: Lease | None, progress: bool) -> None:
    """The loop, from the newest checkpoint to the last step, or until the folder is lost.

    A step is saved, then evaluated, then logged; its checkpoint carries its row of the log, so that a run which was
    killed in between writes the row when it goes on. After a spike a run with `rewind` goes back to its newest
    checkpoint, and is then as it was there, but with other batches ahead.
    """
    settings, first_process = config.train, fabric.global_rank == 0
    model, optimizer = set_up(fabric, config)
    with (Checkpoints(config, tokenizer, folder, model.module, optimizer.optimizer, tell) as checkpoints,
          Log(folder, config, first_process, fabric.world_size) as log, stop_signals() as signals,
          keep_memory(fabric.device) as memory, nullcontext(checkpoints.restore()) as done,
          tqdm(total=settings.steps, initial=done.step, desc="training", unit="step", mininterval=1.0,
               disable=not progress or not first_process) as bar):
        tell("start", done.step, **circumstances(fabric, folder, done))
        costs = Costs(fabric, config, folder, model.module, memory)
        alarm = go_on(log, done, lambda: validate(config, model, tokenizer, splits[1], done.step))
        while done.step < settings.steps:
            row = {"step": done.step + 1, "tokens": (done.step + 1) * config.tokens_per_step}
            costs.start()
            row |= train_step(fabric, config, model, optimizer, splits[0], done.step, done.batch)
            row, stopping, failed, lost = costs.settle(row, bool(signals), checkpoints.failed,
                                                         bool(lease and lease.lost))
            if lost:
                raise taken(folder)
            if failed:
                checkpoints.wait()
            told, risen = listen(alarm, row)
            told = [report_batch(log, tell, config, splits[0], row["step"], done.batch, what) for what in told]
            if risen and settings.rewind and (back := rewind(checkpoints, done, tell)):
                done, alarm = back, go_on(log, back)
                continue
            if not math.isfinite(row["loss"] + row["gradient_norm"]):
                raise ValueError(f"{told[0]}; lower the learning rate, warm up longer, or look at the batch; "
                                 f"{last_checkpoint(folder)}")
            done = Progress(row["step"], row, done.skipped)
            last = done.step == settings.steps
            if last or stopping or done.step % settings.save_every == 0:
                checkpoints.save(done)
            log.write(row | validate(config, model, tokenizer, splits[1], done.step))
            bar.update(done.step - bar.n)
            if done.step % settings.log_every == 0:
                bar.set_postfix(loss=f"{row['loss']:.3f}", tokens_per_second=f"{row['tokens_per_second']:,.0f}")
            if stopping and not last:
                checkpoints.wait()
                raise Stopped(done.step, exchange(list(signals)))
    finish(fabric, config, model, tokenizer, folder)
    tell("finish", settings.steps)


def train_step(fabric: Fabric, config: RunConfig, model: nn.Module, optimizer: Optimizer, split: Shards,
               step: int, batch: int | None = None) -> dict[str, float]:
    """Move the weights once; the loss of this process before the move, the learning rate, the length of the gradient.

    The seed of the step, like its batch, is a pure function of its number: a resumed run draws what it would have
    drawn, whatever in the model is random. Steps and batches have the same numbers until a rewind leaves some out.
    """
    settings = config.train
    torch.manual_seed(zlib.crc32(f"{settings.seed} {step} {fabric.global_rank}".encode()))
    rate = learning_rate(settings, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    started = time.perf_counter()
    x, y = split.batch(step if batch is None else batch, settings.batch_size, settings.seed, fabric.global_rank,
                       fabric.world_size)
    data_seconds = time.perf_counter() - started
    total = torch.zeros((), device=fabric.device)
    pieces = list(zip(x.chunk(settings.accumulate), y.chunk(settings.accumulate), strict=True))
    shares = shares_of_loss(fabric, split, [piece_y for _, piece_y in pieces])
    for number, ((piece_x, piece_y), share) in enumerate(zip(pieces, shares, strict=True), start=1):
        delay_copies(model.module, until_later=number < settings.accumulate)
        piece_x, piece_y = piece_x.to(fabric.device), piece_y.to(fabric.device)
        loss = model(piece_x, documents=split.documents(piece_x), targets=piece_y, loss_chunk=settings.loss_chunk)
        loss = loss * share
        fabric.backward(loss)
        total += loss.detach()
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # FSDP2 keeps it in shares
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": float(total), "learning_rate": rate, "gradient_norm": float(norm), "data_seconds": data_seconds}


def shares_of_loss(fabric: Fabric, split: Shards, targets: list[Tensor]) -> list[float]:
    """How much the mean loss of each of this process's pieces counts: by its tokens that are paid for.

    The mean over all processes is then the mean over the batch, however the batch was cut.
    """
    if split.mode == "cross":  # every token is paid for
        return [1 / len(targets)] * len(targets)
    paid = [int((piece != IGNORED).sum()) for piece in targets]
    usual = float(gather(fabric, sum(paid)).mean()) or 1.0  # where nothing is asked of the whole batch
    return [count / usual for count in paid]


def validate(config: RunConfig, model: nn.Module, tokenizer: Tokenizer, split: Shards, step: int) -> dict[str, float]:
    """Loss and bits per byte on text that training never saw, if they are due after so many steps."""
    if step % config.train.evaluate_every and step < config.train.steps:
        return {}
    model.eval()
    loss = validation_loss(model, split, config.train.evaluate_tokens)
    model.train()
    lengths = torch.from_numpy(tokenizer.byte_lengths())
    return {"validation_loss": loss.mean, "validation_bits_per_byte": bits_per_byte(loss.nats, lengths[loss.targets])}


def listen(alarm: Alarm, row: dict[str, float]) -> tuple[list[str], bool]:
    """What is wrong with a step, in words, and whether its loss is. A step that is not finite is nobody's past."""
    if infinite := [name for name in ("loss", "gradient_norm") if not math.isfinite(row[name])]:
        return [f"the {infinite[0]} is {row[infinite[0]]} at step {row['step']}"], True
    spikes = alarm.hear(row)
    return [str(spike) for spike in spikes], any(spike.name == "loss" for spike in spikes)


def report_batch(log: Log, tell: Tell, config: RunConfig, split: Shards, step: int, batch: int, what: str) -> str:
    """The sentence about a step, also on the console; the whole list of its windows goes to alarms.jsonl."""
    windows = [split.whereabouts(i) for i in split.indices(batch, config.train.batch_size, config.train.seed)]
    log.alarm({"step": step, "batch": batch + 1, "what": what, "windows": windows})
    tell("alarm", step, what=what)
    more = f" and {len(windows) - 2} more windows (alarms.jsonl)" if len(windows) > 2 else ""
    sentence = f"{what}; the batch held {', '.join(windows[:2])}{more}"
    if log.active:
        tqdm.write(sentence)
    return sentence


def rewind(checkpoints: Checkpoints, done: Progress, tell: Tell) -> Progress | None:
    """The newest checkpoint again, with the batches up to the one just read left out; None if there is none yet.

    What is left out stands in all later checkpoints. A run that is killed before the next one reads those batches,
    meets the same spike and goes back in the same way.
    Raises  ValueError if the run has gone back too often.
    """
    back = checkpoints.restore()
    if not back.step:
        return None
    before = [step for step, _ in done.skipped]
    if len(before) == REWINDS or before.count(back.step) == REWINDS_TO_ONE:
        raise ValueError(f"the loss has spiked again at step {done.step + 1} after {before.count(back.step)} rewinds "
                         f"to step {back.step} and {len(before)} in all; lower the learning rate, warm up longer, or "
                         "begin again with train.rewind False")
    first = Progress(back.step, skipped=done.skipped).batch
    tell("rewind", done.step + 1, to_step=back.step, skipped=[first, done.batch])
    return Progress(back.step, back.row, [*done.skipped, (back.step, done.batch + 1 - first)])


def go_on(log: Log, done: Progress, validated: Callable[[], dict[str, float]] = dict) -> Alarm:
    """Let the log end at the step that is done, and give the alarm, in every process, the past that it knows."""
    log.go_on(done.step, done.batch)
    if exchange((log.past[-1]["step"] if log.past else 0) < done.step)[0]:
        log.write(done.row | validated())
        log.past.append(done.row)
    return Alarm(exchange(log.past[-WINDOW:])[0])


def circumstances(fabric: Fabric, folder: Path, done: Progress) -> dict[str, Any]:
    """Where and with what a run starts or goes on."""
    ranks, here = count_processes()
    gpu = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else None
    return {"ranks": ranks, "nodes": ranks // here, "host": socket.gethostname(), "gpu": gpu,
            "restart": sum(event["event"] == "start" for event in read_events(folder)),
            "checkpoint": f"step-{done.step:06d}" if done.step else None,
            "python": platform.python_version(), "torch": torch.__version__, "minigpt": version("seed-class")}


def steps_done(folder: Path) -> int:
    """The last step in the log."""
    path = folder / "log.csv"
    return max((row["step"] for row in read_log(path)), default=0) if path.exists() else 0


def last_checkpoint(folder: Path) -> str:
    found = checkpoint.finished(folder / "checkpoints")
    return f"the last good checkpoint is {found[-1]}" if found else "no checkpoint had been saved yet"


class Costs:
    """What a step costs: time, energy, and the share of the machine's best rate that it used (MFU).

    The first process writes into machine.json where the best rate and the energy come from, and what happens to
    freed memory.
    """

    def __init__(self, fabric: Fabric, config: RunConfig, folder: Path, model: nn.Module, memory: str) -> None:
        self.fabric, self.tokens = fabric, config.tokens_per_step
        self.flops = config.tokens_per_step * config.model.flops_per_token
        self.meter = make_meter(fabric.device, config.train.watts)
        self.counts = self.meter is not None and (self.meter.one_a_process or fabric.local_rank == 0)
        self.stopwatch = Stopwatch(model, fabric.device) if fabric.world_size > 1 else None
        self.peak = None
        if fabric.global_rank == 0:
            self.peak = note_machine(fabric.device, config.train.precision, folder, self.meter, memory)
        self.start()

    def start(self) -> None:
        if self.stopwatch:
            self.stopwatch.lap()
        self.started = time.perf_counter()
        if self.meter:
            self.meter.lap()

    def settle(self, row: dict[str, float], *flags: bool) -> tuple[Any, ...]:
        """The step's row as all processes saw it, with its costs since `start`; each flag if any process raised it.

        One message a step carries all of this, so that all processes decide alike and at the same step.
        """
        own = self.stopwatch.lap() if self.stopwatch else 0.0
        joules = self.meter.lap() if self.counts else 0.0
        seen = gather(self.fabric, row["loss"], row["gradient_norm"], row["data_seconds"], own, joules, *flags)
        seconds = time.perf_counter() - self.started
        row = row | {"loss": float(seen[:, 0].mean()), "gradient_norm": float(seen[0, 1]),
                     "data_seconds": float(seen[:, 2].max()), "tokens_per_second": round(self.tokens / seconds, 1)}
        if self.stopwatch:
            row |= {"slowest_rank": int(seen[:, 3].argmax()), "slowest_seconds": float(seen[:, 3].max()),
                    "median_seconds": float(seen[:, 3].median())}
        if self.meter:
            row["joules"] = float(seen[:, 4].sum())
        if self.peak:
            row["flops_utilization"] = self.flops / seconds / (self.peak.flops_per_second * self.fabric.world_size)
        return row, *seen[:, 5:].any(dim=0).tolist()


def set_up(fabric: Fabric, config: RunConfig) -> tuple[nn.Module, Optimizer]:
    """The model on its device, spread where there are several processes, and its optimizer."""
    torch.set_float32_matmul_precision(config.train.float32_matmul)
    model = GPT(config.model, config.train.seed)
    if config.train.compile:
        model.compile_parts()
    if config.train.activation_checkpointing:
        for block in model.blocks:
            block.forward = partial(compute_again, block.forward, use_reentrant=False)
    model = fabric.setup_module(model)
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


def finish(fabric: Fabric, config: RunConfig, model: nn.Module, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model.safetensors: its presence is what says that a run is finished."""
    weights = get_model_state_dict(model.module, options=WHOLE)
    by_the_first(lambda: checkpoint.write_weights(folder / "model.safetensors",
                                                  checkpoint.untied(config.model, weights), tokenizer))


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


FREE = {f"train.{name}" for name in ("accumulate", "sharding", "activation_checkpointing", "loss_chunk", "compile",
                                     "async_checkpoints", "keep_checkpoints", "keep_every")}
"""Settings that a run may change on its way, for other machines: they change rounding at most."""


def claim(folder: Path, config: RunConfig) -> None:
    """Make the folder this run's. Raises ValueError, naming a field, if it is already another run's."""
    refuse_other_settings(folder, config)
    path = folder / "config.json"
    if not path.exists() or RunConfig.read(path) != config:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, config.to_json())


def refuse_other_settings(folder: Path, config: RunConfig) -> None:
    """Raises ValueError, naming a field, if the folder holds something that was made with another value of it."""
    path = folder / "config.json"
    differences = config.differences(RunConfig.read(path)) if path.exists() else []
    if others := [told for told in differences if shaped(folder, told.split()[0])]:
        raise ValueError(f"{folder} holds a run with other settings ({others[0]}); "
                         "choose another folder or remove that one")


def shaped(folder: Path, setting: str) -> bool:
    """Has this setting shaped what the folder holds? At first nothing, then the text as tokens, then a training."""
    if any((folder / name).exists() for name in ("log.csv", "checkpoints", "model.safetensors")):
        return setting not in FREE
    text = any((folder / name).exists() for name in ("tokenizer.json", "shards", "shards.partial", PARTS))
    return text and setting.startswith(("data.", "model.vocab_size"))


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
