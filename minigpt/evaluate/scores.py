"""All the scores of a finished run, in one file beside it."""

import json
from pathlib import Path
from typing import Any

import torch

from minigpt import checkpoint
from minigpt.corpus import Shards
from minigpt.disk import write_text
from minigpt.evaluate.ladder import counting_models
from minigpt.evaluate.loss import bits_per_byte, even_windows, validation_loss
from minigpt.evaluate.parsing import parse_rate
from minigpt.evaluate.statistics import bits_per_byte_interval, share_interval
from minigpt.model import GPT

SAMPLES = 128
"""How many functions are generated to see how many of them parse."""


def evaluate_run(folder: Path) -> dict[str, Any]:
    """Bits per byte on the ladder, share of generated functions that parse, samples before and after training; and
    between what the figures lie with 95 % confidence.

    Also written to scores.json in the run's folder.
    """
    folder = Path(folder)
    model, tokenizer, config = checkpoint.load(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    train, validation = (Shards(folder / "shards", split, tokenizer, config.model.max_seq_len)
                         for split in ("train", "validation"))
    lengths = torch.from_numpy(tokenizer.byte_lengths())
    loss = validation_loss(model, validation, config.train.evaluate_tokens)
    rate, after = parse_rate(model, tokenizer, samples=SAMPLES, seed=config.train.seed)
    rate_before, before = parse_rate(GPT(config.model, config.train.seed).to(device), tokenizer, samples=SAMPLES,
                                     seed=config.train.seed)
    nats, bytes_of_targets = counting_models(train, loss, len(lengths)) | {"model": loss.nats}, lengths[loss.targets]
    texts = validation.texts(even_windows(validation, config.train.evaluate_tokens)).flatten()
    scores = {
        "validation_tokens": len(loss.nats),
        "validation_bytes": int(bytes_of_targets.sum()),
        "validation_texts": len(texts.unique()),
        "bits_per_byte": {name: bits_per_byte(paid, bytes_of_targets) for name, paid in nats.items()},
        "intervals": {"bits_per_byte": {name: bits_per_byte_interval(paid, bytes_of_targets, texts)
                                        for name, paid in nats.items()},
                      "parse_rate": {"before": share_interval(rate_before, SAMPLES),
                                     "after": share_interval(rate, SAMPLES)}},
        "parse_rate": {"before": rate_before, "after": rate, "samples": SAMPLES},
        "samples": {"before": before[:3], "after": after[:6]},
    }
    write_text(folder / "scores.json", json.dumps(scores, indent=2, ensure_ascii=False) + "\n")
    return scores
