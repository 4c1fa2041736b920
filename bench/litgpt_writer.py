"""litgpt as a writer, in its own environment: bench/generation.py starts it and sends one line of JSON a task."""

import json
import sys
from pathlib import Path

import torch
from litgpt.model import GPT, Config
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
from safetensors.torch import load_file
from torch import Tensor


def load(place: Path, dtype: str) -> GPT:
    """litgpt's LLaMA with the weights that its own converter makes of Hugging Face's."""
    spec = json.loads((place / "spec.json").read_text())
    torch.set_num_threads(spec["threads"])
    config = Config(block_size=spec["max_seq_len"], vocab_size=spec["vocab_size"], n_layer=spec["n_layers"],
                    padded_vocab_size=spec["vocab_size"], n_head=spec["n_heads"], n_query_groups=spec["n_kv_heads"],
                    n_embd=spec["d_model"], intermediate_size=spec["d_ff"], rotary_percentage=1.0,
                    parallel_residual=False, bias=False, norm_class_name="RMSNorm", norm_eps=spec["norm_eps"],
                    mlp_class_name="LLaMAMLP")
    weights: dict[str, Tensor] = {}
    copy_weights_hf_llama(config, {}, weights, load_file(place / "weights.safetensors"))
    model = GPT(config)
    model.load_state_dict(weights)
    return model.to(getattr(torch, dtype)).eval()


@torch.inference_mode()
def write(model: GPT, ids: Tensor, n: int) -> list[list[int]]:
    """Greedy tokens by litgpt's model and cache, in the loop of its `generate` but for many rows."""
    B, T = ids.shape
    model.set_kv_cache(batch_size=B, max_seq_length=T + n, dtype=model.lm_head.weight.dtype)
    positions, made = torch.arange(T), []
    for _ in range(n):
        ids = model(ids, positions, input_pos_maxp1=int(positions[-1]) + 1)[:, -1].argmax(dim=-1, keepdim=True)
        made.append(ids)
        positions = positions[-1:] + 1
    return torch.cat(made, dim=1).tolist()


if __name__ == "__main__":
    engine = load(Path(sys.argv[1]), sys.argv[2])
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(write(engine, torch.tensor(task["ids"]), task["n"])), flush=True)
