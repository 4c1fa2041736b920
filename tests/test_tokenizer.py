import pytest

from minigpt.tokenizer import END_OF_TEXT, Tokenizer

TEXT = "def greet(name):\n    return f'hello {name}, 你好 naïve 🙂 12345'\n"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT * 3, "the cat sat on the mat " * 20], 290)


@pytest.mark.parametrize("text", [TEXT, "", "\x00\t\r\n", "猫" * 50, "never \u202e seen 🜚", END_OF_TEXT * 2])
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_special_token_in_a_text_stays_text(tokenizer):
    assert tokenizer.end_of_text not in tokenizer.encode(f"a {END_OF_TEXT} b")


def test_merges_make_the_text_shorter(tokenizer):
    assert len(tokenizer.encode(TEXT)) < len(TEXT.encode())


def test_byte_lengths_add_up_to_the_bytes_of_the_text(tokenizer):
    assert tokenizer.byte_lengths()[tokenizer.encode(TEXT)].sum() == len(TEXT.encode())
    assert tokenizer.byte_lengths()[tokenizer.end_of_text] == 0


def test_a_saved_tokenizer_is_the_same_one(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert tokenizer.end_of_text not in again.encode(END_OF_TEXT)


def test_another_vocabulary_has_another_fingerprint(tokenizer):
    assert Tokenizer.train([TEXT * 3], 270).fingerprint != tokenizer.fingerprint


def test_many_texts_are_encoded_like_one(tokenizer):
    assert tokenizer.encode_many([TEXT, "cat"]) == [tokenizer.encode(TEXT), tokenizer.encode("cat")]


@pytest.mark.parametrize(("texts", "size", "sentence"), [
    (["abc"], 200, "ask for more"), (["abc"], 300, "give more text or ask for fewer")])
def test_a_vocabulary_that_cannot_be_is_refused(texts, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        Tokenizer.train(texts, size)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no tokenizer at"):
        Tokenizer.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="is not a tokenizer"):
        Tokenizer.load(tmp_path / "broken.json")
