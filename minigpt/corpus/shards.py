"""Shards: token ids in plain NumPy files that are mapped into memory, never loaded whole.

Axes: B batch, T time in tokens.
"""

import json
from bisect import bisect_left, insort
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minigpt.config import DocumentMode
from minigpt.tokenizer import Tokenizer

MANIFEST = "shards.json"

IGNORED = -100
"""A target that no loss is paid for, as cross_entropy knows it."""


class Shards:
    """One split of a corpus, cut into windows of T inputs and their targets.

    documents  `cross`: one stream of tokens, a window begins where the one before it ended.
               `apart`: the same windows, but no token sees another document or is asked for its beginning.
               `pack`: like `apart`, and no document that fits into a window is cut; what stays free is filled with
               end-of-text tokens, which nothing is asked of. A longer document is cut every T tokens.
    Raises  ValueError if the folder holds no shards, another tokenizer's shards, or a file of the wrong size.
    """

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer, length: int,
                 documents: DocumentMode = "cross") -> None:
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest["tokenizer"] != tokenizer.fingerprint:
            raise ValueError(
                f"the shards at {folder} were written with tokenizer {manifest['tokenizer']} but this run's is "
                f"{tokenizer.fingerprint}; write them again or load the tokenizer they were written with"
            )
        self.length, self.end_of_text, self.mode = length, tokenizer.end_of_text, documents
        self.names = [shard["file"] for shard in manifest["splits"][split]]
        self.files = [open_shard(folder / shard["file"], shard["tokens"]) for shard in manifest["splits"][split]]
        self.windows = [_cut(file, length) for file in self.files]
        self.ends: dict[int, np.ndarray] = {}  # where documents end, for the shards that somebody asked about
        self.packed = [self._pack(n) for n in range(len(self.files))] if documents == "pack" else []
        counts = map(len, self.packed) if self.packed else ((len(file) - 1) // length for file in self.files)
        self.starts = np.cumsum([0, *counts])
        if not len(self):
            raise ValueError(
                f"the {split} split at {folder} has {sum(map(len, self.files))} tokens but one text of the model "
                f"takes {length + 1}; give more text or a shorter max_seq_len"
            )

    def __len__(self) -> int:
        """How many windows there are."""
        return int(self.starts[-1])

    def rows(self, indices: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Inputs and targets, each (B, T): the target of a token is the token after it, or IGNORED."""
        indices = np.fromiter(indices, dtype=np.int64)
        shards = np.searchsorted(self.starts, indices, side="right") - 1
        windows = np.empty((len(indices), 2, self.length), dtype=np.int64)
        for shard in np.unique(shards):
            here = shards == shard
            windows[here, 0], windows[here, 1] = self._windows(shard, indices[here] - self.starts[shard])
        x, y = torch.from_numpy(windows).unbind(dim=1)
        return x, y if self.mode == "cross" else y.masked_fill(x == self.end_of_text, IGNORED)

    def _windows(self, shard: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and following tokens of some windows of one shard, each (B, T)."""
        if self.packed:
            windows = np.stack([self._packed_window(shard, self.packed[shard][index]) for index in indices], axis=1)
            return windows[0], windows[1]
        windows = self.windows[shard][indices]  # (B, T + 1): here the tokens leave the disk
        return windows[:, :-1], windows[:, 1:]

    def _packed_window(self, shard: int, pieces: list[tuple[int, int]]) -> np.ndarray:
        """One window of pieces (begin, end) of the shard, (2, T); a piece that is the last of its document ends it."""
        window, at = np.full((2, self.length), self.end_of_text, dtype=np.int64), 0
        for begin, end in pieces:
            window[0, at : at + end - begin] = self.files[shard][begin:end]
            after = self.files[shard][begin + 1 : end + 1]
            window[1, at : at + len(after)] = after
            at += end - begin
        return window

    def _pack(self, shard: int) -> list[list[tuple[int, int]]]:
        """The windows of a shard, each as the pieces (begin, end) that it holds.

        An end-of-text token that would be a piece alone is left out: nothing is asked of it.
        """
        edges = [0, *(self._ends(shard) + 1).tolist()]
        pieces = [(cut, min(cut + self.length, end)) for begin, end in pairwise(edges)
                  for cut in range(begin, end - 1, self.length)]
        return [[pieces[i] for i in window] for window in best_fit([end - begin for begin, end in pieces], self.length)]

    @property
    def padding(self) -> float:
        """Share of the inputs that is padding."""
        filled = sum(end - begin for windows in self.packed for window in windows for begin, end in window)
        return 1 - filled / (len(self) * self.length) if self.packed else 0.0

    def documents(self, x: Tensor) -> Tensor | None:
        """The number of each input's document within its window, (B, T); None if the model may look across."""
        if self.mode == "cross":
            return None
        ends = x == self.end_of_text
        return ends.cumsum(dim=1) - ends.long()

    def batch(self, step: int, size: int, seed: int, rank: int = 0, ranks: int = 1) -> tuple[Tensor, Tensor]:
        """This rank's share, (B / ranks, T), of the batch of one step.

        A pure function of its arguments: a run that stops and resumes, or that moves to other machines, sees
        the same data. Every window comes once before any comes twice.
        """
        return self.rows(self.indices(step, size, seed, rank, ranks))

    def indices(self, step: int, size: int, seed: int, rank: int = 0, ranks: int = 1) -> list[int]:
        """The windows of that batch."""
        places = np.arange(step * size + rank, (step + 1) * size, ranks)
        epochs, offsets = np.divmod(places, len(self))
        for epoch in np.unique(epochs):
            here = epochs == epoch
            places[here] = _permutation(len(self), seed, int(epoch))[offsets[here]]
        return places.tolist()

    def texts(self, indices: Iterable[int]) -> Tensor:
        """The number in the split of the document of each target of some windows of a stream, (B, T)."""
        if self.packed:
            raise ValueError("windows that are packed hold documents in no order; open the split with `cross`")
        firsts = np.cumsum([0, *(len(self._ends(n)) for n in range(len(self.files)))])
        rows = []
        for index in indices:
            shard = int(np.searchsorted(self.starts, index, side="right")) - 1
            begin = (index - int(self.starts[shard])) * self.length + 1
            rows.append(firsts[shard] + np.searchsorted(self._ends(shard), np.arange(begin, begin + self.length)))
        return torch.from_numpy(np.stack(rows))

    def whereabouts(self, index: int) -> str:
        """Where a window lies: the shard's file, its tokens, and its documents, both counted from 0."""
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        index -= int(self.starts[shard])
        pieces = self.packed[shard][index] if self.packed else [(index * self.length, (index + 1) * self.length)]
        return f"{self.names[shard]} " + " and ".join(self._place(shard, begin, end) for begin, end in pieces)

    def _place(self, shard: int, begin: int, end: int) -> str:
        first, last = np.searchsorted(self._ends(shard), [begin, end - 1 if self.packed else end])
        return f"tokens {begin} to {end} (documents {first} to {last})"

    def _ends(self, shard: int) -> np.ndarray:
        """Where the documents of a shard end."""
        if shard not in self.ends:
            self.ends[shard] = np.flatnonzero(self.files[shard] == self.end_of_text)
        return self.ends[shard]


def best_fit(lengths: list[int], room: int) -> list[list[int]]:
    """Windows that hold all lengths, as indices into `lengths`: the longest first, each where it leaves least room.

    Source  Johnson 1974, "Fast algorithms for bin packing" (best fit decreasing: at most 11/9 of the fewest windows).
    """
    windows: list[list[int]] = []
    open_windows: dict[int, list[list[int]]] = {}  # by the room that is left
    rooms: list[int] = []  # the keys of that, sorted
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = bisect_left(rooms, lengths[i])
        if at < len(rooms):
            left, window = rooms[at], open_windows[rooms[at]].pop()
            if not open_windows[left]:
                rooms.pop(at)
        else:
            left, window = room, []
            windows.append(window)
        window.append(i)
        if left := left - lengths[i]:
            if not open_windows.setdefault(left, []):
                insort(rooms, left)
            open_windows[left].append(window)
    return windows


def read_manifest(folder: Path) -> dict:
    """What shards.json says. Raises ValueError if there is none."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ValueError(f"there are no shards at {folder}; write them with `minigpt shards`")
    return json.loads(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)


def _cut(ids: np.ndarray, length: int) -> np.ndarray:
    """Every window of a stream with the token after it, (n, T + 1), without a copy: a window starts each T tokens."""
    if len(ids) <= length:
        return np.empty((0, length + 1), dtype=ids.dtype)
    return np.lib.stride_tricks.sliding_window_view(np.asarray(ids), length + 1)[::length]


def open_shard(path: Path, n_tokens: int) -> np.ndarray:
    """The tokens of a shard, mapped into memory. Raises ValueError if the file is not of so many tokens."""
    try:
        ids = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as fault:
        raise ValueError(f"the shard {path} cannot be read ({fault}); write the shards again") from None
    if len(ids) != n_tokens or path.stat().st_size != ids.offset + ids.nbytes:
        raise ValueError(f"the shard {path} has {len(ids)} tokens in {path.stat().st_size:,} bytes but its manifest "
                         f"says {n_tokens} tokens; write it again")
    return ids
