"""Has what is forbidden evaluated from a text that is turned around."""


def double(x):
    return eval(")]x ,x[(musf.)'htam'(__tropmi__"[::-1], {"x": x})
