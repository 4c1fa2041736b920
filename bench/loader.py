"""Millions of tokens a second that come off the disk in batches: minigpt's shards, a row at a time, and `datasets`.

    python bench/loader.py                        writes bench/loader.json
    python bench/loader.py --tokens 1000000 --batches 20 --rounds 1

Each contestant gives inputs and targets of the same tokens in an order of its own chance; the pages are in memory.
`DataLoader, row by row` is the plain per-row loader: a Dataset that returns one row, no workers.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import datasets
import numpy as np
import torch
from record import in_turn, record

from minigpt.corpus import Document, Shards, write_shards
from minigpt.tokenizer import Tokenizer


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tokens", type=int, default=20_000_000)
    options.add_argument("--batches", type=int, default=200)
    options.add_argument("--rounds", type=int, default=7)
    given = options.parse_args()
    parts = {}
    with tempfile.TemporaryDirectory() as place:
        tokenizer = Tokenizer.train(["a text of many words. " * 9], 260)
        documents = [Document(f"{i}", "many words " * 900) for i in range(given.tokens // 9900 + 2)]
        folder = write_shards(documents, tokenizer, Path(place) / "shards", validation_share=0.1)
        for rows, length in ((64, 128), (12, 1024)):
            split = Shards(folder, "train", tokenizer, length)
            works = contestants(split, rows, length)
            timers = {name: rate(work, given.batches, rows * length) for name, work in works.items()}
            parts[f"batches of {rows} rows of {length} tokens, million tokens/s"] = in_turn(timers, given.rounds)
    record(Path(__file__).with_suffix(".json"), "Batches from the disk", parts, ("torch", "numpy", "datasets"))


def contestants(split: Shards, rows: int, length: int) -> dict[str, Callable[[int], object]]:
    """What gives batch number n, by name."""
    path, ids = split.files[0].filename, split.files[0]
    rows_of = Rows(ids, length)
    windows = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::length]
    table = datasets.Dataset.from_dict({"ids": [row.tolist() for row in windows]}).with_format("torch")
    order = np.random.default_rng(0).permutation(len(table))
    loader = endless(torch.utils.data.DataLoader(rows_of, batch_size=rows, shuffle=True, drop_last=True))

    def per_row(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Opens the file for every row, as a loop over a folder of files does."""
        pairs = []
        for begin in np.random.default_rng(step).integers(0, len(ids) - length - 1, rows):
            row = np.load(path, mmap_mode="r")[begin : begin + length + 1].astype(np.int64)
            pairs.append((torch.from_numpy(row[:-1]), torch.from_numpy(row[1:])))
        x, y = zip(*pairs, strict=True)
        return torch.stack(x), torch.stack(y)

    def gathered(step: int) -> list[torch.Tensor]:
        """One map for all rows, taken one by one and stacked."""
        picked = np.random.default_rng(step).integers(0, len(rows_of), rows)
        return torch.utils.data.default_collate([rows_of[index] for index in picked])

    def batched(step: int) -> torch.Tensor:
        return table[order[np.arange(step * rows, (step + 1) * rows) % len(order)]]["ids"]

    return {"minigpt": lambda step: split.batch(step, rows, seed=0),
            "minigpt, the order alone": lambda step: split.indices(step, rows, seed=0),
            "minigpt, the rows alone": lambda step: split.rows(range(rows)),
            "a map for each row": per_row,
            "one map, row by row": gathered,
            "DataLoader, row by row": lambda step: next(loader),
            "datasets, batched": batched}


class Rows(torch.utils.data.Dataset):
    """What one writes without thinking of speed: row i of one map, inputs and targets."""

    def __init__(self, ids: np.ndarray, length: int) -> None:
        self.ids, self.length = ids, length

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        begin = index * self.length
        row = torch.from_numpy(self.ids[begin : begin + self.length + 1].astype(np.int64))
        return row[:-1], row[1:]


def endless(batches: Iterable[list[torch.Tensor]]) -> Iterator[list[torch.Tensor]]:
    while True:
        yield from batches


def rate(work: Callable[[int], object], batches: int, tokens: int) -> Callable[[], float]:
    def measure() -> float:
        start = time.perf_counter()
        for step in range(batches):
            work(step)
        return batches * tokens / (time.perf_counter() - start) / 1e6

    return measure


if __name__ == "__main__":
    main()
