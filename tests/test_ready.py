"""What is refused before a job queues, and the copy of the shards on a node's own disk."""

import dataclasses
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from minigpt.cluster import ready, stage
from minigpt.cluster.ready import check_memory, check_ready, check_room
from minigpt.corpus import check_shards
from minigpt.disk import locked
from minigpt.recipes import llama_1b
from minigpt.train import train

Disk = namedtuple("Disk", "total used free")


def changed(config, **train_fields):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train_fields))


def test_a_prepared_run_is_ready(prepared):
    config, _, folder = prepared
    before = sorted(path.name for path in folder.iterdir())
    check_ready(config, folder, 2)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "config.json", "lock"])


def test_a_folder_that_is_not_ready_is_not_claimed(prepared, tmp_path):
    config, _, folder = prepared
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        check_ready(config, tmp_path / "new", 1)
    with pytest.raises(ValueError, match="a batch takes 4000"):
        check_ready(changed(config, batch_size=4000), folder, 1)
    assert not (tmp_path / "new" / "config.json").exists() and not (folder / "config.json").exists()
    check_ready(config, folder, 1)


def test_a_folder_in_which_someone_works_is_not_claimed(prepared):
    config, _, folder = prepared
    with locked(folder), pytest.raises(ValueError, match="another process is at work in"):
        check_ready(config, folder, 1)


def test_a_batch_that_the_ranks_cannot_share_is_refused_with_the_nearest_number_that_can(prepared):
    config, _, folder = prepared
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared by 3 ranks in 1 pieces each; take 2 ranks"):
        check_ready(config, folder, 3)
    with pytest.raises(ValueError, match="in 2 pieces each; take 2 ranks"):
        check_ready(changed(config, accumulate=2), folder, 4)


def test_without_tokenizer_or_shards_nothing_queues(prepared, tmp_path):
    config, _, folder = prepared
    with pytest.raises(ValueError, match=r"new has no tokenizer.json and no shards; write them first"):
        check_ready(config, tmp_path / "new", 1)
    shutil.rmtree(folder / "shards")
    with pytest.raises(ValueError, match="there are no shards at"):
        check_ready(config, folder, 1)


def test_a_shard_that_is_missing_or_cut_short_is_named(prepared):
    config, _, folder = prepared
    path = folder / "shards" / "train_00000.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(ValueError, match=r"train_00000.npy"):
        check_ready(config, folder, 1)
    path.unlink()
    with pytest.raises(ValueError, match=r"train_00000.npy"):
        check_ready(config, folder, 1)


def test_another_tokenizer_and_another_run_are_refused(prepared):
    config, _, folder = prepared
    check_ready(config, folder, 1)
    check_ready(changed(config, steps=14), folder, 1)  # before the first step
    check_ready(config, folder, 1)
    (folder / "log.csv").touch()
    with pytest.raises(ValueError, match=r"train.steps is 12 there and 13 here"):
        check_ready(changed(config, steps=13), folder, 1)
    manifest = folder / "shards" / "shards.json"
    manifest.write_text(manifest.read_text().replace('"tokenizer": "', '"tokenizer": "0'))
    with pytest.raises(ValueError, match="written with tokenizer 0"):
        check_ready(config, folder, 1)


def test_a_run_that_is_trained_does_not_queue_again(prepared):
    config, _, folder = prepared
    (folder / "model.safetensors").touch()
    with pytest.raises(ValueError, match="is trained already; next: minigpt evaluate"):
        check_ready(config, folder, 1)


@pytest.mark.parametrize("folder", ["/proc/run", "/dev/null/run"])
def test_a_folder_that_cannot_be_written_to_is_refused(short_run, folder):
    if not os.path.exists("/proc/self"):
        pytest.skip("no /proc on this machine")
    with pytest.raises(ValueError, match=r"cannot be written to \(.*\); name another folder with --folder"):
        check_ready(short_run, Path(folder), 1)


def test_the_room_asked_for_is_what_a_run_comes_to_take(prepared, monkeypatch):
    """The estimate lies above what the run has written at its end and within a tenth of its tensors."""
    config, tokenizer, folder = prepared
    config = changed(config, save_every=2, keep_checkpoints=1, keep_every=6)
    free = 1e6
    monkeypatch.setattr(ready.shutil, "disk_usage", lambda path: Disk(1e9, 0, free))
    tensors = 12 * config.model.n_parameters
    free = 4 * tensors + tensors // 3 + 1  # the last, the one being written, those of steps 6 and 12; the weights
    check_room(config, folder)
    free -= 2
    with pytest.raises(ValueError, match=r"4 checkpoints and the trained weights take .* GB; free some"):
        check_room(config, folder)
    train(config, tokenizer, folder / "shards", folder, progress=False)
    written = sum(path.stat().st_size for path in (folder / "checkpoints").rglob("*.safetensors"))
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["step-000006", "step-000012"]
    assert 2 * tensors <= written < 2.2 * tensors
    free -= written - 2  # what the run has written no longer has to be free
    check_room(config, folder)


def test_a_run_that_does_not_fit_into_its_gpus_is_refused_if_they_are_known():
    config = llama_1b()
    check_memory(config, "h100", 8, 8)
    whole = changed(config, accumulate=1)
    with pytest.raises(ValueError, match="h100"):
        check_memory(whole, "H100", 8, 8)
    check_memory(whole, "h100-of-our-own", 8, 8)


# ---- The copy of the shards. ----


def test_a_copy_is_whole_and_made_once(prepared, tmp_path, monkeypatch):
    shards, copy = prepared[2] / "shards", tmp_path / "disk" / "copy"
    assert "their hashes compared" in stage.stage(shards, copy)
    assert check_shards(copy) == check_shards(shards)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    monkeypatch.setattr(stage, "copy_file", None)
    assert stage.stage(shards, copy) == f"{copy} has the shards already"


def test_a_copy_that_lost_a_shard_is_made_again(prepared, tmp_path):
    shards, copy = prepared[2] / "shards", tmp_path / "copy"
    stage.stage(shards, copy)
    (copy / "train_00000.npy").write_bytes(b"short")
    assert "their hashes compared" in stage.stage(shards, copy)
    check_shards(copy)


@pytest.mark.parametrize("harm", ["a shard is gone", "an empty manifest", "no manifest"])
def test_a_copy_that_cannot_be_read_is_made_again(prepared, tmp_path, harm):
    shards, copy = prepared[2] / "shards", tmp_path / "copy"
    stage.stage(shards, copy)
    if harm == "a shard is gone":
        (copy / "train_00000.npy").unlink()
    elif harm == "an empty manifest":
        (copy / "shards.json").write_text("")
    else:
        (copy / "shards.json").unlink()
    assert "their hashes compared" in stage.stage(shards, copy)
    check_shards(copy)


def test_a_bad_copy_goes_even_if_there_is_no_room_for_a_good_one(prepared, tmp_path, monkeypatch):
    shards, copy = prepared[2] / "shards", tmp_path / "copy"
    stage.stage(shards, copy)
    (copy / "train_00000.npy").write_bytes(b"short")
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda path: Disk(1e9, 0, 100.0))
    assert stage.stage(shards, copy).endswith("this node reads the shared ones") and not copy.exists()


def test_a_run_on_the_copy_has_the_curve_of_one_on_the_shards(prepared, tmp_path):
    config, tokenizer, folder = prepared
    stage.stage(folder / "shards", tmp_path / "copy")
    losses = [[line.split(",")[2] for line in (train(config, tokenizer, place, tmp_path / name, progress=False)
                                                / "log.csv").read_text().splitlines()]
              for name, place in (("one", folder / "shards"), ("two", tmp_path / "copy"))]
    assert losses[0] == losses[1] and len(losses[0]) == 13


def test_where_there_is_no_room_a_sentence_says_so(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda path: Disk(1e9, 0, 100.0))
    said = stage.stage(prepared[2] / "shards", tmp_path / "copy")
    assert "0.0 GB free but the shards take" in said and said.endswith("this node reads the shared ones")
    assert not (tmp_path / "copy").exists()


def test_a_disk_that_fails_while_it_is_copied_to_leaves_nothing(prepared, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage.shutil, "copyfile", full)
    said = stage.stage(prepared[2] / "shards", tmp_path / "copy")
    assert "(No space left on device); this node reads the shared ones" in said
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == []


def test_a_disk_that_gives_back_something_else_is_not_read_from(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(stage.shutil, "copyfile", lambda source, target: target.write_bytes(b"x"))
    said = stage.stage(prepared[2] / "shards", tmp_path / "copy")
    assert "gives back something else than train_00000.npy" in said and not (tmp_path / "copy").exists()


def test_a_damaged_shard_is_found_before_the_run_begins(prepared, tmp_path):
    path = prepared[2] / "shards" / "train_00000.npy"
    bytes_ = bytearray(path.read_bytes())
    bytes_[-1] ^= 1
    path.write_bytes(bytes_)
    with pytest.raises(ValueError, match=r"train_00000.npy is not what was written"):
        stage.stage(prepared[2] / "shards", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
