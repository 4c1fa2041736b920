"""The recipe of 1.1 billion parameters on one GPU: what each choice brings, and litgpt at the same shape.

    python bench/gpu_1b.py               on an H100 or H200; writes bench/gpu_1b.json
    python bench/gpu_1b.py --dry-run     the same road with a tiny model on the processor; writes nothing to the book

Contestants run one after the other, each alone on the GPU. Model FLOPs utilization is
(6 weights + 12 layers width length) FLOP a token times tokens/s over the device's bf16 peak of minigpt.machine.
"""

import argparse
import datetime
import json
import statistics
from pathlib import Path
from typing import Any

import torch
import training
from training import Contestant

from minigpt import recipes
from minigpt.config import ModelConfig
from minigpt.disk import write_text
from minigpt.evaluate.report import machine
from minigpt.machine import peak as best_rate

RESULT = Path(__file__).resolve().with_suffix(".json")
COLUMNS = ["who", "sequences a step", "tokens/s", "spread", "FLOPs utilization", "peak MB"]


def contestants() -> list[tuple[Contestant, int]]:
    """Who runs and with how many sequences a step: the full setting first, then without one choice at a time."""
    full = {"compile": True, "train": {"loss_chunk": 2048}}
    return [(Contestant(engine="minigpt", **full), 8),
            (Contestant(engine="minigpt", **full), 4),
            (Contestant(engine="minigpt", **full), 16),
            (Contestant(engine="minigpt", compile=True), 8),
            (Contestant(engine="minigpt", train={"loss_chunk": 2048}), 8),
            (Contestant(engine="minigpt", **full, model={"attention_pieces": 4}), 8),
            (Contestant(engine="minigpt", precision="32-true", **full), 8),
            (Contestant(engine="litgpt", compile=True), 8)]


def measure(config: ModelConfig, contestant: Contestant, options: argparse.Namespace, peak: float) -> list[Any]:
    """One row of the table."""
    part = training.measure([contestant], config, options)
    (row,) = part["rows"]
    speeds = row["tokens_per_second"]
    used = statistics.median(speeds) * config.flops_per_token / peak
    return [contestant.name, options.batch_size, f"{statistics.median(speeds):,.0f}",
            f"{min(speeds):,.0f} to {max(speeds):,.0f}", f"{used:.0%}", f"{row['peak_megabytes']:,.0f}"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dry-run", action="store_true")
    options.add_argument("--only", type=int, nargs="*", help="numbers of contestants, from 0 on; default: all")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=4, help="steps a round")
    options.add_argument("--output", type=Path)
    given = options.parse_args()
    if not given.dry_run and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; call it where one is, or with --dry-run, which needs none")
    peak = best_rate(torch.device("cpu" if given.dry_run else "cuda"), torch.bfloat16)
    config = training.shape("tiny", "llama") if given.dry_run else recipes.llama_1b().model
    output = given.output or (None if given.dry_run else RESULT)
    given.threads, rows = (1 if given.dry_run else 8), []
    for number, (contestant, batch_size) in enumerate(contestants()):
        if given.only is not None and number not in given.only:
            continue
        given.batch_size = batch_size
        rows.append(measure(config, contestant, given, peak.flops_per_second))
        print("  ".join(str(cell) for cell in rows[-1]), flush=True)
    if output:
        write_text(output, json.dumps({
            "title": "One billion parameters on one GPU", "date": datetime.date.today().isoformat(),
            "command": "python bench/gpu_1b.py", "machine": machine(),
            "tables": [{"caption": f"{config.n_parameters:,} parameters, {config.max_seq_len:,} tokens a text; peak "
                                   f"of {peak.device}: {peak.flops_per_second:.3g} FLOP/s, {peak.origin}.",
                        "columns": COLUMNS, "rows": rows}],
        }, indent=1) + "\n")


if __name__ == "__main__":
    main()
