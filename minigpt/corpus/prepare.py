"""From a source to a tokenizer and shards, once for every run folder."""

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from minigpt.config import RunConfig
from minigpt.corpus.shards import MANIFEST, write_shards
from minigpt.corpus.sources import Document, in_validation, read_documents
from minigpt.tokenizer import Tokenizer


def prepare(config: RunConfig, folder: Path) -> Tokenizer:
    """The run's tokenizer; afterwards the folder holds tokenizer.json and shards/. What is there is kept."""
    tokenizer_file, shards = folder / "tokenizer.json", folder / "shards"
    if not tokenizer_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = Tokenizer.train(_training_texts(config), config.model.vocab_size)
        tokenizer.save(tokenizer_file)
    tokenizer = Tokenizer.load(tokenizer_file)
    if not (shards / MANIFEST).exists():
        documents = tqdm(read_documents(config.data), desc="shards", unit=" documents", mininterval=1.0, leave=False)
        write_shards(documents, tokenizer, shards, validation_share=config.data.validation_share)
    return tokenizer


def _training_texts(config: RunConfig) -> Iterator[str]:
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
