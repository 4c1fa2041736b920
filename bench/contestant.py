"""One trainer with one setting, in a process of its own, that trains when it is told to.

    python bench/contestant.py FOLDER        FOLDER holds spec.json, weights.safetensors and tokens.safetensors

It answers each line of its input, a number of steps, with one line of JSON: seconds and loss of each step and the
peak of its memory meanwhile; the line `profile` with where one step's time goes. bench/training.py starts it. It
imports nothing of minigpt unless it is minigpt, so that it also runs in a peer's own environment.
"""

import contextlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

PARTS = {"matrix products": r"aten::(mm|addmm|bmm|linear|matmul|_?mkldnn)|mkldnn", "optimizer": r"adamw",
         "PyTorch's fused attention": r"flash_attention|scaled_dot_product",
         "compiled kernels": r"CompiledFxGraph|cpp_fused",
         "casts and copies": r"aten::(copy_|_to_copy|to|cat|contiguous|clone)$",
         "loss": r"log_softmax|nll_loss|logsumexp|cross_entropy", "norms": r"layer_norm|rms_norm",
         "length of the gradient": r"foreach|linalg_vector_norm"}

UNTIL_THE_END = contextlib.ExitStack()
"""What minigpt's training does for as long as it lasts, and gives back."""


def main() -> None:
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "spec.json").read_text())
    torch.set_num_threads(spec["threads"])
    started = time.perf_counter()
    n_parameters, step = ENGINES[spec["engine"]](spec, folder)
    answer({"parameters": n_parameters, "seconds": time.perf_counter() - started})
    for line in sys.stdin:
        answer(profile(step) if line.strip() == "profile" else run(step, int(line)))


def answer(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)


def run(step: Callable[[], float], n_steps: int) -> dict[str, Any]:
    """Seconds and loss of each step and the peak of this process's memory."""
    forget_peak()
    seconds, losses = [], []
    for _ in range(n_steps):
        start = time.perf_counter()
        losses.append(step())
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "losses": losses, "peak_megabytes": peak_megabytes()}


def forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> float:
    """The most memory since `forget_peak`: the GPU's where there is one, else that of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6


def profile(step: Callable[[], float]) -> dict[str, float]:
    """Shares of one step's processor time by kind of work."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        step()
    times: Counter[str] = Counter()
    for event in recorded.key_averages():
        part = next((name for name, pattern in PARTS.items() if re.search(pattern, event.key)), "all else")
        times[part] += event.self_cpu_time_total
    return {name: value / times.total() for name, value in times.most_common()}


# The trainers: each gives the number of its parameters and a function that makes a step and returns its loss.


def minigpt(spec: dict[str, Any], folder: Path) -> tuple[int, Callable[[], float]]:
    """minigpt's own train_step, with its optimizer, clipping and precision."""
    from minigpt import checkpoint, huggingface, train
    from minigpt.config import ModelConfig, RunConfig, TrainConfig
    from minigpt.memory import keep_memory

    settings = TrainConfig(steps=10**6, batch_size=spec["batch_size"], learning_rate=spec["learning_rate"],
                           min_learning_rate=spec["learning_rate"], **spec["train"])
    config = RunConfig(name="bench", model=ModelConfig(**spec["model"]), train=settings)
    fabric = train.make_fabric(settings)
    if os.environ.get("GIVE_MEMORY_BACK") != "1":
        UNTIL_THE_END.enter_context(keep_memory(fabric.device))
    model, optimizer = train.set_up(fabric, config)
    theirs = load_file(folder / "weights.safetensors")
    checkpoint.load_weights(model.module, huggingface.from_weights(config.model, theirs), folder)
    batches = iter(tokens(folder))
    split = SimpleNamespace(mode="cross", batch=lambda *_: next(batches), documents=lambda _x: None)
    number = iter(range(10**6))
    return size(model), lambda: train.train_step(fabric, config, model, optimizer, split, next(number))["loss"]


def transformers(spec: dict[str, Any], folder: Path) -> tuple[int, Callable[[], float]]:
    """The model and the loss of `transformers`, in the loop that its Trainer runs."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    theirs = dict(spec["transformers"])
    config = CONFIG_MAPPING[theirs.pop("model_type")](**theirs)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    found = load_file(folder / "weights.safetensors")
    if "embed_out.weight" in found and "lm_head.weight" in model.state_dict():
        found["lm_head.weight"] = found.pop("embed_out.weight")
    model.load_state_dict(found)
    return plain_loop(spec, folder, model, lambda m, x, y: m(input_ids=x, labels=y, shift_labels=y,
                                                            use_cache=False).loss)


def litgpt(spec: dict[str, Any], folder: Path) -> tuple[int, Callable[[], float]]:
    """The model and the loss of litgpt, in the loop of its `pretrain`; weights pass through its own converter."""
    from litgpt.model import GPT, Config
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_gpt_neox, copy_weights_hf_llama
    from litgpt.utils import chunked_cross_entropy

    config, found, converted = Config(**spec["litgpt"]), load_file(folder / "weights.safetensors"), {}
    if config.norm_class_name == "RMSNorm":
        copy_weights_hf_llama(config, {}, converted, found)
    else:
        copy_weights_gpt_neox(config, converted, found)
    model = GPT(config)
    model.load_state_dict(converted)
    return plain_loop(spec, folder, model, lambda m, x, y: chunked_cross_entropy(m(x), y, chunk_size=0))


def plain_loop(spec: dict[str, Any], folder: Path, model: nn.Module,
               loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> tuple[int, Callable[[], float]]:
    """Forward, backward, clip, AdamW: what minigpt's step does, for another's model."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).train()
    weights = list(model.parameters())
    groups = [{"params": [w for w in weights if w.ndim >= 2], "weight_decay": 0.1},
              {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=spec["learning_rate"], betas=(0.9, 0.95), fused=True)
    n_parameters, called, batches = size(model), model, iter(tokens(folder))
    if spec["train"]["compile"]:
        called = torch.compile(model)

    def step() -> float:
        x, y = next(batches)
        with torch.autocast(device, torch.bfloat16, enabled=spec["train"]["precision"] == "bf16-mixed"):
            loss = loss_of(called, x.to(device), y.to(device))
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return n_parameters, step


def products(spec: dict[str, Any], folder: Path) -> tuple[int, Callable[[], float]]:
    """The matrix products of the model's weights alone, forward and backward: what the processor could do at best."""
    dtype = torch.bfloat16 if spec["train"]["precision"] == "bf16-mixed" else torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision(spec["train"].get("float32_matmul", "highest"))
    found = load_file(folder / "weights.safetensors")
    matrices = [w.to(device, dtype) for name, w in found.items()
                if w.ndim == 2 and "embed_in" not in name and "embed_tokens" not in name]
    n_tokens = spec["batch_size"] * spec["model"]["max_seq_len"]
    inputs = {w.shape[1]: torch.randn(n_tokens, w.shape[1], dtype=dtype, device=device) for w in matrices}
    slopes = {w.shape[0]: torch.randn(n_tokens, w.shape[0], dtype=dtype, device=device) for w in matrices}

    def step() -> float:
        for w in matrices:
            x, slope = inputs[w.shape[1]], slopes[w.shape[0]]
            _ = x @ w.T, slope @ w, slope.T @ x
        return 0.0

    return sum(w.numel() for w in matrices), step


def tokens(folder: Path) -> list[tuple[Tensor, Tensor]]:
    """(x, y) of every step, (B, T) each."""
    ids = load_file(folder / "tokens.safetensors")["ids"]
    return [(rows[:, :-1].contiguous(), rows[:, 1:].contiguous()) for rows in ids]


def size(model: nn.Module) -> int:
    return sum(w.numel() for w in model.parameters())


ENGINES = {engine.__name__: engine for engine in (minigpt, transformers, litgpt, products)}

if __name__ == "__main__":
    main()
