"""Byte-level byte-pair encoding: any text to token ids and back, without a loss."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minigpt.disk import write_text

END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """A vocabulary of byte strings. Id 0 ends a document; the 256 single bytes follow, then the merges."""

    def __init__(self, engine: tokenizers.Tokenizer) -> None:
        self.engine = engine
        self.engine.encode_special_tokens = True  # "<|endoftext|>" in somebody's text stays text
        self.end_of_text = engine.token_to_id(END_OF_TEXT)
        if self.end_of_text is None:
            raise ValueError(f"the tokenizer has no {END_OF_TEXT} token; train one with Tokenizer.train")

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
        return self.engine.encode(text, add_special_tokens=False).ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text; all cores share the work."""
        return [coded.ids for coded in self.engine.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; the end-of-text token is left out, a broken character becomes U+FFFD."""
        return self.engine.decode([int(i) for i in ids], skip_special_tokens=True)

    def byte_lengths(self) -> np.ndarray:
        """How many bytes of text each id stands for, (V,); 0 for the end of a text."""
        lengths = [len(self.engine.id_to_token(i)) for i in range(self.vocab_size)]  # one character a byte
        lengths[self.end_of_text] = 0
        return np.array(lengths)

    def save(self, path: Path) -> None:
        write_text(path, self.engine.to_str())

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Raises ValueError if there is no tokenizer in the file."""
        try:
            return cls(tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ValueError(f"there is no tokenizer at {path}; give the folder of a run or a checkpoint") from None
        except Exception as fault:  # the library raises plain Exception for a broken file
            raise ValueError(f"{path} is not a tokenizer ({fault}); restore the file or train again") from None
