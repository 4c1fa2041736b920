"""Is every GPU and every link of a job there, right, and as fast as the others? All ranks run this before training:

    srun python -m minigpt.cluster.health FOLDER

Each rank multiplies two matrices, and pairs of ranks add up a tensor between them: neighbors inside a node, and
ranks of one number on neighboring nodes. Rank 0 compares and prints. It ends with 0 if all is well, and else with
UNHEALTHY after it has written the names of the nodes to FOLDER/unhealthy, one a line.
"""

import argparse
import json
import math
import os
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from minigpt.disk import write_text
from minigpt.machine import measure

UNHEALTHY = 69
"""The exit code of a machine that should not be used (EX_UNAVAILABLE of sysexits.h)."""

TAKEN = 0.1
"""The share of a GPU's memory that somebody else may hold."""

WRONG = 1e-2
"""How far a rank's product may lie from the others', relative to their median."""


@dataclass(frozen=True)
class Places:
    """The ranks of a job: as many on each node, in the nodes' order."""

    nodes: list[str]
    per_node: int

    @property
    def ranks(self) -> int:
        return len(self.nodes) * self.per_node

    def node(self, rank: int) -> str:
        return self.nodes[rank // self.per_node]

    def name(self, rank: int) -> str:
        return f"rank {rank} ({self.node(rank)}, GPU {rank % self.per_node})"

    def rounds(self) -> list[list[tuple[int, int]]]:
        """All pairs that are measured; those of a round have no rank in common and speak at the same time."""
        inside = [[(node * self.per_node + one, node * self.per_node + two) for node in range(len(self.nodes))
                   for one, two in pairs] for pairs in ring(self.per_node)]
        across = [[(one * self.per_node + rank, two * self.per_node + rank) for one, two in pairs
                   for rank in range(self.per_node)] for pairs in ring(len(self.nodes))]
        return inside + across

    def inside(self, pair: tuple[int, int]) -> bool:
        return self.node(pair[0]) == self.node(pair[1])


def ring(n: int) -> list[list[tuple[int, int]]]:
    """The neighbors on a ring of n, in rounds in which none has two partners."""
    edges = [(i, i + 1) for i in range(n - 1)] + ([(n - 1, 0)] if n > 2 else [])
    rounds = [edges[0 : n - n % 2 : 2], edges[1:n:2], edges[n - 1 :] if n % 2 and n > 2 else []]
    return [pairs for pairs in rounds if pairs]


@dataclass(frozen=True)
class Trouble:
    """What is wrong, in a sentence, and the nodes that it may lie at."""

    sentence: str
    nodes: tuple[str, ...]


def judge_ranks(places: Places, answers: dict[int, dict], slow: float) -> list[Trouble]:
    """What is wrong with the ranks of a job.

    answers  by rank: `fault` (a sentence), or `flops` a second, the `product` itself (one number) and the share of its
             memory that is `taken`.
    slow     the share of the median below which a rate is named.
    """
    flops = middle(answer["flops"] for answer in answers.values() if "flops" in answer)
    product = middle(answer["product"] for answer in answers.values() if "flops" in answer)
    found = {}
    for rank in range(places.ranks):
        answer = answers.get(rank, {"fault": "gives no answer"})
        if "fault" in answer:
            found[rank] = answer["fault"]
        elif not abs(answer["product"] - product) <= WRONG * abs(product):
            found[rank] = f"multiplies matrices wrongly, {answer['product']:.6g} instead of {product:.6g}"
        elif answer["flops"] < slow * flops:
            found[rank] = (f"multiplies matrices at {answer['flops'] / 1e12:.3g} TFLOP/s, less than {slow:g} of the "
                           f"median {flops / 1e12:.3g}")
        elif answer["taken"] > TAKEN:
            found[rank] = f"has {answer['taken']:.0%} of its memory taken by another process"
    return [Trouble(f"{places.name(rank)} {what}", (places.node(rank),)) for rank, what in found.items()]


def judge_links(places: Places, rates: dict[int, dict[str, float]], slow: float) -> list[Trouble]:
    """What is wrong with the links of a job; links inside a node are compared with their like, others with theirs.

    rates  by rank: bytes a second by "ONE-TWO". Where a link hangs, its ranks are late for all that follows: of
           links without a rate, those of the first such round are named.
    """
    found = {pair: min(rates.get(rank, {}).get(f"{pair[0]}-{pair[1]}", 0.0) for rank in pair)
             for pairs in places.rounds() for pair in pairs}
    for pairs in places.rounds():
        if dead := [pair for pair in pairs if not found[pair]]:
            return [link_trouble(places, pair, "moves nothing") for pair in dead]
    troubles = []
    for inside, kind in ((True, "inside a node"), (False, "between nodes")):
        alike = {pair: rate for pair, rate in found.items() if places.inside(pair) == inside}
        usual = middle(alike.values())
        troubles += [link_trouble(places, pair, f"moves {rate / 1e9:.3g} GB/s, less than {slow:g} of the median "
                                                f"{usual / 1e9:.3g} of links {kind}")
                     for pair, rate in alike.items() if rate < slow * usual]
    return troubles


def link_trouble(places: Places, pair: tuple[int, int], what: str) -> Trouble:
    nodes = tuple(sorted({places.node(rank) for rank in pair}))
    return Trouble(f"the link of {places.name(pair[0])} and {places.name(pair[1])} {what}", nodes)


def middle(values: Iterable[float]) -> float:
    return statistics.median([value for value in values if math.isfinite(value)] or [0.0])


def blame(troubles: Iterable[Trouble]) -> list[str]:
    """The nodes to leave out: those of ranks and inner links, and of links between nodes the ones that most name."""
    sure = {trouble.nodes[0] for trouble in troubles if len(trouble.nodes) == 1}
    rest = [trouble.nodes for trouble in troubles if not sure & set(trouble.nodes)]
    named = Counter(node for nodes in rest for node in nodes)
    return sorted(sure | {node for node, times in named.items() if times == max(named.values())})


class Check:
    """The check as one rank sees it. What the ranks find goes through a store that rank 0 keeps, so that a link or a
    GPU that hangs holds up nobody but its own.
    """

    def __init__(self, rank: int, places: Places, device: str, slow: float, seconds: float) -> None:
        self.rank, self.places, self.slow, self.seconds = rank, places, slow, seconds
        self.device = torch.device(device, rank % places.per_node if device == "cuda" else None)
        self.store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), places.ranks,
                                   is_master=rank == 0, timeout=timedelta(seconds=3 * seconds), wait_for_workers=False)

    def run(self) -> list[Trouble]:
        """Measure beside rank 0's judgement; what is wrong, which rank 0 knows."""
        threading.Thread(target=self.measure, daemon=True).start()
        if self.rank:
            troubles = [Trouble(**trouble) for trouble in json.loads(self.store.get("troubles"))]
            self.store.add("gone", 1)
            return troubles
        ranks = self.gather("rank")
        troubles = judge_ranks(self.places, ranks, self.slow)
        if not troubles and self.places.ranks > 1:
            self.store.set("go", "")
            troubles = judge_links(self.places, self.gather("links"), self.slow)
        self.store.set("troubles", json.dumps([asdict(trouble) for trouble in troubles]))
        until(lambda: self.store.add("gone", 0) >= len(ranks) - 1, 5)  # the store ends with this process
        return troubles

    def gather(self, what: str) -> dict[int, dict]:
        """What the ranks have told, when all have told all, or when the time is over."""
        told = {rank: f"{what} {rank}" for rank in range(self.places.ranks)}
        until(lambda: all(self.store.check([f"{key} whole"]) for key in told.values()), self.seconds)
        return {rank: json.loads(self.store.get(key)) for rank, key in told.items() if self.store.check([key])}

    def tell(self, what: str, found: dict, whole: bool = True) -> None:
        self.line.set(f"{what} {self.rank}", json.dumps(found))
        if whole:
            self.line.set(f"{what} {self.rank} whole", "")

    def measure(self) -> None:
        """All that this rank measures, told as it is found."""
        self.line = self.store.clone()  # a line of its own, because one that waits is busy
        try:
            self.tell("rank", self.examine())
        except Exception as fault:  # whatever it is, it is what this check is for
            self.tell("rank", {"fault": f"fails: {' '.join(str(fault).split())[:300]}"})
        self.line.wait(["go"])
        rates: dict[str, float] = {}
        try:
            for one, two, rate in self.link_rates():
                self.tell("links", rates := rates | {f"{one}-{two}": rate}, whole=False)
        finally:
            self.tell("links", rates)

    def examine(self) -> dict:
        """The product of two given matrices as one number, how fast such products are, and how much memory is taken."""
        if self.device.type == "cpu":
            return {"taken": 0.0, "product": product(self.device, torch.float32),
                    "flops": measure(self.device, torch.float32)}
        if torch.cuda.device_count() < self.places.per_node:
            return {"fault": f"sees {torch.cuda.device_count()} GPUs and wants {self.places.per_node}"}
        torch.cuda.set_device(self.device)
        free, total = torch.cuda.mem_get_info()
        return {"taken": 1 - free / total, "product": product(self.device, torch.bfloat16),
                "flops": measure(self.device, torch.bfloat16)}

    def link_rates(self) -> Iterator[tuple[int, int, float]]:
        """The links of this rank with their bytes a second, as they are measured."""
        dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo", rank=self.rank,
                                store=dist.PrefixStore("group", self.line), world_size=self.places.ranks,
                                timeout=timedelta(seconds=self.seconds))
        for pair in [pair for pairs in self.places.rounds() for pair in pairs if self.rank in pair]:
            yield *pair, link_rate(self.device, dist.new_group(list(pair), use_local_synchronization=True))


def product(device: torch.device, dtype: torch.dtype) -> float:
    """One number that the product of two given matrices comes down to."""
    n = 4096 if device.type == "cuda" else 512
    matrix = torch.randn(n, n, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return float((matrix @ matrix.T).float().abs().mean())


def link_rate(device: torch.device, pair: dist.ProcessGroup) -> float:
    """Bytes a second that a rank sends in the fastest of several all-reduces between two."""
    tensor = torch.ones(2**26 if device.type == "cuda" else 2**20, device=device)  # 256 MiB or 4 MiB
    times = []
    for _ in range(6):  # the first, which makes the connection, is never the fastest
        started = time.perf_counter()
        dist.all_reduce(tensor, group=pair)
        tensor[0].item()  # reading a number waits for the device
        times.append(time.perf_counter() - started)
    return tensor.numel() * tensor.element_size() / min(times)


def until(is_so: Callable[[], bool], seconds: float) -> None:
    """Wait until it is so or the time is over."""
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the names of unhealthy nodes go")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="what every rank must have")
    parser.add_argument("--slow", type=float, default=0.7, help="the share of the median below which a rate is slow")
    parser.add_argument("--nodes", default="", help="the nodes' names in order, with commas")
    parser.add_argument("--seconds", type=float, default=180, help="how long the ranks, and then the links, may take")
    words = parser.parse_args()
    rank, ranks, per_node = (int(os.environ.get(name, default)) for name, default in
                             (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1)))
    nodes = words.nodes.split(",") if words.nodes else [f"node {number}" for number in range(ranks // per_node)]
    places = Places(nodes, per_node)
    troubles = Check(rank, places, words.device, words.slow, words.seconds).run()
    if rank == 0:
        for trouble in troubles:
            print(f"health: {trouble.sentence}")
        if troubles:
            write_text(words.folder / "unhealthy", "".join(f"{node}\n" for node in blame(troubles)))
        else:
            print(f"health: {ranks} ranks and {sum(map(len, places.rounds()))} links are well "
                  f"(none slower than {words.slow:g} of the median of its kind)")
    sys.stdout.flush()
    os._exit(UNHEALTHY if troubles else 0)  # a thread that waits for a dead link is left where it is


if __name__ == "__main__":
    main()
