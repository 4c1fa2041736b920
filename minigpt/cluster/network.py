"""A model of a cluster: what a step waits for when nodes are added. Every constant is stated and can be changed.

The exchange is that of FSDP2: it gathers the weights of a block before the block is computed, on the way forward and
on the way back, and adds up the gradients of a block after it; between copies they travel with the last piece of a
batch alone. A block's messages travel while its neighbor computes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import ceil, log2

import numpy as np

from minigpt.cluster.accounting import (
    Layout,
    block_shapes,
    count,
    executed_flops_per_token,
    forward_flops,
    weight_bytes,
)
from minigpt.cluster.gpus import Gpu
from minigpt.config import RunConfig

LIMIT = 0.1
"""The share of a step from which on we say that the exchange, or the filesystem, limits the run."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """What lies between the GPUs, and between them and the disks. Times in seconds, rates in bytes a second."""

    latency_in_node: float = 3.4e-6
    """A message from GPU to GPU over NVLink. Source  NCCL, src/graph/tuning.cc, hwLat, ring, simple protocol."""
    latency_between_nodes: float = 9.6e-6
    """The same over the network. Source  as above."""
    launch: float = 8.4e-6
    """What any exchange takes before its first byte. Source  as above, baseLat, ring, simple protocol."""
    efficiency: float = 0.78
    """Share of a link's peak that exchanges reach. Source  as above: at most 235 of the A100's 300 GB/s."""
    filesystem: float = 80e9
    """All nodes together, reading or writing. Source  Factryze, "Parallel filesystems for AI training": about 10 GB/s
    a storage server; here eight servers."""
    filesystem_per_node: float = 40e9
    """One node alone. Source  NVIDIA, DGX SuperPOD reference architecture, DGX H100: over 40 GB/s with GPUDirect."""
    spread: float = 0.015
    """Standard deviation of a GPU's step time over GPUs of one kind, as a share of it.

    Source  Sinha et al. 2022, "Not All GPUs Are Created Equal", abstract: 8 % variation on average. We read that as
    the distance between the whiskers of a box plot, which is 5.4 standard deviations of a normal distribution.
    """

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0 or (value == 0 and name in ("efficiency", "filesystem", "filesystem_per_node")):
                raise ValueError(f"network.{name} is {value:g} but must be positive; leave it out for the default")
        if self.efficiency > 1:
            raise ValueError(f"network.efficiency is {self.efficiency:g} but must be a share of a link's peak; "
                             "give at most 1")


@dataclass(frozen=True)
class Links:
    """The path of an exchange among `ranks` processes, `in_node` of them on each node."""

    ranks: int
    in_node: int
    gpu: Gpu
    network: Network

    @property
    def nodes(self) -> int:
        return ceil(self.ranks / self.in_node)

    @property
    def bandwidth(self) -> float:
        """Bytes a second through each process. Rings run side by side over all network cards of a node."""
        across = self.gpu.network_bandwidth * min(self.in_node, self.ranks)
        return self.network.efficiency * (self.gpu.link_bandwidth if self.nodes == 1 else
                                          min(self.gpu.link_bandwidth, across))

    def ring(self, size: float) -> float:
        """Seconds to gather, or to add up and scatter, `size` bytes in a ring: ranks - 1 rounds of size / ranks.

        Source  Thakur et al. 2005, "Optimization of Collective Communication Operations in MPICH", section 4.
        """
        between, within = self.nodes - 1, self.ranks - self.nodes
        delay = between * self.network.latency_between_nodes + within * self.network.latency_in_node
        return self.network.launch + delay + self.moved(size) / self.bandwidth

    def tree(self, size: float) -> float:
        """The same by recursive doubling: as many bytes in log2(ranks) rounds. Source  as above."""
        between = ceil(log2(self.nodes))
        within = ceil(log2(min(self.in_node, self.ranks)))
        delay = between * self.network.latency_between_nodes + within * self.network.latency_in_node
        return self.network.launch + delay + self.moved(size) / self.bandwidth

    def moved(self, size: float) -> float:
        """Bytes that pass through each process."""
        return size * (self.ranks - 1) / self.ranks

    def gather(self, size: float) -> float:
        """Seconds of an all-gather or a reduce-scatter by the faster way; nothing for one process."""
        return min(self.ring(size), self.tree(size)) if self.ranks > 1 else 0.0

    def all_reduce(self, size: float) -> float:
        """Seconds to add up `size` bytes and have the sum everywhere: a reduce-scatter, then an all-gather."""
        return 2 * self.gather(size)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Where the seconds of one optimizer step go, on average."""

    nodes: int
    texts_per_gpu: int
    compute: float
    """What one node alone takes, its own exchange included, as the stated utilization has it."""
    exchange: float
    """Waiting for messages between nodes, beyond what a node waits for its own."""
    stragglers: float
    """Waiting for the slowest of all GPUs, beyond what a node waits for its own slowest."""
    filesystem: float
    """Waiting for checkpoints and for the text."""

    @property
    def seconds(self) -> float:
        return self.compute + self.exchange + self.stragglers + self.filesystem


def simulate(config: RunConfig, gpu: Gpu, layout: Layout, micro_batch: int, utilization: float,
             network: Network) -> Step:
    """One step of the run on this many GPUs.

    `utilization` is the share of the peak that the executed operations reach on one node. More GPUs take fewer pieces
    of the batch each, of `micro_batch` texts, then smaller ones. Where there are more GPUs than texts, the batch grows
    to one text each: it cannot be cut finer.
    """
    texts = max(1, config.train.batch_size // layout.gpus)
    pieces = ceil(texts / micro_batch)
    compute = texts * text_seconds(config, gpu, utilization)
    one_node = replace(layout, gpus=min(layout.gpus, layout.gpus_per_node))
    waits, slow = [], []
    for at in (layout, one_node):
        last, others = (exposed(config, gpu, at, utilization, network, texts / pieces, last) for last in (True, False))
        waits.append(last + (pieces - 1) * others)
        slow.append(compute * slowest(at.gpus, network.spread))
    step = Step(nodes=layout.nodes, texts_per_gpu=texts, compute=compute, exchange=waits[0] - waits[1],
                stragglers=slow[0] - slow[1], filesystem=0.0)
    return replace(step, filesystem=disk_seconds(config, layout, network, texts, step.seconds))


def text_seconds(config: RunConfig, gpu: Gpu, utilization: float) -> float:
    """Seconds of one GPU for one text, forward and backward."""
    return executed_flops_per_token(config) * config.model.max_seq_len / (gpu.flops_per_second * utilization)


def exposed(config: RunConfig, gpu: Gpu, layout: Layout, utilization: float, network: Network, texts: float,
            last: bool) -> float:
    """Seconds that one piece of the batch, `texts` of them, waits for messages that no computing hides."""
    forward, backward, rest = message_seconds(config, gpu, layout, network, last)
    flops = forward_flops(config.model)
    share = (sum(flops.values()) - flops["output"]) / config.model.n_layers * config.model.max_seq_len * texts
    work = share / (gpu.flops_per_second * utilization)  # a block's way forward
    back = (3 if config.train.activation_checkpointing else 2) * work
    return rest + not_hidden(config.model.n_layers, forward, work) + not_hidden(config.model.n_layers, backward, back)


def not_hidden(blocks: int, wire: float, work: float) -> float:
    """What remains visible of `blocks` equal messages, each beside the computing of its neighbor."""
    return wire + (blocks - 1) * max(0.0, wire - work)


def message_seconds(config: RunConfig, gpu: Gpu, layout: Layout, network: Network,
                    last: bool) -> tuple[float, float, float]:
    """Seconds on the wire for a block on its way forward, on its way back, and for what belongs to no block."""
    every = Links(layout.gpus, min(layout.gpus, layout.gpus_per_node), gpu, network)
    size = weight_bytes(config.train) * count(block_shapes(config.model))
    rest = weight_bytes(config.train) * config.model.n_parameters - config.model.n_layers * size
    if layout.sharding in ("none", "hybrid"):
        within = Links(layout.shards, layout.shards, gpu, network)
        each_node = 1 if layout.sharding == "hybrid" else every.in_node
        copies = Links(layout.gpus // layout.shards, each_node, gpu, network)  # beside the node's own links
        summed, rest_summed = (copies.all_reduce(part / layout.shards) if last else 0.0 for part in (size, rest))
        return within.gather(size), max(2 * within.gather(size), summed), 2 * within.gather(rest) + rest_summed
    gathers = 1 if layout.sharding == "gradients" else 2
    return every.gather(size), gathers * every.gather(size), 2 * every.gather(rest)


@lru_cache
def slowest(gpus: int, spread: float, clusters: int = 1000) -> float:
    """How much longer than the average GPU the slowest of so many takes, on average over imagined clusters.

    The draws of a small cluster begin those of a larger one, so that more GPUs never wait less.
    """
    draws = np.random.default_rng(0).normal(0.0, 1.0, (gpus, clusters))
    return spread * float(draws.max(axis=0).mean()) if gpus > 1 else 0.0


def disk_seconds(config: RunConfig, layout: Layout, network: Network, texts: int, step: float) -> float:
    """Seconds a step waits for the disks: its share of a checkpoint, unless that is written beside the steps, and the
    text that it reads.
    """
    rate = disk_rate(layout.nodes, network)
    checkpoint = checkpoint_bytes(config) / rate
    if config.train.async_checkpoints:
        checkpoint = max(0.0, checkpoint - config.train.save_every * step)
    return checkpoint / config.train.save_every + texts * layout.gpus * text_bytes(config) / rate


def disk_rate(nodes: int, network: Network) -> float:
    """Bytes a second that so many nodes together exchange with the shared filesystem."""
    return min(network.filesystem, nodes * network.filesystem_per_node)


def checkpoint_bytes(config: RunConfig) -> int:
    """Weights and both moments of a checkpoint."""
    return 3 * weight_bytes(config.train) * config.model.n_parameters


def text_bytes(config: RunConfig) -> int:
    """A window of token ids in the shards."""
    return config.model.max_seq_len * token_bytes(config)


def token_bytes(config: RunConfig) -> int:
    """Bytes of a token id in the shards: two up to 65,536 tokens."""
    return 2 if config.model.vocab_size <= 2**16 else 4


def sweep(config: RunConfig, gpu: Gpu, layout: Layout, micro_batch: int, utilization: float, network: Network,
          nodes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)) -> list[Step]:
    """The step on more and more nodes."""
    return [simulate(config, gpu, replace(layout, gpus=n * layout.gpus_per_node), micro_batch, utilization, network)
            for n in nodes]


def limits(steps: Sequence[Step]) -> str:
    """A sentence: from how many nodes on the exchange or the filesystem takes more than a tenth of a step."""
    found = {what: next((step.nodes for step in steps if getattr(step, what) > LIMIT * step.seconds), None)
             for what in ("exchange", "filesystem")}
    names = {"exchange": "the exchange of weights and gradients", "filesystem": "the shared filesystem"}
    most = f"more than {LIMIT:.0%} of a step"
    parts = [f"{names[what]} takes {most} from {at} node{'s' * (at > 1)} on" for what, at in found.items() if at]
    parts += [f"{names[what]} never does on up to {steps[-1].nodes} nodes" for what, at in found.items() if not at]
    sentence = " and ".join(parts)
    if not any(found.values()):
        sentence = f"neither {' nor '.join(names.values())} takes {most} on up to {steps[-1].nodes} nodes"
    return f"{sentence[0].upper()}{sentence[1:]}."


def staging_seconds(config: RunConfig, nodes: int, network: Network) -> float:
    """Seconds until every node has copied all shards of a run to its own disk."""
    return nodes * data_bytes(config) / disk_rate(nodes, network)


def data_bytes(config: RunConfig) -> int:
    """Bytes of the shards if training reads every token once."""
    return config.train.steps * config.tokens_per_step * token_bytes(config)
