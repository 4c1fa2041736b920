"""From a source to a tokenizer and shards, once for every run folder."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from minigpt.config import RunConfig
from minigpt.corpus.shards import MANIFEST
from minigpt.corpus.sources import Document, in_validation, read_documents, text_bytes
from minigpt.corpus.write import write_shards
from minigpt.tokenizer import Tokenizer

PARTS = "shards.parts"
"""The folder in which several machines write the shards of a run; see minigpt.corpus.parts."""


def prepare(config: RunConfig, folder: Path, processes: int = 1) -> Tokenizer:
    """The run's tokenizer; afterwards the folder holds tokenizer.json and shards/. What is there is kept.

    Shards that a stopped call left unfinished are gone on with.
    Raises  ValueError if the shards are being written in parts and some are missing.
    """
    tokenizer, shards = find_tokenizer(config, folder), folder / "shards"
    if not (shards / MANIFEST).exists():
        if (folder / PARTS).exists():
            raise ValueError(f"the shards of {folder} were begun in parts and are not whole; `minigpt shards --check "
                             f"{folder}` tells which are missing, and `minigpt shards RECIPE --part I --parts N` "
                             "writes them")
        with shard_bar(config) as bar:
            write_shards(read_documents(config.data), tokenizer, shards, bar=bar, processes=processes,
                         validation_share=config.data.validation_share)
    return tokenizer


def find_tokenizer(config: RunConfig, folder: Path) -> Tokenizer:
    """The tokenizer of a run's folder, trained now if there is none."""
    path = folder / "tokenizer.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tokenizer_bar(config) as bar:
            Tokenizer.train(told(training_texts(config), bar), config.model.vocab_size).save(path)
    return Tokenizer.load(path)


def shard_bar(config: RunConfig, part: int = 0, parts: int = 1) -> tqdm:
    """The progress of a part in bytes of text."""
    name = "shards" if parts == 1 else f"part {part} of {parts}"
    return tqdm(total=text_bytes(config.data, part, parts), desc=name, unit="B", unit_scale=True, mininterval=1.0,
                leave=False)


def tokenizer_bar(config: RunConfig) -> tqdm:
    """The progress of the tokenizer in bytes of the text that it learns from."""
    wanted = int(config.data.tokenizer_megabytes * 1e6)
    return tqdm(total=min(text_bytes(config.data) or wanted, wanted), desc="tokenizer", unit="B", unit_scale=True,
                mininterval=1.0, leave=False)


def told(texts: Iterable[str], bar: tqdm) -> Iterator[str]:
    """The same texts; the bar says how many bytes they have and, at their end, what comes next."""
    for text in texts:
        bar.update(len(text.encode()))
        yield text
    bar.set_description("tokenizer, joining pairs")


def training_texts(config: RunConfig) -> Iterator[str]:
    """Training documents until the tokenizer has seen as much text as it learns from."""
    left = config.data.tokenizer_megabytes * 1e6
    documents: Iterator[Document] = read_documents(config.data)
    for document in documents:
        if in_validation(document.name, config.data.validation_share):
            continue
        yield document.text
        left -= len(document.text.encode())
        if left <= 0:
            return
