"""Reverse-mode differentiation of single numbers: every slope of a calculation from one walk backwards."""

import math
from collections.abc import Iterable


class Value:
    """A number that remembers from which numbers it was computed, and by which slopes it depends on them.

    `parents` are pairs (value, slope): by how much this number moves when the parent moves by one. After
    `loss.backward()` the `grad` of every value below is the slope of the loss.
    Source  Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors".
    """

    def __init__(self, data: float, parents: Iterable[tuple["Value", float]] = ()) -> None:
        self.data = data
        self.parents = tuple(parents)
        self.grad = 0.0

    def __repr__(self) -> str:
        return f"Value({self.data:.4g}, grad={self.grad:.4g})"

    def __add__(self, other: "Value | float") -> "Value":
        other = as_value(other)
        return Value(self.data + other.data, [(self, 1.0), (other, 1.0)])

    def __mul__(self, other: "Value | float") -> "Value":
        other = as_value(other)
        return Value(self.data * other.data, [(self, other.data), (other, self.data)])

    def __sub__(self, other: "Value | float") -> "Value":
        return self + as_value(other) * -1.0

    def relu(self) -> "Value":
        return Value(max(0.0, self.data), [(self, 1.0 if self.data > 0 else 0.0)])

    def sigmoid(self) -> "Value":
        a = 1 / (1 + math.exp(-self.data))
        return Value(a, [(self, a * (1 - a))])

    __radd__, __rmul__ = __add__, __mul__

    def order(self) -> list["Value"]:
        """This value and all below it, each after every value that it was computed from."""
        ordered: list[Value] = []
        seen: set[Value] = set()
        waiting = [(self, False)]
        while waiting:
            value, parents_done = waiting.pop()
            if parents_done:
                ordered.append(value)
            elif value not in seen:
                seen.add(value)
                waiting.append((value, True))
                waiting += [(parent, False) for parent, _ in value.parents]
        return ordered

    def backward(self) -> None:
        """Set `grad` of this value to 1 and of every value below it to its slope."""
        ordered = self.order()
        for value in ordered:
            value.grad = 0.0
        self.grad = 1.0
        for value in reversed(ordered):
            for parent, slope in value.parents:
                parent.grad += slope * value.grad


def as_value(number: "Value | float") -> Value:
    """The number as a Value without parents."""
    return number if isinstance(number, Value) else Value(float(number))
