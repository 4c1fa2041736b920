"""The record of a run: log.csv, alarms.jsonl and TensorBoard, and Weights & Biases for those who ask for it."""

import csv
import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from minigpt.config import RunConfig
from minigpt.disk import write_text

LOG_COLUMNS = ("step", "tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_second", "data_seconds",
               "flops_utilization", "joules", "validation_loss", "validation_bits_per_byte")


class Log:
    """One row a step and one line an alarm, written as they happen.

    A resumed run drops what stands after its checkpoint and writes it again; `past` holds the rows that it kept.
    """

    def __init__(self, folder: Path, config: RunConfig, first: int, active: bool) -> None:
        self.active, self.past = active, []
        if not active:
            return
        self.wandb = start_wandb(folder, config) if config.train.wandb else None
        path, alarms = folder / "log.csv", folder / "alarms.jsonl"
        rows = [row for row in read_rows(path) if int(row["step"]) <= first] if path.exists() else []
        write_text(alarms, "".join(json.dumps(alarm) + "\n" for alarm in read_alarms(alarms) if alarm["step"] <= first))
        self.past = [as_numbers(row) for row in rows]
        self.alarms = open(alarms, "a", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        self.file = start_table(path, rows)
        self.rows = csv.DictWriter(self.file, LOG_COLUMNS)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *fault: object) -> None:
        if self.active:
            self.file.close()
            self.alarms.close()
            self.board.close()
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
            self.wandb.log(measured, step=row["step"])

    def alarm(self, line: dict[str, Any]) -> None:
        """One line of alarms.jsonl: the step, what rose how far, and what the batch held."""
        if self.active:
            self.alarms.write(json.dumps(line) + "\n")
            self.alarms.flush()


def start_table(path: Path, rows: list[dict[str, str]]) -> Any:
    """log.csv with these rows, to the letter, open for more."""
    partial = path.with_name("log.csv.partial")
    file = open(partial, "w", newline="", encoding="utf-8")  # noqa: SIM115 (the log closes it)
    table = csv.DictWriter(file, LOG_COLUMNS)
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
    return wandb.init(project=config.train.wandb, name=config.name, id=name.read_text(encoding="utf-8"),
                      resume="allow", dir=str(folder), config=asdict(config), settings=wandb.Settings(silent=True))


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a log.csv as numbers; a cell that was not measured at a step is left out."""
    return [as_numbers(row) for row in read_rows(path)]


def as_numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: float(cell) for name, cell in row.items() if cell} | {"step": int(row["step"])}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv as they are written."""
    return list(csv.DictReader(whole_lines(path)))


def read_alarms(path: Path) -> list[dict[str, Any]]:
    """The alarms of a run, oldest first."""
    return [json.loads(line) for line in whole_lines(path)] if path.exists() else []


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, without the last if a kill cut it short."""
    text = path.read_bytes().decode("utf-8", errors="replace")
    return text[: text.rfind("\n") + 1].splitlines()
