"""The two model families in the names of Hugging Face's `transformers`: configs and weights, no disk.

GPT-NeoX (Pythia) and LLaMA (TinyLlama) are what ModelConfig's fields can say; anything else is refused.

Axes: D model width, H heads, K width of one head.
"""

from typing import Any

import torch
from torch import Tensor

from minigpt.config import ModelConfig, check_kind

Weights = dict[str, Tensor]

NEOX = {"norm": "layernorm", "mlp": "gelu", "bias": True}
LLAMA = {"norm": "rmsnorm", "mlp": "swiglu", "bias": False, "parallel": False}

SIZES = {"vocab_size": "vocab_size", "n_layers": "num_hidden_layers", "d_model": "hidden_size",
         "n_heads": "num_attention_heads", "d_ff": "intermediate_size", "max_seq_len": "max_position_embeddings"}

NEOX_NAMES = {
    "embedding": "gpt_neox.embed_in", "norm": "gpt_neox.final_layer_norm", "head": "embed_out",
    "blocks": "gpt_neox.layers", "attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm",
    "attention.to_output": "attention.dense", "feed_forward.up": "mlp.dense_h_to_4h",
    "feed_forward.down": "mlp.dense_4h_to_h",
}
LLAMA_NAMES = {
    "embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head", "blocks": "model.layers",
    "attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm",
    "attention.to_queries": "self_attn.q_proj", "attention.to_keys": "self_attn.k_proj",
    "attention.to_values": "self_attn.v_proj", "attention.to_output": "self_attn.o_proj",
    "feed_forward.gate": "mlp.gate_proj", "feed_forward.up": "mlp.up_proj", "feed_forward.down": "mlp.down_proj",
}


def family(config: ModelConfig) -> str:
    """`gpt_neox` or `llama`. Raises ValueError, naming the field, if the model is of neither family."""
    if all(getattr(config, field) == value for field, value in NEOX.items()):
        if config.n_kv_heads != config.n_heads:
            raise ValueError(f"GPT-NeoX has no grouped heads but n_kv_heads is {config.n_kv_heads}; "
                             f"make it {config.n_heads}")
        return "gpt_neox"
    if all(getattr(config, field) == value for field, value in LLAMA.items()):
        if config.rotary_fraction != 1:
            raise ValueError(f"LLaMA turns all of a head but rotary_fraction is {config.rotary_fraction}; make it 1")
        return "llama"
    raise ValueError(f"norm {config.norm!r} with mlp {config.mlp!r}, bias {config.bias} and parallel "
                     f"{config.parallel} is neither GPT-NeoX nor LLaMA; change the fields to those of one")


def to_config(config: ModelConfig, end_of_text: int) -> dict[str, Any]:
    """The content of `transformers`' config.json."""
    kind = family(config)
    both = {"model_type": kind, **{their: getattr(config, our) for our, their in SIZES.items()},
            "tie_word_embeddings": config.tied, "bos_token_id": end_of_text, "eos_token_id": end_of_text,
            "dtype": "float32"}
    if kind == "llama":
        return both | {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": config.norm_eps,
                       "num_key_value_heads": config.n_kv_heads, "rope_theta": config.rotary_base,
                       "rope_parameters": {"rope_theta": config.rotary_base, "rope_type": "default"}}
    return both | {"architectures": ["GPTNeoXForCausalLM"], "hidden_act": "gelu", "layer_norm_eps": config.norm_eps,
                   "use_parallel_residual": config.parallel, "rotary_pct": config.rotary_fraction,
                   "rotary_emb_base": config.rotary_base,
                   "rope_parameters": {"rope_theta": config.rotary_base, "rope_type": "default",
                                       "partial_rotary_factor": config.rotary_fraction}}


def from_config(theirs: dict[str, Any]) -> ModelConfig:
    """The ModelConfig that a config.json of `transformers` describes.

    Raises  ValueError for another family, and, naming it, for a value that is missing or of another kind.
    """
    kind = theirs.get("model_type")
    if kind not in ("gpt_neox", "llama"):
        raise ValueError(f"the model is of the family {kind!r} but only gpt_neox and llama can be read; choose one")
    known = "silu" if kind == "llama" else "gelu"
    if (curve := theirs.get("hidden_act", known)) != known:
        raise ValueError(f"the model's activation is {curve!r} but of a {kind} only {known!r} can be read; "
                         "choose another model")
    rope = take(theirs, "rope_parameters", dict, {}) or take(theirs, "rope_scaling", dict, {})
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"the model stretches its rotary positions ({rope}), which is not supported; choose another")
    both = {our: take(theirs, their, int) for our, their in SIZES.items()}
    both["tied"] = take(theirs, "tie_word_embeddings", bool, False)
    base = take(theirs, "rope_theta" if kind == "llama" else "rotary_emb_base", float, 10_000.0)
    both["rotary_base"] = take(rope, "rope_theta", float, base)
    if kind == "llama":
        return ModelConfig(**both, **LLAMA, n_kv_heads=take(theirs, "num_key_value_heads", int, both["n_heads"]),
                           norm_eps=take(theirs, "rms_norm_eps", float))
    return ModelConfig(**both, **NEOX, n_kv_heads=both["n_heads"], norm_eps=take(theirs, "layer_norm_eps", float),
                       parallel=take(theirs, "use_parallel_residual", bool, True),
                       rotary_fraction=take(rope, "partial_rotary_factor", float,
                                            take(theirs, "rotary_pct", float, 0.25)))


def take(theirs: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """What a config.json says under a name; null is as good as nothing.

    Raises  ValueError, naming it, if it is of another kind, or missing where there is no default.
    """
    value = default if theirs.get(name) is None else theirs[name]
    if value is None:
        raise ValueError(f"config.json lacks {name!r}; take the file that was saved with the weights")
    check_kind("config.json", name, value, kind)
    return value


def to_weights(config: ModelConfig, weights: Weights) -> Weights:
    """The same weights under the names that `transformers` gives them."""
    if family(config) == "llama":
        return {rename(name, LLAMA_NAMES): tensor for name, tensor in weights.items()}
    theirs = {}
    for name, tensor in weights.items():
        if "to_queries" in name:
            three = [weights[name.replace("to_queries", other)] for other in ("to_queries", "to_keys", "to_values")]
            fused = name.replace("attention.to_queries", "attention.query_key_value")
            theirs[rename(fused, NEOX_NAMES)] = fuse(config, three)
        elif "to_keys" not in name and "to_values" not in name:
            theirs[rename(name, NEOX_NAMES)] = tensor
    return theirs


def from_weights(config: ModelConfig, theirs: Weights) -> Weights:
    """Weights under our names, from those of `transformers`; old helper tensors are left out.

    Raises  ValueError, naming it, for a tensor that has no counterpart or does not hold queries, keys and values.
    """
    names = {their: our for our, their in (LLAMA_NAMES if family(config) == "llama" else NEOX_NAMES).items()}
    if family(config) == "gpt_neox":
        names["lm_head"] = "head"  # newer versions of transformers
    weights = {}
    for name, tensor in theirs.items():
        if name.endswith(("rotary_emb.inv_freq", "attention.bias", "attention.masked_bias")):
            continue
        our = rename(name, names)
        if "query_key_value" not in our:
            weights[our] = tensor
            continue
        if tensor.shape[:1] != (3 * config.d_model,):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} but queries, keys and values need "
                             f"{3 * config.d_model} rows; it belongs to another config")
        for other, part in zip(("to_queries", "to_keys", "to_values"), split(config, tensor), strict=True):
            weights[our.replace("query_key_value", other)] = part
    if config.tied:
        weights.pop("head.weight", None)
    return weights


def fuse(config: ModelConfig, three: list[Tensor]) -> Tensor:
    """Queries, keys and values in one tensor, head by head: (D, ...) three times -> (3 D, ...)."""
    heads = [tensor.view(config.n_heads, config.d_head, *tensor.shape[1:]) for tensor in three]
    return torch.stack(heads, dim=1).reshape(3 * config.d_model, *three[0].shape[1:])


def split(config: ModelConfig, fused: Tensor) -> list[Tensor]:
    """The opposite of `fuse`."""
    heads = fused.view(config.n_heads, 3, config.d_head, *fused.shape[1:])
    return [part.reshape(config.d_model, *fused.shape[1:]) for part in heads.unbind(dim=1)]


def rename(name: str, names: dict[str, str]) -> str:
    """A tensor's name with its parts exchanged: `blocks.3.attention_norm.weight` and so on.

    Raises  ValueError for a name that has no counterpart.
    """
    stem, _, last = name.rpartition(".")
    if stem in names:
        return f"{names[stem]}.{last}"
    for blocks in (ours for ours in names if stem.startswith(ours + ".")):
        number, _, part = stem.removeprefix(blocks + ".").partition(".")
        if number.isdigit():
            return f"{names[blocks]}.{number}.{names.get(part, part)}.{last}"
    raise ValueError(f"the tensor {name} has no counterpart in the other format; the model is of another family")
