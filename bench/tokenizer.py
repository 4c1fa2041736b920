"""Megabytes a second of training and encoding: minigpt's tokenizer beside bare `tokenizers` and tiktoken.

    python bench/tokenizer.py                     writes bench/tokenizer.json
    python bench/tokenizer.py --megabytes 1 --rounds 1

The text is the standard library. tiktoken gets minigpt's merges and must give minigpt's ids.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import tiktoken
import tokenizers
from record import in_turn, record

from minigpt.config import DataConfig
from minigpt.corpus import read_documents
from minigpt.tokenizer import Tokenizer

WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How GPT-2, and `tokenizers`' ByteLevel with it, cuts text before merging."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--megabytes", type=float, default=10.0)
    options.add_argument("--vocab-size", type=int, default=8192)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    texts = [document.text for document in read_documents(DataConfig(max_megabytes=given.megabytes))]
    ours = Tokenizer.train(texts, given.vocab_size)
    theirs = tiktoken.Encoding("same", pat_str=WORDS, special_tokens={ours.end: ours.end_of_text},
                               mergeable_ranks={piece: i for i, piece in enumerate(ours.pieces) if piece})
    if any(ours.encode(text) != theirs.encode_ordinary(text) for text in texts[:50]):
        raise ValueError("tiktoken gives other ids than minigpt; look at its pattern and its merges")
    size = sum(len(text.encode()) for text in texts) / 1e6
    parts = {
        "encoding, MB/s": {
            "minigpt": lambda: ours.encode_many(texts),
            "tokenizers": lambda: ours.engine.encode_batch(texts, add_special_tokens=False),
            "tokenizers, no offsets": lambda: ours.engine.encode_batch_fast(texts, add_special_tokens=False),
            "tiktoken, one thread": lambda: [theirs.encode_ordinary(text) for text in texts],
            "tiktoken, two threads": lambda: theirs.encode_ordinary_batch(texts, num_threads=2)},
        "training, MB/s": {"minigpt": lambda: Tokenizer.train(texts, given.vocab_size),
                           "tokenizers": lambda: train_bare(texts, given.vocab_size)}}
    record(Path(__file__).with_suffix(".json"), "Speed of the tokenizer",
           {part: in_turn({name: rate(work, size) for name, work in works.items()}, given.rounds)
            for part, works in parts.items()}, ("tokenizers", "tiktoken"))


def train_bare(texts: list[str], vocab_size: int) -> None:
    tokenizers.ByteLevelBPETokenizer().train_from_iterator(texts, vocab_size=vocab_size, show_progress=False)


def rate(work: Callable[[], object], megabytes: float) -> Callable[[], float]:
    def measure() -> float:
        start = time.perf_counter()
        work()
        return megabytes / (time.perf_counter() - start)

    return measure


if __name__ == "__main__":
    main()
