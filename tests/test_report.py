"""The report card: what was planned, what happened, what failed; for a run of any size, finished or not."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch

from minigpt import checkpoint
from minigpt.disk import sha256
from minigpt.evaluate import evaluate_run, write_report
from minigpt.evaluate.comparison import energy_text, seconds_text, size_text
from minigpt.evaluate.figures import MOST_POINTS, PAGE, ceiling, thin
from minigpt.evaluate.page import Code, Table, Text, Title, html, markdown
from minigpt.train import train

START = {"event": "start", "ranks": 2, "nodes": 1, "host": "elsewhere", "restart": 0, "checkpoint": None,
         "python": "3.11.9", "torch": "2.13.0", "minigpt": "0.1.0", "gpu": "NVIDIA H100 80GB HBM3"}
EVENTS = [
    START | {"time": 1000.0, "step": 0},
    {"event": "checkpoint", "time": 1010.0, "step": 4, "name": "step-000004", "seconds": 3.0, "standing_seconds": 1.0,
     "bytes": 2_000_000},
    {"event": "alarm", "time": 1012.0, "step": 5, "what": "step 5: loss 9.1, 12 deviations"},
    {"event": "rewind", "time": 1013.0, "step": 5, "to_step": 4, "skipped": [4, 4]},
    {"event": "checkpoint", "time": 1020.0, "step": 8, "name": "step-000008", "seconds": 3.0, "standing_seconds": 2.0,
     "bytes": 2_000_000},
    {"event": "damaged", "time": 1100.0, "step": 8, "checkpoint": "step-000008.damaged", "why": "its hash | differs"},
    START | {"time": 1100.0, "step": 4, "restart": 1, "checkpoint": "step-000004"},
    {"event": "stop", "time": 1130.0, "step": 7, "why": "SIGTERM"}]
PLAN = {"version": 1, "recipe": "short", "gpu": "h100", "gpus": 4, "nodes": 1, "parameters": 41_000, "steps": 12,
        "tokens": 1536, "tokens_per_second": 1e6, "seconds": 100.0, "joules": 7.2e6, "money": 8.0, "currency": "USD",
        "micro_batch": 2, "sharding": "full", "activation_checkpointing": False, "memory_bytes_per_gpu": 5e9}


@pytest.fixture
def trained(prepared):
    config, tokenizer, folder = prepared
    train(config, tokenizer, folder / "shards", folder, progress=False)
    return folder


@pytest.fixture
def disturbed(trained):
    """A run of which seven of twelve steps are done, after a rewind, a kill, a damaged checkpoint and a signal."""
    (trained / "model.safetensors").unlink()
    lines = (trained / "log.csv").read_text().splitlines(keepends=True)
    (trained / "log.csv").write_text("".join(lines[:8]))
    (trained / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    (trained / "plan.json").write_text(json.dumps(PLAN))
    return trained


def rows(page):
    """The cells of all tables of a page in Markdown, by their first."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line.startswith("| ")]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in cells}


def test_an_unfinished_run_says_how_far_it_came_and_what_was_last_heard_of_it(disturbed):
    card = write_report(disturbed)
    assert card["state"] == ("Not finished: 7 of 12 steps. Last word, 1970-01-01 00:18:50 UTC: stopped: SIGTERM.")
    assert not card["finished"] and card["steps_done"] == 7 and card["training_tokens"] == 7 * 4 * 32
    page = (disturbed / "report.md").read_text()
    assert "Not finished: 7 of 12 steps" in page and "Bits per byte" not in page and "Not evaluated" not in page


def test_time_is_shared_out_without_a_rest(disturbed):
    spent = write_report(disturbed)["time"]
    assert sum(spent[name] for name in ("steps", "checkpoints", "other", "between")) == pytest.approx(130.0)
    assert spent["checkpoints"] == 3.0 and spent["between"] == 80.0
    assert spent["rank_seconds"] == 2 * (20 + 30)


def test_what_was_planned_stands_beside_what_happened_and_what_it_comes_to(disturbed):
    write_report(disturbed)
    found = rows((disturbed / "report.md").read_text())
    assert found["GPUs"] == ["4", "2", "2", "-50%"] and found["nodes"] == ["1", "1", "1", "as planned"]
    assert found["steps"] == ["12", "7", "12", "as planned"]
    assert found["sequences a GPU and piece"] == ["2", "2", "2", "as planned"]
    assert found["sharding"] == ["full", "full", "full", "as planned"]
    assert found["memory a GPU"] == ["5 GB", "not measured", "not measured", ""]
    assert found["cost (USD)"] == ["8.00", "2.00", "3.43", "-57%"]  # 8 / (4 * 100) a second, 100 of them, 7 of 12 steps


def test_everything_that_failed_is_told_in_its_order(disturbed):
    write_report(disturbed)
    page = (disturbed / "report.md").read_text()
    story = page[page.index("## What happened") :]
    told = ["started on 2 ranks of 1 node (elsewhere)", "step 5: loss 9.1, 12 deviations",
            "went back to step 4 and skipped the batches 4 to 4", "step-000008.damaged: its hash \\| differs",
            "came back from step-000004 on 2 ranks of 1 node (elsewhere)", "stopped: SIGTERM"]
    places = [story.index(sentence) for sentence in told]
    assert places == sorted(places)
    assert "its hash | differs" in (disturbed / "report.html").read_text()
    figures = rows(page)
    assert figures["machine"] == ["elsewhere, GPU: NVIDIA H100 80GB HBM3, torch 2.13.0, Python 3.11.9"]
    assert "2 of 2 MB; training stood still 3.0 s for them" in figures["checkpoints"][0]
    assert figures["starts"] == ["2, the first 1970-01-01 00:16:40 UTC, the last on 2 ranks of 1 node"]


def test_the_figure_marks_returns_spikes_rewinds_and_damaged_checkpoints(disturbed):
    write_report(disturbed)
    page = (disturbed / "report.html").read_text()
    for label in ("came back", "spike", "rewound", "damaged checkpoint", "training, each step"):
        assert f">{label}</text>" in page
    assert "marked: 1 return, 1 rewind, 1 damaged checkpoint" in page


def test_the_alarms_of_a_run_without_events_are_marked_too(trained):
    (trained / "events.jsonl").unlink()
    alarm = {"step": 5, "what": "step 5: loss 9", "windows": ["train_00000.npy tokens 0 to 32"]}
    (trained / "alarms.jsonl").write_text(json.dumps(alarm) + "\n")
    card = write_report(trained)
    assert card["sessions"] == [] and card["state"] == "Finished: 12 of 12 steps."
    page = (trained / "report.html").read_text()
    assert ">spike</text>" in page and "train_00000.npy tokens 0 to 32 and so on" in page


class Outside(HTMLParser):
    """Whatever a page would fetch, and whatever it leaves open."""

    def __init__(self):
        super().__init__()
        self.fetched, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes
                         if name in ("src", "href", "xlink:href", "srcset") and not value.startswith("#")]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_whole_file_with_the_colors_of_light_and_dark(disturbed):
    write_report(disturbed)
    page = (disturbed / "report.html").read_text()
    reader = Outside()
    reader.feed(page)
    assert reader.fetched == [] and reader.open == [] and "@import" not in page and "<script" not in page
    assert "url(http" not in page and "prefers-color-scheme: dark" in page and page.count("<svg") == 4
    assert not [color for color in vars(PAGE).values() if color in page] and "stroke: var(--accent)" in page
    assert write_report(disturbed) and (disturbed / "report.html").read_text() == page


def test_hashes_are_those_of_sha256sum(trained, disturbed):
    newest = checkpoint.finished(disturbed / "checkpoints")[-1]
    shutil.copytree(newest, newest.with_name(newest.name + ".damaged"))
    card = write_report(disturbed)
    assert list(card["hashes"]) == ["config.json", "tokenizer.json", "shards/shards.json",
                                    f"checkpoints/{newest.name}/manifest.json"]
    for file, digest in card["hashes"].items():
        assert digest == sha256(disturbed / file) and f"{digest}  {file}" in (disturbed / "report.md").read_text()


def test_a_finished_run_without_scores_says_how_to_get_them(trained):
    card = write_report(trained)
    page = (trained / "report.md").read_text()
    assert card["state"] == "Finished: 12 of 12 steps." and "Not evaluated yet: `minigpt evaluate FOLDER`" in page
    assert "model.safetensors" in card["hashes"]
    evaluate_run(trained)
    card = write_report(trained)
    page = (trained / "report.md").read_text()
    low, high = card["intervals"]["bits_per_byte"]["model"]
    assert f"| model | {card['bits_per_byte']['model']:.3f} | {low:.3f} to {high:.3f} |" in page
    assert "Not evaluated" not in page and "(95 % interval 0% to" in page


def test_a_run_that_has_not_begun_has_a_report(short_run, tmp_path):
    (tmp_path / "config.json").write_text(short_run.to_json())
    card = write_report(tmp_path)
    assert card["state"] == "Not begun." and not (tmp_path / "loss.png").exists()
    assert rows((tmp_path / "report.md").read_text())["throughput"] == ["none yet"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no config at .*config.json; give the folder of a run"):
        write_report(tmp_path)


def test_slow_ranks_are_named_with_their_lag(disturbed):
    lines = (disturbed / "log.csv").read_text().splitlines()
    extra = ["slowest_rank,slowest_seconds,median_seconds", *["1,1.5,1.0"] * 5, *["0,1.1,1.0"] * 2]
    (disturbed / "log.csv").write_text("".join(f"{a},{b}\n" for a, b in zip(lines, extra, strict=True)))
    assert write_report(disturbed)["slowest_ranks"] == [
        {"rank": 1, "steps": 5, "share": 5 / 7, "lag": 0.5}, {"rank": 0, "steps": 2, "share": 2 / 7,
                                                              "lag": pytest.approx(0.1)}]
    assert rows((disturbed / "report.md").read_text())["1"] == ["5 (71%)", "+50.0%"]


def test_a_long_line_keeps_its_extremes():
    x, y = list(range(100_000)), torch.randn(100_000, generator=torch.Generator().manual_seed(0)).tolist()
    y[777], y[88_888] = 50.0, -50.0
    few_x, few_y = thin(x, y)
    assert len(few_x) <= MOST_POINTS and 50.0 in few_y and -50.0 in few_y and few_x == sorted(few_x)
    assert all(y[i] == value for i, value in zip(few_x, few_y, strict=True))
    assert thin([1, 2], [3, 4]) == ([1, 2], [3, 4])


def test_a_spike_does_not_press_the_curve_flat():
    usual = [6.0 - 0.01 * step for step in range(300)]
    assert ceiling(usual) == pytest.approx(6.36) and ceiling([*usual, 200.0]) < 8


def test_both_pages_say_the_same_and_neither_is_broken_by_what_stands_in_it():
    blocks = [Title("One"), Text("a < b"), Table(["x", "y"], [["1 | 2", "<b>"]]), Code("python", "```\n<i>")]
    assert markdown("T", blocks) == ("# T\n\n## One\n\na < b\n\n| x | y |\n| --- | --- |\n| 1 \\| 2 | <b> |\n\n"
                                     "````python\n```\n<i>\n````\n")
    page = html("T", blocks)
    assert "a &lt; b" in page and "<td>1 | 2</td><td>&lt;b&gt;</td>" in page and "```\n&lt;i&gt;" in page


@pytest.mark.parametrize(("said", "wanted"), [
    (seconds_text(59.6), "60 s"), (seconds_text(7200), "2.0 h"), (seconds_text(864_000), "10.0 days"),
    (energy_text(1234), "1.23 kJ"), (energy_text(7.2e6), "2 kWh"), (size_text(12), "12 bytes"),
    (size_text(2.2e9), "2.2 GB")])
def test_quantities_are_written_in_units_that_fit(said, wanted):
    assert said == wanted
