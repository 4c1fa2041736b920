"""What a plan says before a run, against what torch counts, what others measured, and what their runs took.

    python bench/plan.py      about two minutes on one core; writes bench/plan.json
"""

import dataclasses
import json
from pathlib import Path

import torch
from peaks import imagined_ranks, peak
from record import stamp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt import recipes
from minigpt.cluster import accounting, network
from minigpt.cluster.accounting import Layout
from minigpt.cluster.gpus import find
from minigpt.cluster.network import Network
from minigpt.cluster.plan import MFU
from minigpt.config import ModelConfig, RunConfig
from minigpt.disk import write_text
from minigpt.model import GPT

RESULT = Path(__file__).with_suffix(".json")
SIZES = ["neox_125m", "llama_125m", "neox_1b", "llama_1b"]


def mpt(n_layers: int, d_model: int, n_heads: int) -> ModelConfig:
    """MosaicML's GPT of that size; where it differs (positions, norms of queries and keys) it has few parameters."""
    return ModelConfig(vocab_size=50_368, n_layers=n_layers, d_model=d_model, n_heads=n_heads, n_kv_heads=n_heads,
                       d_ff=4 * d_model, max_seq_len=2048, norm="layernorm", mlp="gelu", tied=True)


MPT_125M, MPT_1B = mpt(12, 768, 12), mpt(24, 2048, 16)
OLMO_1B = ModelConfig(vocab_size=50_304, n_layers=16, d_model=2048, n_heads=16, n_kv_heads=16, d_ff=8192,
                      max_seq_len=2048, tied=True)
TINYLLAMA, PYTHIA = recipes.llama_1b().model, recipes.neox_1b().model

RUNS = [("TinyLlama 1.1B", TINYLLAMA, 16, 8, 300e9, 3456), ("Pythia-1B", PYTHIA, None, 8, 300e9, 4830),
        ("MPT-1B", MPT_1B, 440, 5, 200e9, 440 * 12), ("OLMo-1B", OLMO_1B, None, 8, 3e12, None)]
"""Name, shape, GPUs, texts a piece, tokens, GPU hours, all on A100 of 40 GB except OLMo-1B.

Sources  TinyLlama, README, "Blazingly Fast", which also quotes Pythia's paper and the card of MPT-1b-RedPajama-200b
         ("440 A100-40GBs for about half a day", taken as 12 hours); card of OLMo 1B (3 trillion tokens, no hours).
"""

MOSAIC = 0.5623
"""Model FLOPs utilization of a GPT of 1.3 billion parameters on eight A100 of 40 GB.

Source  MosaicML, llm-foundry, scripts/train/benchmarking/README.md, as all figures of SCALING and FITTED.
"""

SCALING = [("1.3B", MPT_1B, "h100", 20, {16: 46_037, 32: 45_130, 64: 44_402}),
           ("1.3B", MPT_1B, "a100-40gb", 10, {64: 19_001, 128: 18_647}),
           ("125M", MPT_125M, "a100-40gb", 26, {16: 130_535, 32: 127_122, 64: 125_234, 128: 123_936})]
"""Size, shape, GPU, texts for each GPU, and tokens a second of each GPU by the number of GPUs, in one piece a step."""

FITTED = [("1.3B", MPT_1B, "h100", 16, 20), ("1.3B", MPT_1B, "a100", 8, 14), ("1.3B", MPT_1B, "a100-40gb", 64, 10),
          ("TinyLlama 1.1B", TINYLLAMA, "a100-40gb", 16, 8)]
"""Size, shape, GPU, how many, and the texts of a piece that they fitted without recomputation."""

PEAKS = [("llama_1b", 22, None, False, 0, 1), ("llama_1b", 22, None, True, 2048, 2), ("neox_1b", 16, None, False, 0, 2),
         *(("llama_1b", 22, sharding, False, 0, 2) for sharding in ("full", "gradients", "hybrid", "none")),
         *(("neox_1b", 16, sharding, False, 0, 2) for sharding in ("full", "gradients", "hybrid", "none")),
         ("llama_1b", 22, "full", True, 0, 8), ("llama_1b", 22, "full", True, 2048, 8),
         ("llama_1b", 22, "full", False, 2048, 8), ("llama_1b", 22, "full", False, 0, 8)]
"""Recipe, layers, sharding over eight ranks or None for one process, recomputation, chunk of the loss, texts."""


def run(model: ModelConfig, **train) -> RunConfig:
    config = recipes.llama_1b()
    return dataclasses.replace(config, model=model, train=dataclasses.replace(config.train, **train))


def counts() -> dict:
    """Parameters and operations by formula and by torch."""
    rows = []
    for name in SIZES:
        model = recipes.recipe(name).model
        with torch.device("meta"):
            paper, ids = GPT(model), torch.zeros(1, model.max_seq_len, dtype=torch.long)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            paper(ids).logsumexp(-1).sum().backward()
        theirs = counter.get_total_flops() // model.max_seq_len
        rows.append([name, f"{sum(accounting.parameters(model).values()):,}",
                     f"{sum(weight.numel() for weight in paper.parameters()):,}",
                     f"{sum(accounting.flops_per_token(model).values()):,}", f"{theirs:,}",
                     f"{model.flops_per_token_6n / theirs - 1:+.1%}"])
    return {"caption": "Parameters and operations a token: by formula, and as torch counts them on a model without "
                       "numbers. The last column: six operations a parameter against the count.",
            "columns": ["recipe", "parameters, plan", "parameters, torch", "FLOP a token, plan", "FLOP a token, torch",
                        "6 N"], "rows": rows}


def memory() -> dict:
    """Peaks by formula and by torch's trackers."""
    rows = []
    for name, layers, sharding, recompute, chunk, texts in PEAKS:
        config = recipes.recipe(name)
        config = run(dataclasses.replace(config.model, n_layers=layers), activation_checkpointing=recompute,
                     loss_chunk=chunk, sharding=sharding or "full")
        layout = Layout(gpus=8 if sharding else 1, gpus_per_node=4 if sharding == "hybrid" else 8,
                        sharding=sharding or "full")
        mine = sum(accounting.memory(config, layout, texts, "cpu").values())
        if sharding:
            with imagined_ranks(8):
                theirs = peak(config, texts, sharding)
        else:
            theirs = peak(config, texts)
        rows.append([name, sharding or "one process", "blocks" if recompute else "nothing", chunk or "all", texts,
                     f"{mine / 1e9:.2f}", f"{theirs / 1e9:.2f}", f"{mine / theirs - 1:+.1%}"])
        print(*rows[-1], sep="  ", flush=True)
    return {"caption": "The fullest moment of a GPU, in GB: by formula, and as torch's memory trackers see it on one "
                       "rank of eight, with the kernels of a processor. What an allocator loses is in neither.",
            "columns": ["recipe", "sharding", "computed again", "loss at a time, tokens", "texts", "plan", "torch",
                        "difference"], "rows": rows}


def hours(model: ModelConfig, gpus: int, texts: int, tokens: float, utilization: float) -> float:
    """GPU hours that the plan forecasts."""
    config = run(model, batch_size=gpus * texts, accumulate=1, precision="bf16-true", sharding="full")
    layout = Layout(gpus=gpus, gpus_per_node=8, sharding="full")
    step = network.simulate(config, find("a100-40gb"), layout, texts, utilization, Network())
    return gpus * step.seconds / 3600 * tokens / config.tokens_per_step


def published() -> dict:
    """GPU hours of others' runs, forecast with two utilizations that are not theirs."""
    rows = []
    for name, model, gpus, texts, tokens, took in RUNS:
        forecasts = [hours(model, gpus or 8, texts, tokens, utilization) for utilization in (MFU, MOSAIC)]
        cells = [name, gpus or "not stated", f"{tokens / 1e9:,.0f}", f"{took:,}" if took else "not stated"]
        for forecast in forecasts:
            cells += [f"{forecast:,.0f}", f"{forecast / took - 1:+.0%}" if took else ""]
        implied = tokens * model.flops_per_token / (took * 3600 * 312e12) if took else None
        rows.append([*cells, f"{implied:.0%}" if implied else ""])
    return {"caption": f"GPU hours of published runs on A100 of 40 GB, and the plan's forecast for the default "
                       f"utilization of {MFU:.0%} and for the {MOSAIC:.0%} that MosaicML measured with another model. "
                       "The last column is the utilization that the published hours mean. Hours: README of TinyLlama, "
                       "which quotes the paper of Pythia and the card of MPT-1B; tokens of OLMo-1B: its card.",
            "columns": ["run", "GPUs", "billion tokens", "published", f"plan, {MFU:.0%}", "difference",
                        f"plan, {MOSAIC:.0%}", "difference", "their utilization"], "rows": rows}


def scaling() -> dict:
    """Speed lost with more GPUs: MosaicML's measurements and the model of the network."""
    rows = []
    for size, model, gpu, texts, measured in SCALING:
        first = min(measured)
        predicted = {gpus: speed(model, gpu, gpus, texts) for gpus in measured}
        for gpus in sorted(measured)[1:]:
            theirs, mine = measured[gpus] / measured[first] - 1, predicted[gpus] / predicted[first] - 1
            rows.append([size, gpu, f"{first} to {gpus}", f"{theirs:+.1%}", f"{mine:+.1%}",
                         f"{100 * (mine - theirs):+.1f} points"])
    return {"caption": "Tokens a second for each GPU when GPUs are added and each keeps its texts: change as MosaicML "
                       "measured it (llm-foundry, scripts/train/benchmarking), and in the simulation.",
            "columns": ["parameters", "GPU", "GPUs", "measured", "simulated", "difference"], "rows": rows}


def speed(model: ModelConfig, gpu: str, gpus: int, texts: int) -> float:
    config = run(model, batch_size=gpus * texts, accumulate=1, precision="bf16-true", sharding="full")
    layout = Layout(gpus=gpus, gpus_per_node=8, sharding="full")
    return texts / network.simulate(config, find(gpu), layout, texts, MFU, Network()).seconds


def fitted() -> dict:
    """Pieces that others fitted, and what the plan thinks they need."""
    rows, ways = [], ({}, {"compile": True}, {"compile": True, "precision": "bf16-true", "loss_chunk": 2048})
    for name, model, gpu, gpus, texts in FITTED:
        layout = Layout(gpus=gpus, gpus_per_node=8, sharding="full")
        mine = [sum(accounting.memory(run(model, **way), layout, texts).values()) for way in ways]
        rows.append([name, f"{gpus} x {gpu}", texts, f"{find(gpu).memory_bytes / 1e9:.0f}",
                     *(f"{size / 1e9:.1f}" for size in mine)])
    return {"caption": "Texts of a piece that others fitted into a GPU without recomputation, and the GB that the plan "
                       "gives them: as the recipes are, with compiled blocks, and with bf16 between the blocks and the "
                       "loss in chunks as well. They fuse by hand, which lies between the last two.",
            "columns": ["model", "GPUs", "texts", "GB of the GPU", "plan", "compiled", "bf16 and chunks"],
            "rows": rows}


def growth() -> dict:
    """One step of llama_1b on 1 to 512 nodes, simulated."""
    config, gpu = recipes.llama_1b(), find("h100")
    layout = Layout(gpus=8, gpus_per_node=8, sharding=config.train.sharding)
    steps = network.sweep(config, gpu, layout, 8, MFU, Network())
    rows = [[step.nodes, step.texts_per_gpu, *(f"{1000 * getattr(step, part):,.1f}" for part in
             ("compute", "exchange", "stragglers", "filesystem")), f"{step.compute / step.seconds:.0%}",
             f"{network.staging_seconds(config, step.nodes, Network()) / 60:.1f}"] for step in steps]
    return {"caption": "llama_1b on nodes of eight H100: milliseconds of a step, simulated; where the GPUs outnumber "
                       f"the 1,024 texts of a batch, it grows. {network.limits(steps)} The last column: minutes until "
                       "each node has copied all shards to its own disk.",
            "columns": ["nodes", "texts a GPU", "computing", "exchange", "stragglers", "disks", "computing's share",
                        "copying"], "rows": rows}


def main() -> None:
    tables = [counts(), published(), scaling(), fitted(), growth(), memory()]
    result = {"title": "A billion parameters on paper"} | stamp() | {"tables": tables}
    write_text(RESULT, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for table in tables:
        print(table["caption"], *table["rows"], sep="\n")


if __name__ == "__main__":
    main()
