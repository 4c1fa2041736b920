"""What must be true before a job queues: else it is found out when the machines are paid for."""

import shutil
import tempfile
from pathlib import Path

from minigpt import checkpoint
from minigpt.cluster.gpus import GPUS, find
from minigpt.cluster.plan import Cluster, make_plan
from minigpt.config import RunConfig, nearest_divisor
from minigpt.corpus import check_shards
from minigpt.disk import locked
from minigpt.tokenizer import Tokenizer
from minigpt.train import claim, open_splits, refuse_other_settings

BYTES_PER_PARAMETER = 12
"""Of a checkpoint: a weight and AdamW's two moments, four bytes each."""


def check_ready(config: RunConfig, folder: Path, ranks: int) -> None:
    """Return if a run on so many ranks could start in this folder now, which is then this run's.

    Raises  ValueError, in one sentence, if the batch cannot be shared, if tokenizer or shards are missing, damaged or
            another run's, if the folder cannot be written to, or if its disk has no room for the checkpoints.
    """
    check_batch(config, ranks)
    check_writable(folder)
    refuse_other_settings(folder, config)
    if (folder / "model.safetensors").exists():
        raise ValueError(f"{folder} is trained already; next: minigpt evaluate {folder}")
    if not (folder / "tokenizer.json").exists():
        raise ValueError(f"{folder} has no tokenizer.json and no shards; write them first, with `minigpt shards` or "
                         "with a job that `minigpt slurm ... --parts N` writes")
    check_shards(folder / "shards", hashes=False)
    open_splits(config, Tokenizer.load(folder / "tokenizer.json"), folder / "shards")
    check_room(config, folder)
    with locked(folder):
        claim(folder, config)


def check_batch(config: RunConfig, ranks: int) -> None:
    """Raises ValueError, with the nearest number of ranks that can, if the ranks cannot share the batch evenly."""
    pieces, rest = divmod(config.train.batch_size, config.train.accumulate)
    if rest or pieces % ranks:
        raise ValueError(f"batch_size {config.train.batch_size} cannot be shared by {ranks} ranks in "
                         f"{config.train.accumulate} pieces each; take {nearest_divisor(pieces, ranks)} ranks, or "
                         "change --train.batch-size or --train.accumulate")


def check_memory(config: RunConfig, gpu: str, ranks: int, per_node: int) -> None:
    """Raises ValueError, with the nearest choice that can, if the run does not fit into GPUs of a known kind."""
    if gpu.lower() in GPUS:
        make_plan(config, Cluster(gpu=find(gpu), gpus=ranks, gpus_per_node=per_node))


def check_writable(folder: Path) -> None:
    """Raises ValueError if no file can be written into the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as fault:
        raise ValueError(f"{folder} cannot be written to ({fault.strerror}); "
                         "name another folder with --folder") from None


def check_room(config: RunConfig, folder: Path) -> None:
    """Raises ValueError if the checkpoints that are kept at once, one more that is being written, and the trained
    weights do not fit on the folder's disk. What the run has already written counts.
    """
    kept, settings = config.train.keep_checkpoints + 1, config.train
    forever = settings.steps // settings.keep_every if settings.keep_every else 0
    needed = config.model.n_parameters * ((kept + forever) * BYTES_PER_PARAMETER + 4)
    there = sum(file.stat().st_size for step in checkpoint.finished(folder / "checkpoints") for file in step.iterdir())
    free = shutil.disk_usage(folder).free
    if needed > free + there:
        raise ValueError(f"{folder} is on a disk with {free / 1e9:,.1f} GB free, but {kept + forever} checkpoints and "
                         f"the trained weights take {(needed - there) / 1e9:,.1f} GB; free some, name another folder, "
                         "or keep fewer (--train.keep-checkpoints, --train.keep-every)")
