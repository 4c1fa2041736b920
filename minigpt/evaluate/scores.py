"""All the scores of a finished run, in one file beside it."""

import json
from pathlib import Path
from typing import Any

import torch

from minigpt import checkpoint
from minigpt.corpus import Shards
from minigpt.disk import write_text
from minigpt.evaluate.ladder import ladder
from minigpt.evaluate.loss import bits_per_byte, validation_loss
from minigpt.evaluate.parsing import parse_rate
from minigpt.model import GPT

SAMPLES = 128
"""How many functions are generated to see how many of them parse."""


def evaluate_run(folder: Path) -> dict[str, Any]:
    """Bits per byte on the ladder, share of generated functions that parse, samples before and after training.

    Also written to scores.json in the run's folder.
    """
    folder = Path(folder)
    model, tokenizer, config = checkpoint.load(folder)
    train, validation = (Shards(folder / "shards", split, tokenizer, config.model.max_seq_len)
                         for split in ("train", "validation"))
    lengths = torch.from_numpy(tokenizer.byte_lengths())
    loss = validation_loss(model, validation, config.train.evaluate_tokens)
    rate, after = parse_rate(model, tokenizer, samples=SAMPLES, seed=config.train.seed)
    rate_before, before = parse_rate(GPT(config.model, config.train.seed), tokenizer, samples=SAMPLES,
                                     seed=config.train.seed)
    scores = {
        "validation_tokens": len(loss.nats),
        "validation_bytes": int(lengths[loss.targets].sum()),
        "bits_per_byte": {**ladder(train, loss, lengths), "model": bits_per_byte(loss.nats, lengths[loss.targets])},
        "parse_rate": {"before": rate_before, "after": rate, "samples": SAMPLES},
        "samples": {"before": before[:3], "after": after[:6]},
    }
    write_text(folder / "scores.json", json.dumps(scores, indent=2, ensure_ascii=False) + "\n")
    return scores
