"""Byte-level byte-pair encoding: any text, and any bytes, to token ids and back without a loss."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minigpt.disk import write_text

END_OF_TEXT = "<|endoftext|>"

ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>")
"""What ends a document in our tokenizers and GPT-NeoX's, in LLaMA 3's, and in LLaMA 1's and 2's."""

NO_TEXT = re.compile("([\udc80-\udcff]+)")
"""Bytes that are no UTF-8, as Python's `surrogateescape` writes them into a string."""


class Tokenizer:
    """A vocabulary of byte strings. Id 0 ends a document; the 256 single bytes follow, then the merges."""

    def __init__(self, engine: tokenizers.Tokenizer) -> None:
        self.engine = engine
        self.engine.encode_special_tokens = True  # "<|endoftext|>" in somebody's text stays text
        self.end = next((end for end in ENDS if engine.token_to_id(end) is not None), None)
        if self.end is None:
            raise ValueError(f"the tokenizer has none of the tokens {', '.join(ENDS)}; train one with Tokenizer.train")
        self.end_of_text = engine.token_to_id(self.end)
        self.pieces, self.leading = _pieces(engine)
        self.single = {piece: i for i, piece in reversed(list(enumerate(self.pieces))) if len(piece) == 1}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A tokenizer whose merges are the most frequent pairs of `texts`.

        Raises  ValueError if there is no text, or if `vocab_size` has no room for all 256 bytes.
        """
        if vocab_size < 257:
            raise ValueError(f"vocab_size is {vocab_size} but 256 bytes and {END_OF_TEXT} need 257; ask for more")
        engine = tokenizers.Tokenizer(models.BPE())
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        engine.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END_OF_TEXT], show_progress=False,
                                      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
        engine.train_from_iterator(texts, trainer)
        if engine.get_vocab_size() < vocab_size:
            raise ValueError(
                f"the text has pairs for {engine.get_vocab_size()} tokens but vocab_size is {vocab_size}; "
                "give more text or ask for fewer tokens"
            )
        return cls(engine)

    @property
    def vocab_size(self) -> int:
        return self.engine.get_vocab_size()

    @property
    def fingerprint(self) -> str:
        """Twelve characters that differ between tokenizers; shards and checkpoints carry them."""
        return hashlib.sha256(self.engine.to_str().encode()).hexdigest()[:12]

    def encode(self, text: str) -> list[int]:
        """Raises ValueError if the string holds half of a surrogate pair, which is no text."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text; all cores share the work."""
        try:
            return [coded.ids for coded in self.engine.encode_batch_fast(list(texts), add_special_tokens=False)]
        except TypeError:
            raise ValueError("the text holds half of a surrogate pair, which is no text; "
                             "read it as UTF-8, or give its bytes to encode_bytes") from None

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes: those that are UTF-8 as text, every other one by itself.

        LLaMA 1 and 2 write a space before each text: with them, what follows a byte that is no text is no text either.
        """
        parts = NO_TEXT.split(data.decode("utf-8", errors="surrogateescape"))
        alone = [n > 0 if self.leading else n % 2 == 1 for n in range(len(parts))]
        return [i for part, single in zip(parts, alone, strict=True)
                for i in (self._singles(part) if single else self.encode(part))]

    def _singles(self, part: str) -> list[int]:
        return [self.single[bytes([byte])] for byte in part.encode("utf-8", errors="surrogateescape")]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; the end-of-text token is left out, a broken character becomes U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids. Raises ValueError for an id that the vocabulary does not have."""
        data = b"".join(map(self.piece, ids))
        return data.removeprefix(self.leading)

    def piece(self, id: int) -> bytes:
        """The bytes that one id stands for; none for the end of a text."""
        if not 0 <= id < len(self.pieces):
            raise ValueError(f"there is no token {int(id)}; ids run from 0 to {len(self.pieces) - 1}, "
                             "so take the tokenizer that made them")
        return self.pieces[id]

    def byte_lengths(self) -> np.ndarray:
        """How many bytes of text each id stands for, (V,); 0 for the end of a text."""
        return np.array([len(piece) for piece in self.pieces])

    def save(self, path: Path) -> None:
        write_text(path, self.engine.to_str())

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Raises ValueError if there is no tokenizer in the file."""
        try:
            return cls.from_text(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"there is no tokenizer at {path}; give the folder of a run or a checkpoint") from None
        except Exception as fault:  # the library raises plain Exception for a broken file
            raise ValueError(f"{path} is not a tokenizer ({fault}); restore the file or train again") from None

    @classmethod
    def from_text(cls, text: str) -> "Tokenizer":
        """The tokenizer that the content of a tokenizer.json describes."""
        return cls(tokenizers.Tokenizer.from_str(text))


def _pieces(engine: tokenizers.Tokenizer) -> tuple[list[bytes], bytes]:
    """The bytes of each id, and those that encoding puts before a text and decoding has to take away.

    Three ways to write a token down: GPT-NeoX and LLaMA 3 have one letter a byte; LLaMA 1 and 2 write `\u2581` for a
    space and `<0x0A>` for a byte, and begin each text with a space; added tokens are plain text.
    """
    whole = json.loads(engine.to_str())
    spaced = whole["model"].get("byte_fallback", False)
    added = {token["id"]: b"" if token["special"] else token["content"].encode() for token in whole["added_tokens"]}
    read = _spaced if spaced else _lettered(_letters())
    tokens = [engine.id_to_token(i) for i in range(max(engine.get_vocab().values()) + 1)]
    pieces = [added[i] if i in added else read(token or "") for i, token in enumerate(tokens)]
    return pieces, b" " if spaced and engine.encode("a", add_special_tokens=False).tokens[0][0] == "\u2581" else b""


def _spaced(token: str) -> bytes:
    byte = re.fullmatch("<0x([0-9A-F]{2})>", token)
    return bytes.fromhex(byte[1]) if byte else token.replace("\u2581", " ").encode()


def _lettered(letters: dict[str, int]) -> Callable[[str], bytes]:
    return lambda token: bytes(letters[letter] for letter in token)


def _letters() -> dict[str, int]:
    """Which byte a letter of a byte-level token stands for: printable ones for themselves, the others from 256 on.

    Source  Radford et al. 2019, the code of GPT-2, `bytes_to_unicode`.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\xa1"), ord("\xac") + 1), *range(ord("\xae"), 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
