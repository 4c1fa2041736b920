import dataclasses
import gzip
import json
import random
import subprocess
import sys
import time
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from minigpt.config import DataConfig
from minigpt.corpus import (
    Document,
    Shards,
    check_shards,
    in_validation,
    prepare,
    read_documents,
    read_split,
    sources,
    write_shards,
)
from minigpt.corpus.shards import IGNORED, best_fit
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer


@pytest.fixture
def shards(prepared):
    _config, tokenizer, folder = prepared
    return Shards(folder / "shards", "train", tokenizer, 16)


def test_the_standard_library_is_real_text_without_its_tests():
    documents = list(islice(read_documents(DataConfig()), 60))
    names = [document.name for document in documents]
    assert "abc.py" in names and not any("test/" in name or "site-packages" in name for name in names)
    assert sum(len(document.text) for document in documents) > 500_000
    assert names == [document.name for document in islice(read_documents(DataConfig()), 60)]


def test_text_json_lines_and_parquet_give_the_same_documents(tmp_path):
    from datasets import Dataset

    wanted = ["one cat\nsat", "two 猫"]
    (tmp_path / "text").mkdir()
    for i, text in enumerate(wanted):
        (tmp_path / "text" / f"{i}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in wanted))
    Dataset.from_dict({"body": wanted}).to_parquet(str(tmp_path / "rows.parquet"))
    for source, column in (("text", "text"), ("text/*.txt", "text"), ("rows.jsonl", "text"), ("rows.parquet", "body")):
        config = DataConfig(source=str(tmp_path / source), text_field=column)
        assert [document.text for document in read_documents(config)] == wanted


def test_reading_stops_at_the_asked_size(texts):
    some = list(read_documents(DataConfig(source=str(texts), max_megabytes=0.002)))
    assert 0 < len(some) < 40


def test_the_two_splits_hold_every_byte_once(texts):
    config = DataConfig(source=str(texts), validation_share=0.3)
    training, validation = read_split(config)
    documents = list(read_documents(config))
    held_out = [document.text for document in documents if in_validation(document.name, 0.3)]
    assert validation == "".join(held_out).encode() and held_out
    assert len(training) + len(validation) == sum(len(document.text.encode()) for document in documents)


def bad_sources(folder):
    (folder / "empty.txt").write_text(" \n")
    (folder / "latin.txt").write_bytes("naïve".encode("latin-1"))
    (folder / "rows.jsonl").write_text('{"body": "x"}\n')
    (folder / "broken.jsonl").write_text('{"body": \n')
    return {"empty.txt": "holds no text", "latin.txt": r"is not UTF-8 \(byte 0xef at 2\)",
            "none.txt": "there is no text at", "rows.jsonl": "no text in 'text'; set data.text_field",
            "broken.jsonl": "cannot be read as a data set"}


@pytest.mark.parametrize("name", ["empty.txt", "latin.txt", "none.txt", "rows.jsonl", "broken.jsonl"])
def test_a_source_that_cannot_be_read_is_refused(tmp_path, name):
    sentence = bad_sources(tmp_path)[name]
    with pytest.raises(ValueError, match=sentence):
        list(read_documents(DataConfig(source=str(tmp_path / name))))


def test_files_of_one_name_in_many_folders_are_many_documents(tmp_path):
    for i in range(30):
        (tmp_path / "all" / str(i)).mkdir(parents=True)
        (tmp_path / "all" / str(i) / "text.txt").write_text(f"text {i}")
    for source in ("all", "all/*/text.txt", "all/**/*.txt"):
        names = [document.name for document in read_documents(DataConfig(source=str(tmp_path / source)))]
        assert sorted(names) == sorted(f"{i}/text.txt" for i in range(30)), source
    assert read_split(DataConfig(source=str(tmp_path / "all"), validation_share=0.3))[1]
    alone = read_documents(DataConfig(source=str(tmp_path / "all" / "3" / "text.txt")))
    assert [document.name for document in alone] == ["text.txt"]


def test_a_document_has_the_same_name_however_the_path_to_it_is_typed(tmp_path, monkeypatch):
    (tmp_path / "rows" / "more").mkdir(parents=True)
    for name in ("a.jsonl", "more/b.jsonl"):
        (tmp_path / "rows" / name).write_text('{"text": "one"}\n{"text": "two"}\n')
    monkeypatch.chdir(tmp_path)
    wanted = ["a.jsonl:0", "a.jsonl:1", "more/b.jsonl:0", "more/b.jsonl:1"]
    for source in ("rows", "./rows/", str(tmp_path / "rows"), "rows/**/*.jsonl"):
        assert [document.name for document in read_documents(DataConfig(source=source))] == wanted
    assert [document.name for document in read_documents(DataConfig(source="rows/a.jsonl"))] == wanted[:2]


def test_a_pattern_stands_for_files_and_not_for_folders(tmp_path):
    (tmp_path / "all" / "deep").mkdir(parents=True)
    for name in ("one.txt", "deep/two.txt"):
        (tmp_path / "all" / name).write_text(name)
    found = read_documents(DataConfig(source=str(tmp_path / "all" / "**")))
    assert [document.name for document in found] == ["deep/two.txt", "one.txt"]


def test_every_byte_of_a_text_arrives(tmp_path):
    (tmp_path / "dos.txt").write_bytes("one\r\ntwo\rthree\n 猫".encode())
    (document,) = read_documents(DataConfig(source=str(tmp_path)))
    assert document.text.encode() == (tmp_path / "dos.txt").read_bytes()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a CSV that is not read to its end
@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.jsonl.gz", "saved"])
def test_tables_of_other_kinds_give_the_same_documents(tmp_path, name):
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_dict({"body": ["one cat\nsat", "two 猫"], "n": [1, 2]})
    if name == "saved":
        rows.save_to_disk(tmp_path / name)
    else:
        plain = tmp_path / "plain"
        rows.to_csv(plain) if "csv" in name else rows.to_json(plain)
        pack = gzip.compress if name.endswith(".gz") else bytes
        (tmp_path / name).write_bytes(pack(plain.read_bytes()))
    found = list(read_documents(DataConfig(source=str(tmp_path / name), text_field="body")))
    assert [document.text for document in found] == rows["body"]
    if name == "saved":
        DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "splits")
        with pytest.raises(ValueError, match="has the splits test, train; name the folder of one of them"):
            list(read_documents(DataConfig(source=str(tmp_path / "splits"), text_field="body")))


def test_a_row_without_text_is_left_out_and_one_with_a_number_is_named(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n{"text": null}\n{"text": "two"}\n')
    assert [document.text for document in read_documents(DataConfig(source=str(rows)))] == ["one", "two"]
    rows.write_text('{"text": null}\n{"text": "two"}\n')
    assert [document.text for document in read_documents(DataConfig(source=str(rows)))] == ["two"]
    bad = [{"text": "one"}, {"text": 5}]
    with pytest.raises(ValueError, match="row 1 of here has 5 in 'text', which is no text"):
        list(sources._read_rows(DataConfig(), bad, "here"))


def test_a_hub_data_set_without_an_owner_is_refused():
    with pytest.raises(ValueError, match="'hub:imdb' but a data set on the hub has an owner; write hub:OWNER/NAME"):
        list(read_documents(DataConfig(source="hub:imdb")))


def test_a_hub_data_set_without_a_network_is_refused(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="owner/nothing cannot be read as a data set"):
        list(read_documents(DataConfig(source="hub:owner/nothing")))


def test_a_document_falls_by_its_name_and_by_nothing_else():
    held_out = [in_validation(f"{i}.py", 0.1) for i in range(5000)]
    assert held_out == [in_validation(f"{i}.py", 0.1) for i in range(5000)]
    assert 0.08 < sum(held_out) / 5000 < 0.12


def test_every_token_of_the_text_is_in_the_shards_once(prepared):
    config, tokenizer, folder = prepared
    manifest = json.loads((folder / "shards" / "shards.json").read_text())
    ids = {split: np.concatenate([np.load(folder / "shards" / shard["file"]) for shard in shards])
           for split, shards in manifest["splits"].items()}
    texts = {split: [text + "\n" for text in tokenizer.decode(part).split("\n") if text] for split, part in ids.items()}
    written = [line + "\n" for document in read_documents(config.data) for line in document.text.split("\n") if line]
    assert sorted(texts["train"] + texts["validation"]) == sorted(written)
    assert sum((part == tokenizer.end_of_text).sum() for part in ids.values()) == 40


def test_many_small_shards_hold_the_tokens_of_one_big_one(prepared, tmp_path):
    config, tokenizer, folder = prepared
    documents = list(read_documents(config.data))
    write_shards(documents, tokenizer, tmp_path / "many", validation_share=0.3, tokens_per_shard=500)
    one, many = (Shards(place, "train", tokenizer, 16) for place in (folder / "shards", tmp_path / "many"))
    assert len(many.files) > 3 and len(one.files) == 1
    assert np.array_equal(np.concatenate(many.files), one.files[0])


def test_the_target_of_a_token_is_the_token_after_it(shards):
    x, y = shards.batch(3, 8, seed=0)
    assert x.shape == y.shape == (8, 16)
    assert torch.equal(x[:, 1:], y[:, :-1])


def test_an_epoch_shows_every_window_once(shards):
    seen = torch.cat([shards.batch(step, 1, seed=4)[0] for step in range(len(shards))])
    everything = shards.rows(range(len(shards)))[0]
    assert sorted(seen.tolist()) == sorted(everything.tolist())
    assert not torch.equal(seen, everything)


def test_a_batch_is_a_pure_function_of_seed_and_step(shards):
    assert torch.equal(shards.batch(7, 8, seed=0)[0], shards.batch(7, 8, seed=0)[0])
    assert not torch.equal(shards.batch(7, 8, seed=0)[0], shards.batch(7, 8, seed=1)[0])
    assert not torch.equal(shards.batch(7, 8, seed=0)[0], shards.batch(8, 8, seed=0)[0])


def test_the_ranks_share_one_batch(shards):
    whole = shards.batch(5, 8, seed=0)[0]
    shares = [shards.batch(5, 8, seed=0, rank=rank, ranks=4)[0] for rank in range(4)]
    assert sorted(torch.cat(shares).tolist()) == sorted(whole.tolist())


def test_shards_of_another_tokenizer_are_refused_and_both_are_named(prepared):
    _config, tokenizer, folder = prepared
    other = Tokenizer.train(["a different text, " * 50], 265)
    with pytest.raises(ValueError, match=f"{tokenizer.fingerprint}.*{other.fingerprint}"):
        Shards(folder / "shards", "train", other, 16)


def test_a_shard_that_was_cut_short_is_refused(prepared):
    _config, tokenizer, folder = prepared
    path = folder / "shards" / "train_00000.npy"
    for left in (path.read_bytes()[:-10], b""):
        path.write_bytes(left)
        with pytest.raises(ValueError, match=r"train_00000.npy cannot be read"):
            Shards(folder / "shards", "train", tokenizer, 16)


def test_a_text_shorter_than_one_window_is_refused(prepared):
    _config, tokenizer, folder = prepared
    with pytest.raises(ValueError, match="one text of the model takes 1000001"):
        Shards(folder / "shards", "train", tokenizer, 1_000_000)


def test_an_interrupted_write_leaves_nothing_that_looks_finished(prepared, tmp_path):
    _config, tokenizer, _folder = prepared

    def breaks_off():
        yield Document("a", "text " * 100)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(breaks_off(), tokenizer, tmp_path / "half", validation_share=0.5)
    assert not (tmp_path / "half").exists()


def test_a_split_without_documents_is_refused(prepared, tmp_path):
    _config, tokenizer, _folder = prepared
    with pytest.raises(ValueError, match="no document fell into the validation split"):
        write_shards([Document("a", "text")], tokenizer, tmp_path / "one", validation_share=1e-9)
    assert not (tmp_path / "one").exists() and not (tmp_path / "one.partial").exists()


def test_preparing_again_keeps_what_is_there(prepared):
    config, tokenizer, folder = prepared
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert prepare(config, folder).fingerprint == tokenizer.fingerprint
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("mode", ["cross", "apart", "pack"])
def test_epochs_are_exact_over_any_number_of_ranks_wherever_a_run_begins_again(prepared, mode, ranks):
    _config, tokenizer, folder = prepared
    split = Shards(folder / "shards", "train", tokenizer, 16, mode)
    size = 6
    steps = 2 * len(split) // size
    seen = [split.indices(step, size, 3, rank, ranks) for step in range(steps) for rank in range(ranks)]
    counts = Counter(index for part in seen for index in part)
    rest = 2 * len(split) - steps * size
    assert set(counts) == set(range(len(split))) and sum(2 - n for n in counts.values()) == rest
    later = [Shards(folder / "shards", "train", tokenizer, 16, mode).indices(step, size, 3, rank, ranks)
             for step in range(steps // 2, steps) for rank in range(ranks)]
    assert later == seen[steps // 2 * ranks :]


@pytest.fixture
def whole_documents(prepared):
    """All documents of the training split, each with its end-of-text token."""
    _config, tokenizer, folder = prepared
    ids = np.load(folder / "shards" / "train_00000.npy")
    ends = np.flatnonzero(ids == tokenizer.end_of_text) + 1
    return [tuple(part.tolist()) for part in np.split(ids, ends[:-1])]


def asked(x, y):
    """Pairs (token, following token) that a loss is paid for, with how often."""
    return Counter((int(a), int(b)) for a, b in zip(x.flatten(), y.flatten(), strict=True) if b != IGNORED)


@pytest.mark.parametrize("length", [16, 64, 700])
def test_packing_asks_for_every_token_of_a_document_once_and_never_across(prepared, whole_documents, length):
    _config, tokenizer, folder = prepared
    split = Shards(folder / "shards", "train", tokenizer, length, "pack")
    x, y = split.rows(range(len(split)))
    wanted = Counter(pair for document in whole_documents for pair in pairwise(document))
    assert asked(x, y) == wanted
    n_tokens = sum(len(document) - (len(document) % length == 1) for document in whole_documents)
    assert split.padding == pytest.approx(1 - n_tokens / x.numel())


def test_packing_makes_no_window_that_nothing_is_asked_of(prepared, tmp_path):
    """Documents one token longer than a window: of each, its end-of-text token is left over."""
    _config, tokenizer, _folder = prepared
    text = "the cat sat"
    write_shards([Document(str(i), text) for i in range(20)], tokenizer, tmp_path / "shards", validation_share=0.3)
    split = Shards(tmp_path / "shards", "train", tokenizer, len(tokenizer.encode(text)), "pack")
    _, y = split.rows(range(len(split)))
    assert (y != IGNORED).all() and split.padding == 0


def test_packing_cuts_no_document_that_fits(prepared, whole_documents):
    _config, tokenizer, folder = prepared
    length = max(map(len, whole_documents)) + 5
    split = Shards(folder / "shards", "train", tokenizer, length, "pack")
    x, _ = split.rows(range(len(split)))
    rows = [" ".join(map(str, row)) for row in x.tolist()]
    for document in whole_documents:
        assert any(" ".join(map(str, document)) in row for row in rows)


def test_best_fit_never_overfills_and_stays_near_the_fewest_windows():
    draw = random.Random(1)
    lengths = [draw.randint(1, 100) for _ in range(500)]
    windows = best_fit(lengths, 100)
    assert sorted(i for window in windows for i in window) == list(range(500))
    assert max(sum(lengths[i] for i in window) for window in windows) <= 100
    assert len(windows) <= 11 / 9 * -(-sum(lengths) // 100) + 1


@pytest.mark.parametrize("mode", ["apart", "pack"])
def test_apart_a_document_is_predicted_as_if_it_were_alone(prepared, mode):
    config, tokenizer, folder = prepared
    split = Shards(folder / "shards", "train", tokenizer, 32, mode)
    x, y = split.rows(range(len(split) - 12, len(split)))
    marks = split.documents(x)
    model = GPT(config.model, seed=1).eval()
    logits = model(x, documents=marks)
    for row in range(12):
        for mark in marks[row].unique():
            here = marks[row] == mark
            torch.testing.assert_close(logits[row, here], model(x[row, here][None])[0], atol=1e-5, rtol=1e-5)
    assert (y[x == tokenizer.end_of_text] == IGNORED).all() and (marks.amax(dim=1) > 0).any()


WRITE = """
import sys, time
from minigpt.config import DataConfig
from minigpt.corpus import read_documents, write, write_shards
from minigpt.tokenizer import Tokenizer

def slowly(documents):
    for document in documents:
        time.sleep(0.02)
        yield document

if __name__ == "__main__":
    write.GROUP_BYTES = 1500
    source, tokenizer, folder, processes = sys.argv[1:]
    write_shards(slowly(read_documents(DataConfig(source=source))), Tokenizer.load(tokenizer), folder,
                 validation_share=0.3, tokens_per_shard=1200, processes=int(processes))
"""


def write_and_kill(arguments, folder, documents, delay):
    """Kill a writer a moment after its journal has so many documents; True if it had ended by itself."""
    process = subprocess.Popen([sys.executable, *map(str, arguments)])
    journal = folder.with_name(folder.name + ".partial") / "journal.json"
    while process.poll() is None:
        if journal.exists() and json.loads(journal.read_text())["documents"] >= documents:
            time.sleep(delay)
            process.kill()
            return process.wait() == 0
        time.sleep(0.001)
    return process.returncode == 0


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_writer_that_is_killed_again_and_again_writes_the_bytes_of_an_undisturbed_one(texts, prepared, tmp_path,
                                                                                        processes):
    config, tokenizer, folder = prepared
    calm, killed, script = tmp_path / "calm", tmp_path / "killed", tmp_path / "write.py"
    write_shards(read_documents(config.data), tokenizer, calm, validation_share=0.3, tokens_per_shard=1200)
    script.write_text(WRITE)
    arguments, draw = [script, texts, folder / "tokenizer.json", killed, processes], random.Random(processes)
    for documents in (1, 9, 17, 24, 30):
        assert not write_and_kill(arguments, killed, documents, draw.uniform(0, 0.05))
        assert not killed.exists()
    assert write_and_kill(arguments, killed, 10**9, 0)
    assert contents(killed) == contents(calm)
    assert not list(tmp_path.glob("*.partial"))


class Stopped(Exception):
    pass


def breaks_off(documents, after):
    """So many of the documents, and then a stop."""
    yield from documents[:after]
    raise Stopped


def test_a_writer_that_stops_after_any_group_goes_on_to_the_same_bytes(prepared, tmp_path, monkeypatch):
    config, tokenizer, _folder = prepared
    monkeypatch.setattr("minigpt.corpus.write.GROUP_BYTES", 1500)
    documents = list(read_documents(config.data))
    settings = {"validation_share": 0.3, "tokens_per_shard": 1200}
    write_shards(documents, tokenizer, tmp_path / "calm", **settings)

    for after in (1, 5, 11, 12, 30, 39):
        with pytest.raises(Stopped):
            write_shards(breaks_off(documents, after), tokenizer, tmp_path / "stopped", **settings)
        assert not (tmp_path / "stopped").exists()
        for ids in (tmp_path / "stopped.partial").glob("*.ids"):
            ids.write_bytes(ids.read_bytes() + b"torn")  # tokens that were written, and no journal after them
    write_shards(documents, tokenizer, tmp_path / "stopped", **settings)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "calm")
    assert len(contents(tmp_path / "calm")) > 6


def test_a_writer_killed_before_its_last_rename_encodes_nothing_again(prepared, tmp_path, monkeypatch):
    config, tokenizer, _folder = prepared
    documents, real = list(read_documents(config.data)), Path.rename
    write_shards(documents, tokenizer, tmp_path / "calm", validation_share=0.3)

    def killed(self, target):
        if self.name == "stopped.partial":
            raise Stopped
        return real(self, target)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Path, "rename", killed)
        write_shards(documents, tokenizer, tmp_path / "stopped", validation_share=0.3)
    monkeypatch.setattr(Tokenizer, "encode_many", None)
    write_shards(documents, tokenizer, tmp_path / "stopped", validation_share=0.3)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "calm")


def test_the_tokenizer_shows_how_far_it_is(short_run, tmp_path, capsys):
    prepare(short_run, tmp_path / "run")
    said = capsys.readouterr().err
    assert "tokenizer:   0%" in said and "tokenizer, joining pairs: " in said and "shards:   0%" in said


def test_tokens_that_a_failing_machine_took_with_it_are_missed(prepared, tmp_path, monkeypatch):
    config, tokenizer, _folder = prepared
    monkeypatch.setattr("minigpt.corpus.write.GROUP_BYTES", 1500)
    documents = list(read_documents(config.data))
    with pytest.raises(Stopped):
        write_shards(breaks_off(documents, 20), tokenizer, tmp_path / "stopped", validation_share=0.3)
    ids = tmp_path / "stopped.partial" / "train_00000.ids"
    ids.write_bytes(ids.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"train_00000.ids has lost tokens .*; remove .*stopped.partial and call"):
        write_shards(documents, tokenizer, tmp_path / "stopped", validation_share=0.3)


def test_documents_that_changed_since_the_stop_are_refused(prepared, tmp_path, monkeypatch):
    config, tokenizer, _folder = prepared
    monkeypatch.setattr("minigpt.corpus.write.GROUP_BYTES", 1500)
    documents = list(read_documents(config.data))
    with pytest.raises(Stopped):
        write_shards(breaks_off(documents, 20), tokenizer, tmp_path / "stopped", validation_share=0.3)
    changed = [dataclasses.replace(documents[0], text="other"), *documents[1:]]
    for wrong in (changed, documents[:3]):
        with pytest.raises(ValueError, match=r"not those that .*stopped.partial was begun with"):
            write_shards(wrong, tokenizer, tmp_path / "stopped", validation_share=0.3)
    write_shards(changed, tokenizer, tmp_path / "stopped", validation_share=0.4)  # other settings begin anew
    assert check_shards(tmp_path / "stopped")["documents"] == 40


def test_one_changed_byte_in_a_shard_is_found_and_the_shard_named(prepared):
    folder = prepared[2] / "shards"
    assert check_shards(folder)["documents"] == 40
    path = folder / "train_00000.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"train_00000.npy is not what was written"):
        check_shards(folder)
