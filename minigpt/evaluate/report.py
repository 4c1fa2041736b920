"""The report card of a run: report.md to read, report.json to compute with, and its two figures."""

import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minigpt.config import RunConfig, TrainConfig
from minigpt.disk import write_text
from minigpt.evaluate.log import read_alarms, read_log


def write_report(folder: Path) -> dict[str, Any]:
    """What was run, what it cost and what it reached; written into the run's folder and returned.

    Raises  ValueError if the run has not been trained and evaluated yet.
    """
    folder = Path(folder)
    if not (folder / "scores.json").exists():
        raise ValueError(f"{folder} has no scores.json; train the run, then `minigpt evaluate {folder}`")
    config, log = RunConfig.read(folder / "config.json"), read_log(folder / "log.csv")
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    card = facts(config, log) | costs(folder, log) | scores
    draw(folder / "loss.png", lambda axes: draw_loss(axes, log, config))
    draw(folder / "ladder.png", lambda axes: draw_ladder(axes, scores["bits_per_byte"]))
    write_text(folder / "report.md", markdown(card))
    everything = card | {"config": json.loads(config.to_json())}
    write_text(folder / "report.json", json.dumps(everything, indent=2, ensure_ascii=False) + "\n")
    return card


def facts(config: RunConfig, log: list[dict[str, float]]) -> dict[str, Any]:
    """Size, cost and place of a run, from its settings and its log."""
    tokens = config.train.steps * config.tokens_per_step
    return {
        "name": config.name,
        "parameters": config.model.n_parameters,
        "training_tokens": tokens,
        "training_flops": tokens * config.model.flops_per_token,
        "training_seconds": sum(config.tokens_per_step / row["tokens_per_second"] for row in log),
        "tokens_per_second": statistics.median(row["tokens_per_second"] for row in log),
        "schedule": schedule(config.train),
        "first_loss": log[0]["loss"],
        "last_loss": log[-1]["loss"],
        "machine": machine(),
    }


def schedule(settings: TrainConfig) -> str:
    """The learning rate's way, in words."""
    fall = {"cosine": "a cosine", "wsd": f"constant, then straight over the last {settings.cooldown_steps} steps"}
    return (f"{settings.warmup_steps} steps up to {settings.learning_rate:g}, {fall[settings.schedule]} "
            f"down to {settings.min_learning_rate:g}")


def costs(folder: Path, log: list[dict[str, float]]) -> dict[str, Any]:
    """Utilization, energy and waiting, each with the source of its figure, and the alarms of the run.

    What a run did not measure, because its machine does not tell or an older minigpt trained it, is None.
    """
    notes = folder / "machine.json"
    origin = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {"peak": None, "energy": None}
    columns = {name: [row[name] for row in log if name in row]
               for name in ("flops_utilization", "joules", "data_seconds")}
    return {
        "flops_utilization": statistics.median(columns["flops_utilization"]) if columns["flops_utilization"] else None,
        "peak": origin["peak"],
        "joules": sum(columns["joules"]) if columns["joules"] else None,
        "energy": origin["energy"],
        "data_seconds": sum(columns["data_seconds"]) if columns["data_seconds"] else None,
        "alarms": read_alarms(folder / "alarms.jsonl"),
    }


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"processor": models[0] if models else platform.processor() or platform.machine(),
            "cores": str(os.cpu_count()), "gpu": gpu, "system": platform.platform(terse=True),
            "python": platform.python_version(), "torch": torch.__version__}


def markdown(card: dict[str, Any]) -> str:
    """The report card as Markdown."""
    ladder, rate, place = card["bits_per_byte"], card["parse_rate"], card["machine"]
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in ladder.items())
    samples = "\n".join(f"```python\n{text.rstrip()}\n```\n" for text in card["samples"]["after"])
    before = "\n".join(f"```text\n{text.rstrip()}\n```\n" for text in card["samples"]["before"][:1])
    return f"""# Report card: {card["name"]}

| what | figure |
|---|---|
| parameters | {card["parameters"]:,} |
| training tokens | {card["training_tokens"]:,} |
| training compute | {card["training_flops"]:.2e} FLOP |
| training time | {card["training_seconds"]:.0f} s |
| throughput | {card["tokens_per_second"]:,.0f} tokens/s (median of the steps) |
| model FLOPs utilization | {utilization(card)} |
| energy | {energy(card)} |
| waiting for data | {waiting(card)} |
| learning rate | {card["schedule"]} |
| alarms | {len(card["alarms"])} |
| loss | {card["first_loss"]:.3f} to {card["last_loss"]:.3f} nats a token |
| machine | {place["processor"]}, {place["cores"]} cores, GPU: {place["gpu"]}, torch {place["torch"]} |
{alarms(card)}
## Bits per byte, lower is better

Measured on the same {card["validation_bytes"]:,} bytes of text that training never saw.

| model | bits per byte |
|---|---|
{rows}

![Bits per byte of the three counting models and of the trained one](ladder.png)

## Loss

![Training and validation loss against training tokens](loss.png)

## Generated functions

Of {rate["samples"]} functions, {rate["before"]:.0%} parsed before training and {rate["after"]:.0%} after.

Before:

{before}
After:

{samples}"""


def utilization(card: dict[str, Any]) -> str:
    if card["flops_utilization"] is None:
        return "not measured"
    peak = card["peak"]
    return (f"{card['flops_utilization']:.0%} of {peak['flops_per_second'] / 1e12:,.3g} TFLOP/s a process "
            f"({peak['device']}, {peak['origin']})")


def energy(card: dict[str, Any]) -> str:
    if card["joules"] is None:
        return "not known: install nvidia-ml-py for NVIDIA's GPUs, or declare train.watts"
    return (f"{card['joules'] / 1000:,.3g} kJ, {1000 * card['joules'] / card['training_tokens']:.3g} mJ a token "
            f"({card['energy']})")


def waiting(card: dict[str, Any]) -> str:
    if card["data_seconds"] is None:
        return "not measured"
    return f"{card['data_seconds'] / card['training_seconds']:.1%} of the training time"


def alarms(card: dict[str, Any]) -> str:
    """The first alarms as a list; all of them, with their batches, are in alarms.jsonl."""
    lines = [f"- {alarm['what']}; {alarm['windows'][0]} and so on" for alarm in card["alarms"][:10]]
    return "\n".join(["", "## Alarms", "", *lines, ""]) if lines else ""


def draw(path: Path, on: Any) -> None:
    """One figure into a PNG file, without touching the notebook's own plotting."""
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    on(figure.add_subplot())
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png")
    partial.replace(path)


def draw_loss(axes: Axes, log: list[dict[str, float]], config: RunConfig) -> None:
    """Training loss of every step as a line, validation loss as points."""
    measured = [row for row in log if "validation_loss" in row]
    axes.plot([row["tokens"] / 1e6 for row in log], [row["loss"] for row in log], color="0.6", linewidth=0.8)
    axes.plot([row["tokens"] / 1e6 for row in measured], [row["validation_loss"] for row in measured], "o-",
              color="tab:blue", label="validation")
    axes.set_xlabel("training tokens (millions)")
    axes.set_ylabel("loss (nats a token)")
    axes.annotate("validation", (measured[-1]["tokens"] / 1e6, measured[-1]["validation_loss"]),
                  xytext=(-4, 10), textcoords="offset points", ha="right", color="tab:blue")
    axes.annotate("training, each step", (log[len(log) // 3]["tokens"] / 1e6, log[len(log) // 3]["loss"]),
                  xytext=(8, 16), textcoords="offset points", color="0.4")
    axes.set_title(f"{config.name}: {config.model.n_parameters:,} parameters", fontsize=10)


def draw_ladder(axes: Axes, ladder: dict[str, float]) -> None:
    """Bits per byte as bars, one a model, labeled with their value."""
    names = list(ladder)
    bars = axes.barh(names, list(ladder.values()), color=["0.75"] * (len(names) - 1) + ["tab:blue"])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("bits per byte of validation text (lower is better)")
    axes.margins(x=0.12)

