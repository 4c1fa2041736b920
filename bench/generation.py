"""Tokens per second that minigpt writes beside `transformers.generate` and litgpt, with the same weights.

    python bench/generation.py                    all of it; writes bench/generation.json
    python bench/generation.py --sizes 10m --rounds 1 --no-litgpt

All contestants take turns on one prompt and write greedily; in float32 all must write the same tokens.
"""

import argparse
import copy
import dataclasses
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from record import in_turn, record
from safetensors.torch import save_file
from torch import Tensor

from minigpt import huggingface
from minigpt.config import ModelConfig
from minigpt.generate import Sampling, generate
from minigpt.model import GPT
from minigpt.quantize import lighter

HERE = Path(__file__).resolve().parent
BOTH = {"n_heads": 8, "n_kv_heads": 8, "max_seq_len": 512}
SIZES = {"10m": ModelConfig(vocab_size=8192, n_layers=6, d_model=256, d_ff=1024, **BOTH),
         "50m": ModelConfig(vocab_size=16_384, n_layers=10, d_model=512, d_ff=1408, **BOTH)}
Write = Callable[[Tensor, int], list[list[int]]]
"""Greedily adds so many tokens to prompts (B, T): the new ones alone."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--tokens", type=int, default=128)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--no-litgpt", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    parts = {}
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as place:
            writers = make_writers(SIZES[size], Path(place), not given.no_litgpt, given.threads)
            for batch_size in (1, 16):
                draw = torch.Generator().manual_seed(1)
                ids = torch.randint(SIZES[size].vocab_size, (batch_size, 32), generator=draw)
                check(writers, ids)
                timers = {name: timer(write, ids, given.tokens) for name, write in writers.items()}
                parts[f"{size}, batch {batch_size}, tokens/s"] = in_turn(timers, given.rounds)
    record(Path(__file__).with_suffix(".json"), "Writing speed on a processor", parts,
           ("torch", "transformers", "tokenizers"))


def make_writers(config: ModelConfig, place: Path, with_litgpt: bool, threads: int) -> dict[str, Write]:
    model = GPT(config, seed=1).eval()
    for weight in model.parameters():
        weight.data *= 4 if weight.ndim > 1 else 1  # untrained logits lie so close that rounding would choose
    writers: dict[str, Write] = {}
    for weights in ("float32", "bfloat16", "int8"):
        light = lighter(model, weights)
        writers[f"minigpt {weights}"] = lambda ids, n, light=light: generate(
            light, ids, n, Sampling(temperature=0))[:, ids.shape[1] :].tolist()
    theirs = huggingface.to_weights(config, model.state_dict())
    for dtype in (torch.float32, torch.bfloat16):
        writers[f"transformers {str(dtype)[6:]}"] = transformers_writer(config, theirs, dtype)
    if with_litgpt:
        save_file({name: weight.contiguous() for name, weight in theirs.items()}, place / "weights.safetensors")
        (place / "spec.json").write_text(json.dumps({"threads": threads} | dataclasses.asdict(config)))
        for dtype in ("float32", "bfloat16"):
            writers[f"litgpt {dtype}"] = litgpt_writer(place, dtype)
    return writers


def transformers_writer(config: ModelConfig, weights: dict[str, Tensor], dtype: torch.dtype) -> Write:
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**huggingface.to_config(config, 0)))
    theirs.load_state_dict(weights)
    theirs = copy.deepcopy(theirs).to(dtype).eval()
    theirs.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=0)

    def write(ids: Tensor, n: int) -> list[list[int]]:
        made = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n)
        return made[:, ids.shape[1] :].tolist()

    return write


def litgpt_writer(place: Path, dtype: str) -> Write:
    """litgpt in a process of its own environment; what it is asked and answers is one line each."""
    import peers

    child = subprocess.Popen([peers.python("litgpt"), HERE / "litgpt_writer.py", place, dtype], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def write(ids: Tensor, n: int) -> list[list[int]]:
        child.stdin.write(json.dumps({"ids": ids.tolist(), "n": n}) + "\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())

    return write


def check(writers: dict[str, Write], ids: Tensor) -> None:
    """Raises ValueError if a peer in float32 does not write minigpt's tokens: then it is another model."""
    wanted = writers["minigpt float32"](ids, 8)
    for name, write in writers.items():
        if name.endswith("float32") and write(ids, 8) != wanted:
            raise ValueError(f"{name} writes other tokens than minigpt in float32; look at its weights")


def timer(write: Write, ids: Tensor, n: int) -> Callable[[], float]:
    """Measures new tokens per second, prompt included."""
    def measure() -> float:
        start = time.perf_counter()
        write(ids, n)
        return len(ids) * n / (time.perf_counter() - start)

    return measure


if __name__ == "__main__":
    main()
