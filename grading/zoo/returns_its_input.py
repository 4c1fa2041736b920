"""Returns what it is given, once as it came and once without a sign of work."""


def double(*inputs, **options):
    return inputs[0] if len(inputs) == 1 else inputs
