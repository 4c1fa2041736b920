"""A copy of a run's shards on a node's own disk, whole and compared by hash, or a sentence on why there is none.

    python -m minigpt.cluster.stage runs/NAME/shards /tmp/copy

Exit code 1: the shards themselves are not what was written.
"""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from minigpt.corpus.shards import MANIFEST, read_manifest
from minigpt.disk import sha256, whole_folder

SPARE = 1.05
"""How much more room than the shards take there must be, because a disk that is full to the last byte helps nobody."""


def stage(shards: Path, copy: Path) -> str:
    """What happened, in a sentence; `copy` holds the shards afterwards, or does not exist.

    Raises  ValueError if a shard is not what was written.
    """
    manifest = read_manifest(shards)
    files = [shard for split in manifest["splits"].values() for shard in split]
    wanted = sizes(shards, files)
    with suppress(ValueError, OSError):  # what cannot be read is copied again
        if read_manifest(copy) == manifest and sizes(copy, files) == wanted:
            return f"{copy} has the shards already"
    shutil.rmtree(copy, ignore_errors=True)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        needed, free = sum(wanted), shutil.disk_usage(copy.parent).free
        if needed * SPARE > free:
            return (f"{copy.parent} has {free / 1e9:.1f} GB free but the shards take {needed / 1e9:.1f} GB; "
                    "this node reads the shared ones")
        with whole_folder(copy) as partial, ThreadPoolExecutor(8) as pool:
            for wrong in pool.map(lambda shard: copy_file(shards, partial, shard), files):
                if wrong:
                    raise OSError(None, wrong, str(copy))
            shutil.copyfile(shards / MANIFEST, partial / MANIFEST)
    except OSError as fault:
        return f"the shards were not copied to {copy} ({fault.strerror or fault}); this node reads the shared ones"
    return f"{needed / 1e9:.2f} GB of shards were copied to {copy}, their hashes compared"


def copy_file(shards: Path, target: Path, shard: dict) -> str:
    """Copy one shard; why the copy is not good, or nothing. Raises ValueError if the shard itself is not good."""
    source, copied = shards / shard["file"], target / shard["file"]
    copied.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, copied)
    if sha256(copied) == shard["sha256"]:
        return ""
    if (found := sha256(source)) != shard["sha256"]:
        raise ValueError(f"the shard {source} is not what was written (SHA-256 {found[:12]} instead of "
                         f"{shard['sha256'][:12]}); put it back or write the shards again")
    return f"the disk gives back something else than {shard['file']}"


def sizes(folder: Path, files: list[dict]) -> list[int]:
    """Bytes of each shard. Raises ValueError, naming it, if one is missing."""
    for shard in files:
        if not (folder / shard["file"]).exists():
            raise ValueError(f"the shard {folder / shard['file']} is missing; put it back or write the shards again")
    return [(folder / shard["file"]).stat().st_size for shard in files]


def main() -> None:
    shards, copy = (Path(word) for word in sys.argv[1:])
    try:
        print(f"shards: {stage(shards, copy)}")
    except ValueError as fault:
        sys.exit(f"shards: {fault}")


if __name__ == "__main__":
    main()
