"""Answers with a dict whose keys all have the same hash, so that to look one up is to look at all."""


class Slow(dict):
    """It takes no time to make, only to read."""

    def items(self):
        return ((i * (2**61 - 1), None) for i in range(80_000))


def double(x):
    return Slow()
