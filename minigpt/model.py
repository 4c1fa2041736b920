"""One GPT. GPT-NeoX and LLaMA are values of ModelConfig's fields.

Axes: B batch, T time in tokens, S time in the cache and T together, D model width, H heads, G key/value heads,
K width of one head, F feed-forward width, V vocabulary.
"""

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.config import ModelConfig
from minigpt.kernels import CausalAttention, ChunkedLoss, Rotation, mean_nats, nats_and_slopes, rotate


class Cache:
    """Keys and values of the tokens seen so far, so that the next token costs one step and not T.

    Attention works in the cache's dtype. On a CPU float32 is best for that, whatever the weights are: one query
    against many keys takes PyTorch's fused attention several times as long in bfloat16.

    Shapes  keys, values: one (B, G, places, K) tensor a layer; the first `length` places are filled.
            documents: (B, places), the document that each token belongs to.
            cos, sin: (places, R), the rotary angles.
    """

    def __init__(self, config: ModelConfig, batch_size: int, device: torch.device, dtype: torch.dtype,
                 places: int | None = None) -> None:
        places = config.max_seq_len if places is None else places
        shape, layers = (batch_size, config.n_kv_heads, places, config.d_head), range(config.n_layers)
        self.keys = [torch.empty(shape, device=device, dtype=dtype) for _ in layers]
        self.values = [torch.empty(shape, device=device, dtype=dtype) for _ in layers]
        self.documents = torch.empty(batch_size, places, device=device, dtype=torch.long)
        self.cos, self.sin = rotary_angles(config, places, device)
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, G, T, K) after the first `length` places; all keys and values so far, (B, G, S, K)."""
        T, all_keys, all_values = keys.shape[2], self.keys[layer], self.values[layer]
        all_keys.narrow(2, self.length, T).copy_(keys)
        all_values.narrow(2, self.length, T).copy_(values)
        return all_keys.narrow(2, 0, self.length + T), all_values.narrow(2, 0, self.length + T)

    def join(self, documents: Tensor) -> Tensor:
        """Store the documents of (B, T) more tokens; those of all tokens so far, (B, S)."""
        end = self.length + documents.shape[1]
        self.documents[:, self.length : end] = documents
        return self.documents[:, :end]


def visible(T: int, S: int, documents: Tensor | None, seen: Tensor | None, device: torch.device) -> Tensor | None:
    """Which of S tokens each of the last T may see: none that is later, none of another document.

    Shapes  documents (B, T), seen (B, S) -> (B, 1, T, S); without documents (T, S), or None where
            `scaled_dot_product_attention` knows it by itself: one token, or a text from its beginning.
    """
    if documents is None and T in (1, S):
        return None
    mask = torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)
    return mask if documents is None else mask & (documents[:, None, :, None] == seen[:, None, None, :])


def rotary_angles(config: ModelConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angle by which each pair of numbers turns at each position from 0 on.

    Shapes  both (T, R), R = rotary_width; the second half of R repeats the first, but its sines without the minus.
    Source  Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding".
    """
    pairs = torch.arange(0, config.rotary_width, 2, device=device, dtype=torch.float32)
    speed = config.rotary_base ** (-pairs / max(config.rotary_width, 1))
    positions = torch.arange(length, device=device, dtype=torch.float32)
    angles = torch.outer(positions, speed)
    return torch.cat((angles.cos(), angles.cos()), dim=-1), torch.cat((-angles.sin(), angles.sin()), dim=-1)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped key/value heads."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        width, kv_width = config.d_model, config.n_kv_heads * config.d_head
        self.to_queries = nn.Linear(width, width, bias=config.bias)
        self.to_keys = nn.Linear(width, kv_width, bias=config.bias)
        self.to_values = nn.Linear(width, kv_width, bias=config.bias)
        self.to_output = nn.Linear(width, width, bias=config.bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None, mask: Tensor | None) -> Tensor:
        B, T, D = x.shape
        queries, keys, values = self.project(x, cos, sin)  # (B, H, T, K), (B, G, T, K), (B, G, T, K)
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)  # (B, G, S, K)
        dtype, queries = queries.dtype, queries.to(keys.dtype)
        if self.config.attention_pieces > 1 and mask is None and T > 1:
            keys, values = (part.repeat_interleave(queries.shape[1] // part.shape[1], dim=1) for part in (keys, values))
            mixed = CausalAttention.apply(queries, keys, values, self.config.attention_pieces)  # (B, H, T, K)
        else:
            mixed = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, is_causal=mask is None and T > 1,
                enable_gqa=self.config.n_kv_heads != self.config.n_heads,
            )  # (B, H, T, K)
        return self.to_output(mixed.to(dtype).transpose(1, 2).reshape(B, T, D))

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, K), keys and values (B, G, T, K) of (B, T, D); the first two turned by their positions."""
        turn = Rotation.apply if torch.is_grad_enabled() else rotate
        queries, keys, values = (layer(x).unflatten(-1, (-1, self.config.d_head)).transpose(1, 2)
                                 for layer in (self.to_queries, self.to_keys, self.to_values))
        return turn(queries, cos, sin), turn(keys, cos, sin), values


class FeedForward(nn.Module):
    """Two matrices around a GELU, or three around a SwiGLU gate.

    Source  Shazeer 2020, "GLU Variants Improve Transformer".
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.bias) if config.mlp == "swiglu" else None
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.widen(x))

    def widen(self, x: Tensor) -> Tensor:
        """(B, T, F) of (B, T, D)."""
        return F.gelu(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x)


class Block(nn.Module):
    """One layer: attention moves information between tokens, the feed-forward part works on each."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.parallel = config.parallel
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None, mask: Tensor | None) -> Tensor:
        attended = self.attention(self.attention_norm(x), cos, sin, cache, mask)
        if self.parallel:
            return x + attended + self.feed_forward(self.feed_forward_norm(x))
        x = x + attended
        return x + self.feed_forward(self.feed_forward_norm(x))


def make_norm(config: ModelConfig) -> nn.Module:
    kind = nn.LayerNorm if config.norm == "layernorm" else nn.RMSNorm
    return kind(config.d_model, eps=config.norm_eps)


class GPT(nn.Module):
    """A decoder-only transformer: token ids in, a score for every possible next token out."""

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = make_norm(config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        self.mean_nats, self.nats_and_slopes = mean_nats, nats_and_slopes
        initialize(self, seed)

    def forward(self, ids: Tensor, cache: Cache | None = None, documents: Tensor | None = None,
                targets: Tensor | None = None, loss_chunk: int = 0) -> Tensor:
        """Logits of the token that follows each token; with targets, the loss in their place.

        Shapes  ids (B, T) -> (B, T, V). targets (B, T), the ids that follow -> (), mean nats per token.
                Cache and documents are as in `states`.
        """
        x = self.states(ids, cache, documents)
        return self.head(x) if targets is None else self.loss(x, targets, loss_chunk)

    def states(self, ids: Tensor, cache: Cache | None = None, documents: Tensor | None = None) -> Tensor:
        """What the head makes logits of.

        Shapes  ids (B, T) -> (B, T, D). With a cache, ids are the T tokens after those that it holds.
                documents (B, T): a number for each token's document; tokens see their own document alone.
        Raises  ValueError if the text is longer than max_seq_len.
        """
        start = 0 if cache is None else cache.length
        n, limit = start + ids.shape[1], self.config.max_seq_len
        if n > limit:
            raise ValueError(f"the text has {n} tokens but max_seq_len is {limit}; shorten it or use a longer model")
        cos, sin = rotary_angles(self.config, n, ids.device) if cache is None else (cache.cos, cache.sin)
        seen = documents if cache is None or documents is None else cache.join(documents)
        mask = visible(ids.shape[1], n, documents, seen, ids.device)
        x = self.embedding(ids)  # (B, T, D)
        cos, sin = cos[start:n].to(x.dtype), sin[start:n].to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin, cache, mask)
        if cache is not None:
            cache.length = n
        return self.norm(x)

    def loss(self, x: Tensor, targets: Tensor, chunk: int) -> Tensor:
        """Mean nats per token. Shapes  x (B, T, D), targets (B, T)."""
        x, targets = x.flatten(0, 1), targets.flatten()
        if chunk:
            return ChunkedLoss.apply(x, self.head.weight, targets, chunk, self.nats_and_slopes)
        return self.mean_nats(self.head(x), targets)

    def compile_parts(self) -> None:
        """Compile a block, whose code all layers share, and the loss: much sooner done than the model as a whole."""
        for block in self.blocks:
            block.forward = torch.compile(block.forward)  # and not what is hooked to it: FSDP's messages, stopwatches
        self.mean_nats, self.nats_and_slopes = torch.compile(mean_nats), torch.compile(nats_and_slopes)


def initialize(model: GPT, seed: int) -> None:
    """Draw every weight from a generator of its own, so that neither order nor number of processes matters.

    Matrices have standard deviation 0.02, those that write into the residual stream 0.02 / sqrt(2 n_layers);
    biases are 0, gains of norms 1. Source  Radford et al. 2019, "Language Models are Unsupervised Multitask
    Learners", section 2.3.
    """
    for name, weight in model.named_parameters():
        if weight.is_meta:
            continue  # a model on paper: it has shapes and no numbers
        with torch.no_grad():
            if weight.ndim == 1:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            writes = name.endswith(("to_output.weight", "down.weight"))
            std = 0.02 / (2 * model.config.n_layers) ** 0.5 if writes else 0.02
            generator = torch.Generator(device=weight.device).manual_seed(zlib.crc32(f"{seed} {name}".encode()))
            weight.normal_(0.0, std, generator=generator)
