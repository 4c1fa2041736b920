"""Documents into shards, by several processes if wanted, and on from where a stopped call was, to the same bytes.

What is done lies in FOLDER.partial: whole shards, the tokens of the last one of each split (`.ids`, without a
header), and journal.json, which says how much of them counts. FOLDER appears when all is whole.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minigpt.corpus.shards import MANIFEST, open_shard, read_manifest
from minigpt.corpus.sources import Document, in_validation
from minigpt.disk import sha256, write_text
from minigpt.tokenizer import Tokenizer

JOURNAL = "journal.json"
SPLITS = ("train", "validation")
GROUP_BYTES = 1_000_000
"""About how much text is encoded at a time; after each such group the journal is written."""


def write_shards(documents: Iterable[Document], tokenizer: Tokenizer, folder: Path, *, validation_share: float,
                 tokens_per_shard: int = 100_000_000, processes: int = 1, bar: tqdm | None = None,
                 part: tuple[int, int] | None = None) -> Path:
    """The folder with train_00000.npy, ..., validation_00000.npy, ... and shards.json, written whole or not at all.

    Every document is followed by the end-of-text token. The manifest names the tokenizer and, for each shard,
    its tokens, documents, bytes of text and SHA-256. A call after a stop goes on from there; the bytes written
    depend neither on stops nor on the number of processes. The bar counts bytes of text.
    part (i, n) says that these are the documents of part i of n; then a split may be empty.
    Raises  ValueError if one of the two splits gets no document, or if the documents changed since the stop.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    work = _resume(partial, {"tokenizer": tokenizer.fingerprint, "validation_share": validation_share,
                             "tokens_per_shard": tokens_per_shard, "part": part and list(part),
                             "dtype": "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"})
    rest = _skip(iter(documents), work, partial, bar)
    for group, coded in _encode_all(_groups(rest), tokenizer, processes):
        for document, ids in zip(group, coded, strict=True):
            _add(partial, work, document, [*ids, tokenizer.end_of_text])
        _keep(partial, work)
        write_text(partial / JOURNAL, json.dumps(work))
        _sweep(partial, work)
        _tell(bar, work, group)
    return _finish(partial, folder, work)


def _resume(partial: Path, settings: dict) -> dict:
    """The journal of a stopped call with the same settings; otherwise a new one and an empty folder."""
    if (partial / JOURNAL).exists():
        work = json.loads((partial / JOURNAL).read_text(encoding="utf-8"))
        if work["settings"] == settings:
            return work
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return {"settings": settings, "documents": 0, "trail": "", "splits": {split: [] for split in SPLITS}}


def _skip(documents: Iterator[Document], work: dict, partial: Path, bar: tqdm | None) -> Iterator[Document]:
    """The documents that are not yet done. Raises ValueError if those that are done are not what they were."""
    trail = ""
    for _ in range(work["documents"]):
        if (document := next(documents, None)) is None:
            break
        trail = _follow(trail, document)
        if bar is not None:
            bar.update(len(document.text.encode()))
    if trail != work["trail"]:
        raise ValueError(f"the documents are not those that {partial} was begun with; remove it and call again")
    for shards in work["splits"].values():  # a stop between the tokens and the journal leaves too many tokens
        if shards and "sha256" not in shards[-1]:
            path, size = _ids(partial, shards[-1]), shards[-1]["tokens"] * np.dtype(work["settings"]["dtype"]).itemsize
            if not path.exists() or path.stat().st_size < size:
                raise ValueError(f"{path} has lost tokens that were written to it; remove {partial} and call again")
            os.truncate(path, size)
    return documents


def _add(partial: Path, work: dict, document: Document, ids: list[int]) -> None:
    """Append one document to the open shard of its split, and close that shard if it is full."""
    split = "validation" if in_validation(document.name, work["settings"]["validation_share"]) else "train"
    shards = work["splits"][split]
    if not shards or "sha256" in shards[-1]:
        shards.append({"file": f"{split}_{len(shards):05d}.npy", "tokens": 0, "documents": 0, "bytes": 0})
        _ids(partial, shards[-1]).write_bytes(b"")
    shard = shards[-1]
    with open(_ids(partial, shard), "ab") as file:
        file.write(np.array(ids, dtype=work["settings"]["dtype"]).tobytes())
    shard["tokens"] += len(ids)
    shard["documents"] += 1
    shard["bytes"] += len(document.text.encode())
    work["documents"] += 1
    work["trail"] = _follow(work["trail"], document)
    if shard["tokens"] >= work["settings"]["tokens_per_shard"]:
        _close(partial, work, shard)


def _keep(partial: Path, work: dict) -> None:
    """Wait until the disk has the tokens that the journal is about to count, even if the machine fails."""
    for shard in (shards[-1] for shards in work["splits"].values() if shards):
        path = partial / shard["file"] if "sha256" in shard else _ids(partial, shard)
        with open(path, "rb+") as file:
            os.fsync(file)


def _close(partial: Path, work: dict, shard: dict) -> None:
    """The shard as a NumPy file and its hash; the tokens without a header stay until the journal knows of it."""
    np.save(partial / shard["file"], np.fromfile(_ids(partial, shard), dtype=work["settings"]["dtype"]))
    shard["sha256"] = sha256(partial / shard["file"])


def _finish(partial: Path, folder: Path, work: dict) -> Path:
    part = work["settings"]["part"]
    for split, shards in work["splits"].items():
        if not shards and not part:
            shutil.rmtree(partial)
            raise ValueError(f"no document fell into the {split} split; give more documents or another share")
        if shards and "sha256" not in shards[-1]:
            _close(partial, work, shards[-1])
    manifest = {"tokenizer": work["settings"]["tokenizer"], **({"part": part} if part else {}),
                "documents": work["documents"], "documents_sha256": work["trail"], "splits": work["splits"]}
    _keep(partial, work)
    write_text(partial / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    write_text(partial / JOURNAL, json.dumps(work))  # all shards are closed: a stop from here on loses nothing
    _sweep(partial, work)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    (folder / JOURNAL).unlink()
    return folder


def _sweep(partial: Path, work: dict) -> None:
    """Remove the header-less tokens of shards that are whole."""
    for shard in (shard for shards in work["splits"].values() for shard in shards if "sha256" in shard):
        _ids(partial, shard).unlink(missing_ok=True)


def check_shards(folder: Path, hashes: bool = True) -> dict:
    """The manifest, after every shard was found to be there, once, and in its size; and, with `hashes`, read and
    found to be what was written.

    Raises  ValueError, naming the shard, if one is missing, doubled, superfluous, or not what was written.
    """
    folder, manifest = Path(folder), read_manifest(folder)
    shards = [shard for shards in manifest["splits"].values() for shard in shards]
    _check_names(folder, shards)
    for shard in shards:
        open_shard(folder / shard["file"], shard["tokens"])
    if hashes:
        with ThreadPoolExecutor() as pool:
            found = pool.map(sha256, [folder / shard["file"] for shard in shards])
            bar = tqdm(found, "reading shards", len(shards), leave=False, delay=2.0)
            for shard, digest in zip(shards, bar, strict=True):
                if digest != shard["sha256"]:
                    raise ValueError(f"the shard {folder / shard['file']} is not what was written (SHA-256 "
                                     f"{digest[:12]} instead of {shard['sha256'][:12]}); "
                                     "put it back or write the shards again")
    return manifest


def _check_names(folder: Path, shards: list[dict]) -> None:
    """Raises ValueError if a shard stands twice in the manifest, is not in the folder, or not in the manifest."""
    twice = Counter(shard["sha256"] for shard in shards)
    if doubled := [shard["file"] for shard in shards if twice[shard["sha256"]] > 1]:
        raise ValueError(f"{' and '.join(doubled[:2])} in {folder} hold the same tokens, which would be trained on "
                         "twice; write the shards again from documents that come once")
    there, named = {path.relative_to(folder).as_posix() for path in folder.rglob("*.npy")}, {s["file"] for s in shards}
    for file in sorted(named - there):
        raise ValueError(f"the shard {folder / file} is missing; put it back or write the shards again")
    for file in sorted(there - named):
        raise ValueError(f"{folder / file} is not in the manifest {folder / MANIFEST}; remove it or write the shards "
                         "again")


def _ids(partial: Path, shard: dict) -> Path:
    return (partial / shard["file"]).with_suffix(".ids")


def _follow(trail: str, document: Document) -> str:
    """A hash of all documents so far, in their order."""
    return hashlib.sha256(f"{trail}\0{document.name}\0{document.text}".encode()).hexdigest()


def _tell(bar: tqdm | None, work: dict, group: list[Document]) -> None:
    if bar is not None:
        bar.update(sum(len(document.text.encode()) for document in group))
        tokens = sum(shard["tokens"] for shards in work["splits"].values() for shard in shards)
        bar.set_postfix(documents=f"{work['documents']:,}", tokens=f"{tokens:,}")


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    group, size = [], 0
    for document in documents:
        group.append(document)
        size += len(document.text)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _encode_all(groups: Iterable[list[Document]], tokenizer: Tokenizer,
                processes: int) -> Iterator[tuple[list[Document], list[list[int]]]]:
    """Each group with its ids, in order; several processes work ahead by two groups each."""
    if processes == 1:
        for group in groups:
            yield group, tokenizer.encode_many([document.text for document in group])
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _start_worker, (tokenizer.engine.to_str(),)) as pool:
        ahead: deque = deque()
        for group in groups:
            ahead.append((group, pool.submit(_encode, [document.text for document in group])))
            if len(ahead) > 2 * processes:
                group, coded = ahead.popleft()
                yield group, coded.result()
        for group, coded in ahead:
            yield group, coded.result()


def _start_worker(engine: str) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all, and the parent ends its workers
    _worker = Tokenizer.from_text(engine)
    parent = multiprocessing.parent_process()  # a parent that was killed cannot stop its workers: they watch it
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _encode(texts: list[str]) -> list[list[int]]:
    return _worker.encode_many(texts)
