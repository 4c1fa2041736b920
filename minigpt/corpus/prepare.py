"""From a source to a tokenizer and shards, once for every run folder."""

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from minigpt.config import RunConfig
from minigpt.corpus.shards import MANIFEST
from minigpt.corpus.sources import Document, in_validation, read_documents, text_bytes
from minigpt.corpus.write import write_shards
from minigpt.tokenizer import Tokenizer


def prepare(config: RunConfig, folder: Path, processes: int = 1) -> Tokenizer:
    """The run's tokenizer; afterwards the folder holds tokenizer.json and shards/. What is there is kept.

    Shards that a stopped call left unfinished are gone on with.
    """
    tokenizer_file, shards = folder / "tokenizer.json", folder / "shards"
    if not tokenizer_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = Tokenizer.train(training_texts(config), config.model.vocab_size)
        tokenizer.save(tokenizer_file)
    tokenizer = Tokenizer.load(tokenizer_file)
    if not (shards / MANIFEST).exists():
        with tqdm(total=text_bytes(config.data), desc="shards", unit="B", unit_scale=True, mininterval=1.0,
                  leave=False) as bar:
            write_shards(read_documents(config.data), tokenizer, shards, bar=bar, processes=processes,
                         validation_share=config.data.validation_share)
    return tokenizer


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
