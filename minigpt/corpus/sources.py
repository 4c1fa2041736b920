"""Documents from this disk or from a hub, one at a time."""

import glob
import hashlib
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any

from minigpt.config import DataConfig

READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
"""How `datasets` reads a file by its ending; every other ending is plain text, one document a file."""

PACKED = {".gz", ".zst"}
"""Endings that may follow those of a table; `datasets` unpacks it as it reads."""

LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "pydoc_data"}
"""Folders of the standard library with other people's packages, test data, or one huge generated text."""


@dataclass(frozen=True)
class Document:
    """A text and the name by which it can be found again."""

    name: str
    text: str


def read_documents(config: DataConfig, part: int = 0, parts: int = 1) -> Iterator[Document]:
    """The documents of a source, or one of several parts of them, in an order that is always the same.

    Sources  `stdlib`: the modules of this Python's standard library, read where they lie.
             A file, a folder or a pattern: plain text, JSON lines, CSV or parquet; the last three packed or not.
             A folder that `datasets` wrote with save_to_disk; of one with several splits, the folder of one.
             `hub:OWNER/NAME` or `hub:OWNER/NAME/CONFIG`: the train split of a data set on the hub, streamed.
    Parts    Part i takes the files i, i + parts, i + 2 parts, ...; if there are fewer files than parts, it takes
             the documents of these numbers. A document has the same name in whatever part it comes.
    Raises   ValueError if there is nothing to read, or if a file is not UTF-8.
    """
    limit, size, empty = config.max_megabytes * 1e6, 0, parts == 1
    for document in _part(_files(config), part, parts):
        if not document.text.strip():
            continue
        empty = False
        yield document
        size += len(document.text.encode())
        if limit and size >= limit:
            return
    if empty:
        raise ValueError(f"the source {config.source!r} holds no text; name files that have some")


def text_bytes(config: DataConfig, part: int = 0, parts: int = 1) -> int | None:
    """About how many bytes of text a source or a part of it has; None if only reading would tell."""
    if config.max_megabytes:
        return int(config.max_megabytes * 1e6)
    if config.source.startswith("hub:"):
        return None
    paths = _modules() if config.source == "stdlib" else _paths(config.source)
    if any(path.suffix in {".parquet", *PACKED} for path in paths):
        return None
    mine = paths if len(paths) < parts else paths[part::parts]
    return sum(path.stat().st_size for path in mine) // (parts if len(paths) < parts else 1)


def in_validation(name: str, share: float) -> bool:
    """Is a document kept out of training? Its name alone decides, so that the answer never changes."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < share * 2**64


def read_split(config: DataConfig) -> tuple[bytes, bytes]:
    """All training text and all validation text of a source, as UTF-8 bytes."""
    splits = bytearray(), bytearray()
    for document in read_documents(config):
        splits[in_validation(document.name, config.validation_share)].extend(document.text.encode())
    return bytes(splits[0]), bytes(splits[1])


Reader = Callable[[], Iterator[Document]]
"""Reads one file when it is called."""


def _part(files: list[Reader], part: int, parts: int) -> Iterator[Document]:
    if len(files) < parts:  # too few to share out: every part opens them all
        return islice(chain.from_iterable(read() for read in files), part, None, parts)
    return chain.from_iterable(read() for read in files[part::parts])


def _files(config: DataConfig) -> list[Reader]:
    """A reader for each file of a source, in an order that is always the same."""
    if config.source == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        return [partial(_read_text, path, root) for path in _modules()]
    if config.source.startswith("hub:"):
        owner, _, rest = config.source.removeprefix("hub:").partition("/")
        if not rest:
            raise ValueError(f"the source is {config.source!r} but a data set on the hub has an owner; "
                             "write hub:OWNER/NAME")
        name, *subset = rest.split("/")
        rows = _open(config, f"{owner}/{name}", *subset)
        return [partial(_read_rows, config, rows.shard(rows.num_shards, number), f"{owner}/{name}:{number}")
                for number in range(rows.num_shards)]
    root = _root(config.source)
    return [partial(_read_table, config, path, root) if _reader(path) else partial(_read_text, path, root)
            for path in _paths(config.source)]


def _reader(path: Path) -> str | None:
    """How `datasets` reads this file; None if it is plain text."""
    return READERS.get((path.with_suffix("") if path.suffix in PACKED else path).suffix)


def _modules() -> list[Path]:
    """The modules of this Python's standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    return [path for path in sorted(root.rglob("*.py")) if not LEFT_OUT & set(path.relative_to(root).parts)]


def _paths(source: str) -> list[Path]:
    """The files that a file's, a folder's or a pattern's name stands for. Raises ValueError if there are none."""
    place = Path(source)
    if (place / "dataset_dict.json").exists():
        splits = sorted(path.parent.name for path in place.glob("*/state.json"))
        raise ValueError(f"the source {source!r} has the splits {', '.join(splits)}; name the folder of one of them")
    found = place.rglob("*") if place.is_dir() else map(Path, glob.glob(source, recursive=True))
    paths = sorted(path for path in found if path.is_file())
    if any(path.suffix == ".arrow" for path in paths):  # save_to_disk writes a few words about them beside them
        paths = [path for path in paths if path.name not in ("state.json", "dataset_info.json")]
    if not paths:
        raise ValueError(f"there is no text at {source!r}; name a file, a folder, a pattern or `stdlib`")
    return paths


def _root(source: str) -> Path:
    """What the names of a source's documents are counted from: the folder, or the part of a pattern that is fixed."""
    place = Path(source)
    if place.is_dir():
        return place
    return Path(*takewhile(lambda part: not glob.has_magic(part), place.parent.parts))


def _read_text(path: Path, root: Path) -> Iterator[Document]:
    try:
        yield Document(path.relative_to(root).as_posix(), path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as fault:
        raise ValueError(
            f"{path} is not UTF-8 (byte {fault.object[fault.start]:#04x} at {fault.start}); "
            "convert it or leave it out"
        ) from None


def _read_table(config: DataConfig, path: Path, root: Path) -> Iterator[Document]:
    yield from _read_rows(config, _open(config, _reader(path), data_files=str(path)), path.relative_to(root).as_posix())


def _open(config: DataConfig, reader: str, *subset: str, **options: str) -> Any:
    """The rows of a data set, by the `datasets` library and without loading it whole."""
    from datasets import load_dataset  # a second to import, so only when it is needed

    where = options.get("data_files", reader)
    try:
        rows = load_dataset(reader, *subset, split="train", streaming=True, **options)
        first = next(iter(islice(rows, 1)), None)
    except Exception as fault:  # the library raises many kinds: no such file, no network, broken rows
        raise ValueError(f"{where} cannot be read as a data set ({_first_line(fault)}); check the name") from fault
    if first is not None and not isinstance(first.get(config.text_field, 0), str | None):
        raise ValueError(
            f"{where} has the columns {', '.join(first)} but no text in {config.text_field!r}; set data.text_field"
        )
    return rows


def _read_rows(config: DataConfig, rows: Iterable[dict[str, Any]], where: str) -> Iterator[Document]:
    for number, row in enumerate(rows):
        text = row[config.text_field]
        if not isinstance(text, str | None):
            raise ValueError(f"row {number} of {where} has {text!r} in {config.text_field!r}, which is no text; "
                             "repair it or leave it out")
        yield Document(f"{where}:{number}", text or "")


def _first_line(fault: Exception) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0]
