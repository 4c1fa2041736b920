"""Text from a model, one token at a time, with a key/value cache.

Axes: B batch, T time in tokens, V vocabulary.
"""

import codecs
import math
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
    """The same seed gives the same text; row i of a batch has seed + i."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature} but must be a number from 0 on; "
                             "0 takes the likeliest token")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k} but must keep at least 1 token")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} is {value} but is a share above 0 and at most 1")


def pick(logits: Tensor, sampling: Sampling, draws: Tensor) -> Tensor:
    """One token id for each row of logits. Shapes  logits (B, V), draws (B,) from 0 to 1 -> (B,).

    A row's draw is where on the line from 0 to 1 it lands when the tokens lie on it, as long as they are likely.
    Raises  ValueError if a score is NaN, or infinite.
    Source  Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration" (top-p).
    """
    logits = logits.float()
    top = logits.amax(dim=-1, keepdim=True)  # NaN where one of the row is
    if not top.isfinite().all():
        raise ValueError("the model's scores are not finite; look at its weights, or take an earlier checkpoint")
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = (logits - top) / max(sampling.temperature, torch.finfo(torch.float32).tiny)
    keep = torch.ones_like(logits, dtype=torch.bool)
    if sampling.top_k is not None:
        keep &= likeliest(logits, sampling.top_k)
    if sampling.top_p is not None:
        ordered, order = logits.softmax(dim=-1).sort(descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # probability of all likelier tokens together
        keep &= torch.zeros_like(keep).scatter(-1, order, before < sampling.top_p)
    if sampling.min_p is not None:
        probabilities = logits.softmax(dim=-1)
        keep &= probabilities >= sampling.min_p * probabilities.amax(dim=-1, keepdim=True)
    line = logits.masked_fill(~keep, -torch.inf).softmax(dim=-1).double().cumsum(dim=-1)
    return torch.searchsorted(line, draws[:, None] * line[:, -1:], right=True)[:, 0]


def likeliest(logits: Tensor, k: int) -> Tensor:
    """Whether a token is among its row's k with the highest scores; of equal ones the lowest ids are.

    Shapes  logits (B, V) -> (B, V).
    """
    least = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    above, equal = logits > least, logits == least
    return above | (equal & (equal.cumsum(dim=-1) <= k - above.sum(dim=-1, keepdim=True)))


def next_tokens(model: GPT, ids: Tensor, max_new_tokens: int, sampling: Sampling,
                documents: Tensor | None = None, n_ids: int | None = None) -> Iterator[Tensor]:
    """One (B,) tensor of new ids after the other, for prompts (B, T).

    Row i draws from a generator of its own, of seed + i: what is in the other rows does not change it.
    With n_ids only ids below it are drawn: a model may know more of them than its tokenizer.
    Raises  ValueError, when it is called, for an empty prompt, an id that the model does not know, or a text longer
            than the model.
    """
    T, limit = ids.shape[1], model.config.max_seq_len
    if not T:
        raise ValueError("the prompt has no tokens; give at least one, for example the end-of-text token")
    if int(ids.max()) >= model.config.vocab_size or int(ids.min()) < 0:
        raise ValueError(f"the prompt has an id outside 0 to {model.config.vocab_size - 1}; use the model's tokenizer")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens} but counts tokens; give 0 or more")
    if T + max_new_tokens > limit:
        raise ValueError(f"{T} tokens of prompt and {max_new_tokens} new ones are more than max_seq_len {limit}; "
                         + (f"ask for at most {limit - T}" if limit > T else "shorten the prompt"))
    return _draw(model, ids, max_new_tokens, sampling, documents, n_ids)


def _draw(model: GPT, ids: Tensor, max_new_tokens: int, sampling: Sampling, documents: Tensor | None,
          n_ids: int | None) -> Iterator[Tensor]:
    generators = [torch.Generator().manual_seed(sampling.seed + row) for row in range(len(ids))]
    draws = torch.stack([torch.rand(max_new_tokens, generator=generator, dtype=torch.double)
                         for generator in generators]).to(ids.device)
    dtype = torch.float32 if ids.device.type == "cpu" else model.embedding.weight.dtype
    cache = Cache(model.config, ids.shape[0], ids.device, dtype, ids.shape[1] + max_new_tokens)
    for step in range(max_new_tokens):
        with torch.inference_mode():
            logits = model.head(model.states(ids, cache, documents)[:, -1])  # (B, V)
            picked = pick(logits[:, :n_ids], sampling, draws[:, step])
        yield picked
        ids = picked[:, None]
        documents = None if documents is None else documents[:, -1:]


def generate(model: GPT, ids: Tensor, max_new_tokens: int, sampling: Sampling) -> Tensor:
    """The ids with `max_new_tokens` more. Shapes  (B, T) -> (B, T + max_new_tokens)."""
    return torch.cat((ids, *(new[:, None] for new in next_tokens(model, ids, max_new_tokens, sampling))), dim=1)


def left_pad(prompts: Sequence[Sequence[int]], device: torch.device | None = None) -> tuple[Tensor, Tensor | None]:
    """Prompts of unequal lengths that end together, (B, T), and their documents: 1, but 0 where there is no token.

    Positions need no care: rotary attention knows distances alone, and filling in front keeps those.
    Documents are None where all prompts have one length. Raises ValueError if a prompt has no tokens, or if none is
    given.
    """
    if not prompts:
        raise ValueError("there are no prompts; give at least one")
    if not all(prompts):
        raise ValueError("a prompt has no tokens; give at least one, for example the end-of-text token")
    T = max(map(len, prompts))
    ids = torch.tensor([[0] * (T - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    real = torch.tensor([[0] * (T - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, None if bool(real.all()) else real


class Writer:
    """Makes text of one row's ids, piece by piece, up to the end of the text or the first of the stop strings.

    A piece is held back while it may still be half of a character or the beginning of a stop string.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        if "" in stop:
            raise ValueError("a stop string is empty and would stop everything; leave it out or give it a letter")
        self.tokenizer, self.stop = tokenizer, stop
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held, self.done = "", False

    def add(self, id: int) -> str:
        """What is certain after one more token."""
        if self.done or id == self.tokenizer.end_of_text:
            return self.close()
        self.held += self.decoder.decode(self.tokenizer.piece(id))
        certain = len(self.held) - max((_overlap(self.held, word) for word in self.stop), default=0)
        end = _first(self.held, self.stop)
        if end is not None and end <= certain:
            return self.close()
        piece, self.held = self.held[:certain], self.held[certain:]
        return piece

    def close(self) -> str:
        """What was held back, once nothing follows."""
        held = self.held + self.decoder.decode(b"", final=True)
        self.held, self.done = "", True
        return held[: _first(held, self.stop)]


def stream(model: GPT, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, *, sampling: Sampling | None = None,
           stop: Sequence[str] = ()) -> Iterator[str]:
    """What the model adds to a prompt, piece by piece as it is written; see Writer.

    What cannot be is refused when this is called, before there is a piece.
    """
    ids, _ = left_pad([encode_prompt(tokenizer, prompt)], model.embedding.weight.device)
    tokens = next_tokens(model, ids, max_new_tokens, sampling or Sampling(), n_ids=tokenizer.vocab_size)
    return _write(Writer(tokenizer, stop), tokens)


def _write(writer: Writer, tokens: Iterator[Tensor]) -> Iterator[str]:
    for new in tokens:
        if piece := writer.add(int(new)):
            yield piece
        if writer.done:
            return
    if rest := writer.close():
        yield rest


def complete(model: GPT, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, *, samples: int = 1,
             sampling: Sampling | None = None, stop: Sequence[str] = ()) -> list[str]:
    """The prompt and what the model adds to it, `samples` times; the seeds follow each other."""
    if samples < 1:
        raise ValueError(f"samples is {samples} but counts texts; give at least 1")
    return complete_many(model, tokenizer, [prompt] * samples, max_new_tokens, sampling=sampling, stop=stop)


def complete_many(model: GPT, tokenizer: Tokenizer, prompts: Sequence[str], max_new_tokens: int, *,
                  sampling: Sampling | None = None, stop: Sequence[str] = ()) -> list[str]:
    """Each prompt and what the model adds to it, all in one batch; what stream with seed + i adds to prompt i."""
    ids, documents = left_pad([encode_prompt(tokenizer, prompt) for prompt in prompts], model.embedding.weight.device)
    texts, writers = list(prompts), [Writer(tokenizer, stop) for _ in prompts]
    for new in next_tokens(model, ids, max_new_tokens, sampling or Sampling(), documents, tokenizer.vocab_size):
        for row, id in enumerate(new.tolist()):
            texts[row] += writers[row].add(id)
        if all(writer.done for writer in writers):
            break
    return [text + writer.close() for text, writer in zip(texts, writers, strict=True)]


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt; an empty one is the beginning of a text."""
    return tokenizer.encode(prompt) or [tokenizer.end_of_text]


def _first(text: str, words: Sequence[str]) -> int | None:
    """Where the first of the words begins in the text."""
    return min((at for at in map(text.find, words) if at >= 0), default=None)


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of the text are the beginning of the word."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)
