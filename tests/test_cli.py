import os
import signal
import socket
import subprocess
import sys
import time
import types
from itertools import chain
from pathlib import Path

import pytest
from test_distributed import children

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
    (OSError(28, "No space left on device", "/runs"), 74), (OSError(28, "No space left on device"), 74),
    (OSError(None, "the weights could not be written", "/runs"), 74), (RuntimeError("Connection closed by peer"), 70),
    (ConnectionRefusedError(111, "Connection refused"), 70), (TimeoutError("timed out"), 70),
    (OSError("504 Server Error: Gateway Time-out"), 70), (socket.gaierror(-3, "Temporary failure in name"), 70),
    (KeyboardInterrupt("stopped by Ctrl-C"), 130), (Stopped(12, [[], [signal.SIGUSR1]]), 75)])
def test_the_exit_status_says_whether_to_come_back(monkeypatch, capsys, fault, status):
    def fails(arguments):
        raise fault

    monkeypatch.setitem(cli.WORDS, "train", fails)
    found, said = call(monkeypatch, capsys, "train", "journey")
    assert found == status and ("stopped after step 12" if status == 75 else str(fault.args[-1])) in said
    if isinstance(fault, OSError):
        assert said.count("\n") == 1 and ("free some space" in said) == (status != 70)


def test_whoever_stops_reading_ends_us_without_a_word():
    """`minigpt generate FOLDER | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    for words in (["recipes"], ["evaluate", "--help"]):
        done = subprocess.run(["minigpt", *words], stdout=writing, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr) == (141, "")
    os.close(writing)


@pytest.mark.parametrize(("setting", "wrong", "sentence"), [
    ("--data.source", "typo", "there is no text at 'typo'"), ("--model.vocab-size", "9999", "vocab_size is 9999"),
    ("--train.batch-size", "4000", "a batch takes 4000")])
@pytest.mark.parametrize("word", ["train", "journey", "shards"])
def test_a_refused_command_can_be_corrected_in_the_same_folder(monkeypatch, capsys, texts, tmp_path, word, setting,
                                                              wrong, sentence):
    right = {"--data.source": texts, "--data.validation-share": "0.3", "--model.vocab-size": "300",
             "--model.d-model": "32", "--train.batch-size": "8", "--train.steps": "2", "--train.warmup-steps": "0",
             "--folder": tmp_path / "run"}
    monkeypatch.setattr("minigpt.journey.evaluate_run", lambda folder: None)
    monkeypatch.setattr("minigpt.journey.write_report",
                        lambda folder: {"bits_per_byte": {}, "parse_rate": {"samples": 1, "before": 0, "after": 0}})
    words = [word] if word == "journey" else [word, "journey"]
    status, said = call(monkeypatch, capsys, *words, *chain(*(right | {setting: wrong}).items()))
    if (word, setting) != ("shards", "--train.batch-size"):  # of batches the shards know nothing
        assert status == 1 and sentence in said
    assert call(monkeypatch, capsys, *words, *chain(*right.items()))[0] == 0


def test_text_as_tokens_is_kept_for_the_settings_that_made_it(monkeypatch, capsys, texts, tmp_path):
    words = ["shards", "journey", "--data.source", texts, "--data.validation-share", "0.3", "--folder", tmp_path]
    assert call(monkeypatch, capsys, *words, "--model.vocab-size", "300")[0] == 0
    status, said = call(monkeypatch, capsys, *words, "--model.vocab-size", "320")
    assert status == 1 and "holds a run with other settings (model.vocab_size is 300 there and 320 here)" in said
    assert call(monkeypatch, capsys, *words, "--model.vocab-size", "300", "--train.steps", "60")[0] == 0


def test_several_processes_do_not_wait_while_one_makes_tokens(monkeypatch, capsys, texts, tmp_path):
    monkeypatch.setattr("minigpt.train.make_fabric", lambda settings: types.SimpleNamespace(world_size=2))
    status, said = call(monkeypatch, capsys, "train", "journey", "--data.source", texts, "--folder", tmp_path / "run")
    assert status == 1 and "run has no shards, and 2 processes do not wait while one writes them; write them" in said
    assert "`minigpt shards journey`" in said and not (tmp_path / "run").exists()


def ignores_ctrl_c(process):
    """A writer does so once it has started."""
    ignored = Path(f"/proc/{process}/status").read_text().partition("SigIgn:")[2].split()[0]
    return int(ignored, 16) >> (signal.SIGINT - 1) & 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_ends_all_writers_with_one_sentence_and_loses_nothing(tmp_path):
    partial = tmp_path / "run" / "shards.partial"
    words = ["minigpt", "shards", "journey", "--processes", "2", "--folder", str(tmp_path / "run")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (partial / "journal.json").exists() or not all(map(ignores_ctrl_c, children(process.pid))):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in said and (partial / "journal.json").exists()
    assert said.endswith("minigpt: stopped by Ctrl-C; the same command goes on from what is done, or begins again\n")


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
