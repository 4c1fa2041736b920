import dataclasses

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from minigpt import checkpoint
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer


@pytest.fixture
def saved(prepared, tmp_path):
    config, tokenizer, _ = prepared
    return checkpoint.save(tmp_path / "saved", config, GPT(config.model, 9).state_dict(), tokenizer)


def test_a_model_comes_back_as_it_was(saved, prepared):
    model, _tokenizer, config = checkpoint.load(saved)
    ids = torch.arange(10)[None]
    assert torch.equal(model(ids), GPT(config.model, 9)(ids))
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_tied_weights_are_stored_once(prepared, tmp_path):
    config, tokenizer, _ = prepared
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, tied=True))
    saved = checkpoint.save(tmp_path / "tied", config, GPT(config.model, 9).state_dict(), tokenizer)
    assert "head.weight" not in load_file(saved / "model.safetensors")
    model, _, _ = checkpoint.load(saved)
    assert model.head.weight is model.embedding.weight


def test_a_checkpoint_cut_short_is_refused(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load(saved)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, file):
    (saved / file).unlink()
    with pytest.raises(ValueError, match=f"at .*{file}"):
        checkpoint.load(saved)


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda w: w.pop("norm.weight"), "lacks tensor norm.weight"),
    (lambda w: w.update(extra=torch.ones(1)), "has an extra tensor extra"),
    (lambda w: w.update({"norm.weight": torch.ones(3)}), r"norm.weight in .* has shape \(3,\)")])
def test_weights_that_do_not_fit_are_named(saved, prepared, change, sentence):
    weights = load_file(saved / "model.safetensors")
    change(weights)
    save_file(weights, saved / "model.safetensors", {"tokenizer": prepared[1].fingerprint})
    with pytest.raises(ValueError, match=sentence):
        checkpoint.load(saved)


def test_a_tokenizer_that_the_weights_were_not_trained_with_is_refused_and_both_are_named(saved, prepared):
    other = Tokenizer.train(["a different text, " * 50], 265)
    other.save(saved / "tokenizer.json")
    with pytest.raises(ValueError, match=f"{prepared[1].fingerprint}.*{other.fingerprint}"):
        checkpoint.load(saved)


def test_an_interrupted_save_leaves_the_old_checkpoint(saved, prepared, monkeypatch):
    config, tokenizer, _ = prepared
    before = (saved / "model.safetensors").read_bytes()
    monkeypatch.setattr(checkpoint, "write_weights", lambda *arguments: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(saved, config, GPT(config.model, 1).state_dict(), tokenizer)
    assert (saved / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("fault", [SafetensorError("No space left on device"), OSError(28, "No space left on device")])
def test_weights_that_a_disk_has_no_room_for_leave_nothing_of_themselves(saved, prepared, monkeypatch, fault):
    def full(weights, path, metadata):
        path.write_bytes(b"half of it")
        raise fault

    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.write_weights(saved / "model.safetensors", {}, prepared[1])
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_half_a_checkpoint_does_not_count(tmp_path):
    for name in ("step-000010", "step-000002", "step-000020.partial"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoint.finished(tmp_path)] == ["step-000002", "step-000010"]
