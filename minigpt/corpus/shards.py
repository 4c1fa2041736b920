"""Shards: token ids in plain NumPy files that are mapped into memory, never loaded whole.

Axes: B batch, T time in tokens.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minigpt.corpus.sources import Document, in_validation
from minigpt.disk import whole_folder
from minigpt.tokenizer import Tokenizer

MANIFEST = "shards.json"


def write_shards(documents: Iterable[Document], tokenizer: Tokenizer, folder: Path, *,
                 validation_share: float, tokens_per_shard: int = 100_000_000) -> Path:
    """The folder with train_00000.npy, ..., validation_00000.npy, ... and shards.json, written whole or not at all.

    Every document is followed by the end-of-text token. The manifest names the tokenizer and, for each shard,
    its tokens, documents, bytes of text and SHA-256.
    Raises  ValueError if one of the two splits gets no document.
    """
    with whole_folder(folder) as partial:
        writers = {split: _Writer(partial, split, tokenizer, tokens_per_shard) for split in ("train", "validation")}
        for group in _groups(documents, 256):
            for document, ids in zip(group, tokenizer.encode_many([d.text for d in group]), strict=True):
                split = "validation" if in_validation(document.name, validation_share) else "train"
                writers[split].add(ids, len(document.text.encode()))
        manifest = {"tokenizer": tokenizer.fingerprint,
                    "splits": {split: writer.close() for split, writer in writers.items()}}
        for split, shards in manifest["splits"].items():
            if not shards:
                raise ValueError(f"no document fell into the {split} split; give more documents or another share")
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return Path(folder)


class _Writer:
    """Collects one split's tokens and writes a file whenever a shard is full."""

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer, tokens_per_shard: int) -> None:
        self.folder, self.split, self.limit = folder, split, tokens_per_shard
        self.end = tokenizer.end_of_text
        self.dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
        self.pieces: list[np.ndarray] = []
        self.counts = {"tokens": 0, "documents": 0, "bytes": 0}
        self.shards: list[dict] = []

    def add(self, ids: list[int], n_bytes: int) -> None:
        self.pieces.append(np.array([*ids, self.end], dtype=self.dtype))
        self.counts["tokens"] += len(ids) + 1
        self.counts["documents"] += 1
        self.counts["bytes"] += n_bytes
        if self.counts["tokens"] >= self.limit:
            self.flush()

    def flush(self) -> None:
        path = self.folder / f"{self.split}_{len(self.shards):05d}.npy"
        np.save(path, np.concatenate(self.pieces))
        self.shards.append({"file": path.name, **self.counts, "sha256": _sha256(path)})
        self.pieces, self.counts = [], dict.fromkeys(self.counts, 0)

    def close(self) -> list[dict]:
        if self.pieces:
            self.flush()
        return self.shards


class Shards:
    """One split of a corpus, cut into windows of T + 1 tokens that overlap by one.

    Raises  ValueError if the folder holds no shards, another tokenizer's shards, or a file of the wrong size.
    """

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer, length: int) -> None:
        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            raise ValueError(f"there are no shards at {folder}; write them with write_shards")
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["tokenizer"] != tokenizer.fingerprint:
            raise ValueError(
                f"the shards at {folder} were written with tokenizer {manifest['tokenizer']} but this run's is "
                f"{tokenizer.fingerprint}; write them again or load the tokenizer they were written with"
            )
        self.length, self.end_of_text = length, tokenizer.end_of_text
        self.files = [_open(folder / shard["file"], shard["tokens"]) for shard in manifest["splits"][split]]
        self.ends: dict[int, np.ndarray] = {}  # where documents end, for the shards that somebody asked about
        self.starts = np.cumsum([0, *((len(file) - 1) // length for file in self.files)])
        if not len(self):
            raise ValueError(
                f"the {split} split at {folder} has {sum(map(len, self.files))} tokens but one text of the model "
                f"takes {length + 1}; give more text or a shorter max_seq_len"
            )

    def __len__(self) -> int:
        """How many windows there are."""
        return int(self.starts[-1])

    def window(self, index: int) -> np.ndarray:
        """The T + 1 tokens of one window."""
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        begin = (index - int(self.starts[shard])) * self.length
        return self.files[shard][begin : begin + self.length + 1]

    def rows(self, indices: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Inputs and targets, each (B, T): the target of a token is the token after it."""
        windows = torch.from_numpy(np.stack([self.window(index) for index in indices]).astype(np.int64))
        return windows[:, :-1], windows[:, 1:]

    def batch(self, step: int, size: int, seed: int, rank: int = 0, ranks: int = 1) -> tuple[Tensor, Tensor]:
        """This rank's share, (B / ranks, T), of the batch of one step.

        A pure function of its arguments: a run that stops and resumes, or that moves to other machines, sees
        the same data. Every window comes once before any comes twice.
        """
        return self.rows(self.indices(step, size, seed, rank, ranks))

    def indices(self, step: int, size: int, seed: int, rank: int = 0, ranks: int = 1) -> list[int]:
        """The windows of that batch."""
        return [self._shuffled(place, seed) for place in range(step * size + rank, (step + 1) * size, ranks)]

    def whereabouts(self, index: int) -> str:
        """Where a window lies: the shard's file, its tokens, and its documents, both counted from 0."""
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        begin = (index - int(self.starts[shard])) * self.length
        if shard not in self.ends:
            self.ends[shard] = np.flatnonzero(self.files[shard] == self.end_of_text)
        first, last = np.searchsorted(self.ends[shard], [begin, begin + self.length])
        name = Path(self.files[shard].filename).name
        return f"{name} tokens {begin} to {begin + self.length} (documents {first} to {last})"

    def _shuffled(self, place: int, seed: int) -> int:
        epoch, offset = divmod(place, len(self))
        return int(_permutation(len(self), seed, epoch)[offset])


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)


def _open(path: Path, n_tokens: int) -> np.ndarray:
    try:
        ids = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as fault:
        raise ValueError(f"the shard {path} cannot be read ({fault}); write the shards again") from None
    if len(ids) != n_tokens:
        raise ValueError(f"the shard {path} has {len(ids)} tokens but its manifest says {n_tokens}; write it again")
    return ids


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _groups(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    rest = iter(documents)
    while group := list(islice(rest, size)):
        yield group
