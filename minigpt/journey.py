"""The whole road in a minute and a half: text, tokenizer, shards, model, scores, report card."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minigpt.config import RunConfig
from minigpt.corpus import prepare
from minigpt.disk import locked, write_text
from minigpt.evaluate import evaluate_run, write_report
from minigpt.train import claim, train

WRITTEN = {"config.json", "tokenizer.json", "shards", "shards.parts", "shards.lock", "log.csv", "alarms.jsonl",
           "events.jsonl", "machine.json", "tensorboard", "wandb", "wandb.id", "checkpoints", "model.safetensors",
           "scores.json", "report.json", "report.md", "report.html", "loss.png", "speed.png", "ladder.png"}
"""What a run and its report write into their folder, first some of it under names that end in `.partial`."""

BEFORE = {"lock", "lease.json", "code.json", "plan.json", "plan.md"}
"""What may lie in the folder before there is a run, and stays when the run is made again."""


def travel(config: RunConfig, folder: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """The report card of a run, taken through every step of the road.

    A folder that this version of minigpt has finished with this config is left as it is; one that is in between
    goes on from there; one that another version of minigpt made is made again.
    """
    folder = Path(folder)
    refuse_other_files(folder)
    with locked(folder):
        forget_other_code(folder)
        claim(folder, config)
        say(f"1/4  text to tokens: {config.data.source}, {config.model.vocab_size} tokens")
        tokenizer = prepare(config, folder)
    say(f"2/4  training: {config.model.n_parameters:,} parameters, {config.train.steps} steps of "
        f"{config.tokens_per_step:,} tokens")
    train(config, tokenizer, folder / "shards", folder)
    say("3/4  scores: bits per byte and generated functions")
    if not (folder / "scores.json").exists():
        evaluate_run(folder)
    say(f"4/4  report card: {folder / 'report.md'}")
    return write_report(folder)


def refuse_other_files(folder: Path) -> None:
    """Raises ValueError if the folder holds something that no journey and no plan has made."""
    if (folder / "code.json").exists() or not folder.exists():
        return
    if {path.name.removesuffix(".partial") for path in folder.iterdir()} - BEFORE:
        what = "a run that no journey made" if (folder / "config.json").exists() else "other files and no run"
        raise ValueError(f"{folder} holds {what}; choose an empty or a new folder")


def forget_other_code(folder: Path) -> None:
    """Remove what other code made of a run, so that its figures are never shown as this code's."""
    stamp, code = folder / "code.json", code_fingerprint()
    if stamp.exists():
        if json.loads(stamp.read_text(encoding="utf-8"))["minigpt"] == code:
            return
        for path in folder.iterdir():
            if path.name.removesuffix(".partial") in WRITTEN:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_text(stamp, json.dumps({"minigpt": code}) + "\n")


def code_fingerprint() -> str:
    """Twelve characters that change with any line of minigpt."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
