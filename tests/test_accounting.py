"""What the plan counts against what torch counts: shapes, operations, saved tensors, peaks, and shares of ranks."""

import dataclasses
import importlib.util
import itertools
from pathlib import Path

import pytest
import torch
from conftest import LLAMA, NEOX
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt import recipes
from minigpt.cluster import accounting
from minigpt.cluster.accounting import Layout
from minigpt.model import GPT

LARGE = ["neox_125m", "llama_125m", "neox_1b", "llama_1b"]
MODELS = {"llama": LLAMA, "neox": NEOX, "tied": dataclasses.replace(LLAMA, tied=True),
          "biases": dataclasses.replace(LLAMA, bias=True)}
ALONE = Layout(gpus=1, gpus_per_node=1, sharding="full")


def bench(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "bench" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


peaks = bench("peaks")


def on_paper(model):
    """The model without numbers."""
    with torch.device("meta"):
        return GPT(model)


def run(model, **train):
    """A recipe around a model."""
    config = recipes.recipe("journey")
    return dataclasses.replace(config, model=model, train=dataclasses.replace(config.train, **train))


@pytest.mark.parametrize("model", [*MODELS.values(), *(recipes.recipe(name).model for name in LARGE)],
                         ids=[*MODELS, *LARGE])
def test_shapes_and_counts_are_the_models(model):
    theirs = {name: tuple(weight.shape) for name, weight in on_paper(model).named_parameters()}
    assert accounting.shapes(model) == theirs
    assert sum(accounting.parameters(model).values()) == model.n_parameters == accounting.count(theirs)


@pytest.mark.parametrize("name", LARGE)
def test_operations_at_full_size_are_those_that_torch_counts(name):
    """On the meta device, where a product of 2,048 tokens costs nothing; attention without a fused kernel."""
    model = recipes.recipe(name).model
    paper, ids = on_paper(model), torch.zeros(1, model.max_seq_len, dtype=torch.long, device="meta")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        paper(ids).logsumexp(-1).sum().backward()
    assert counter.get_total_flops() == model.max_seq_len * model.flops_per_token
    assert sum(accounting.flops_per_token(model).values()) == model.flops_per_token


@pytest.mark.parametrize("name", LARGE)
def test_operations_of_each_part_are_those_that_torch_counts(name):
    model = recipes.recipe(name).model
    paper, ids = on_paper(model), torch.zeros(1, model.max_seq_len, dtype=torch.long, device="meta")
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        paper(ids)
    counted = {name: sum(kinds.values()) / model.max_seq_len for name, kinds in counter.get_flop_counts().items()}
    mine = accounting.forward_flops(model)
    assert counted["GPT.head"] == mine["output"]
    assert model.n_layers * counted["GPT.blocks.0.feed_forward"] == mine["feed_forward"]
    attention = mine["attention_matrices"] + mine["attention_scores"]
    assert model.n_layers * counted["GPT.blocks.0.attention"] == attention


def test_six_operations_a_parameter_are_near():
    model = recipes.recipe("llama_1b").model
    assert model.flops_per_token_6n / sum(accounting.flops_per_token(model).values()) == pytest.approx(0.9025, abs=1e-3)


@pytest.mark.parametrize(("checkpointing", "chunk"), list(itertools.product([False, True], [0, 16])))
def test_operations_that_are_executed_twice_are_counted_twice(checkpointing, chunk):
    config = run(LLAMA, activation_checkpointing=checkpointing, loss_chunk=chunk)
    model, ids = GPT(LLAMA), torch.zeros(2, 32, dtype=torch.long)
    if checkpointing:
        peaks.recompute_blocks(model)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(ids, targets=ids, loss_chunk=chunk).backward()
    executed = 64 * accounting.executed_flops_per_token(config)
    # recomputation stops early: a block's last product is not needed again
    skipped = checkpointing * 64 * LLAMA.n_layers * 2 * LLAMA.d_model * LLAMA.d_ff
    assert executed - skipped <= counter.get_total_flops() <= executed


PRECISIONS = ["32-true", "bf16-mixed", "bf16-true"]


@pytest.mark.parametrize(("family", "precision"), list(itertools.product(MODELS, PRECISIONS)))
def test_what_the_way_forward_keeps_is_counted_to_two_hundredths(family, precision):
    """Unique storages that autograd saves, the weights left out, against the formula for a CPU."""
    check_saved(run(MODELS[family], precision=precision))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch.compile's own import
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile looks at a block's input
@pytest.mark.filterwarnings("ignore:<class .torch.autograd.function.Function")  # torch.compile traces minigpt.kernels
@pytest.mark.parametrize("family", ["llama", "neox"])
def test_what_compiled_blocks_keep_is_counted_to_two_hundredths(family):
    """The compiler's own decision what to keep and what to compute again, without its code generator."""
    model = dataclasses.replace(MODELS[family], d_model=64, d_ff=192)
    check_saved(run(model, precision="bf16-mixed", compile=True))
    torch.compiler.reset()


def check_saved(config, texts=3):
    model, tokens = config.model, texts * config.model.max_seq_len
    expected = accounting.activations(config, texts, "cpu") + accounting.last_norm(config, tokens, "cpu")
    expected += accounting.copied(config.train, model.n_matmul_parameters) + 4 * model.vocab_size * tokens
    assert saved_bytes(config, texts) == pytest.approx(expected, rel=0.02)


def saved_bytes(config, texts):
    model, ids = GPT(config.model), torch.zeros(texts, config.model.max_seq_len, dtype=torch.long)
    if config.train.precision == "bf16-true":
        model = model.bfloat16()
    if config.train.compile:
        for block in model.blocks:
            block.compile(backend="aot_eager_decomp_partition")
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage  # held, so that no later one gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), \
            torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "bf16-mixed"):
        loss = model(ids, targets=ids)
    assert loss.grad_fn
    return sum(storage.nbytes() for storage in storages.values())


@pytest.fixture
def eight_ranks():
    """A process group of eight ranks, of which seven are imagined."""
    with peaks.imagined_ranks(8):
        yield


def at_full_width(name, n_layers, **train):
    config = recipes.recipe(name)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, n_layers=n_layers),
                               train=dataclasses.replace(config.train, **train))


@pytest.mark.parametrize(("checkpointing", "chunk"), list(itertools.product([False, True], [0, 1024])))
def test_peaks_of_one_process_are_within_two_percent(checkpointing, chunk):
    config = at_full_width("llama_1b", 3, activation_checkpointing=checkpointing, loss_chunk=chunk)
    estimate = sum(accounting.memory(config, ALONE, 2, "cpu").values())
    assert estimate == pytest.approx(peaks.peak(config, 2), rel=0.02)


@pytest.mark.parametrize("sharding", peaks.MESHES)
@pytest.mark.parametrize("name", ["llama_1b", "neox_1b"])
def test_peaks_of_each_sharding_are_within_three_percent(eight_ranks, name, sharding):
    config = at_full_width(name, 3, sharding=sharding)
    layout = Layout(gpus=8, gpus_per_node=4, sharding=sharding)
    estimate = sum(accounting.memory(config, layout, 1, "cpu").values())
    assert estimate == pytest.approx(peaks.peak(config, 1, sharding), rel=0.03)


@pytest.mark.parametrize(("checkpointing", "chunk", "texts"),
                         list(itertools.product([False, True], [0, 1024], [1, 4])))
@pytest.mark.slow
def test_peaks_of_the_whole_recipe_are_within_five_percent(eight_ranks, checkpointing, chunk, texts):
    config = at_full_width("llama_1b", 22, activation_checkpointing=checkpointing, loss_chunk=chunk)
    layout = Layout(gpus=8, gpus_per_node=8, sharding="full")
    estimate = sum(accounting.memory(config, layout, texts, "cpu").values())
    assert estimate == pytest.approx(peaks.peak(config, texts, "full"), rel=0.05)


@pytest.mark.parametrize(("ranks", "rank"), [(8, 0), (8, 7), (64, 0), (64, 63), (512, 0), (512, 255), (512, 511)])
def test_a_rank_keeps_as_much_of_a_billion_parameters_as_fsdp_gives_it(ranks, rank):
    model, paper = recipes.recipe("llama_1b").model, on_paper(recipes.recipe("llama_1b").model)
    with peaks.imagined_ranks(ranks, rank):
        mesh = init_device_mesh("cpu", (ranks,))
        for block in paper.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(paper, mesh=mesh)
        mine = sum(weight.to_local().numel() for weight in paper.parameters())
    assert mine == accounting.share(model, ranks, rank)


@pytest.mark.parametrize("ranks", [1, 8, 64, 512])
def test_the_shares_of_all_ranks_add_up_and_the_first_is_the_largest(ranks):
    model = recipes.recipe("llama_1b").model
    shares = [accounting.share(model, ranks, rank) for rank in range(ranks)]
    assert sum(shares) == model.n_parameters and max(shares) == shares[0]


def test_less_is_kept_with_more_shares_fewer_texts_and_recomputation():
    def needed(texts=4, gpus=8, **train):
        config = at_full_width("llama_1b", 22, **train)
        layout = Layout(gpus=gpus, gpus_per_node=8, sharding=config.train.sharding)
        return sum(accounting.memory(config, layout, texts).values())

    assert needed(gpus=64) < needed() < needed(texts=5)
    assert needed(activation_checkpointing=True) < needed() and needed(loss_chunk=2048) < needed()
    assert needed(gpus=16, sharding="full") < needed(gpus=16, sharding="hybrid") < needed(gpus=16, sharding="none")
    assert needed(sharding="full") < needed(sharding="gradients") < needed(sharding="none")


@pytest.mark.slow
def test_one_block_of_a_billion_parameters_goes_forward_and_back_at_its_true_width():
    model = dataclasses.replace(recipes.recipe("llama_1b").model, n_layers=1, vocab_size=256)
    gpt, ids = GPT(model), torch.randint(0, 256, (1, model.max_seq_len), generator=torch.manual_seed(0))
    loss = gpt(ids, targets=ids)
    loss.backward()
    assert loss.item() == pytest.approx(5.545, abs=0.6)  # ln 256, before it has learned anything
    block = {name for name, weight in gpt.named_parameters() if name.startswith("blocks.0.") and weight.grad.any()}
    assert block == {f"blocks.0.{name}" for name in accounting.block_shapes(model)}
