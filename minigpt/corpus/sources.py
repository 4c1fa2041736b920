"""Documents from this disk or from a hub, one at a time."""

import glob
import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from minigpt.config import DataConfig

READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""How `datasets` reads a file by its ending; every other ending is plain text, one document a file."""

LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "pydoc_data"}
"""Folders of the standard library with other people's packages, test data, or one huge generated text."""


@dataclass(frozen=True)
class Document:
    """A text and the name by which it can be found again."""

    name: str
    text: str


def read_documents(config: DataConfig) -> Iterator[Document]:
    """The documents of a source, in an order that is always the same.

    Sources  `stdlib`: the modules of this Python's standard library, read where they lie.
             A file, a folder or a pattern: plain text, JSON lines or parquet.
             `hub:OWNER/NAME` or `hub:OWNER/NAME/CONFIG`: the train split of a data set on the hub, streamed.
    Raises   ValueError if there is nothing to read, or if a file is not UTF-8.
    """
    documents = _read(config)
    limit, size, empty = config.max_megabytes * 1e6, 0, True
    for document in documents:
        if not document.text.strip():
            continue
        empty = False
        yield document
        size += len(document.text.encode())
        if limit and size >= limit:
            return
    if empty:
        raise ValueError(f"the source {config.source!r} holds no text; name files that have some")


def text_bytes(config: DataConfig) -> int | None:
    """About how many bytes of text a source has, for the time left; None if only reading would tell."""
    if config.max_megabytes:
        return int(config.max_megabytes * 1e6)
    if config.source.startswith("hub:"):
        return None
    paths = _modules() if config.source == "stdlib" else _paths(config.source)
    return None if any(path.suffix == ".parquet" for path in paths) else sum(path.stat().st_size for path in paths)


def in_validation(name: str, share: float) -> bool:
    """Is a document kept out of training? Its name alone decides, so that the answer never changes."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < share * 2**64


def read_split(config: DataConfig) -> tuple[bytes, bytes]:
    """All training text and all validation text of a source, as UTF-8 bytes."""
    splits = bytearray(), bytearray()
    for document in read_documents(config):
        splits[in_validation(document.name, config.validation_share)].extend(document.text.encode())
    return bytes(splits[0]), bytes(splits[1])


def _read(config: DataConfig) -> Iterator[Document]:
    if config.source == "stdlib":
        yield from _read_text(_modules(), Path(sysconfig.get_path("stdlib")))
    elif config.source.startswith("hub:"):
        owner, name, *subset = config.source.removeprefix("hub:").split("/")
        yield from _rows(config, f"{owner}/{name}", *subset)
    else:
        yield from _read_files(config)


def _modules() -> list[Path]:
    """The modules of this Python's standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    return [path for path in sorted(root.rglob("*.py")) if not LEFT_OUT & set(path.relative_to(root).parts)]


def _paths(source: str) -> list[Path]:
    """The files that a file's, a folder's or a pattern's name stands for. Raises ValueError if there are none."""
    place = Path(source)
    if place.is_dir():
        paths = sorted(path for path in place.rglob("*") if path.is_file())
    else:
        paths = sorted(Path(name) for name in glob.glob(source, recursive=True))
    if not paths:
        raise ValueError(f"there is no text at {source!r}; name a file, a folder, a pattern or `stdlib`")
    return paths


def _read_files(config: DataConfig) -> Iterator[Document]:
    for path in _paths(config.source):
        if reader := READERS.get(path.suffix):
            yield from _rows(config, reader, data_files=str(path))
        else:
            yield from _read_text([path], path.parent)


def _read_text(paths: list[Path], root: Path) -> Iterator[Document]:
    for path in paths:
        try:
            yield Document(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as fault:
            raise ValueError(
                f"{path} is not UTF-8 (byte {fault.object[fault.start]:#04x} at {fault.start}); "
                "convert it or leave it out"
            ) from None


def _rows(config: DataConfig, reader: str, *subset: str, **options: str) -> Iterator[Document]:
    """Rows of a data set, by the `datasets` library and without loading it whole."""
    from datasets import load_dataset  # a second to import, so only when it is needed

    where = options.get("data_files", reader)
    try:
        rows = load_dataset(reader, *subset, split="train", streaming=True, **options)
        first = next(iter(islice(rows, 1)), None)
    except Exception as fault:  # the library raises many kinds: no such file, no network, broken rows
        raise ValueError(f"{where} cannot be read as a data set ({_first_line(fault)}); check the name") from fault
    if first is not None and not isinstance(first.get(config.text_field), str):
        raise ValueError(
            f"{where} has the columns {', '.join(first)} but no text in {config.text_field!r}; set data.text_field"
        )
    for number, row in enumerate(rows):
        yield Document(f"{where}:{number}", row[config.text_field])


def _first_line(fault: Exception) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0]
