"""Text from a model, one token at a time, with a key/value cache.

Axes: B batch, T time in tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.model import GPT, Cache
from minigpt.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn from the model's probabilities."""

    temperature: float = 1.0
    """0 takes the likeliest token; larger numbers take more risks."""
    top_k: int | None = None
    """Choose among the k likeliest tokens only."""
    top_p: float | None = None
    """Choose among the likeliest tokens whose probabilities add up to p."""
    min_p: float | None = None
    """Choose among the tokens that are at least this many times as likely as the likeliest."""
    seed: int = 0
    """The same seed gives the same text."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature} but must be at least 0; 0 takes the likeliest token")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k} but must keep at least 1 token")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} is {value} but is a share above 0 and at most 1")


def pick(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token id for each row of logits. Shapes  (B, V) -> (B,).

    Source  Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration" (top-p).
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / sampling.temperature
    keep = torch.ones_like(logits, dtype=torch.bool)
    if sampling.top_k is not None:
        keep &= logits >= logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
    if sampling.top_p is not None:
        ordered, order = logits.softmax(dim=-1).sort(descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # probability of all likelier tokens together
        keep &= torch.zeros_like(keep).scatter(-1, order, before < sampling.top_p)
    if sampling.min_p is not None:
        probabilities = logits.softmax(dim=-1)
        keep &= probabilities >= sampling.min_p * probabilities.amax(dim=-1, keepdim=True)
    probabilities = logits.masked_fill(~keep, -torch.inf).softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def next_tokens(model: GPT, ids: Tensor, max_new_tokens: int, sampling: Sampling) -> Iterator[Tensor]:
    """One (B,) tensor of new ids after the other, for prompts (B, T).

    Raises  ValueError for an empty prompt, an id that the model does not know, or a text longer than the model.
    """
    T, limit = ids.shape[1], model.config.max_seq_len
    if not T:
        raise ValueError("the prompt has no tokens; give at least one, for example the end-of-text token")
    if int(ids.max()) >= model.config.vocab_size or int(ids.min()) < 0:
        raise ValueError(f"the prompt has an id outside 0 to {model.config.vocab_size - 1}; use the model's tokenizer")
    if T + max_new_tokens > limit:
        raise ValueError(f"{T} tokens of prompt and {max_new_tokens} new ones are more than max_seq_len {limit}; "
                         f"ask for at most {max(limit - T, 0)}")
    generator = torch.Generator(device=ids.device).manual_seed(sampling.seed)
    cache = Cache(model.config, ids.shape[0], ids.device, model.embedding.weight.dtype)
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            picked = pick(model(ids, cache)[:, -1], sampling, generator)
        yield picked
        ids = picked[:, None]


def generate(model: GPT, ids: Tensor, max_new_tokens: int, sampling: Sampling) -> Tensor:
    """The ids with `max_new_tokens` more. Shapes  (B, T) -> (B, T + max_new_tokens)."""
    return torch.cat((ids, *(new[:, None] for new in next_tokens(model, ids, max_new_tokens, sampling))), dim=1)


def complete(model: GPT, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, *, samples: int = 1,
             sampling: Sampling | None = None) -> list[str]:
    """The prompt and what the model adds to it, `samples` times, each cut at the end of the text."""
    start = encode_prompt(tokenizer, prompt)
    ids = torch.tensor([start] * samples, device=model.embedding.weight.device)
    rows = generate(model, ids, max_new_tokens, sampling or Sampling())[:, len(start) :].tolist()
    return [prompt + tokenizer.decode(_until(row, tokenizer.end_of_text)) for row in rows]


def stream(model: GPT, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, *, sampling: Sampling | None = None,
           stop: Sequence[str] = ()) -> Iterator[str]:
    """What the model adds to a prompt, piece by piece as it is written.

    Ends at the end of the text or before the first of the stop strings. A piece is held back while it may still
    be half of a character or the beginning of a stop string.
    """
    ids = torch.tensor([encode_prompt(tokenizer, prompt)], device=model.embedding.weight.device)
    made, told = [], 0
    for new in next_tokens(model, ids, max_new_tokens, sampling or Sampling()):
        if (id := int(new)) == tokenizer.end_of_text:
            break
        made.append(id)
        text = tokenizer.decode(made).rstrip("\ufffd")  # the end may be half of a character
        if (end := _first(text, stop)) is not None:
            yield text[told:end]
            return
        sure = len(text) - max((_overlap(text, word) for word in stop), default=0)
        if sure > told:
            yield text[told:sure]
            told = sure
    text = tokenizer.decode(made)
    if rest := text[told : _first(text, stop)]:
        yield rest


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt; an empty one is the beginning of a text."""
    return tokenizer.encode(prompt) or [tokenizer.end_of_text]


def _first(text: str, words: Sequence[str]) -> int | None:
    """Where the first of the words begins in the text."""
    return min((at for at in map(text.find, words) if at >= 0), default=None)


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of the text are the beginning of the word."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids
