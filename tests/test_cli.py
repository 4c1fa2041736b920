import signal
import subprocess
import sys

import pytest

from minigpt import cli
from minigpt.train import Stopped


def call(monkeypatch, capsys, *words):
    """Exit status and what was printed."""
    monkeypatch.setattr(sys, "argv", ["minigpt", *map(str, words)])
    try:
        cli.main()
        status = 0
    except SystemExit as stop:
        status = stop.code
    out = capsys.readouterr()
    return status, out.out + out.err


def test_train_evaluate_report_and_generate_work_in_a_row(monkeypatch, capsys, texts, tmp_path):
    folder = tmp_path / "run"
    settings = ["--data.source", texts, "--data.validation-share", "0.3", "--model.vocab-size", "300",
                "--train.steps", "31", "--folder", folder]
    assert call(monkeypatch, capsys, "train", "journey", *settings)[0] == 0
    assert "bits_per_byte" in call(monkeypatch, capsys, "evaluate", folder)[1]
    assert "report.html" in call(monkeypatch, capsys, "report", folder)[1]
    status, printed = call(monkeypatch, capsys, "generate", folder, "--prompt", "the cat", "--max-new-tokens", "5")
    assert status == 0 and printed.startswith("the cat")
    assert call(monkeypatch, capsys, "export", folder, tmp_path / "theirs")[0] == 0
    assert (tmp_path / "theirs" / "tokenizer_config.json").exists()


def test_a_misspelt_setting_names_its_neighbors(monkeypatch, capsys):
    status, printed = call(monkeypatch, capsys, "train", "journey", "--train.stepz", "300")
    assert status == 2 and "--train.steps" in printed and "meant" in printed


def test_a_setting_that_cannot_be_is_one_sentence(monkeypatch, capsys):
    status, printed = call(monkeypatch, capsys, "train", "journey", "--model.n-heads", "5")
    assert status == 2 and "d_model 128 is not divisible by n_heads 5" in printed


@pytest.mark.parametrize(("words", "sentence"), [
    (["shards"], "shards needs a recipe or --check FOLDER"), (["shards", "--check"], "needs one folder"),
    (["shards", "--check", "nowhere"], "there are no shards at nowhere"),
    (["shards", "journey", "--parts", "3"], "--parts 3 needs the number of the part to write; add --part, from 0 to 2"),
    (["shards", "journey", "--part", "3", "--parts", "3"], "there is no part 3 of 3"),
    (["train"], "train needs a recipe; choose one of journey"), (["train", "nope"], "no recipe 'nope'"),
    (["dance"], "there is no word 'dance'"), (["generate", "nowhere"], "there is no config at nowhere"),
    (["report", "nowhere"], "there is no config at nowhere")])
def test_bad_words_get_one_sentence(monkeypatch, capsys, tmp_path, words, sentence):
    monkeypatch.chdir(tmp_path)
    status, printed = call(monkeypatch, capsys, *words)
    assert sentence in printed and printed.count("\n") == 1 and status == 1


def test_recipes_are_listed_with_their_sizes(monkeypatch, capsys):
    printed = call(monkeypatch, capsys, "recipes")[1]
    assert "1,100,048,384" in printed and "journey" in printed


def test_a_full_disk_is_one_sentence(monkeypatch, capsys, texts):
    status, said = call(monkeypatch, capsys, "train", "journey", "--data.source", texts, "--folder", "/proc/nothing")
    assert said.startswith("minigpt: /proc/nothing: No such file") and "name another folder" in said
    assert said.count("\n") == 1 and status == 1


@pytest.mark.parametrize(("fault", "status"), [
    (ValueError("d_model 128 is too wide"), 1), (FileNotFoundError(2, "No such file", "/nowhere"), 1),
    (OSError(28, "No space left on device", "/runs"), 74), (RuntimeError("Connection closed by peer"), 70),
    (Stopped(12, [[], [signal.SIGUSR1]]), 75)])
def test_the_exit_status_says_whether_to_come_back(monkeypatch, capsys, fault, status):
    def fails(arguments):
        raise fault

    monkeypatch.setitem(cli.WORDS, "train", fails)
    found, said = call(monkeypatch, capsys, "train", "journey")
    assert found == status and ("stopped after step 12" if status == 75 else str(fault.args[-1])) in said


def test_the_command_is_installed():
    done = subprocess.run(["minigpt", "--help"], capture_output=True, text=True, check=True)
    assert "minigpt journey" in done.stdout


@pytest.mark.parametrize("word", ["plan", "shards", "slurm", "train"])
def test_the_settings_of_a_word_are_listed_without_a_recipe(word):
    done = subprocess.run(["minigpt", word, "--help"], capture_output=True, text=True, check=True)
    assert "--model.d-model" in done.stdout


def test_shards_are_written_by_several_processes_checked_and_trained_on(monkeypatch, capsys, texts, tmp_path):
    folder = tmp_path / "run"
    settings = ["--data.source", texts, "--data.validation-share", "0.3", "--model.vocab-size", "300",
                "--train.steps", "3", "--train.warmup-steps", "0", "--data.documents", "pack", "--folder", folder]
    status, printed = call(monkeypatch, capsys, "shards", "journey", *settings, "--processes", "2")
    assert status == 0 and "of them padding" in printed
    status, checked = call(monkeypatch, capsys, "shards", "--check", folder)
    assert status == 0 and checked.count(" documents ") == 2 and checked in printed
    assert call(monkeypatch, capsys, "train", "journey", *settings)[0] == 0
    (folder / "shards" / "validation_00000.npy").unlink()
    status, said = call(monkeypatch, capsys, "shards", "--check", folder)
    assert "validation_00000.npy is missing" in said and said.count("\n") == 1 and status == 1


def test_parts_of_shards_tell_what_is_missing_until_the_last_joins_them(monkeypatch, capsys, texts, tmp_path):
    folder = tmp_path / "run"
    settings = ["--data.source", texts, "--data.validation-share", "0.3", "--model.vocab-size", "300",
                "--folder", folder, "--parts", "2"]
    status, printed = call(monkeypatch, capsys, "shards", "journey", *settings, "--part", "1")
    assert status == 0 and "part 1 of 2 is whole; not yet whole: 0" in printed
    status, printed = call(monkeypatch, capsys, "shards", "--check", folder)
    assert "are not whole; call `minigpt shards RECIPE --part I --parts 2`" in printed and status == 1
    assert "part 0 of 2: missing, 0 documents\npart 1 of 2: whole, 20 documents\n" in printed
    status, printed = call(monkeypatch, capsys, "shards", "journey", *settings, "--part", "0")
    assert status == 0 and "train " in printed and "validation " in printed
    assert call(monkeypatch, capsys, "shards", "--check", folder)[0] == 0
