"""What was planned beside what happened; of an unfinished run, beside what it comes to at the present rate."""

from collections.abc import Callable
from typing import Any

from minigpt.config import RunConfig

Words = Callable[[Any], str]
Columns, Rows = list[str], list[list[str]]


def comparison(plan: dict[str, Any], card: dict[str, Any], config: RunConfig) -> tuple[Columns, Rows] | None:
    """Columns and rows of a table; None without a plan. Quantities that the plan does not have are left out."""
    if not plan:
        return None
    whole = card["steps_done"] == card["steps"]
    rate = card["steps"] / card["steps_done"] if card["steps_done"] else 1.0
    columns = ["what", "planned", "happened", "difference"] if whole else \
        ["what", "planned", "so far", "whole run at this rate", "difference"]
    rows = []
    for name, planned, happened, words, grows in quantities(plan, card, config):
        if planned is None:
            continue
        reached = happened * rate if grows and happened is not None else happened
        cells = [in_words(planned, words), in_words(happened, words)]
        rows.append([name, *cells, *([] if whole else [in_words(reached, words)]), difference(planned, reached)])
    return columns, rows


def quantities(plan: dict[str, Any], card: dict[str, Any],
               config: RunConfig) -> list[tuple[str, Any, Any, Words, bool]]:
    """Name, planned, happened, how it is written, and whether it grows with the steps."""
    last = card["sessions"][-1] if card["sessions"] else {"ranks": None, "nodes": None}
    train, shards = config.train, card["shards"] or {"files": None, "bytes": None}
    written = card["checkpoints"] or {"bytes": None}
    micro_batch = train.batch_size // (train.accumulate * last["ranks"]) if last["ranks"] else None
    return [
        ("GPUs", plan.get("gpus"), last["ranks"], count, False),
        ("nodes", plan.get("nodes"), last["nodes"], count, False),
        ("parameters", plan.get("parameters"), card["parameters"], count, False),
        ("FLOP a token", plan.get("flops_per_token"), config.model.flops_per_token, scientific, False),
        ("steps", plan.get("steps"), card["steps_done"], count, True),
        ("training tokens", plan.get("tokens"), card["training_tokens"], count, True),
        ("tokens a second", plan.get("tokens_per_second"), card["tokens_per_second"], count, False),
        ("model FLOPs utilization", plan.get("flops_utilization"), card["flops_utilization"], share, False),
        ("training time", plan.get("seconds"), card["training_seconds"] or None, seconds_text, True),
        ("energy", plan.get("joules"), card["joules"], energy_text, True),
        (f"cost ({plan.get('currency') or 'money'})", plan.get("money"), cost(plan, card), money, True),
        ("sequences a GPU and piece", plan.get("micro_batch"), micro_batch, count, False),
        ("sharding", plan.get("sharding"), train.sharding, str, False),
        ("activation checkpointing", plan.get("activation_checkpointing"), train.activation_checkpointing, yes, False),
        ("memory a GPU", plan.get("memory_bytes_per_gpu"), card.get("memory_bytes"), size_text, False),
        ("bytes of a checkpoint", plan.get("checkpoint_bytes"), written["bytes"], size_text, False),
        ("shards", plan.get("data_files"), shards["files"], count, False),
        ("bytes of shards", plan.get("data_bytes"), shards["bytes"], size_text, False),
    ]


def cost(plan: dict[str, Any], card: dict[str, Any]) -> float | None:
    """The plan's price of a GPU for all the time that the run's starts held one; None if either is not known."""
    paid_for = card["time"].get("rank_seconds")
    if not plan.get("money") or not paid_for:
        return None
    return plan["money"] / (plan["gpus"] * plan["seconds"]) * paid_for


def difference(planned: Any, reached: Any) -> str:
    if reached is None:
        return ""
    if planned == reached:
        return "as planned"
    if isinstance(planned, str | bool) or not planned:
        return "otherwise"
    off = reached / planned - 1
    return f"{off:+.0%}" if abs(off) < 1 else f"{reached / planned:,.2g} times"


def in_words(value: Any, words: Words) -> str:
    return "not measured" if value is None else words(value)


def count(value: float) -> str:
    return f"{value:,.0f}"


def scientific(value: float) -> str:
    return f"{value:.2e}"


def share(value: float) -> str:
    return f"{value:.0%}"


def yes(value: bool) -> str:
    return "yes" if value else "no"


def money(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def seconds_text(seconds: float) -> str:
    """A time in the largest unit that leaves at least two of it."""
    for name, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def energy_text(joules: float) -> str:
    return f"{joules / 3.6e6:,.3g} kWh" if joules >= 3.6e6 else f"{joules / 1000:,.3g} kJ"


def size_text(size: float) -> str:
    """Bytes in decimal units."""
    for name, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= length:
            return f"{size / length:,.3g} {name}"
    return f"{size:,.0f} bytes"
