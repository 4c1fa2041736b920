"""The model of a cluster: hand-computed exchanges, and laws that hold for every recipe, GPU and sharding."""

import dataclasses
import itertools

import pytest

from minigpt import recipes
from minigpt.cluster import network
from minigpt.cluster.accounting import Layout
from minigpt.cluster.gpus import GPUS, find
from minigpt.cluster.network import Links, Network

SHARDINGS = ("full", "gradients", "hybrid", "none")
NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
UTILIZATION = 0.4


def step(recipe="llama_1b", gpu="h100", nodes=1, sharding="full", micro_batch=8, cluster=None, **train):
    config = recipes.recipe(recipe)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **train))
    layout = Layout(gpus=8 * nodes, gpus_per_node=8, sharding=sharding)
    return network.simulate(config, find(gpu), layout, micro_batch, UTILIZATION, cluster or Network())


def test_a_ring_all_reduce_by_hand():
    """Four GPUs on one node, 400 MB: each sends 3/4 of it twice, 600 MB over 234 GB/s, in 2 x 3 messages."""
    links = Links(4, 4, find("a100"), Network())
    by_hand = 2 * (8.4e-6 + 3 * 3.4e-6 + 0.75 * 400e6 / (0.78 * 300e9))
    assert 2 * links.ring(400e6) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.0026, rel=0.01)


def test_a_ring_over_nodes_by_hand():
    """Two nodes of two GPUs: three rounds, one of them over the network, at the pace of two network cards."""
    links = Links(4, 2, find("a100"), Network())
    assert links.ring(4e6) == pytest.approx(8.4e-6 + 9.6e-6 + 2 * 3.4e-6 + 3e6 / (0.78 * 2 * 25e9))


def test_a_tree_takes_fewer_rounds_and_moves_as_much():
    links = Links(512, 8, find("h100"), Network())
    assert links.tree(1) == pytest.approx(8.4e-6 + 6 * 9.6e-6 + 3 * 3.4e-6, rel=1e-3)
    assert links.gather(1) == links.tree(1) < links.ring(1)
    assert links.ring(1e12) == pytest.approx(links.tree(1e12), rel=1e-3)


def test_one_process_exchanges_nothing():
    assert Links(1, 8, find("h100"), Network()).all_reduce(1e9) == 0


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_one_node_without_stragglers_is_the_plain_estimate(sharding):
    config, gpu = recipes.recipe("llama_1b"), find("h100")
    quiet = Network(spread=0.0, filesystem=1e30, filesystem_per_node=1e30)
    plain = config.tokens_per_step * config.model.flops_per_token / (8 * gpu.flops_per_second * UTILIZATION)
    assert step(sharding=sharding, cluster=quiet).seconds == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("recipe", ["llama_1b", "neox_125m"])
@pytest.mark.parametrize(("sharding", "gpu"), list(itertools.product(SHARDINGS, GPUS)))
def test_more_nodes_never_wait_less_for_messages(sharding, gpu, recipe):
    """With as many texts for each GPU: the batch grows with the nodes."""
    config = recipes.recipe(recipe)
    waits = [step(recipe, gpu, nodes, sharding, batch_size=config.train.batch_size * nodes).exchange for nodes in NODES]
    assert waits[0] == 0 and all(few <= more + 1e-15 for few, more in itertools.pairwise(waits))


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_batch_cut_finer_waits_for_a_larger_share_of_its_time(sharding):
    """As long as each GPU has whole pieces; smaller ones hide less on one node as well."""
    steps = [step(nodes=nodes, sharding=sharding, cluster=Network(spread=0.0)) for nodes in (1, 2, 4, 8, 16)]
    shares = [one.exchange / one.compute for one in steps]
    assert all(few <= more for few, more in itertools.pairwise(shares))


def test_more_gpus_never_wait_less_for_the_slowest():
    slow = [network.slowest(gpus, 0.015) for gpus in (1, 2, 8, 64, 512)]
    assert slow == sorted(slow) and slow[0] == 0
    assert slow[1] == pytest.approx(0.015 / 3.14159**0.5, rel=0.1)  # of two normal draws the larger, on average
    assert network.slowest(512, 0.0) == 0


def test_compute_falls_in_proportion_until_each_gpu_has_one_text():
    assert step(nodes=1).compute == pytest.approx(64 * step(nodes=64).compute)
    assert step(nodes=128).texts_per_gpu == step(nodes=512).texts_per_gpu == 1


def test_checkpoints_beside_the_steps_cost_nothing_unless_they_take_longer_than_the_steps_between():
    slow_disk = Network(filesystem=1e9)
    assert step(async_checkpoints=True, cluster=slow_disk).filesystem < step(cluster=slow_disk).filesystem / 2
    often = {"save_every": 1, "async_checkpoints": True, "cluster": slow_disk}
    seconds = 12 * 1_100_048_384 / 1e9
    assert step(**often).filesystem == pytest.approx(seconds - step(cluster=slow_disk).compute, rel=0.05)


def test_a_checkpoint_by_hand():
    """12 bytes a weight, 13.2 GB, at 10 GB/s every 1,000 steps: 1.3 ms a step; the text, 4 MB a step, 0.4 ms."""
    seconds = step(cluster=Network(filesystem=10e9)).filesystem
    assert seconds == pytest.approx(13.2e9 / 10e9 / 1000 + 4.19e6 / 10e9, rel=1e-2)


def test_the_limits_are_named_with_their_nodes():
    config, gpu, layout = recipes.recipe("llama_1b"), find("h100"), Layout(gpus=8, gpus_per_node=8, sharding="full")
    steps = network.sweep(config, gpu, layout, 8, UTILIZATION, Network(filesystem=1e6))
    assert "The shared filesystem takes more than 10% of a step from 1 node on" in network.limits(steps)
    slow = [dataclasses.replace(one, exchange=0.5 * one.seconds if one.nodes >= 64 else 0.0) for one in steps]
    assert "exchange of weights and gradients takes more than 10% of a step from 64 nodes on" in network.limits(slow)
    assert "the shared filesystem takes more" in network.limits(slow)
    none = [dataclasses.replace(one, exchange=0.0, filesystem=0.0) for one in steps]
    assert network.limits(none).startswith("Neither the exchange") and "up to 512 nodes" in network.limits(none)
