"""The record of a run: log.csv, alarms.jsonl, events.jsonl and TensorBoard; Weights & Biases for those who ask for it.

An event has its time in seconds since 1970, its name and the steps done, and by its name:
start       ranks, nodes, host, restart, checkpoint (its name, or none), python, torch, minigpt, gpu
checkpoint  name, seconds (until it was whole), standing_seconds (the loop stood still), bytes
damaged     checkpoint (its name now), why
alarm       what
rewind      to_step, skipped (the numbers of the first and the last batch)
stop        why (a signal's name, or the sentence of a fault)
finish      nothing more
"""

import csv
import json
import os
import secrets
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from minigpt.config import RunConfig
from minigpt.disk import write_text

LOG_COLUMNS = ("step", "tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_second", "data_seconds",
               "flops_utilization", "joules", "validation_loss", "validation_bits_per_byte")


RANK_COLUMNS = ("slowest_rank", "slowest_seconds", "median_seconds")
"""With several processes: which one computed longest, and how long that one and the middle one did."""


class Log:
    """One row a step and one line an alarm, written as they happen: a context.

    A run that goes on from a checkpoint drops what stands after it and writes it again; `past` holds what was kept.
    """

    def __init__(self, folder: Path, config: RunConfig, active: bool, ranks: int = 1) -> None:
        self.folder, self.active, self.past = folder, active, []
        self.columns = LOG_COLUMNS + (RANK_COLUMNS if ranks > 1 else ())
        self.open_files = ExitStack()
        self.wandb = start_wandb(folder, config) if active and config.train.wandb else None

    def go_on(self, step: int, batch: int) -> None:
        """Begin, or begin again, after so many steps and so many batches: batches that are skipped count too."""
        if not self.active:
            return
        self.open_files.close()
        path, alarms = self.folder / "log.csv", self.folder / "alarms.jsonl"
        rows = [row for row in read_rows(path) if int(row["step"]) <= step] if path.exists() else []
        kept = [alarm for alarm in read_alarms(alarms) if alarm.get("batch", alarm["step"]) <= batch]
        write_text(alarms, "".join(json.dumps(alarm) + "\n" for alarm in kept))
        self.past = [as_numbers(row) for row in rows]
        self.alarms = self.open_files.enter_context(alarms.open("a", encoding="utf-8"))
        self.columns += tuple(name for name in RANK_COLUMNS if rows and name in rows[0] and name not in self.columns)
        self.file = self.open_files.enter_context(start_table(path, self.columns, rows))
        self.rows = csv.DictWriter(self.file, self.columns, extrasaction="ignore")
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)
        self.open_files.callback(self.board.close)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *fault: object) -> None:
        self.open_files.close()
        if self.wandb:
            self.wandb.finish()

    def write(self, row: dict[str, float]) -> None:
        if not self.active:
            return
        self.rows.writerow(row)
        self.file.flush()
        measured = {name: value for name, value in row.items() if name != "step"}
        for name, value in measured.items():
            self.board.add_scalar(name, value, row["step"])
        if self.wandb:
            self.wandb.log(row)

    def alarm(self, line: dict[str, Any]) -> None:
        """One line of alarms.jsonl: the step, what rose how far, and what the batch held."""
        if self.active:
            self.alarms.write(json.dumps(line) + "\n")
            self.alarms.flush()


def start_table(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> Any:
    """log.csv with these rows, to the letter, open for more."""
    partial = path.with_name("log.csv.partial")
    file = open(partial, "w", newline="", encoding="utf-8")  # noqa: SIM115 (the log closes it)
    table = csv.DictWriter(file, columns)
    table.writeheader()
    table.writerows(rows)
    file.flush()
    partial.replace(path)
    return file


def start_wandb(folder: Path, config: RunConfig) -> Any:
    """The run on Weights & Biases, the same one after a stop; WANDB_MODE=offline keeps it on this disk.

    Raises  ValueError if the package is missing.
    """
    try:
        import wandb
    except ImportError:
        raise ValueError("train.wandb asks for Weights & Biases, which is not installed; "
                         "pip install 'seed-class[wandb]', or leave the field empty") from None
    name = folder / "wandb.id"
    if not name.exists():
        write_text(name, secrets.token_hex(4))
    run = wandb.init(project=config.train.wandb, name=config.name, id=name.read_text(encoding="utf-8"),
                     resume="allow", dir=str(folder), config=asdict(config), settings=wandb.Settings(silent=True))
    run.define_metric("*", step_metric="step")  # its own count of steps takes no row of a step that it has seen
    return run


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a log.csv as numbers; a cell that was not measured at a step is left out."""
    return [as_numbers(row) for row in read_rows(path)]


def as_numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: float(cell) for name, cell in row.items() if cell} | {"step": int(row["step"])}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv as they are written."""
    return list(csv.DictReader(whole_lines(path)))


def write_event(folder: Path, event: str, step: int, **facts: Any) -> None:
    """One more line of events.jsonl, the history of a run: never cut, whatever the run goes back to."""
    line = json.dumps({"time": time.time(), "event": event, "step": step} | facts) + "\n"
    with open(folder / "events.jsonl", "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line  # a kill tore the line before
        file.write(line.encode())


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The history of a run, oldest first; a line that a kill tore is left out."""
    path, events = folder / "events.jsonl", []
    for line in whole_lines(path) if path.exists() else ():
        with suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events


def read_alarms(path: Path) -> list[dict[str, Any]]:
    """The alarms of a run, oldest first."""
    return [json.loads(line) for line in whole_lines(path)] if path.exists() else []


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, without the last if a kill cut it short."""
    text = path.read_bytes().decode("utf-8", errors="replace")
    return text[: text.rfind("\n") + 1].splitlines()
