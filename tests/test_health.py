"""The check of every GPU and link: what it says of ranks and links, and that it really finds them."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from minigpt.cluster.health import UNHEALTHY, Places, Trouble, blame, judge_links, judge_ranks, ring

PLACES = Places(["a", "b", "c"], 2)


def good(rank):
    return {"taken": 0.01, "product": 18.0, "flops": 600e12 + rank * 1e12}


def fast(places=PLACES):
    """The rates of every rank's links: fast inside nodes, slower between them."""
    rates = {rank: {} for rank in range(places.ranks)}
    for one, two in [pair for pairs in places.rounds() for pair in pairs]:
        for rank in (one, two):
            rates[rank][f"{one}-{two}"] = 300e9 if places.inside((one, two)) else 40e9
    return rates


@pytest.mark.parametrize("n", range(1, 10))
def test_every_neighbor_on_a_ring_is_met_once_and_nobody_has_two_partners_in_a_round(n):
    rounds = ring(n)
    edges = [frozenset(pair) for pairs in rounds for pair in pairs]
    wanted = {frozenset((i, (i + 1) % n)) for i in range(n)} if n > 1 else set()
    assert set(edges) == wanted and len(edges) == len(wanted) and all(rounds)
    for pairs in rounds:
        ranks = [rank for pair in pairs for rank in pair]
        assert len(ranks) == len(set(ranks))


def test_links_stay_inside_a_node_or_between_equal_numbers_and_no_rank_is_left_out():
    pairs = [pair for pairs in Places(["a", "b", "c", "d"], 8).rounds() for pair in pairs]
    assert len(pairs) == 4 * 8 + 8 * 4 and len(set(pairs)) == len(pairs)
    assert all(one // 8 == two // 8 or one % 8 == two % 8 for one, two in pairs)
    assert {rank for pair in pairs for rank in pair} == set(range(32))


def test_a_good_job_has_no_trouble():
    assert not judge_ranks(PLACES, {rank: good(rank) for rank in range(6)}, 0.7)
    assert not judge_links(PLACES, fast(), 0.7)
    assert not judge_links(Places(["a"], 1), {0: {}}, 0.7)


@pytest.mark.parametrize(("change", "sentence"), [
    ({"flops": 410e12}, "rank 3 (b, GPU 1) multiplies matrices at 410 TFLOP/s, less than 0.7 of the median 602"),
    ({"product": 18.5}, "rank 3 (b, GPU 1) multiplies matrices wrongly, 18.5 instead of 18"),
    ({"product": float("nan")}, "rank 3 (b, GPU 1) multiplies matrices wrongly, nan instead of 18"),
    ({"taken": 0.4}, "rank 3 (b, GPU 1) has 40% of its memory taken by another process"),
    ({"fault": "sees 1 GPUs and wants 2"}, "rank 3 (b, GPU 1) sees 1 GPUs and wants 2"),
    (None, "rank 3 (b, GPU 1) gives no answer")])
def test_a_bad_rank_is_named_with_its_node_and_threshold(change, sentence):
    answers = {rank: good(rank) for rank in range(6)}
    answers |= {3: good(3) | change} if change else {}
    if change is None:
        del answers[3]
    troubles = judge_ranks(PLACES, answers, 0.7)
    assert [trouble.sentence for trouble in troubles] == [sentence] and blame(troubles) == ["b"]


def test_a_rank_just_above_the_threshold_is_not_named():
    answers = {rank: good(0) for rank in range(6)}
    assert not judge_ranks(PLACES, answers | {2: good(0) | {"flops": 0.71 * 600e12}}, 0.7)
    assert judge_ranks(PLACES, answers | {2: good(0) | {"flops": 0.69 * 600e12}}, 0.7)


def test_a_slow_link_is_compared_with_its_kind():
    """40 GB/s is good between nodes and bad inside one; a link is as fast as its slower end says."""
    rates = fast()
    rates[2]["2-3"] = 40e9
    troubles = judge_links(PLACES, rates, 0.7)
    assert [trouble.sentence for trouble in troubles] == [
        "the link of rank 2 (b, GPU 0) and rank 3 (b, GPU 1) moves 40 GB/s, less than 0.7 of the median 300 of links "
        "inside a node"]
    assert blame(troubles) == ["b"]


def test_of_slow_links_between_nodes_the_node_that_all_share_is_blamed():
    places = Places(["a", "b", "c", "d", "e"], 2)
    rates = fast(places)
    for pair in ("2-4", "4-6"):
        for rank in map(int, pair.split("-")):
            rates[rank][pair] = 5e9
    troubles = judge_links(places, rates, 0.7)
    assert len(troubles) == 2 and "links between nodes" in troubles[0].sentence and blame(troubles) == ["c"]


def test_of_one_slow_link_between_nodes_both_are_blamed_unless_one_is_known_to_be_bad():
    link = Trouble("", ("a", "b"))
    assert blame([link]) == ["a", "b"]
    assert blame([link, Trouble("", ("b",))]) == ["b"]


def test_where_a_link_hangs_those_that_came_too_late_because_of_it_are_not_named():
    rates = fast()
    hung = PLACES.rounds()[0][1]
    for rank in hung:
        rates[rank] = {}
    troubles = judge_links(PLACES, rates, 0.7)
    assert len(troubles) == 1 and "rank 2 (b, GPU 0) and rank 3 (b, GPU 1) moves nothing" in troubles[0].sentence


def check(folder, ranks, *words, absent=(), per_node=1):
    """The check as it runs under Slurm, with processes on this machine; exit codes and what was printed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                                "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(per_node)}
    command = [sys.executable, "-m", "minigpt.cluster.health", str(folder), *words]
    started = [subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True) for rank in range(ranks) if rank not in absent]
    ended = [(process.communicate(timeout=120)[0], process.returncode) for process in started]
    return [code for _, code in ended], "".join(said for said, _ in ended)


def test_two_good_ranks_are_well(tmp_path):
    codes, said = check(tmp_path, 2, "--device", "cpu", "--slow", "0.01", "--nodes", "n1,n2")
    assert codes == [0, 0] and "2 ranks and 1 links are well (none slower than 0.01" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_rank_that_never_comes_is_named(tmp_path):
    codes, said = check(tmp_path, 3, "--device", "cpu", "--slow", "0.01", "--nodes", "n1,n2,n3", "--seconds", "12",
                        absent=[1])
    assert codes == [UNHEALTHY] * 2 and "health: rank 1 (n2, GPU 0) gives no answer" in said
    assert (tmp_path / "unhealthy").read_text() == "n2\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_its_gpus_is_named(tmp_path):
    codes, said = check(tmp_path, 1, "--device", "cuda")
    assert codes == [UNHEALTHY] and "rank 0 (node 0, GPU 0) sees 0 GPUs and wants 1" in said


@pytest.mark.slow
def test_four_ranks_on_two_nodes_meet_all_their_neighbors(tmp_path):
    codes, said = check(tmp_path, 4, "--device", "cpu", "--slow", "0.01", per_node=2)
    assert codes == [0] * 4 and "4 ranks and 4 links are well" in said
