"""The measurements run, small, and write their figures with date, machine, versions and spread."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ["generation.py", "--sizes", "10m", "--rounds", "2", "--tokens", "4", "--threads", "1", "--no-litgpt"],
    ["tokenizer.py", "--megabytes", "0.2", "--vocab-size", "500", "--rounds", "2"],
    ["loader.py", "--tokens", "200000", "--batches", "3", "--rounds", "2"]], ids=lambda words: words[0])
def test_a_measurement_writes_figures_with_machine_and_spread(tmp_path, words):
    for name in (words[0], "record.py"):
        shutil.copy(BENCH / name, tmp_path)
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True, capture_output=True,
                   env=os.environ | {"OMP_NUM_THREADS": "1"})
    written = json.loads((tmp_path / words[0]).with_suffix(".json").read_text())
    assert written["date"] and written["versions"] and written["machine"]["processor"]
    for figures in written["parts"].values():
        for figure in figures.values():
            assert 0 < figure["lowest"] <= figure["median"] <= figure["highest"] and len(figure["values"]) == 2
