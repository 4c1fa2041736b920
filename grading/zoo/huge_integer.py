"""Returns an integer of twelve million digits, which takes an hour to be written in decimals."""


def double(x):
    return 1 << 4 * 10**7
