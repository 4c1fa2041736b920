"""What happened to a run, from the files it left: how far it came, how often it stopped, where the time went."""

import datetime
import statistics
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from minigpt.config import RunConfig
from minigpt.evaluate.log import read_events

Row = dict[str, float]
Event = dict[str, Any]


def history(folder: Path, config: RunConfig, log: list[Row]) -> dict[str, Any]:
    """How far the run came, its starts and faults, where its time went, its checkpoints and its slowest ranks."""
    events = read_events(folder)
    sessions = split_sessions(events)
    done = int(log[-1]["step"]) if log else 0
    return {
        "finished": (folder / "model.safetensors").exists(),
        "steps_done": done,
        "steps": config.train.steps,
        "sessions": [describe_session(session) for session in sessions],
        "state": state(folder, done, config.train.steps, events),
        "time": where_time_went(config, log, events, sessions),
        "checkpoints": checkpoint_costs(events),
        "slowest_ranks": slowest_ranks(log),
        "events": [event | {"sentence": sentence(event)} for event in events if event["event"] != "checkpoint"],
    }


def split_sessions(events: list[Event]) -> list[list[Event]]:
    """The events of each start, to its end or the next; damaged checkpoints that a start found belong to it."""
    starts = [i for i, event in enumerate(events) if event["event"] == "start"]
    for number in range(len(starts)):
        while starts[number] and events[starts[number] - 1]["event"] == "damaged":
            starts[number] -= 1
    return [until_end(events[begin:end]) for begin, end in pairwise([*starts, len(events)])]


def until_end(session: list[Event]) -> list[Event]:
    """Without what comes after the last word, such as the refusal of a start that never began."""
    ends = [number for number, event in enumerate(session) if event["event"] in ("stop", "finish")]
    return session[: ends[0] + 1] if ends else session


def start_of(session: list[Event]) -> Event:
    return next(event for event in session if event["event"] == "start")


def describe_session(session: list[Event]) -> dict[str, Any]:
    """When one of the run's starts was, on how many ranks, and how it ended."""
    start, last = start_of(session), session[-1]
    ends = {"finish": "finished", "stop": f"stopped: {last.get('why')}"}
    told = ("ranks", "nodes", "host", "checkpoint", "python", "torch", "minigpt", "gpu")
    return {name: start[name] for name in told} | {
        "start": start["time"], "seconds": last["time"] - start["time"],
        "end": ends.get(last["event"], "no last word: killed, lost, or still at work")}


def state(folder: Path, done: int, steps: int, events: list[Event]) -> str:
    """In one sentence, whether the run is finished and, if it is not, what was last heard of it."""
    if (folder / "model.safetensors").exists():
        return f"Finished: {done:,} of {steps:,} steps."
    if not done and not events:
        return "Not begun."
    heard = f"Not finished: {done:,} of {steps:,} steps."
    if not events:
        return heard
    last = events[-1]
    when = clock(last["time"])
    return f"{heard} Last word, {when}: {sentence(last)}."


def where_time_went(config: RunConfig, log: list[Row], events: list[Event],
                    sessions: list[list[Event]]) -> dict[str, float]:
    """Seconds from the first start to the last word: steps, checkpoints, everything else at work, and not at work.

    A session without a last word counts up to its last event, so that a killed one is longer than it seems.
    """
    steps = sum(config.tokens_per_step / row["tokens_per_second"] for row in log)
    if not events:
        return {"steps": steps}
    at_work = sum(session[-1]["time"] - session[0]["time"] for session in sessions)
    still = sum(event["standing_seconds"] for event in events if event["event"] == "checkpoint")
    span = events[-1]["time"] - events[0]["time"]
    return {"steps": steps, "checkpoints": still, "other": max(0.0, at_work - steps - still),
            "between": max(0.0, span - at_work), "rank_seconds": rank_seconds(sessions)}


def rank_seconds(sessions: list[list[Event]]) -> float:
    """What is paid for: each session's seconds times its ranks."""
    return sum((session[-1]["time"] - session[0]["time"]) * start_of(session)["ranks"] for session in sessions)


def checkpoint_costs(events: list[Event]) -> dict[str, float] | None:
    """How many checkpoints were written, how long training stood still for them, and how large they are."""
    found = [event for event in events if event["event"] == "checkpoint"]
    if not found:
        return None
    still = [event["standing_seconds"] for event in found]
    return {"count": len(found), "seconds": sum(still), "longest_seconds": max(still),
            "seconds_until_whole": statistics.median(event["seconds"] for event in found), "bytes": found[-1]["bytes"]}


def slowest_ranks(log: list[Row]) -> list[dict[str, float]]:
    """The three ranks that were slowest most often: at how many steps, and by how much their steps were longer."""
    rows = [row for row in log if "slowest_rank" in row]
    lags: dict[int, list[float]] = {}
    for row in rows:
        lags.setdefault(int(row["slowest_rank"]), []).append(row["slowest_seconds"] / row["median_seconds"] - 1)
    most = Counter({rank: len(found) for rank, found in lags.items()}).most_common(3)
    return [{"rank": rank, "steps": steps, "share": steps / len(rows), "lag": statistics.median(lags[rank])}
            for rank, steps in most]


def sentence(event: Event) -> str:
    """An event in words."""
    match event["event"]:
        case "start":
            where = f"on {some(event['ranks'], 'rank')} of {some(event['nodes'], 'node')} ({event['host']})"
            came = event.get("checkpoint")
            again = f"came back from {came}" if came else "started again" if event["restart"] else "started"
            return f"{again} {where}"
        case "checkpoint":
            return f"wrote the checkpoint {event['name']}"
        case "damaged":
            return f"{event['checkpoint']}: {event['why']}"
        case "alarm":
            return event["what"]
        case "rewind":
            first, last = event["skipped"]
            return f"went back to step {event['to_step']:,} and skipped the batches {first:,} to {last:,}"
        case "stop":
            return f"stopped: {event['why']}"
    return "finished"


def some(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("s" if count != 1 else "")


def clock(seconds: float) -> str:
    """A time as people write it, in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
