"""The frames between the judge and a worker."""

import json
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from grading.wire import WireError, decode, encode, read_frame, write_frame


def there_and_back(value):
    return decode(json.loads(json.dumps(encode(value))))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(10**400),
        0.1,
        -0.0,
        float("inf"),
        "ä\ud800\n",
        b"\x00\xff",
        [1, [2.5, None]],
        (1, ("a",)),
        {"a": [1], 2: (), None: {}},
    ],
)
def test_a_value_comes_back_as_it_left(value):
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)


def test_nan_comes_back_as_nan():
    assert np.isnan(there_and_back(float("nan")))


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex64", ">f8"]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 1)])
def test_an_array_keeps_its_kind_shape_and_entries(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    back = there_and_back(array.T)
    assert back.shape == array.T.shape
    assert back.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(back, array.T)


def test_tensors_arrive_as_arrays_and_paths_as_text():
    weights = torch.ones(2, 3, requires_grad=True, dtype=torch.bfloat16)
    assert np.array_equal(there_and_back(weights), np.ones((2, 3)))
    assert there_and_back([np.float32(0.5), np.int64(3), np.bool_(True)]) == [0.5, 3, True]
    assert there_and_back(Path("a/b")) == "a/b"
    assert there_and_back(OrderedDict(a=1)) == {"a": 1}


@pytest.mark.parametrize("value", [{1, 2}, object(), range(3), np.array(["a"]), np.array([None]), lambda: 1])
def test_an_unknown_type_is_refused_with_a_sentence(value):
    with pytest.raises(WireError, match=r"which cannot be judged; (return|use) "):
        encode([value])


def test_a_list_that_contains_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(WireError, match="does a list contain itself"):
        encode(loop)


@pytest.mark.parametrize(
    "pair",
    [
        None,
        [],
        ["int"],
        ["int", 3],
        ["object", "x"],
        ["list", 3],
        ["bytes", "?"],
        ["float", "one"],
        ["dict", [[["list", []], ["none", None]]]],
        ["array", {"dtype": "<f8", "shape": [2], "data": ""}],
        ["array", {"dtype": "<f8", "shape": [-1, -1], "data": "AAAAAAAAAAA="}],
        ["array", {"dtype": "|O", "shape": [1], "data": "AAAAAAAAAAA="}],
        ["array", {"dtype": "nonsense", "shape": [0], "data": ""}],
        *(["array", {"dtype": dtype, "shape": [0], "data": ""}] for dtype in ("(1,f8", "1 2f8", ",f8", "01f8")),
        ["array", {"dtype": ["<f8"], "shape": [0], "data": ""}],
    ],
)
def test_a_damaged_value_is_refused(pair):
    with pytest.raises(WireError, match="grade this submission again"):
        decode(pair)


def test_a_pickle_is_no_frame():
    with pytest.raises(WireError):
        read_frame(pickle.dumps({"a": 1}))
    with pytest.raises(WireError):
        read_frame(b"[1]\n")
    assert read_frame(write_frame({"a": [1]})) == {"a": [1]}


@pytest.mark.parametrize("key", [lambda i: i * (2**61 - 1), lambda i: (i * (2**61 - 1), "a")])
def test_keys_of_one_hash_are_refused_before_they_are_looked_up(key):
    pairs = [[encode(key(i)), ["none", None]] for i in range(50_000)]
    with pytest.raises(WireError, match="grade this submission again"):
        decode(["dict", pairs])


def test_a_dict_of_honest_keys_comes_back():
    value = {(i, j): i for i in range(-9, 9) for j in range(-9, 9)} | {1.5: "a", "b": 10**30, None: True}
    assert there_and_back(value) == value


def test_a_line_of_commas_is_refused_before_it_is_parsed():
    with pytest.raises(WireError):
        read_frame(b'{"value": ["list", [' + b"1," * 2_000_000 + b"1]]}")
    with pytest.raises(WireError, match="return an array in place of a long list"):
        write_frame({"value": ["list", [1] * 2_000_000]})


def test_a_shape_of_huge_numbers_is_refused_at_once():
    content = {"dtype": "<f8", "shape": [10**4000] * 10_000, "data": ""}
    with pytest.raises(WireError):
        decode(["array", content])
