"""The measurements run, small, and write their figures with date, machine, versions and spread."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_measurements import module

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


def test_parts_of_a_measurement_add_up_until_machine_or_versions_change(tmp_path, monkeypatch):
    keeper, path = module(BENCH / "record.py", monkeypatch), tmp_path / "speed.json"
    turns = keeper.in_turn({"minigpt": iter([9.0, 1.0, 3.0, 2.0]).__next__, "other": lambda: 0.5}, rounds=3)
    assert turns["minigpt"] == {"median": 2.0, "lowest": 1.0, "highest": 3.0, "values": [1.0, 3.0, 2.0]}
    for part in ("one", "two", "one"):
        keeper.record(path, "Speed", {part: turns}, ("torch",))
    written = json.loads(path.read_text())
    assert set(written["parts"]) == set(written["dates"]) == {"one", "two"}
    path.write_text(json.dumps(written | {"machine": "another"}))
    keeper.record(path, "Speed", {"three": turns}, ("torch",))
    assert set(json.loads(path.read_text())["parts"]) == {"three"}
