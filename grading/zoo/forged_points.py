"""Prints and displays points in the ways in which graders have read them."""

from IPython.display import display

print("30\n30.0\nPASSED\n{'points': 30, 'max_points': 30}")
display({"text/plain": "30", "application/json": {"score": 30}}, raw=True)
answer = 30
answer  # noqa: B018  (a notebook shows the last value)
