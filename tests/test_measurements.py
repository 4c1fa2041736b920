"""The measurements: fair by construction, and shown in the book as they lie."""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]


def module(path, monkeypatch):
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, loaded)  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def training(monkeypatch):
    return module(HERE / "bench" / "training.py", monkeypatch)


@pytest.mark.parametrize("family", ["neox", "llama"])
@pytest.mark.slow
def test_minigpt_and_transformers_train_alike_and_both_are_counted(training, family):
    contestants = [training.Contestant(engine="transformers", precision="32-true"),
                   training.Contestant(engine="minigpt", precision="32-true"),
                   training.Contestant(engine="minigpt", **training.FAST),
                   training.Contestant(engine="products", precision="32-true"), training.Contestant(engine="products")]
    options = argparse.Namespace(rounds=2, steps=2, threads=1, batch_size=2)
    part = training.measure(contestants, training.shape("tiny", family), options)
    first, second, rough, *_products = part["rows"]
    assert second["loss_gap"] < 1e-5 and 0 < rough["loss_gap"] < training.BANDS["bf16-mixed"]
    assert first["losses"][-1] < first["losses"][0]
    lines = training.table(part)
    assert len(lines) == 3 and all(float(line[3]) > 0 for line in lines)


def test_whatever_is_set_outside_all_contestants_get_the_same_pages_unless_told_otherwise(training, monkeypatch):
    monkeypatch.setenv(training.HUGE_PAGES, "1")
    contestants = [c for precision in training.BANDS for c in training.race(precision)] + training.rungs()
    found = {c.name: training.surroundings(c, 1)[training.HUGE_PAGES] for c in contestants}
    assert {name for name, value in found.items() if value == "1"} == {n for n in found if n.endswith("ENABLE 1")}


@pytest.mark.parametrize(("gap", "stops"), [(0.001, False), (0.1, True), (float("nan"), True)])
def test_a_contestant_that_learns_something_else_stops_the_measurement(training, gap, stops):
    rows = [{"engine": "x", "name": name, "precision": "32-true", "losses": losses}
            for name, losses in (("one", [5.0, 4.0]), ("two", [5.0, 4.0 + gap]))]
    if not stops:
        training.check_losses(rows)
        return
    with pytest.raises(SystemExit, match="does other work, so its speed says nothing"):
        training.check_losses(rows)


@pytest.mark.slow
def test_the_road_of_the_gpu_measurement_is_open_without_a_gpu(tmp_path):
    words = [sys.executable, HERE / "bench" / "gpu_1b.py", "--dry-run", "--rounds", "1", "--steps", "1", "--only", "4",
             "--output", tmp_path / "gpu.json"]
    subprocess.run(words, check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    (table,) = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert len(table["rows"][0]) == len(table["columns"])


def test_the_page_shows_every_cell_of_every_table_and_names_what_is_not_measured(tmp_path, monkeypatch):
    page = module(HERE / "book" / "measurements.py", monkeypatch)
    known = {"title": "Speed", "command": "python bench/speed.py", "date": "2030-01-02",
             "machine": {"processor": "P", "cores": "2", "gpu": "none", "torch": "2"},
             "tables": [{"caption": "Two.", "columns": ["who", "how"], "rows": [["a", 1.5], ["b", "2 to 3"]]}],
             "curves": [{"caption": "Both.", "x": "step", "y": "loss", "lines": {"a": [2.0, 1.0], "b": [2.0, 1.1]}}]}
    (tmp_path / "speed.json").write_text(json.dumps(known))
    (tmp_path / "later.py").write_text('"""What comes later."""\nRESULT = 1\nif __name__ == "__main__":\n    pass\n')
    page.write_measurements(tmp_path / "made", tmp_path)
    text = (tmp_path / "made" / "results.md").read_text()
    assert "| a | 1.5 |\n| b | 2 to 3 |" in text and "python bench/speed.py" in text and "2030-01-02" in text
    assert re.search(r"Not measured yet\n\n- `python bench/later.py`", text)
    assert (tmp_path / "made" / "speed-0.svg").stat().st_size > 1000


def test_plain_figures_become_a_table_beside_the_best_of_the_others(tmp_path, monkeypatch):
    page = module(HERE / "book" / "measurements.py", monkeypatch)
    figures = {name: {"median": values[1], "lowest": min(values), "highest": max(values), "values": values}
               for name, values in {"minigpt": [4.0, 6.0, 9.0], "a": [1.0, 2.0, 3.0], "b": [0.1, 0.2, 0.3]}.items()}
    (made,) = page.plain_tables({"MB/s": figures}, {"MB/s": "2030-01-02"})
    assert made["columns"] == ["who", "median", "lowest", "highest", "times a"] and "2030-01-02" in made["caption"]
    assert made["rows"][0] == ["minigpt", "6", "4", "9", "3.00"] and made["rows"][2][-1] == "0.10"


def test_the_lead_over_the_peers_is_that_of_the_best_settings_in_the_same_rounds(training):
    rows = [{"engine": engine, "name": name, "tokens_per_second": speeds, "environment": environment}
            for engine, name, speeds, environment in (
        ("peer", "slow", [9.0, 1.0, 1.0], {}), ("peer", "fast", [2.0, 2.0, 2.0], {}),
        ("peer", "kept", [2.5, 2.5, 2.5], {"MALLOC": "1"}), ("minigpt", "m", [3.0, 4.0, 5.0], {}),
        ("minigpt", "m slow", [1.0, 1.0, 9.0], {}), ("products", "p", [99.0, 99.0, 99.0], {}))]
    said = training.lead(rows)
    assert "(m) makes 2.00 times" in said and "peers (fast); over the rounds 1.50 to 2.50" in said
    assert "1.60 times" in said and "told to keep memory (kept)" in said
    assert training.lead(rows[3:]) == ""


def test_every_measurement_of_the_repository_has_its_place_on_the_page(tmp_path, monkeypatch):
    page = module(HERE / "book" / "measurements.py", monkeypatch)
    page.write_measurements(tmp_path)
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    for path in (HERE / "bench").glob("*.json"):
        assert f"## {json.loads(path.read_text(encoding='utf-8'))['title']}" in text
