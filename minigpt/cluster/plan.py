"""A run on paper: does it fit, how long, how much energy and money, and what would be better."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from minigpt.cluster import accounting, network
from minigpt.cluster.accounting import Layout
from minigpt.cluster.gpus import Gpu
from minigpt.cluster.network import Network, Step
from minigpt.config import RunConfig, Sharding, nearest_divisor
from minigpt.disk import write_text

VERSION = 1
"""The version of the format of plan.json."""

RESERVE = 0.1
"""Share of a GPU's memory that a plan leaves free: the driver, NCCL's buffers, what the allocator loses. An assumption;
the book's page of measurements compares it with pieces of a batch that others have fitted."""

MFU = 0.4
"""What a node reaches if nothing better is known. MosaicML's table of training benchmarks gives 42 % for a GPT of 1.3
billion parameters on eight H100 and 60 % on eight A100."""

TOKENS_PER_SHARD = 100_000_000
"""As minigpt.corpus.write_shards cuts them."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a run may use."""

    gpu: Gpu
    gpus: int
    gpus_per_node: int = 8
    mfu: float = MFU
    """Share of the peak that the model's own operations reach on one node, if nothing is computed twice."""
    price: float | None = None
    """Money for one GPU and hour."""
    currency: str = "USD"
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.gpus_per_node < 1:
            raise ValueError(f"{self.gpus} GPUs in nodes of {self.gpus_per_node} make no cluster; "
                             "both must be at least 1")
        if self.gpus > self.gpus_per_node and self.gpus % self.gpus_per_node:
            below = self.gpus // self.gpus_per_node * self.gpus_per_node
            raise ValueError(f"{self.gpus} GPUs do not fill nodes of {self.gpus_per_node}; "
                             f"choose {below} or {below + self.gpus_per_node}")
        if not 0 < self.mfu < 1:
            raise ValueError(f"the utilization is {self.mfu} but must lie between 0 and 1; 0.4 is usual")
        if self.price is not None and self.price < 0:
            raise ValueError(f"the price is {self.price} but must not be negative; leave it out if you do not know it")

    @property
    def usable(self) -> float:
        """Bytes of a GPU that the program may fill."""
        return (1 - RESERVE) * self.gpu.memory_bytes

    def layout(self, sharding: Sharding) -> Layout:
        return Layout(gpus=self.gpus, gpus_per_node=self.gpus_per_node, sharding=sharding)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to lay the run out, and what it needs."""

    sharding: Sharding
    activation_checkpointing: bool
    accumulate: int
    micro_batch: int
    memory: dict[str, int]
    step: Step

    @property
    def memory_bytes(self) -> int:
        return sum(self.memory.values())


def choose(config: RunConfig, cluster: Cluster, sharding: Sharding, recompute: bool, accumulate: int) -> Choice:
    """The run with these three settings."""
    train = dataclasses.replace(config.train, sharding=sharding, activation_checkpointing=recompute,
                                accumulate=accumulate)
    changed, layout = dataclasses.replace(config, train=train), cluster.layout(sharding)
    texts = config.train.batch_size // (cluster.gpus * accumulate)
    return Choice(sharding=sharding, activation_checkpointing=recompute, accumulate=accumulate, micro_batch=texts,
                  memory=accounting.memory(changed, layout, texts),
                  step=network.simulate(changed, cluster.gpu, layout, texts, cluster.mfu, cluster.network))


def largest(config: RunConfig, cluster: Cluster, sharding: Sharding, recompute: bool) -> Choice | None:
    """The largest piece of the batch that fits, in as few pieces as divide the batch; None if not even one text does.

    Raises  ValueError if the GPUs do not divide the batch.
    """
    share = per_gpu(config, cluster)
    for accumulate in (n for n in range(1, share + 1) if share % n == 0):
        found = choose(config, cluster, sharding, recompute, accumulate)
        if found.memory_bytes <= cluster.usable:
            return found
    return None


def per_gpu(config: RunConfig, cluster: Cluster) -> int:
    """Texts of a batch for each GPU. Raises ValueError, with the nearest batch, if the GPUs do not divide it."""
    batch, gpus = config.train.batch_size, cluster.gpus
    if batch % gpus:
        nearest = max(1, round(batch / gpus)) * gpus
        raise ValueError(f"batch_size {batch} cannot be shared by {gpus} GPUs; choose batch_size {nearest} or "
                         f"{nearest_divisor(batch, gpus)} GPUs")
    return batch // gpus


def choices(config: RunConfig, cluster: Cluster) -> list[Choice]:
    """For each sharding, with and without recomputation, the largest piece that fits; the fastest first.

    Those within a hundredth of each other count as equally fast; of them, larger pieces come first, then less memory.
    """
    found = [largest(config, cluster, *way) for way in ways_to_spread(cluster)]
    fitting = [choice for choice in found if choice]
    fastest = min((choice.step.seconds for choice in fitting), default=0.0)
    return sorted(fitting, key=lambda c: (math.floor(100 * (c.step.seconds / fastest - 1)), c.accumulate,
                                          c.memory_bytes))


def ways_to_spread(cluster: Cluster) -> list[tuple[Sharding, bool]]:
    """Every sharding, without and with recomputation; on one node, hybrid is full."""
    shardings = [name for name in get_args(Sharding) if name != "hybrid" or cluster.gpus > cluster.gpus_per_node]
    return [(sharding, recompute) for sharding in shardings for recompute in (False, True)]


def memory_choices(config: RunConfig, cluster: Cluster) -> list[dict[str, Any]]:
    """The parts of a GPU's memory for each of these ways, with pieces as large as the config's."""
    found = [choose(config, cluster, sharding, recompute, config.train.accumulate)
             for sharding, recompute in ways_to_spread(cluster)]
    return [describe(choice) | {"memory_parts": choice.memory, "fits": choice.memory_bytes <= cluster.usable}
            for choice in found]


def make_plan(config: RunConfig, cluster: Cluster, days: float | None = None,
              money: float | None = None) -> dict[str, Any]:
    """What plan.json holds. Rates in units a second, times in seconds, sizes in bytes, energy in joules.

    Raises  ValueError, with the nearest choice that can, if the run cannot be divided among the GPUs, does not fit
            into them, or takes more days or money than given.
    """
    if config.model.attention_pieces > 1:
        raise ValueError(f"attention_pieces is {config.model.attention_pieces}, which is for processors; a plan for "
                         "GPUs counts on their fused attention: choose model.attention_pieces 1")
    share, settings = per_gpu(config, cluster), config.train
    if share % settings.accumulate:
        raise ValueError(f"each of {cluster.gpus} GPUs has {share} texts of a batch, which accumulate "
                         f"{settings.accumulate} does not divide; choose accumulate "
                         f"{nearest_divisor(share, settings.accumulate)}")
    chosen = choose(config, cluster, settings.sharding, settings.activation_checkpointing, settings.accumulate)
    ways = choices(config, cluster)
    if chosen.memory_bytes > cluster.usable:
        raise ValueError(does_not_fit(config, cluster, chosen, ways))
    plan = numbers(config, cluster, chosen)
    check_budget(config, cluster, plan, days, money)
    best = largest(config, cluster, settings.sharding, settings.activation_checkpointing)
    return plan | {
        "largest_micro_batch": best.micro_batch if best else 0,
        "memory_choices": memory_choices(config, cluster),
        "choices": [describe(choice) for choice in ways],
        "nodes_sweep": [dataclasses.asdict(step) | {"seconds": step.seconds} for step in sweep(config, cluster)],
        "limits": network.limits(sweep(config, cluster)),
        "remarks": remarks(config, cluster, chosen),
    }


def sweep(config: RunConfig, cluster: Cluster) -> list[Step]:
    """The run on 1 to 512 nodes, its pieces as large as now."""
    layout = dataclasses.replace(cluster.layout(config.train.sharding), gpus=min(cluster.gpus, cluster.gpus_per_node))
    layout = dataclasses.replace(layout, gpus_per_node=layout.gpus)
    texts = config.train.batch_size // (cluster.gpus * config.train.accumulate)
    return network.sweep(config, cluster.gpu, layout, texts, cluster.mfu, cluster.network)


def numbers(config: RunConfig, cluster: Cluster, chosen: Choice) -> dict[str, Any]:
    """The flat part of a plan."""
    gpu, model, steps = cluster.gpu, config.model, config.train.steps
    seconds, tokens = steps * chosen.step.seconds, steps * config.tokens_per_step
    rate = config.tokens_per_step / chosen.step.seconds
    gpu_hours = cluster.gpus * seconds / 3600
    price = gpu.price_per_hour if cluster.price is None else cluster.price
    return {
        "version": VERSION, "recipe": config.name, "gpu": gpu.name, "gpus": cluster.gpus,
        "nodes": cluster.layout("full").nodes, "parameters": model.n_parameters,
        "parameter_parts": accounting.parameters(model), "flops_per_token": model.flops_per_token,
        "flops_per_token_parts": accounting.flops_per_token(model), "flops_per_token_6n": model.flops_per_token_6n,
        "steps": steps, "tokens": tokens, "tokens_per_second": rate,
        "flops_utilization": rate * model.flops_per_token / (cluster.gpus * gpu.flops_per_second),
        "stated_utilization": cluster.mfu, "seconds": seconds, "gpu_hours": gpu_hours,
        "memory_bytes_per_gpu": chosen.memory_bytes, "memory_parts": chosen.memory, "usable_bytes": cluster.usable,
        "micro_batch": chosen.micro_batch, "accumulate": chosen.accumulate, "sharding": chosen.sharding,
        "activation_checkpointing": chosen.activation_checkpointing, "joules": cluster.gpus * gpu.watts * seconds,
        "money": None if price is None else gpu_hours * price,
        "currency": cluster.currency if cluster.price is not None else "USD" if price is not None else None,
        "price_per_gpu_hour": price, "price_source": gpu.price_source if cluster.price is None else "given",
        "gpu_source": gpu.source,
        "data_bytes": network.data_bytes(config), "data_files": -(-tokens // TOKENS_PER_SHARD),
        "data_bytes_per_second": rate * network.token_bytes(config),
        "staging_seconds": network.staging_seconds(config, cluster.layout("full").nodes, cluster.network),
        "checkpoint_bytes": network.checkpoint_bytes(config), "step_seconds": chosen.step.seconds,
    }


def describe(choice: Choice) -> dict[str, Any]:
    return {"sharding": choice.sharding, "activation_checkpointing": choice.activation_checkpointing,
            "micro_batch": choice.micro_batch, "accumulate": choice.accumulate,
            "memory_bytes_per_gpu": choice.memory_bytes, "step_seconds": choice.step.seconds}


def does_not_fit(config: RunConfig, cluster: Cluster, chosen: Choice, ways: list[Choice]) -> str:
    """The sentence about memory: with the smallest change that helps, or with more or larger GPUs."""
    start = (f"pieces of {chosen.micro_batch} texts need {gigabytes(chosen.memory_bytes)} on each GPU but "
             f"{gigabytes(cluster.usable)} of a {cluster.gpu.name}'s {gigabytes(cluster.gpu.memory_bytes)} are usable")
    settings = config.train
    same = [way for way in ways if way.sharding == settings.sharding]
    for way in [w for w in same if w.activation_checkpointing == settings.activation_checkpointing] + same + ways:
        extra = f", sharding {way.sharding}" if way.sharding != settings.sharding else ""
        extra += ", activation_checkpointing" if way.activation_checkpointing else ""
        return (f"{start}; choose accumulate {way.accumulate}{extra}: pieces of {way.micro_batch}, "
                f"{gigabytes(way.memory_bytes)}")
    smallest = choose(config, cluster, "full", True, per_gpu(config, cluster)).memory_bytes
    return (f"{start}, and the most frugal choice needs {gigabytes(smallest)} with one text; choose a GPU with at "
            f"least {gigabytes(smallest / (1 - RESERVE))}, or more GPUs")


def check_budget(config: RunConfig, cluster: Cluster, plan: dict[str, Any], days: float | None,
                 money: float | None) -> None:
    """Raises ValueError, with the nearest choice that can, if the plan takes too long or too much money."""
    takes = plan["seconds"] / 86_400
    if days is not None and takes > days:
        enough = next((nodes for nodes in more_nodes(config, cluster) if days_with(config, cluster, nodes) <= days), 0)
        steps = math.floor(config.train.steps * days / takes)
        way = (f"{enough * cluster.gpus_per_node} GPUs ({enough} nodes): {days_with(config, cluster, enough):.3g} days"
               if enough else f"train.steps {steps}, because not even 512 nodes are enough")
        raise ValueError(f"the run takes {takes:.3g} days on {cluster.gpus} GPUs but has {days:g}; choose {way}")
    if money is not None and plan["money"] is None:
        raise ValueError(f"the table has no price of a {cluster.gpu.name}; give --price, money for a GPU and hour")
    if money is not None and plan["money"] > money:
        steps = math.floor(config.train.steps * money / plan["money"])
        price = plan["price_per_gpu_hour"] * money / plan["money"]
        raise ValueError(f"the run costs {plan['money']:,.0f} {plan['currency']} but has {money:,.0f}; choose "
                         f"train.steps {steps}, or GPUs that cost {price:.2f} {plan['currency']} an hour")


def more_nodes(config: RunConfig, cluster: Cluster) -> list[int]:
    """Numbers of nodes up to 512 whose GPUs divide the batch."""
    return [nodes for nodes in range(1, 513) if config.train.batch_size % (nodes * cluster.gpus_per_node) == 0]


def days_with(config: RunConfig, cluster: Cluster, nodes: int) -> float:
    """Days of the run on so many full nodes, in pieces as large as now or smaller."""
    layout = dataclasses.replace(cluster.layout(config.train.sharding), gpus=nodes * cluster.gpus_per_node)
    texts = config.train.batch_size // (cluster.gpus * config.train.accumulate)
    step = network.simulate(config, cluster.gpu, layout, texts, cluster.mfu, cluster.network)
    return config.train.steps * step.seconds / 86_400


def remarks(config: RunConfig, cluster: Cluster, chosen: Choice) -> list[str]:
    """What does not divide well, though it works."""
    model, found = config.model, []
    if model.vocab_size % 64:
        found.append(f"vocab_size {model.vocab_size:,} is no multiple of 64, so the tiles of the output layer are not "
                     f"full; {-(-model.vocab_size // 64) * 64:,} is one (MosaicML's card of MPT-7B tells of up to four "
                     "points of utilization)")
    if model.d_head % 8 or model.d_head > 256:
        found.append(f"a head is {model.d_head} numbers wide; fused attention wants a multiple of 8 up to 256")
    if model.d_ff % 64 or model.d_model % 64:
        found.append(f"d_model {model.d_model:,} and d_ff {model.d_ff:,} should be multiples of 64, a tile's width")
    shards = cluster.layout(chosen.sharding).shards
    uneven = accounting.share(model, shards) * shards / model.n_parameters
    if uneven > 1.01:
        found.append(f"the weights' rows do not divide by {shards} shares: the first GPU keeps {uneven - 1:.0%} more "
                     "than the average")
    if chosen.step.seconds < 0.01:
        found.append(f"a step of {1000 * chosen.step.seconds:.2g} ms is short: launching its kernels, which the plan "
                     "does not count, will take longer")
    if config.data.documents != "cross":
        found.append(f"data.documents {config.data.documents} gives attention a mask, which is not counted here")
    return found


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """In the largest unit of which there are two."""
    units = {"days": 86_400, "hours": 3600, "minutes": 60}
    name = next((name for name, unit in units.items() if seconds >= 2 * unit), "seconds")
    return f"{seconds / units.get(name, 1):.1f} {name}"


def write_plan(plan: dict[str, Any], config: RunConfig, folder: Path) -> Path:
    """plan.json and plan.md in a run's folder; the path of the latter.

    Raises  ValueError if the folder holds a run whose settings are others, those left out that a run may change.
    """
    folder = Path(folder)
    if (folder / "config.json").exists():
        from minigpt.train import refuse_other_settings  # here, because it takes seconds

        refuse_other_settings(folder, config)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "plan.json", json.dumps(plan, indent=2) + "\n")
    write_text(folder / "plan.md", to_markdown(plan))
    return folder / "plan.md"


def amount(value: float) -> str:
    """Whole numbers where they are large, two digits where they are small."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def facts(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """The flat part of a plan, in words."""
    nodes, files = (f"{plan[key]:,} {what}{'s' * (plan[key] > 1)}" for key, what in
                    (("nodes", "node"), ("data_files", "file")))
    money = "unknown: give --price" if plan["money"] is None else \
        f"{amount(plan['money'])} {plan['currency']} at {plan['price_per_gpu_hour']:.2f} a GPU and hour"
    again = "blocks are computed again on the way back" if plan["activation_checkpointing"] else \
        "nothing is computed twice"
    return [
        ("GPUs", f"{plan['gpus']} x {plan['gpu']} on {nodes}"),
        ("parameters", f"{plan['parameters']:,}"),
        ("FLOP a token", f"{plan['flops_per_token']:,} (6 for each parameter: {plan['flops_per_token_6n']:,})"),
        ("tokens", f"{plan['tokens']:,} in {plan['steps']:,} steps"),
        ("utilization (MFU)", f"{plan['flops_utilization']:.1%} in all; stated for one node: "
                              f"{plan['stated_utilization']:.0%}"),
        ("tokens a second", f"{plan['tokens_per_second']:,.0f}"),
        ("time", f"{duration(plan['seconds'])}, {amount(plan['gpu_hours'])} GPU hours"),
        ("energy", f"{amount(plan['joules'] / 3.6e6)} kWh if the boards draw all they may; hosts and cooling on top"),
        ("money", money),
        ("memory of a GPU", f"{gigabytes(plan['memory_bytes_per_gpu'])} of {gigabytes(plan['usable_bytes'])} usable"),
        ("pieces", f"{plan['micro_batch']} texts, {plan['accumulate']} a step; largest that fits: "
                   f"{plan['largest_micro_batch']}"),
        ("sharding", f"{plan['sharding']}, {again}"),
        ("shards", f"{gigabytes(plan['data_bytes'])} in {files} if every token is read once; "
                   f"{plan['data_bytes_per_second'] / 1e6:.2f} MB a second while training; "
                   f"{duration(plan['staging_seconds'])} to copy them to every node"),
        ("a checkpoint", gigabytes(plan["checkpoint_bytes"])),
    ]


def to_markdown(plan: dict[str, Any]) -> str:
    """The plan as a page."""
    sections = [f"# Plan of {plan['recipe']}\n", table(("what", "how much"), facts(plan))]
    sections += ["## Parameters and operations\n",
                 table(("part", "parameters"), [(k, f"{v:,}") for k, v in plan["parameter_parts"].items()]),
                 table(("part", "FLOP a token"), [(k, f"{v:,}") for k, v in plan["flops_per_token_parts"].items()])]
    parts = list(plan["memory_parts"])
    sections += ["## Memory of a GPU\n", f"GB with pieces of {plan['micro_batch']} texts.\n",
                 table(("sharding", "computed again", *parts, "sum"),
                       [(c["sharding"], "blocks" if c["activation_checkpointing"] else "nothing",
                         *(f"{c['memory_parts'][part] / 1e9:.2f}" for part in parts),
                         f"{c['memory_bytes_per_gpu'] / 1e9:.1f}" + ("" if c["fits"] else " (does not fit)"))
                        for c in plan["memory_choices"]])]
    sections += ["## Other ways to lay it out\n", "The largest piece that fits for each; the fastest first.\n",
                 table(("sharding", "computed again", "texts a piece", "accumulate", "GB", "seconds a step"),
                       [(c["sharding"], "blocks" if c["activation_checkpointing"] else "nothing", c["micro_batch"],
                         c["accumulate"], f"{c['memory_bytes_per_gpu'] / 1e9:.1f}", f"{c['step_seconds']:.3f}")
                        for c in plan["choices"]])]
    sections += ["## More nodes\n", plan["limits"] + "\n",
                 table(("nodes", "texts a GPU", "computing, ms", "exchange, ms", "stragglers, ms", "disks, ms"),
                       [(s["nodes"], s["texts_per_gpu"], *(f"{1000 * s[part]:.1f}" for part in
                                                           ("compute", "exchange", "stragglers", "filesystem")))
                        for s in plan["nodes_sweep"]])]
    if plan["remarks"]:
        sections += ["## Remarks\n", "\n".join(f"- {remark}." for remark in plan["remarks"]) + "\n"]
    sections += [f"The {plan['gpu']}: {plan['gpu_source']}.\n"]
    if plan["price_source"]:
        sections += [f"The price: {plan['price_source']}.\n"]
    return "\n".join(sections)


def table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in cells) + " |" for cells in lines) + "\n"
