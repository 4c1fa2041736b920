"""A score that needs no human: does a generated function parse?"""

import ast
import warnings

from minigpt.generate import Sampling, complete
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer

PROMPT = "\n\n\ndef "
"""Two empty lines: in real Python a function of the module follows, and not a method."""

LONGEST = 256
"""Tokens that a function may have."""


def first_function(text: str) -> str | None:
    """The first function of a text that starts with `def`, or None if the text breaks off inside it.

    The function ends where a line that is not indented follows it. A line that begins with `)` closes its arguments.
    """
    lines = text.strip("\n").splitlines()
    for end, line in enumerate(lines[1:], start=1):
        if line.strip() and not line[0].isspace() and not line.startswith(")"):
            return "\n".join(lines[:end])
    return None


def parses(text: str) -> bool:
    """Is the first function of the text whole and correct Python? It is parsed and never run."""
    function = first_function(text)
    return function is not None and _is_python(function)


def _is_python(text: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in generated text is not our warning
        try:
            return bool(ast.parse(text).body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False


def parse_rate(model: GPT, tokenizer: Tokenizer, *, samples: int, temperature: float = 0.3,
               seed: int = 0) -> tuple[float, list[str]]:
    """Share of generated functions that parse, and the texts.

    Raises  ValueError if the model's texts are too short to begin a function.
    """
    begun, limit = len(tokenizer.encode(PROMPT)), model.config.max_seq_len
    if begun >= limit:
        raise ValueError(f"the beginning of a function has {begun} tokens but max_seq_len is {limit}; "
                         f"train a model of at least {begun + 1}")
    room = min(LONGEST, limit - begun)
    sampling = Sampling(temperature=temperature, seed=seed)
    texts = complete(model, tokenizer, PROMPT, room, samples=samples, sampling=sampling)
    return sum(map(parses, texts)) / samples, texts
