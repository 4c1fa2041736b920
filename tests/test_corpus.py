import json
from itertools import islice

import numpy as np
import pytest
import torch

from minigpt.config import DataConfig
from minigpt.corpus import Document, Shards, in_validation, prepare, read_documents, write_shards
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
    path.write_bytes(path.read_bytes()[:-10])
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
