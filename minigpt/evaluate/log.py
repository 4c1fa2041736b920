"""The record of a run: log.csv and TensorBoard."""

import csv
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

LOG_COLUMNS = ("step", "tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_second",
               "validation_loss", "validation_bits_per_byte")


class Log:
    """log.csv and TensorBoard, one row a step, written as it happens.

    A resumed run drops the rows after its checkpoint and writes them again.
    """

    def __init__(self, folder: Path, first: int, active: bool) -> None:
        self.active = active
        if not active:
            return
        path = folder / "log.csv"
        kept = [row for row in read_rows(path) if int(row["step"]) <= first] if path.exists() else []
        partial = path.with_name("log.csv.partial")
        self.file = open(partial, "w", newline="", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        self.rows = csv.DictWriter(self.file, LOG_COLUMNS)
        self.rows.writeheader()
        self.rows.writerows(kept)
        self.file.flush()
        partial.replace(path)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *fault: object) -> None:
        if self.active:
            self.file.close()
            self.board.close()

    def write(self, row: dict[str, float]) -> None:
        if not self.active:
            return
        self.rows.writerow(row)
        self.file.flush()
        for name in row.keys() - {"step"}:
            self.board.add_scalar(name, row[name], row["step"])


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a log.csv as numbers; a cell that was not measured at a step is left out."""
    rows = [{name: float(cell) for name, cell in row.items() if cell} for row in read_rows(path)]
    return [row | {"step": int(row["step"])} for row in rows]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv as they are written; a row that was cut short by a kill is dropped."""
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["tokens_per_second"]]
