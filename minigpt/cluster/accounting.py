"""Parameters, operations and bytes of a run, counted from its config alone.

Axes: B texts of a piece of the batch, T time in tokens, D model width, H heads, G key/value heads, K width of one
head, F feed-forward width, V vocabulary, L layers.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from minigpt.config import ModelConfig, RunConfig, Sharding, TrainConfig

PARTS = {"embedding": "embedding", "attention": ".attention.", "feed_forward": ".feed_forward.", "norms": "norm",
         "output": "head."}
"""What a weight belongs to, by a piece of its name; the first that fits."""


def shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight, by its name in `minigpt.model.GPT`; a tied output layer has none of its own."""
    found = {"embedding.weight": (model.vocab_size, model.d_model)}
    for layer in range(model.n_layers):
        found |= {f"blocks.{layer}.{name}": shape for name, shape in block_shapes(model).items()}
    found |= norm_shapes(model, "norm")
    return found if model.tied else found | {"head.weight": (model.vocab_size, model.d_model)}


def block_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of one block's weights."""
    width, kv_width, hidden = model.d_model, model.n_kv_heads * model.d_head, model.d_ff
    matrices = {"attention.to_queries": (width, width), "attention.to_keys": (kv_width, width),
                "attention.to_values": (kv_width, width), "attention.to_output": (width, width)}
    if model.mlp == "swiglu":
        matrices["feed_forward.gate"] = (hidden, width)
    matrices |= {"feed_forward.up": (hidden, width), "feed_forward.down": (width, hidden)}
    found = {f"{name}.weight": shape for name, shape in matrices.items()}
    if model.bias:
        found |= {f"{name}.bias": shape[:1] for name, shape in matrices.items()}
    return found | norm_shapes(model, "attention_norm") | norm_shapes(model, "feed_forward_norm")


def norm_shapes(model: ModelConfig, name: str) -> dict[str, tuple[int, ...]]:
    gain = {f"{name}.weight": (model.d_model,)}
    return gain | {f"{name}.bias": (model.d_model,)} if model.norm == "layernorm" else gain


def count(found: dict[str, tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in found.values())


def parameters(model: ModelConfig) -> dict[str, int]:
    """How many numbers each part trains."""
    counts = dict.fromkeys(PARTS, 0)
    for name, shape in shapes(model).items():
        counts[next(part for part, piece in PARTS.items() if piece in name)] += prod(shape)
    return counts


@lru_cache
def share(model: ModelConfig, ranks: int, rank: int = 0) -> int:
    """How many of the weights' numbers one rank keeps: FSDP2 cuts each along its first axis into equal pieces.

    The first rank keeps the largest share: where an axis is not divisible, later ranks get less or nothing.
    """
    def rows(first: int) -> int:
        piece = -(-first // ranks)
        return min(max(first - rank * piece, 0), piece)

    return sum(rows(shape[0]) * prod(shape[1:]) for shape in shapes(model).values())


def forward_flops(model: ModelConfig) -> dict[str, int]:
    """Operations a token on the way forward, for a text of full length: 2 a weight of a matrix, 4 D T a layer for
    the scores of attention and their use. The way back takes twice as many.
    """
    matrices = {part: 2 * sum(prod(shape) for name, shape in block_shapes(model).items()
                              if name.startswith(f"{part}.") and len(shape) == 2)
                for part in ("attention", "feed_forward")}
    return {"attention_matrices": model.n_layers * matrices["attention"],
            "attention_scores": model.n_layers * 4 * model.d_model * model.max_seq_len,
            "feed_forward": model.n_layers * matrices["feed_forward"],
            "output": 2 * model.d_model * model.vocab_size}


def flops_per_token(model: ModelConfig) -> dict[str, int]:
    """Operations that training needs for a token, by part; they add up to ModelConfig.flops_per_token."""
    return {part: 3 * flops for part, flops in forward_flops(model).items()}


def executed_flops_per_token(config: RunConfig) -> int:
    """Those that the GPU executes: with activation checkpointing the blocks go forward twice."""
    forward = forward_flops(config.model)
    output = forward.pop("output")
    blocks = sum(forward.values())
    return (4 if config.train.activation_checkpointing else 3) * blocks + 3 * output


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How many GPUs there are, how many share a node, and what they spread."""

    gpus: int
    gpus_per_node: int
    sharding: Sharding

    @property
    def nodes(self) -> int:
        return -(-self.gpus // self.gpus_per_node)

    @property
    def shards(self) -> int:
        """In how many shares the weights lie."""
        return {"none": 1, "hybrid": min(self.gpus, self.gpus_per_node)}.get(self.sharding, self.gpus)


def weight_bytes(train: TrainConfig) -> int:
    """Bytes of a stored weight, of its gradient and of each of its two moments."""
    return 2 if train.precision == "bf16-true" else 4


def matrix_bytes(train: TrainConfig) -> int:
    """Bytes of a number that goes through a matrix product."""
    return 4 if train.precision == "32-true" else 2


def block_activations(model: ModelConfig, train: TrainConfig, device: str = "cuda") -> int:
    """Bytes a token that one block keeps from its way forward for its way back, with fused attention.

    They are the inputs of the norms; the inputs of the matrices, of which bf16-mixed makes one copy for each; queries,
    keys, values and what attention mixed of them, with one float32 a head; and what is between the matrices of the
    feed-forward part. A compiled block shares copies and computes what is cheap again. On a CPU, RMSNorm keeps
    its input and its result before the gain in float32 unless compiled, attention keeps its result twice if heads turn,
    and a compiled block keeps what attention adds to the residual stream unless the feed-forward part adds beside it.
    """
    small, width, gated = matrix_bytes(train), model.d_model, model.mlp == "swiglu"
    copies_each = train.precision == "bf16-mixed" and not train.compile
    inputs = (5 if gated else 4) if copies_each else 2
    between = (3 if train.compile else 4) if gated else 2
    kept = (1 if model.parallel or train.compile else 2) * residual_bytes(train) * width + 2 * norm_statistics(model)
    kept += small * width * inputs + small * 2 * (width + model.n_kv_heads * model.d_head) + 4 * model.n_heads
    kept += small * model.d_ff * between
    if device == "cpu":
        kept += 0 if train.compile else 2 * rms_in_float32(model, train)
        kept += small * width if model.rotary_width else 0
        kept += small * width if train.compile and not model.parallel else 0
    return kept


def residual_bytes(train: TrainConfig) -> int:
    """Bytes of a number that runs from block to block: bf16-mixed keeps them in float32."""
    return 2 if train.precision == "bf16-true" else 4


def rms_in_float32(model: ModelConfig, train: TrainConfig) -> int:
    """Bytes a token that an RMSNorm keeps on a CPU beyond its input: both that and its result are float32 there."""
    return (8 - residual_bytes(train)) * model.d_model if model.norm == "rmsnorm" else 0


def norm_statistics(model: ModelConfig) -> int:
    """Bytes a token of a norm's scale, and of a LayerNorm's mean."""
    return 8 if model.norm == "layernorm" else 4


def block_bytes(config: RunConfig, texts: int, device: str) -> int:
    """Bytes that one block keeps of a piece of `texts` texts."""
    return block_activations(config.model, config.train, device) * texts * config.model.max_seq_len


def angle_bytes(model: ModelConfig) -> int:
    """Bytes of the rotary cosines and sines, in float32."""
    return 4 * 2 * model.max_seq_len * model.rotary_width


def activations(config: RunConfig, texts: int, device: str = "cuda") -> int:
    """Bytes that all blocks keep of a piece of `texts` texts; with activation checkpointing, their inputs alone."""
    model = config.model
    inputs = residual_bytes(config.train) * model.d_model * texts * model.max_seq_len
    block = inputs if config.train.activation_checkpointing else block_bytes(config, texts, device)
    return model.n_layers * block + angle_bytes(model)


def copied(train: TrainConfig, numbers: int) -> int:
    """Bytes of the bf16 copies that bf16-mixed makes of so many weights, on their way forward, until the way back."""
    return 2 * numbers if train.precision == "bf16-mixed" else 0


def memory(config: RunConfig, layout: Layout, texts: int, device: str = "cuda") -> dict[str, int]:
    """Bytes that the fullest GPU holds at the fullest moment of a step of several pieces, `texts` texts each, by part.

    weights, gradients, optimizer  its share of each (AdamW has two moments)
    gathered     weights of others that it holds for a moment, and gradients on their way to others
    copies       weights in bf16, with bf16-mixed
    activations  what the blocks keep for the way back
    loss         the last norm, the logits and their gradients, or what a block's way back works with

    The program allocates these; what an allocator loses between them comes on top.
    """
    own = weight_bytes(config.train) * share(config.model, layout.shards)
    fixed = {"weights": own, "gradients": own, "optimizer": 2 * own}
    return max((fixed | moment for moment in moments(config, layout, texts, device)), key=lambda m: sum(m.values()))


def moments(config: RunConfig, layout: Layout, texts: int, device: str) -> list[dict[str, int]]:
    """What comes on top of a GPU's own share: at the end of the way forward, at the beginning of the way back, in the
    first block of the way back, and in the second.
    """
    model, train, tokens = config.model, config.train, texts * config.model.max_seq_len
    kept, block = activations(config, texts, device), block_bytes(config, texts, device)
    forward, backward = loss_bytes(config, tokens, device)
    at_loss, in_block, leaving = gathered_bytes(config, layout)
    head = copied(train, model.vocab_size * model.d_model)
    copies = copied(train, model.n_matmul_parameters)
    later = copies - head  # those that the blocks' way back needs
    freed, again = block, 0
    if train.activation_checkpointing:  # a block is computed again, with new copies of its weights
        freed, again, later = kept // model.n_layers, block + later // model.n_layers, 0
    work = (residual_bytes(train) * model.d_model + 2 * matrix_bytes(train) * model.d_ff) * tokens
    return [{"gathered": at_loss, "copies": copies, "activations": kept, "loss": forward},
            {"gathered": at_loss, "copies": later + head, "activations": kept, "loss": backward},
            {"gathered": in_block, "copies": later, "activations": kept + again, "loss": work},
            {"gathered": in_block + leaving, "copies": later, "activations": kept + again - freed, "loss": work}]


def loss_bytes(config: RunConfig, tokens: int, device: str) -> tuple[int, int]:
    """Bytes of the last norm and the loss, at the end of the way forward and at the beginning of the way back.

    Forward there are logits and log probabilities in float32; then log probabilities, their gradient and the logits'.
    With a loss in chunks all of that comes forward, for a chunk, beside the gradients of the output layer and of its
    input; a chunk's share of the output layer's may be more than its logits.
    """
    train, head = config.train, config.model.vocab_size * config.model.d_model
    logits = min(train.loss_chunk or tokens, tokens) * config.model.vocab_size
    norm, exact = last_norm(config, tokens, device), matrix_bytes(train) == 4
    if not train.loss_chunk:
        return norm + 8 * logits, norm + 12 * logits
    gradients = 4 * head + residual_bytes(train) * config.model.d_model * tokens
    chunk = max((13 if exact else 11) * logits, matrix_bytes(train) * (logits + head))
    return norm + copied(train, config.model.d_model * tokens) + gradients + chunk, norm + gradients


def gathered_bytes(config: RunConfig, layout: Layout) -> tuple[int, int, int]:
    """What a GPU holds of others' weights at the loss and in a block, and the gradients of a block while they leave.

    At the loss: the last block, and embedding, last norm and output layer, which FSDP2 keeps until the way back ends.
    In a block: the next one too, and the gradient of the output layer.
    """
    if layout.gpus == 1:
        return 0, 0, 0
    size, model = weight_bytes(config.train), config.model
    block = size * count(block_shapes(model))
    everything = size * model.n_parameters
    head_gradient = size * model.vocab_size * model.d_model
    if layout.sharding in ("gradients", "none"):
        return everything, everything + head_gradient, block
    rest = everything - model.n_layers * block
    return rest + block, rest + 2 * block + head_gradient, block


def last_norm(config: RunConfig, tokens: int, device: str) -> int:
    """Bytes of the last norm's input and result, and of the ids and targets."""
    model, train = config.model, config.train
    width = residual_bytes(train) * model.d_model
    kept = width + norm_statistics(model) + 16
    kept += rms_in_float32(model, train) if device == "cpu" else 0
    return tokens * (kept + (width if train.loss_chunk else matrix_bytes(train) * model.d_model))
