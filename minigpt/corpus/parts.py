"""A corpus that several machines write at once: each its part, and whoever is last makes one corpus of them.

The parts lie in RUN/shards.parts/part-003-of-008 and so on, each as write_shards leaves it. When all are there, a
manifest that names the shards of all of them is written beside them, and the folder takes the name RUN/shards.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from minigpt.config import RunConfig
from minigpt.corpus.prepare import PARTS, find_tokenizer, shard_bar
from minigpt.corpus.shards import MANIFEST, read_manifest
from minigpt.corpus.sources import read_documents
from minigpt.corpus.write import JOURNAL, SPLITS, check_shards, write_shards
from minigpt.disk import in_turn, locked, write_text


def prepare_part(config: RunConfig, folder: Path, part: int, parts: int, processes: int = 1,
                 claim: Callable[[], object] = lambda: None) -> list[int]:
    """Write one part of the run's shards; the parts that are then still missing, and if none is, shards/ is whole.

    The first to come trains the tokenizer and the others wait for it. A part that was stopped goes on from there,
    one that is whole is left as it is. Which documents are held out does not depend on the number of parts.
    claim  is called first, while nobody else begins a part: it may refuse the folder.
    Raises  ValueError if there is no such part, if the folder's shards were begun in another way, if another
            process writes the same part, or if a part is not what it should be.
    """
    if not 0 <= part < parts:
        raise ValueError(f"there is no part {part} of {parts}; parts are counted from 0 to {parts - 1}")
    if parts > 1 and config.data.max_megabytes:
        raise ValueError("data.max_megabytes stops reading after so much text, which parts that are read side by side "
                         "cannot know; set it to 0 or leave out --part")
    folder, home = Path(folder), Path(folder) / PARTS
    target = home / part_name(part, parts)
    with in_turn(folder / "shards.lock"):
        claim()
        if (folder / "shards" / MANIFEST).exists():
            return []
        refuse_other_ways(folder, parts)
        tokenizer = find_tokenizer(config, folder)
        home.mkdir(exist_ok=True)
    with locked(home / f"{target.name}.lock"):
        if not (target / MANIFEST).exists():
            with shard_bar(config, part, parts) as bar:
                write_shards(read_documents(config.data, part, parts), tokenizer, target, bar=bar,
                             processes=processes, validation_share=config.data.validation_share, part=(part, parts))
    with in_turn(folder / "shards.lock"):
        return join(folder, parts)


def join(folder: Path, parts: int) -> list[int]:
    """Make the run's shards of its parts if all are whole; else the numbers of those that are missing.

    Raises  ValueError, naming it, if a part is another one than its name says or has lost a shard.
    """
    home = folder / PARTS
    if not home.exists():  # somebody else was last
        return []
    names = [part_name(part, parts) for part in range(parts)]
    if missing := [part for part, name in enumerate(names) if not (home / name / MANIFEST).exists()]:
        return missing
    found = {name: read_manifest(home / name) for name in names}
    for part, (name, manifest) in enumerate(found.items()):
        if manifest.get("part") != [part, parts]:
            raise ValueError(f"{home / name} holds part {manifest.get('part')} and not {[part, parts]}; remove it, "
                             f"then call again with --part {part} --parts {parts}")
    write_text(home / MANIFEST, json.dumps(whole(found), indent=2) + "\n")
    check_shards(home, hashes=False)
    for lock in home.glob("*.lock"):
        shutil.rmtree(lock)
    home.rename(folder / "shards")
    return []


def whole(parts: dict[str, dict]) -> dict:
    """One manifest of those of all parts, by folder. Raises ValueError if a split is empty or tokenizers differ."""
    tokenizers = sorted({manifest["tokenizer"] for manifest in parts.values()})
    if len(tokenizers) > 1:
        raise ValueError(f"the parts were written with different tokenizers ({', '.join(tokenizers)}); "
                         "remove those of the wrong one and write them again")
    splits = {split: [shard | {"file": f"{name}/{shard['file']}"} for name, manifest in parts.items()
                      for shard in manifest["splits"][split]] for split in SPLITS}
    for split, shards in splits.items():
        if not shards:
            raise ValueError(f"no document fell into the {split} split; give more documents or another share")
    trails = "".join(manifest["documents_sha256"] for manifest in parts.values())
    return {"tokenizer": tokenizers[0], "parts": len(parts),
            "documents": sum(manifest["documents"] for manifest in parts.values()),
            "documents_sha256": hashlib.sha256(trails.encode()).hexdigest(), "splits": splits}


def refuse_other_ways(folder: Path, parts: int) -> None:
    """Raises ValueError if the shards of this run were begun in one piece or in another number of parts."""
    if (folder / "shards.partial").exists():
        raise ValueError(f"{folder / 'shards.partial'} was begun without --part; go on without it or remove it")
    for path in (folder / PARTS).glob("part-*-of-*"):
        begun = int(path.name.split(".")[0].rsplit("-", 1)[1])
        if begun != parts:
            raise ValueError(f"{folder / PARTS} was begun in {begun} parts; go on with --parts {begun} or remove it")


def part_name(part: int, parts: int) -> str:
    return f"part-{part:05d}-of-{parts:05d}"


def progress(folder: Path) -> dict[int, tuple[str, int]]:
    """What there is of each part of a run whose shards are not whole: `whole`, `begun` or `missing`, and documents."""
    home = Path(folder) / PARTS
    names = sorted({path.name.split(".")[0] for path in home.glob("part-*-of-*")})
    if not names:
        return {}
    parts = int(names[0].rsplit("-", 1)[1])
    return {part: _progress(home / part_name(part, parts)) for part in range(parts)}


def _progress(path: Path) -> tuple[str, int]:
    for word, file in (("whole", path / MANIFEST), ("begun", path.with_name(f"{path.name}.partial") / JOURNAL)):
        if file.exists():
            return word, json.loads(file.read_text(encoding="utf-8"))["documents"]
    return "missing", 0
