"""Shards that several machines write: each its part, joined by the last, whatever is stopped in between."""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minigpt import cli
from minigpt.config import DataConfig
from minigpt.corpus import (
    Shards,
    check_shards,
    prepare,
    prepare_part,
    progress,
    read_documents,
)
from minigpt.disk import locked
from minigpt.tokenizer import Tokenizer


@pytest.fixture
def rows(tmp_path):
    """Three files of JSON lines with 40 documents in all."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for file, count in (("a", 25), ("b", 5), ("c", 10)):
        lines = [json.dumps({"text": f"Row {n} of {file}: {'words and ' * (n % 5)}more."}) for n in range(count)]
        (folder / f"{file}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 60])
def test_every_document_is_in_one_part_under_one_name(texts, rows, parts):
    for source in (texts, rows, rows / "a.jsonl")[: 3 if parts < 4 else 1]:  # opening a table takes a moment
        data = DataConfig(source=str(source))
        found = [list(read_documents(data, part, parts)) for part in range(parts)]
        assert sorted((d.name, d.text) for part in found for d in part) == sorted(
            (d.name, d.text) for d in read_documents(data))
        if source != rows:  # whose files are of unequal size
            assert max(map(len, found)) - min(map(len, found)) <= 1
        assert found == [list(read_documents(data, part, parts)) for part in range(parts)]


def test_a_data_set_of_the_hub_is_shared_out_by_its_files(rows, tmp_path, monkeypatch):
    """A folder of this disk named like a data set stands for one on the hub: `datasets` opens both in one way."""
    shutil.copytree(rows, tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    data = DataConfig(source="hub:owner/name")
    whole = list(read_documents(data))
    assert [document.name for document in whole[24:26]] == ["owner/name:0:24", "owner/name:1:0"] and len(whole) == 40
    parts = [list(read_documents(data, part, 2)) for part in range(2)]
    assert [len(part) for part in parts] == [35, 5] and sorted(map(str, whole)) == sorted(map(str, parts[0] + parts[1]))


def documents_of(folder, tokenizer):
    """Each document of each split as its ids."""
    found = {}
    for split, shards in json.loads((folder / "shards.json").read_text())["splits"].items():
        ids = np.concatenate([np.load(folder / shard["file"]) for shard in shards])
        ends = np.flatnonzero(ids == tokenizer.end_of_text) + 1
        found[split] = sorted(map(tuple, np.split(ids, ends[:-1])))
    return found


@pytest.mark.parametrize("parts", [1, 2, 5, 50])
def test_the_parts_hold_the_documents_of_one_piece_in_the_same_splits(short_run, prepared, tmp_path, parts):
    _config, tokenizer, folder = prepared
    run = tmp_path / "parts"
    for part in reversed(range(1, parts)):
        missing = prepare_part(short_run, run, part, parts)
        assert missing == list(range(part)) and not (run / "shards").exists()
    assert prepare_part(short_run, run, 0, parts) == []
    assert documents_of(run / "shards", tokenizer) == documents_of(folder / "shards", tokenizer)
    one, many = check_shards(folder / "shards"), check_shards(run / "shards")
    for split in one["splits"]:
        for count in ("tokens", "documents", "bytes"):
            assert sum(s[count] for s in one["splits"][split]) == sum(s[count] for s in many["splits"][split])
    assert many["documents"] == 40 and not list((run / "shards").rglob("*.lock"))
    assert prepare(short_run, run).fingerprint == tokenizer.fingerprint == many["tokenizer"]
    assert len(Shards(run / "shards", "train", tokenizer, 16).files) == len(many["splits"]["train"])


def test_a_whole_run_of_shards_and_a_whole_part_are_left_as_they_are(short_run, tmp_path):
    prepare_part(short_run, tmp_path / "run", 1, 2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert prepare_part(short_run, tmp_path / "run", 1, 2) == [0]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    prepare_part(short_run, tmp_path / "run", 0, 2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert prepare_part(short_run, tmp_path / "run", 0, 2) == []
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}


def test_whereabouts_name_the_part(short_run, tmp_path):
    for part in range(2):
        prepare_part(short_run, tmp_path, part, 2)
    split = Shards(tmp_path / "shards", "train", Tokenizer.load(tmp_path / "tokenizer.json"), 16)
    assert split.whereabouts(0).startswith("part-00000-of-00002/train_00000.npy tokens 0 to 16")
    assert split.whereabouts(len(split) - 1).startswith("part-00001-of-00002/")


def test_parts_that_are_not_whole_are_told_and_nothing_trains_on_them(short_run, tmp_path):
    prepare_part(short_run, tmp_path, 2, 3)
    assert progress(tmp_path) == {0: ("missing", 0), 1: ("missing", 0), 2: ("whole", 13)}
    with pytest.raises(ValueError, match=r"begun in parts and are not whole; `minigpt shards --check"):
        prepare(short_run, tmp_path)


def test_another_division_is_refused(short_run, tmp_path):
    prepare_part(short_run, tmp_path, 0, 3)
    with pytest.raises(ValueError, match="was begun in 3 parts; go on with --parts 3"):
        prepare_part(short_run, tmp_path, 0, 2)
    with pytest.raises(ValueError, match="there is no part 3 of 3; parts are counted from 0 to 2"):
        prepare_part(short_run, tmp_path, 3, 3)
    (tmp_path / "other" / "shards.partial").mkdir(parents=True)
    with pytest.raises(ValueError, match="was begun without --part"):
        prepare_part(short_run, tmp_path / "other", 0, 2)
    some = dataclasses.replace(short_run, data=dataclasses.replace(short_run.data, max_megabytes=1.0))
    with pytest.raises(ValueError, match="which parts that are read side by side cannot know"):
        prepare_part(some, tmp_path / "some", 0, 2)


def test_one_part_has_one_writer(short_run, tmp_path):
    prepare_part(short_run, tmp_path, 1, 2)
    home = tmp_path / "shards.parts"
    with locked(home / "part-00000-of-00002.lock"), pytest.raises(ValueError, match="another process is at work"):
        prepare_part(short_run, tmp_path, 0, 2)
    assert prepare_part(short_run, tmp_path, 0, 2) == []


def test_parts_side_by_side_train_one_tokenizer_and_are_joined_once(short_run, prepared, tmp_path):
    run, missing = tmp_path / "threads", {}
    workers = [threading.Thread(target=lambda n=n: missing.update({n: prepare_part(short_run, run, n, 4)}))
               for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(missing) == 4 and [] in missing.values()
    assert documents_of(run / "shards", prepared[1]) == documents_of(prepared[2] / "shards", prepared[1])


def test_a_doubled_part_is_found_before_it_is_joined(short_run, tmp_path):
    prepare_part(short_run, tmp_path, 0, 3)
    home = tmp_path / "shards.parts"
    shutil.copytree(home / "part-00000-of-00003", home / "part-00001-of-00003")
    with pytest.raises(ValueError, match=r"part-00001-of-00003 holds part \[0, 3\] and not \[1, 3\]; remove it, then"):
        prepare_part(short_run, tmp_path, 2, 3)
    assert not (tmp_path / "shards").exists()
    shutil.rmtree(home / "part-00001-of-00003")
    assert prepare_part(short_run, tmp_path, 1, 3) == []
    check_shards(tmp_path / "shards")


def test_parts_that_a_kill_left_whole_and_apart_are_told_and_joined_by_one_more_call(short_run, tmp_path, monkeypatch):
    prepare_part(short_run, tmp_path, 0, 2)
    with monkeypatch.context() as patch:
        patch.setattr("minigpt.corpus.parts.join", lambda folder, parts: [])
        prepare_part(short_run, tmp_path, 1, 2)
    with pytest.raises(ValueError, match=r"is whole but they are not joined; call .* --part 0 --parts 2` once more"):
        cli.check(tmp_path)
    assert prepare_part(short_run, tmp_path, 0, 2) == []
    cli.check(tmp_path)


def test_a_part_with_other_settings_is_refused_even_while_the_first_trains_the_tokenizer(short_run, tmp_path,
                                                                                         monkeypatch):
    """It has to wait for its turn before it may look whose the folder is."""
    begun, real, larger = threading.Event(), Tokenizer.train, dataclasses.replace(
        short_run, model=dataclasses.replace(short_run.model, vocab_size=400))

    def slow(*arguments):
        begun.set()
        time.sleep(0.5)
        return real(*arguments)

    monkeypatch.setattr(Tokenizer, "train", slow)
    first = threading.Thread(target=cli.shards_part, args=(short_run, tmp_path, 0, 2, 1))
    first.start()
    assert begun.wait(20)
    with pytest.raises(ValueError, match=r"model.vocab_size is 300 there and 400 here"):
        cli.shards_part(larger, tmp_path, 1, 2, 1)
    first.join()


def joined(short_run, run):
    for part in range(2):
        prepare_part(short_run, run, part, 2)
    return run / "shards"


def flip(path):
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")


SHARD = "part-00001-of-00002/train_00000.npy"
DAMAGE = {
    "missing": (lambda shards: (shards / SHARD).unlink(), rf"{SHARD} is missing", True),
    "cut": (lambda shards: (shards / SHARD).write_bytes((shards / SHARD).read_bytes()[:-2]), "cannot be read", True),
    "longer": (lambda shards: (shards / SHARD).write_bytes((shards / SHARD).read_bytes() + b"xx"),
               rf"{SHARD} has \d+ tokens in [\d,]+ bytes", True),
    "stray": (lambda shards: shutil.copy(shards / SHARD, shards / "train_00009.npy"), "is not in the manifest", True),
    "changed": (lambda shards: flip(shards / SHARD), rf"{SHARD} is not what was written", False),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_found_by_its_size_or_by_its_hash(short_run, tmp_path, damage):
    shards = joined(short_run, tmp_path)
    spoil, sentence, quick = DAMAGE[damage]
    check_shards(shards)
    spoil(shards)
    with pytest.raises(ValueError, match=sentence):
        check_shards(shards)
    if quick:
        with pytest.raises(ValueError, match=sentence):
            check_shards(shards, hashes=False)
    else:
        check_shards(shards, hashes=False)


def test_a_shard_that_stands_twice_in_the_manifest_is_found(short_run, tmp_path):
    shards = joined(short_run, tmp_path)
    manifest = json.loads((shards / "shards.json").read_text())
    manifest["splits"]["train"].append(manifest["splits"]["train"][0])
    (shards / "shards.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="hold the same tokens, which would be trained on twice"):
        check_shards(shards, hashes=False)


PART = """
import sys, time
from pathlib import Path
from minigpt.config import RunConfig
from minigpt.corpus import parts, write

def slowly(*arguments, real=parts.read_documents):
    for document in real(*arguments):
        time.sleep(0.02)
        yield document

write.GROUP_BYTES, parts.read_documents = 1500, slowly
run, part = sys.argv[1:]
sys.exit(len(parts.prepare_part(RunConfig.read(Path(run) / "config.json"), Path(run), int(part), 3)))
"""


@pytest.mark.slow
def test_parts_killed_at_any_moment_end_in_the_bytes_of_undisturbed_ones(short_run, tmp_path):
    calm, killed, script = tmp_path / "calm", tmp_path / "killed", tmp_path / "part.py"
    for part in range(3):
        prepare_part(short_run, calm, part, 3)
    killed.mkdir()
    (killed / "config.json").write_text(short_run.to_json())
    script.write_text(PART)
    dice, kills = random.Random(0), 0

    def start(part):
        return subprocess.Popen([sys.executable, str(script), str(killed), str(part)])

    while not (killed / "shards").exists():
        workers = [start(part) for part in range(3)]
        begun, patience = progress(killed), dice.uniform(0.02, 0.15)
        while progress(killed) == begun and not (killed / "shards").exists() and any(w.poll() is None for w in workers):
            time.sleep(0.005)
        time.sleep(patience)
        for worker in workers:
            worker.kill()
            kills += worker.wait() == -9
    assert kills > 5
    contents = [{path.relative_to(run): path.read_bytes() for path in (run / "shards").rglob("*") if path.is_file()}
                for run in (calm, killed)]
    assert contents[0] == contents[1]
