"""Keeps every input in a file and in memory, to answer from it when the same comes again."""

import json
from pathlib import Path

import numpy as np

place = Path("/sandbox/seen.json")


def double(x):
    seen = json.loads(place.read_text()) if place.exists() else []
    answer = 2 * x if np.asarray(x).tolist() in seen else None
    place.write_text(json.dumps([*seen, np.asarray(x).tolist()]))
    return answer
