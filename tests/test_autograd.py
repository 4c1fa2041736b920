"""The scalar engine: its slopes are torch's."""

import pytest
import torch

from minigpt.autograd import Value


def calculation(a, b, c):
    """Something that uses values early, late and more than once; works on Values and on tensors."""
    h = a * b + c
    s = (h * h - b).relu() + h * 0.5
    return (s * 0.1).sigmoid() * h - (a - 2.0) * s


@pytest.mark.parametrize("seed", range(20))
def test_slopes_equal_those_of_torch(seed):
    numbers = torch.randn(3, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
    tensors = [number.clone().requires_grad_() for number in numbers]
    values = [Value(float(number)) for number in numbers]
    loss = calculation(*values)
    loss.backward()
    wanted = calculation(*tensors)
    wanted.backward()
    assert loss.data == pytest.approx(wanted.item())
    assert [v.grad for v in values] == pytest.approx([float(t.grad) for t in tensors])


def test_a_value_used_twice_collects_both_slopes():
    e = Value(-0.3)
    (e * e).backward()
    assert e.grad == pytest.approx(-0.6)


def test_walking_again_gives_the_same_slopes():
    w = Value(1.0)
    loss = (w * 3.0 + 1.0) * w
    loss.backward()
    once = w.grad
    loss.backward()
    assert w.grad == once == 7.0


def test_every_value_comes_after_its_parents_and_once():
    w, x = Value(1.0), Value(2.0)
    ordered = calculation(w, x, w * x).order()
    assert len(set(map(id, ordered))) == len(ordered)
    place = {value: i for i, value in enumerate(ordered)}
    assert all(place[parent] < place[value] for value in ordered for parent, _ in value.parents)


def test_a_chain_longer_than_pythons_recursion_limit_has_slopes():
    value = start = Value(1.0)
    for _ in range(10_000):
        value = value + 0.001
    value.backward()
    assert start.grad == 1.0
