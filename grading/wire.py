"""The typed frames that travel between the judge and a worker: one line of JSON each, arrays in base64.

Every value is a pair [type, content]. Nothing is ever unpickled, so reading a frame runs no code.
"""

import base64
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

DEEPEST = 60  # nested lists
LARGEST = 64 * 2**20  # bytes of one frame
MOST_PARTS = 250_000  # numbers, texts, lists and so on in one frame; an array is one
MOST_COMMAS = 4 * MOST_PARTS  # `encode` needs about two for a part, and texts hold some
MOST_ALIKE = 100  # keys of a dict with one hash; honest are a few: hash(-1) is hash(-2)
MOST_AXES = 64  # of an array, as in numpy
ARRAY_KINDS = "biufc"  # bool, signed, unsigned, float, complex
DTYPE = re.compile(rf"[<|][{ARRAY_KINDS}]\d{{1,2}}")  # as `encode` writes it; numpy reads other text as Python


class WireError(ValueError):
    """A value that cannot travel, or a frame that cannot be read."""


def write_frame(frame: dict) -> bytes:
    """One line, ending in a newline."""
    line = json.dumps(frame, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    if len(line) > LARGEST:
        raise WireError(f"the answer has {len(line):,} bytes, the limit is {LARGEST:,}; return a smaller one")
    if line.count(b"[") > MOST_PARTS or line.count(b",") > MOST_COMMAS:
        raise WireError(f"the answer has more than {MOST_PARTS:,} parts; return an array in place of a long list")
    return line


def read_frame(line: bytes) -> dict:
    """The frame that `write_frame` wrote.

    Raises  WireError if it is another line, whoever sent it; a line of too many parts is refused before it is parsed.
    """
    try:
        if line.count(b"[") + line.count(b"{") > 2 * MOST_PARTS or line.count(b",") > MOST_COMMAS:
            raise ValueError("too many parts")
        frame = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError("the worker sent a line that is not a frame; grade this submission again") from error
    if not isinstance(frame, dict):
        raise WireError("the worker sent a line that is not a frame; grade this submission again")
    return frame


def encode(value: Any, depth: int = 0) -> list:
    """The value as a [type, content] pair of JSON.

    None, bool, int, float, str, bytes, list, tuple, dict and arrays of numbers travel; a tensor becomes an
    array and a Path a string.
    Raises  WireError for anything else, with a sentence for the learner.
    """
    if depth > DEEPEST:
        raise WireError(f"the answer is nested more than {DEEPEST} levels deep; does a list contain itself?")
    if (simple := _encode_simple(value)) is not None:
        return simple
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, [encode(entry, depth + 1) for entry in value]]
    if isinstance(value, dict):
        return ["dict", [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in value.items()]]
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = _tensor_to_array(value, torch)
    if isinstance(value, np.ndarray):
        return _encode_array(value)
    raise WireError(
        f"the answer is of type {type(value).__name__}, which cannot be judged; "
        "return numbers, text, lists, dicts, arrays or tensors"
    )


def _encode_simple(value: Any) -> list | None:
    if value is None:
        return ["none", None]
    if isinstance(value, bool | np.bool_):
        return ["bool", bool(value)]
    if isinstance(value, int | np.integer):
        return ["int", hex(value)]
    if isinstance(value, float | np.floating):
        return ["float", float(value).hex()]
    if isinstance(value, str | Path):
        return ["str", str(value)]
    if isinstance(value, bytes | bytearray):
        return ["bytes", base64.b64encode(value).decode()]
    return None


def _tensor_to_array(tensor: Any, torch: Any) -> np.ndarray:
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _encode_array(array: np.ndarray) -> list:
    array = np.asarray(array)
    if array.dtype.kind not in ARRAY_KINDS:
        raise WireError(
            f"the answer is an array of {array.dtype} entries, which cannot be judged; use numbers as entries"
        )
    if array.nbytes > LARGEST:  # said before any time is spent on it
        raise WireError(f"the answer has {array.nbytes:,} bytes, the limit is {LARGEST:,}; return a smaller one")
    array = array.astype(array.dtype.newbyteorder("<"))
    data = base64.b64encode(array.tobytes()).decode()
    return ["array", {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}]


def decode(pair: Any) -> Any:
    """The value that `encode` packed.

    Raises  WireError if the pair is not one that `encode` makes, whoever sent it.
    """
    try:
        return _decode(pair)
    except WireError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise WireError("the worker sent a value that cannot be read; grade this submission again") from error


def _decode(pair: Any) -> Any:
    kind, content = pair
    readers = {
        "none": lambda _: None,
        "bool": bool,
        "int": lambda text: int(text, 16),
        "float": float.fromhex,
        "str": str,
        "bytes": lambda text: base64.b64decode(text, validate=True),
        "list": lambda entries: [_decode(entry) for entry in entries],
        "tuple": lambda entries: tuple(_decode(entry) for entry in entries),
        "dict": _decode_dict,
        "array": _decode_array,
    }
    return readers[kind](content)


def _decode_dict(pairs: list) -> dict:
    entries = [(_decode(key), _decode(value)) for key, value in pairs]
    if max(Counter(hash(key) for key, _ in entries).values(), default=0) > MOST_ALIKE:
        raise WireError("the worker sent a dict that cannot be looked up; grade this submission again")
    return dict(entries)


def _decode_array(content: dict) -> np.ndarray:
    if not DTYPE.fullmatch(content["dtype"]):
        raise WireError("the worker sent an array of entries that are no numbers; grade this submission again")
    dtype, shape = np.dtype(content["dtype"]), [int(n) for n in content["shape"][:MOST_AXES]]
    data = base64.b64decode(content["data"], validate=True)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise WireError("the worker sent an array that does not fit its shape; grade this submission again")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
