"""Returns every type but the right one."""

import itertools

answers = itertools.cycle([{"a": 1}, b"bytes", "30", None, True, [[[]]], (1, [2, (3,)]), {1: {2: 3}}, 1j])


def double(*inputs, **options):
    return next(answers)
