"""Shows and returns things whose text never ends: a list within itself, a chain of objects, an error about itself."""

import contextlib


class Chain:
    """Spells the one that follows."""

    def __repr__(self):
        return f"<{Chain()!r}>"

    __str__ = __repr__


class Endless(Exception):
    """Has no last word."""

    def __str__(self):
        raise Endless


loop = []
loop.append(loop)


def double(x):
    return loop if isinstance(x, float) else Chain()


print(loop)
with contextlib.suppress(RecursionError):
    print(Chain())
raise Endless
