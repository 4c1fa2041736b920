"""Text from a model, one token at a time, with a key/value cache.

Axes: B batch, T time in tokens, V vocabulary.
"""

import torch
from torch import Tensor

from minigpt.model import GPT, Cache
from minigpt.tokenizer import Tokenizer


def pick(logits: Tensor, *, temperature: float, top_k: int | None, top_p: float | None,
         generator: torch.Generator) -> Tensor:
    """One token id for each row of logits. Shapes  (B, V) -> (B,).

    Temperature 0 takes the most likely token; `top_k` keeps the k most likely; `top_p` keeps the smallest set
    whose probabilities add up to p. Source  Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration".
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / temperature
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)  # probability ahead of each
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


@torch.inference_mode()
def generate(model: GPT, ids: Tensor, max_new_tokens: int, *, temperature: float = 1.0, top_k: int | None = None,
             top_p: float | None = None, seed: int = 0) -> Tensor:
    """The ids with `max_new_tokens` more. Shapes  (B, T) -> (B, T + max_new_tokens).

    Raises  ValueError for an empty prompt, or if prompt and new tokens are longer than the model.
    """
    T, limit = ids.shape[1], model.config.max_seq_len
    if not T:
        raise ValueError("the prompt has no tokens; give at least one, for example the end-of-text token")
    if T + max_new_tokens > limit:
        raise ValueError(f"{T} tokens of prompt and {max_new_tokens} new ones are more than max_seq_len {limit}; "
                         f"ask for at most {max(limit - T, 0)}")
    generator = torch.Generator(device=ids.device).manual_seed(seed)
    cache = Cache(model.config, ids.shape[0], ids.device, model.embedding.weight.dtype)
    new = ids
    for _ in range(max_new_tokens):
        logits = model(new, cache)[:, -1]  # (B, V)
        new = pick(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)[:, None]
        ids = torch.cat((ids, new), dim=1)
    return ids


def complete(model: GPT, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, *, samples: int = 1,
             temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
             seed: int = 0) -> list[str]:
    """The prompt and what the model adds to it, `samples` times, each cut at the end of the text."""
    start = tokenizer.encode(prompt) or [tokenizer.end_of_text]
    ids = torch.tensor([start] * samples, device=model.embedding.weight.device)
    rows = generate(model, ids, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    return [prompt + tokenizer.decode(_until(row[len(start):], tokenizer.end_of_text)) for row in rows.tolist()]


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids
