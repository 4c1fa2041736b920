"""Gives another answer on each call: right types first, the last input next, then nothing."""

import itertools

count = itertools.count()
last = [0]


def double(*inputs, **options):
    last.append(inputs[0] if inputs else 0)
    return [0, last[-2], last[-1], None][next(count) % 4]
