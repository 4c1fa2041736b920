"""Two processes against one on this machine: seconds a step, checkpoints, coming back, and whether the curves agree.

    python bench/cluster.py                    about ten minutes on two cores; writes bench/cluster.json
    python bench/cluster.py steps              one of its three tables: steps, checkpoints, return
    python bench/cluster.py --rounds 1 --steps 8 --output /tmp/cluster.json

The processes talk over gloo, as they would over NCCL between GPUs; every run is a `minigpt train` of its own. A round
starts each contestant once, one after the other, so that a busy minute hits them all.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import stamp

from minigpt.disk import write_text
from minigpt.evaluate.log import read_events, read_log

RESULT = Path(__file__).with_suffix(".json")
SIZE = ["--model.vocab-size", "2048", "--model.n-layers", "4", "--model.d-model", "256", "--model.d-ff", "688",
        "--data.max-megabytes", "4", "--train.precision", "32-true", "--train.warmup-steps", "0",
        "--train.evaluate-tokens", "2000", "--train.watts", "1"]
FIRST_STEPS = 3
"""So many steps do not count: they find the memory and wake the threads."""


@dataclass(frozen=True)
class Way:
    """How a contestant is started."""

    name: str
    processes: int
    threads: int
    settings: tuple[str, ...] = ()


ONE = Way("one process, one thread", 1, 1)
WAYS = (ONE, Way("one process, two threads", 1, 2),
        Way("two processes, weights spread (full)", 2, 1), Way("two processes, whole copies (none)", 2, 1,
                                                               ("--train.sharding", "none")))
SAVING = (("written at once", ()), ("written beside the steps", ("--train.async-checkpoints",)))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("tables", nargs="*", choices=[[], *TABLES], help="which to measure; all if none is named")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=16)
    options.add_argument("--output", type=Path, default=RESULT)
    given = options.parse_args()
    known = json.loads(given.output.read_text(encoding="utf-8")) if given.output.exists() else {"figures": {}}
    for name in given.tables or TABLES:
        with tempfile.TemporaryDirectory() as place:
            known["figures"][name] = TABLES[name](Bench(Path(place), given.steps), given.rounds)
        found = known["figures"]
        result = stamp() | {"title": "Two processes", "command": "python bench/cluster.py", "figures": found,
                            "tables": [found[one]["table"] for one in TABLES if one in found],
                            "curves": [found[one]["curve"] for one in TABLES if "curve" in found.get(one, {})]}
        write_text(given.output, json.dumps(result, indent=2) + "\n")
        table = found[name]["table"]
        print(table["caption"], *(" | ".join(map(str, row)) for row in [table["columns"], *table["rows"]]), sep="\n")


class Bench:
    """Starts runs on one text in one place."""

    def __init__(self, place: Path, steps: int) -> None:
        self.place, self.steps, self.count = place, steps, 0
        self.base = place / "base"
        self.command(ONE, self.base, "shards")

    def command(self, way: Way, folder: Path, word: str = "train", *settings: str) -> float:
        """Run a word of minigpt in that way; when it began."""
        program = ["-c", "from minigpt.cli import main; main()"]
        if way.processes > 1:
            script = self.place / "go.py"
            script.write_text("from minigpt.cli import main\nmain()\n")
            program = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(way.processes),
                       str(script)]
        words = [word, "journey", *SIZE, "--train.steps", str(self.steps), *way.settings, *settings]
        began = time.time()
        subprocess.run([sys.executable, *program, *words, "--folder", str(folder)], check=True, timeout=600,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env=os.environ | {"OMP_NUM_THREADS": str(way.threads)})
        return began

    def fresh(self) -> Path:
        """A folder with the text and nothing trained."""
        self.count += 1
        folder = self.place / f"run-{self.count}"
        folder.mkdir()
        for name in ("tokenizer.json", "shards"):
            (folder / name).symlink_to(self.base / name)
        return folder

    def train(self, way: Way, *settings: str) -> Path:
        folder = self.fresh()
        self.command(way, folder, "train", *settings)
        return folder


def measure_steps(bench: Bench, rounds: int) -> dict[str, Any]:
    runs: dict[Way, list[Path]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            runs[way].append(bench.train(way))
    return {"table": step_table(runs), "curve": curves(runs)}


def measure_checkpoints(bench: Bench, rounds: int) -> dict[str, Any]:
    runs: dict[tuple[str, str], list[Path]] = {}
    every = str(max(1, bench.steps // 4))
    for _ in range(rounds):
        for way in (WAYS[0], WAYS[2]):
            for name, settings in SAVING:
                folder = bench.train(way, "--train.save-every", every, *settings)
                runs.setdefault((way.name, name), []).append(folder)
    return {"table": checkpoint_table(runs)}


def measure_return(bench: Bench, rounds: int) -> dict[str, Any]:
    times: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for way in (WAYS[0], WAYS[2]):
            times.setdefault(way.name, []).append(come_back(bench, way))
    return {"table": return_table(times)}


def step_seconds(folder: Path, tokens: int = 2048) -> float:
    """The median of the run's steps."""
    return statistics.median(tokens / row["tokens_per_second"] for row in read_log(folder / "log.csv")[FIRST_STEPS:])


def step_table(runs: dict[Way, list[Path]]) -> dict[str, Any]:
    """Milliseconds a step, the ratio to one process in the same round, and how far the losses are apart."""
    firsts = runs[ONE]
    rows = []
    for way, folders in runs.items():
        times = [1000 * step_seconds(folder) for folder in folders]
        ratios = [step_seconds(first) / step_seconds(folder) for first, folder in zip(firsts, folders, strict=True)]
        apart = max(abs(a - b) for first, folder in zip(firsts, folders, strict=True)
                    for a, b in zip(losses(first), losses(folder), strict=True))
        rows.append([way.name, *spread(times, "{:,.0f}"), *spread(ratios, "{:.2f}"), f"{apart:.1e}"])
    return {"caption": "Milliseconds a step of 2,048 tokens (a LLaMA of 4 layers and width 256, float32), the speed in "
                       "times that of one process with one thread in the same round, and how far any loss of any step "
                       "lies from that of one process (nats a token).",
            "columns": ["how", "ms a step", "lowest to highest", "times the first", "lowest to highest",
                        "losses apart at most"], "rows": rows}


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_log(folder / "log.csv")]


def spread(values: list[float], form: str) -> list[str]:
    return [form.format(statistics.median(values)), f"{form.format(min(values))} to {form.format(max(values))}"]


def checkpoint_table(saved: dict[tuple[str, str], list[Path]]) -> dict[str, Any]:
    """How long training stands still for a checkpoint."""
    rows = []
    for (way, name), folders in saved.items():
        found = [[event for event in read_events(folder) if event["event"] == "checkpoint"] for folder in folders]
        still = [statistics.median(1000 * event["standing_seconds"] for event in events) for events in found]
        until = [statistics.median(1000 * event["seconds"] for event in events) for events in found]
        shares = [100 * sum(event["standing_seconds"] for event in events) / time_of(folder, events)
                  for folder, events in zip(folders, found, strict=True)]
        size = found[0][-1]["bytes"] / 1e6
        rows.append([f"{way}, {name}", *spread(still, "{:,.0f}"), *spread(until, "{:,.0f}"), *spread(shares, "{:.1f}"),
                     f"{size:,.1f}"])
    return {"caption": "Four checkpoints in a run of few and short steps, far more often than a real run writes one: "
                       "milliseconds that training stands still for one, milliseconds until it is whole, and the "
                       "share of the training time (steps and standing still, %).",
            "columns": ["how", "ms standing still", "lowest to highest", "ms until whole", "lowest to highest",
                        "% of training", "lowest to highest", "MB"], "rows": rows}


def time_of(folder: Path, events: list[dict[str, Any]]) -> float:
    """Seconds of the steps and of standing still for checkpoints."""
    steps = sum(2048 / row["tokens_per_second"] for row in read_log(folder / "log.csv"))
    return steps + sum(event["standing_seconds"] for event in events)


def come_back(bench: Bench, way: Way) -> tuple[float, float]:
    """Seconds from the call to the first step, of a new run and of one that goes on from a checkpoint.

    The second is the same run after its end was taken from it: the last checkpoint is the one half way.
    """
    folder = bench.fresh()
    half = str(bench.steps // 2)
    began = bench.command(way, folder, "train", "--train.save-every", half)
    for path in [folder / "model.safetensors", *sorted((folder / "checkpoints").glob("step-*"))[1:]]:
        path.rename(path.with_name(f"taken-{path.name}"))
    again = bench.command(way, folder, "train", "--train.save-every", half)
    new, returned = [event["time"] for event in read_events(folder) if event["event"] == "start"]
    return new - began, returned - again


def return_table(back: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    rows = []
    for way, pairs in back.items():
        new, returned = zip(*pairs, strict=True)
        more = [b - a for a, b in pairs]
        rows.append([way, *spread(list(new), "{:.1f}"), *spread(list(returned), "{:.1f}"), *spread(more, "{:+.2f}")])
    return {"caption": "Seconds from the call to the first step: of a new run, of one that comes back from a "
                       "checkpoint (its hashes checked, weights and moments read), and the difference.",
            "columns": ["how", "new", "lowest to highest", "coming back", "lowest to highest", "difference",
                        "lowest to highest"], "rows": rows}


def curves(runs: dict[Way, list[Path]]) -> dict[str, Any]:
    return {"caption": "The losses of the first round, laid over each other.", "x": "step", "y": "loss (nats a token)",
            "lines": {way.name: losses(folders[0]) for way, folders in runs.items()}}


TABLES = {"steps": measure_steps, "checkpoints": measure_checkpoints, "return": measure_return}


if __name__ == "__main__":
    main()
