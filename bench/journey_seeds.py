"""How much the journey varies: bits per byte, parse rate and time over seeds.

    python bench/journey_seeds.py --seeds 5        writes bench/journey_seeds.json

The data and the tokenizer are the same for every seed; the weights and the order of the texts differ.
"""

import argparse
import dataclasses
import datetime
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from minigpt import journey, recipes
from minigpt.config import RunConfig
from minigpt.disk import write_text

RESULT = Path(__file__).with_suffix(".json")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 on")
    options.add_argument("--steps", type=int, default=recipes.journey().train.steps)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs = [measure(with_seed(seed, given.steps), Path(place)) for seed in range(given.seeds)]
    result = {"date": datetime.date.today().isoformat(), "command": " ".join(["python", *sys.argv]),
              "machine": runs[0].pop("machine"), "runs": runs,
              "summary": {name: summary([run[name] for run in runs]) for name in runs[0] if name != "seed"}}
    for run in runs[1:]:
        del run["machine"]
    result |= page(result)
    write_text(RESULT, json.dumps(result, indent=2) + "\n")
    for name, figures in result["summary"].items():
        print(f"{name:22} median {figures['median']:10.3f}   {figures['lowest']:10.3f} to {figures['highest']:10.3f}")


def page(result: dict) -> dict:
    """The summary as the book shows it."""
    rows = [[name.replace("_", " "), *(f"{figures[key]:,.3f}" for key in ("median", "lowest", "highest"))]
            for name, figures in result["summary"].items()]
    return {"title": "The journey over seeds", "tables": [
        {"caption": f"Figures of {len(result['runs'])} seeds, from 0 on; data and tokenizer are the same.",
         "columns": ["figure", "median", "lowest", "highest"], "rows": rows}]}


def with_seed(seed: int, steps: int) -> RunConfig:
    recipe = recipes.journey()
    train = dataclasses.replace(recipe.train, seed=seed, steps=steps,
                                warmup_steps=min(recipe.train.warmup_steps, steps))
    return dataclasses.replace(recipe, train=train)


def measure(config: RunConfig, place: Path) -> dict:
    folder = place / f"seed-{config.train.seed}"
    start = time.perf_counter()
    card = journey.travel(config, folder)
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    return {"seed": config.train.seed, "bits_per_byte": card["bits_per_byte"]["model"],
            "parse_rate": card["parse_rate"]["after"], "tokens_per_second": card["tokens_per_second"],
            "training_seconds": card["training_seconds"], "seconds": seconds, "machine": card["machine"]}


def summary(values: list[float]) -> dict[str, float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values),
            "standard_deviation": spread}


if __name__ == "__main__":
    main()
