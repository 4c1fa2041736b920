"""The report card of a run: report.html and report.md to read, report.json to compute with, and its figures."""

import json
import os
import platform
import socket
import statistics
from pathlib import Path
from typing import Any

import torch

from minigpt import checkpoint
from minigpt.config import RunConfig, TrainConfig
from minigpt.corpus.shards import MANIFEST
from minigpt.disk import sha256, write_text
from minigpt.evaluate import page
from minigpt.evaluate.comparison import comparison, energy_text, seconds_text, size_text
from minigpt.evaluate.figures import draw_ladder, draw_loss, draw_speed, png
from minigpt.evaluate.history import Row, clock, history, some
from minigpt.evaluate.log import read_alarms, read_events, read_log
from minigpt.evaluate.page import Block, Code, Picture, Table, Text, Title

MOST_EVENTS = 40
"""So many events the page shows, the newest; all of them are in events.jsonl."""


def write_report(folder: Path) -> dict[str, Any]:
    """What was planned, what happened, what it cost and what it reached; written into the run's folder and returned.

    A run that is unfinished or not evaluated is reported as far as it came.
    Raises  ValueError if the folder holds no run.
    """
    folder = Path(folder)
    config = RunConfig.read(folder / "config.json")
    log = read_log(folder / "log.csv") if (folder / "log.csv").exists() else []
    card = facts(config, log) | costs(folder, log) | history(folder, config, log)
    card |= read_if_there(folder / "scores.json") | {"hashes": hashes(folder), "shards": shard_counts(folder)}
    card["plan"] = comparison(read_if_there(folder / "plan.json"), card, config)
    marks = read_events(folder) or [alarm | {"event": "alarm"} for alarm in card["alarms"]]
    blocks = describe(card, log, marks, config)
    for block in blocks:
        if isinstance(block, Picture):
            png(folder / block.file, block.draw)
    title = f"Report card: {config.name}"
    write_text(folder / "report.html", page.html(title, blocks))
    write_text(folder / "report.md", page.markdown(title, blocks))
    everything = card | {"config": json.loads(config.to_json())}
    write_text(folder / "report.json", json.dumps(everything, indent=2, ensure_ascii=False) + "\n")
    return card


def read_if_there(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def facts(config: RunConfig, log: list[Row]) -> dict[str, Any]:
    """Size, cost and place of a run as far as it came, from its settings and its log."""
    tokens = len(log) * config.tokens_per_step
    return {
        "name": config.name,
        "parameters": config.model.n_parameters,
        "training_tokens": tokens,
        "training_flops": tokens * config.model.flops_per_token,
        "training_seconds": sum(config.tokens_per_step / row["tokens_per_second"] for row in log),
        "tokens_per_second": statistics.median(row["tokens_per_second"] for row in log) if log else None,
        "schedule": schedule(config.train),
        "first_loss": log[0]["loss"] if log else None,
        "last_loss": log[-1]["loss"] if log else None,
        "machine": machine(),
    }


def schedule(settings: TrainConfig) -> str:
    """The learning rate's way, in words."""
    fall = {"cosine": "a cosine", "wsd": f"constant, then straight over the last {settings.cooldown_steps} steps"}
    return (f"{settings.warmup_steps} steps up to {settings.learning_rate:g}, {fall[settings.schedule]} "
            f"down to {settings.min_learning_rate:g}")


def costs(folder: Path, log: list[Row]) -> dict[str, Any]:
    """Utilization, energy and waiting, each with the source of its figure, and the alarms of the run.

    What a run did not measure, because its machine does not tell or an older minigpt trained it, is None.
    """
    origin = {"peak": None, "energy": None} | read_if_there(folder / "machine.json")
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
    """The machine that this program runs on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"processor": models[0] if models else platform.processor() or platform.machine(),
            "cores": str(os.cpu_count()), "gpu": gpu, "system": platform.platform(terse=True),
            "python": platform.python_version(), "torch": torch.__version__}


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of what the run is made of, by file, as `sha256sum` computes it.

    Weights that are not final are those of the newest checkpoint, whose manifest holds the hash of each of its files.
    """
    newest = [step / "manifest.json" for step in checkpoint.finished(folder / "checkpoints")[-1:]]
    weights = [folder / "model.safetensors"] if (folder / "model.safetensors").exists() else newest
    files = [folder / "config.json", folder / "tokenizer.json", folder / "shards" / MANIFEST, *weights]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files if path.exists()}


def shard_counts(folder: Path) -> dict[str, int] | None:
    """How many shards, tokens and bytes on the disk the run reads from."""
    if not (folder / "shards" / MANIFEST).exists():
        return None
    manifest = json.loads((folder / "shards" / MANIFEST).read_text(encoding="utf-8"))
    shards = [shard for split in manifest["splits"].values() for shard in split]
    there = [folder / "shards" / shard["file"] for shard in shards]
    return {"files": len(shards), "tokens": sum(shard["tokens"] for shard in shards),
            "bytes": sum(path.stat().st_size for path in there if path.exists())}


def describe(card: dict[str, Any], log: list[Row], events: list[dict[str, Any]], config: RunConfig) -> list[Block]:
    """The page."""
    blocks: list[Block] = [Text(card["state"]), facts_table(card)]
    if card["plan"]:
        blocks += [Title("Planned and happened"), Table(*card["plan"])]
    if "bits_per_byte" in card:
        blocks += evaluation(card)
    if log:
        blocks += [Title("Loss"), Picture("loss.png", loss_caption(card), draw_loss(log, events, config)),
                   Title("Speed"), Picture("speed.png", "Tokens a second at every step, and their median.",
                                           draw_speed(log))]
    blocks += [*time_table(card), *rank_table(card), *event_list(card), *alarm_list(card)]
    if "samples" in card:
        blocks += samples(card)
    elif card["finished"]:
        blocks += [Title("Evaluation"), Text("Not evaluated yet: `minigpt evaluate FOLDER`, then report again.")]
    listed = "\n".join(f"{digest}  {file}" for file, digest in card["hashes"].items())
    return [*blocks, Title("Files"), Text("SHA-256 of what the run is made of; `sha256sum --check` reads these lines. "
                                          "The manifest shards.json holds the hash of every shard."),
            Code("text", listed)]


def facts_table(card: dict[str, Any]) -> Table:
    """What every run tells."""
    rows = [["parameters", f"{card['parameters']:,}"],
            ["training tokens", f"{card['training_tokens']:,}"],
            ["training compute", f"{card['training_flops']:.2e} FLOP"],
            ["training time", seconds_text(card["training_seconds"])],
            ["throughput", throughput(card)],
            ["model FLOPs utilization", utilization(card)],
            ["energy", energy(card)],
            ["waiting for data", waiting(card)],
            ["checkpoints", checkpoints(card)],
            ["learning rate", card["schedule"]],
            ["starts", starts(card)],
            ["alarms", f"{len(card['alarms'])}"],
            ["loss", "none yet" if card["first_loss"] is None else
             f"{card['first_loss']:.3f} to {card['last_loss']:.3f} nats a token"],
            ["text", "no shards yet" if card["shards"] is None else
             f"{card['shards']['tokens']:,} tokens in {card['shards']['files']:,} shards"],
            ["machine", trained_on(card)]]
    return Table(["what", "figure"], [row for row in rows if row[1]])


def throughput(card: dict[str, Any]) -> str:
    rate = card["tokens_per_second"]
    return "none yet" if rate is None else f"{rate:,.0f} tokens/s (median of the steps)"


def utilization(card: dict[str, Any]) -> str:
    if card["flops_utilization"] is None:
        return "not measured"
    peak = card["peak"]
    return (f"{card['flops_utilization']:.0%} of {peak['flops_per_second'] / 1e12:,.3g} TFLOP/s a process "
            f"({peak['device']}, {peak['origin']})")


def energy(card: dict[str, Any]) -> str:
    if card["joules"] is None:
        return "not known: install nvidia-ml-py for NVIDIA's GPUs, or declare train.watts"
    return (f"{energy_text(card['joules'])}, {1000 * card['joules'] / card['training_tokens']:.3g} mJ a token "
            f"({card['energy']})")


def waiting(card: dict[str, Any]) -> str:
    if card["data_seconds"] is None:
        return "not measured"
    return f"{card['data_seconds'] / card['training_seconds']:.1%} of the training time"


def checkpoints(card: dict[str, Any]) -> str:
    """Nothing for a run whose minigpt wrote no events."""
    if (found := card["checkpoints"]) is None:
        return ""
    share = found["seconds"] / (found["seconds"] + card["training_seconds"])
    return (f"{found['count']:,} of {size_text(found['bytes'])}; training stood still {found['seconds']:,.1f} s for "
            f"them, {share:.1%} of its time, at most {found['longest_seconds']:.2f} s")


def starts(card: dict[str, Any]) -> str:
    if not card["sessions"]:
        return ""
    last = card["sessions"][-1]
    return (f"{len(card['sessions'])}, the first {clock(card['sessions'][0]['start'])}, the last on "
            f"{some(last['ranks'], 'rank')} of {some(last['nodes'], 'node')}")


def trained_on(card: dict[str, Any]) -> str:
    """The machines of the last start if it was not this machine; else this one."""
    here = card["machine"]
    last = card["sessions"][-1] if card["sessions"] else None
    if last and last["host"] != socket.gethostname():
        return f"{last['host']}, GPU: {last['gpu']}, torch {last['torch']}, Python {last['python']}"
    return f"{here['processor']}, {here['cores']} cores, GPU: {here['gpu']}, torch {here['torch']}"


def evaluation(card: dict[str, Any]) -> list[Block]:
    """The ladder, with what is known of its error."""
    ladder, spans = card["bits_per_byte"], card.get("intervals", {}).get("bits_per_byte", {})
    said = f"Measured on the same {card['validation_bytes']:,} bytes of text that training never saw."
    if spans:
        said += (f" Where 95 % lie if its {card['validation_texts']:,} texts are drawn again, with replacement, "
                 "stands beside each figure.")
    rows = [[name, f"{value:.3f}", "{:.3f} to {:.3f}".format(*spans[name]) if spans.get(name) else "one text"]
            for name, value in ladder.items()]
    columns = ["model", "bits per byte", "95 % interval"]
    return [Title("Bits per byte, lower is better"), Text(said),
            Table(columns, rows) if spans else Table(columns[:2], [row[:2] for row in rows]),
            Picture("ladder.png", "Bits per byte of the three counting models and of the trained one",
                    draw_ladder(ladder, spans))]


def loss_caption(card: dict[str, Any]) -> str:
    """What the figure of the loss shows and marks."""
    counts = {kind: sum(event["event"] == kind for event in card["events"]) for kind in ("rewind", "damaged")}
    spikes = len({alarm["step"] for alarm in card["alarms"]})
    marks = [some(count, thing) for count, thing in (
        (len(card["sessions"]) - 1, "return"), (spikes, "spike"), (counts["rewind"], "rewind"),
        (counts["damaged"], "damaged checkpoint")) if count > 0]
    return "Training and validation loss against training tokens" + (f"; marked: {', '.join(marks)}" if marks else "")


def time_table(card: dict[str, Any]) -> list[Block]:
    """Where the hours between the first start and the last word went."""
    spent = card["time"]
    if "other" not in spent:
        return []
    names = {"steps": "steps that count", "checkpoints": "standing still for checkpoints",
             "other": "starting, evaluating, steps done twice", "between": "between two starts"}
    total = sum(spent[name] for name in names) or 1.0
    rows = [[words, seconds_text(spent[name]), f"{spent[name] / total:.1%}"] for name, words in names.items()]
    return [Title("Where the time went"), Table(["what", "time", "share"], rows)]


def rank_table(card: dict[str, Any]) -> list[Block]:
    if not card["slowest_ranks"]:
        return []
    rows = [[f"{found['rank']}", f"{found['steps']:,} ({found['share']:.0%})", f"{found['lag']:+.1%}"]
            for found in card["slowest_ranks"]]
    return [Title("Slowest ranks"), Table(["rank", "slowest at so many steps", "its step against the median rank's"],
                                          rows)]


def event_list(card: dict[str, Any]) -> list[Block]:
    """Starts, faults and rewinds; a run that went through undisturbed has nothing to tell."""
    told = card["events"]
    if len(told) <= 2:
        return []
    rows = [[clock(event["time"]), f"{event['step']:,}", event["sentence"]] for event in told[-MOST_EVENTS:]]
    left_out = f"The newest {MOST_EVENTS} of {len(told)}; all are in events.jsonl."
    return [Title("What happened"), *([Text(left_out)] if len(told) > MOST_EVENTS else []),
            Table(["when", "step", "what"], rows)]


def alarm_list(card: dict[str, Any]) -> list[Block]:
    """The first alarms, with where their batch begins; all of them, with whole batches, are in alarms.jsonl."""
    rows = [[alarm["what"], f"{alarm['windows'][0]} and so on"] for alarm in card["alarms"][:10]]
    return [Title("Alarms"), Table(["alarm", "batch"], rows)] if rows else []


def samples(card: dict[str, Any]) -> list[Block]:
    rate, spans = card["parse_rate"], card.get("intervals", {}).get("parse_rate")
    between = {when: " (95 % interval {:.0%} to {:.0%})".format(*spans[when]) if spans else ""
               for when in ("before", "after")}
    return [Title("Generated functions"),
            Text(f"Of {rate['samples']} functions, {rate['before']:.0%}{between['before']} parsed before training and "
                 f"{rate['after']:.0%}{between['after']} after."),
            Text("Before:"), *(Code("text", text) for text in card["samples"]["before"][:1]),
            Text("After:"), *(Code("python", text) for text in card["samples"]["after"])]
