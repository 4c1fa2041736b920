"""Going on: the checkpoints of a run, written by all its processes together, found again and put back.

A checkpoint of a run holds, beside the model, the optimizer's moments and progress.json. How many processes wrote it
does not matter to those that read it.
"""

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.optim import Optimizer

from minigpt import checkpoint
from minigpt.config import RunConfig
from minigpt.distributed import by_the_first, exchange, together
from minigpt.huggingface import Weights
from minigpt.tokenizer import Tokenizer

Tell = Callable[..., None]
"""Takes the name of an event, its step and its facts; see evaluate.log."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: the steps it has done, its row of the log, and the batches it has left out."""

    step: int = 0
    row: dict[str, float] = field(default_factory=dict)
    skipped: list[tuple[int, int]] = field(default_factory=list)
    """(after how many steps, how many batches), one entry a rewind."""

    @property
    def batch(self) -> int:
        """The number of the next batch: of those before it, some are skipped and the others read."""
        return self.step + sum(batches for _, batches in self.skipped)


class Checkpoints:
    """Those of one run, for its model and optimizer: a context, at whose end the last one is whole.

    Every method is called by all processes alike.
    """

    def __init__(self, config: RunConfig, tokenizer: Tokenizer, folder: Path, model: nn.Module, optimizer: Optimizer,
                 tell: Tell) -> None:
        self.config, self.tokenizer, self.folder, self.tell = config, tokenizer, folder / "checkpoints", tell
        self.model, self.optimizer = model, optimizer
        self.ranks = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if self.ranks > 1 else 0
        self.group = dist.new_group(backend="gloo") if self.ranks > 1 else None  # apart from training's messages
        self.beside = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.stager = DefaultStager(StagingOptions(use_pinned_memory=torch.cuda.is_available(), use_shared_memory=False,
                                                   use_async_staging=False, use_non_blocking_copy=False))
        self.pending: Future | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.beside.shutdown()
        self.stager.close()
        if kind is None:
            self.wait()

    @property
    def failed(self) -> bool:
        """Whether a checkpoint that is written beside the steps has met a fault, which `wait` will raise."""
        return self.pending is not None and self.pending.done() and self.pending.exception() is not None

    def wait(self) -> None:
        """Return once no checkpoint is being written. Raises OSError if that went wrong."""
        pending, self.pending = self.pending, None
        if pending:
            pending.result()

    def save(self, progress: Progress) -> None:
        """Write checkpoints/step-NNNNNN, now or beside the next steps; then drop those that need not be kept.

        Raises  OSError if this one or the one before cannot be written; the last good one stays.
        """
        started = time.perf_counter()
        self.wait()
        state = self.state()
        if self.config.train.async_checkpoints:
            state = self.stager.stage(state)
            standing = time.perf_counter() - started
            self.pending = self.beside.submit(self.write, state, progress, started, standing)
        else:
            self.write(state, progress, started)

    def state(self) -> Weights:
        """The weights and moments of this process by name, as they lie in the model and the optimizer.

        A moment's name is the weight's, a stroke and its own. The counter of steps is left out: progress has it.
        """
        weights = checkpoint.untied(self.config.model, get_model_state_dict(self.model))
        moments = get_optimizer_state_dict(self.model, self.optimizer)["state"]
        return weights | {f"{name}/{moment}": value for name, kept in moments.items() for moment, value in kept.items()
                          if moment != "step"}

    def write(self, state: Weights, progress: Progress, started: float, standing: float | None = None) -> None:
        """The checkpoint, whole or not at all: aside, then the manifest, then its name."""
        final = self.folder / f"step-{progress.step:06d}"
        aside = final.with_name(final.name + ".partial")
        try:
            by_the_first(partial(self.begin, aside, progress), self.group)
            mine = together(partial(self.write_share, aside, state), self.group)
            stamps = {name: mark for some in exchange(mine, self.group) for name, mark in some.items()}
            by_the_first(partial(self.complete, aside, final, stamps), self.group)
        except BaseException:
            if self.rank == 0:
                shutil.rmtree(aside, ignore_errors=True)
            raise
        seconds, size = time.perf_counter() - started, sum(mark["bytes"] for mark in stamps.values())
        together(partial(self.tell, "checkpoint", progress.step, name=final.name, bytes=size, seconds=seconds,
                         standing_seconds=seconds if standing is None else standing), self.group)

    def begin(self, aside: Path, progress: Progress) -> None:
        """A folder with all but the tensors."""
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        (aside / "config.json").write_text(self.config.to_json(), encoding="utf-8")
        self.tokenizer.save(aside / "tokenizer.json")
        (aside / "progress.json").write_text(json.dumps(asdict(progress)) + "\n", encoding="utf-8")

    def write_share(self, aside: Path, state: Weights) -> dict[str, Any]:
        """This process's tensors into files of its own; what the manifest says of them."""
        if self.ranks == 1:
            for name in ("model", "optimizer"):
                part = {key: tensor for key, tensor in state.items() if ("/" in key) == (name == "optimizer")}
                checkpoint.write_weights(aside / f"{name}.safetensors", part, self.tokenizer)
            names = ["model.safetensors", "optimizer.safetensors", "config.json", "tokenizer.json", "progress.json"]
            return {name: checkpoint.stamp(aside / name) for name in names}
        checkpoint.write_share(state, aside, self.group)
        mine = [*aside.glob(f"shard-{self.rank + 1:05d}-*"), *(aside.glob("*.json") if self.rank == 0 else ())]
        return {path.name: checkpoint.stamp(path) for path in mine}

    def complete(self, aside: Path, final: Path, stamps: dict[str, Any]) -> None:
        """Give the checkpoint its name, which it never takes from another; remove what is old."""
        checkpoint.write_manifest(aside, self.tokenizer, stamps)
        aside.rename(final)
        settings = self.config.train
        for old in checkpoint.finished(self.folder)[: -settings.keep_checkpoints]:
            if not settings.keep_every or checkpoint.step_of(old) % settings.keep_every:
                checkpoint.remove(old)

    def restore(self) -> Progress:
        """Put the newest whole checkpoint, if there is one, into model and optimizer; how far the run is.

        Raises  ValueError, naming what is wrong, if the checkpoint is not one of this run, or if there are
                checkpoints and none is whole.
        """
        self.wait()
        by_the_first(self.sweep, self.group)
        newest = self.newest()
        if newest is None:
            return Progress()
        together(lambda: checkpoint.check_tokenizer(newest, self.tokenizer), self.group)
        state = self.state()
        together(lambda: checkpoint.fill(state, newest, self.group), self.group)
        progress = Progress(**json.loads((newest / "progress.json").read_text(encoding="utf-8")))
        for kept in get_optimizer_state_dict(self.model, self.optimizer)["state"].values():
            kept["step"].fill_(progress.step)
        return progress

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole; newer ones are put aside and told of. The files are shared for reading.

        Raises  ValueError if none is whole.
        """
        faults, found = {}, exchange(checkpoint.finished(self.folder), self.group)[0]
        for folder in reversed(found):
            said = exchange(together(partial(self.look_at, folder), self.group), self.group)
            if not any(said):
                break
            faults[folder] = next(filter(None, said))
        if found and len(faults) == len(found):
            raise ValueError(f"none of the {len(found)} checkpoints in {self.folder} is whole ({found[-1].name}: "
                             f"{faults[found[-1]]}); put one back from a copy, or remove the folder to begin again")
        by_the_first(lambda: [self.put_aside(*pair) for pair in faults.items()], self.group)
        return found[len(found) - len(faults) - 1] if found else None

    def sweep(self) -> None:
        """Remove what a kill left half written."""
        for left in self.folder.glob("step-*.partial"):
            shutil.rmtree(left)

    def put_aside(self, folder: Path, fault: str) -> None:
        aside = checkpoint.put_aside(folder)
        self.tell("damaged", checkpoint.step_of(folder), checkpoint=aside.name, why=fault)

    def look_at(self, folder: Path) -> str:
        """What is wrong with this process's part of a checkpoint's files."""
        return checkpoint.damage(folder, hashed=slice(self.rank, None, self.ranks))
