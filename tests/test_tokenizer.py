import json
import random

import pytest
import tokenizers

from minigpt.tokenizer import END_OF_TEXT, Tokenizer

TEXT = "def greet(name):\n    return f'hello {name}, 你好 naïve 🙂 12345'\n"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT * 3, "the cat sat on the mat " * 20], 290)


@pytest.mark.parametrize("text", [TEXT, "", "\x00\t\r\n", "猫" * 50, "never \u202e seen 🜚", END_OF_TEXT * 2])
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("seed", range(50))
def test_any_bytes_come_back(tokenizer, seed):
    draw = random.Random(seed)
    noise = draw.randbytes(draw.randrange(200))
    for data in (noise, noise + TEXT.encode() + noise, TEXT.encode()[: draw.randrange(1, 60)]):
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


def test_every_character_comes_back(tokenizer):
    letters = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    texts = ["".join(letters[start : start + 64]) for start in range(0, len(letters), 64)]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_many(texts)] == texts


def test_bytes_that_are_text_have_the_ids_of_the_text(tokenizer):
    assert tokenizer.encode_bytes(TEXT.encode()) == tokenizer.encode(TEXT)


def test_half_of_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        tokenizer.encode("a \ud83d b")


@pytest.mark.parametrize("id", [-1, 290])
def test_an_unknown_id_is_refused(tokenizer, id):
    with pytest.raises(ValueError, match=f"there is no token {id}; ids run from 0 to 289"):
        tokenizer.decode([5, id])


def test_decoding_is_what_the_library_decodes(tokenizer):
    ids = tokenizer.encode(TEXT)
    for cut in range(len(ids)):
        assert tokenizer.decode(ids[cut:]) == tokenizer.engine.decode(ids[cut:])


@pytest.fixture(scope="module")
def old_llama():
    """A tokenizer built as LLaMA 2's: spaces as a letter of their own, bytes as words, a space before each text."""
    space = "\u2581"
    letters = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), space, *"acdehotsm"]
    merges = [(space, "t"), ("h", "e"), (space + "t", "he"), ("a", "t")]
    vocabulary = {token: i for i, token in enumerate([*letters, *(a + b for a, b in merges)])}
    engine = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True,
                                                        byte_fallback=True))
    engine.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Prepend(space),
                                                         tokenizers.normalizers.Replace(" ", space)])
    engine.add_special_tokens(["<unk>", "<s>", "</s>"])
    return Tokenizer(engine)


@pytest.mark.parametrize("text", ["the cat", " the cat ", "the mat\n\n  sat", "猫 the 🙂", TEXT, ""])
def test_a_tokenizer_like_that_of_llama_2_gives_any_text_back(old_llama, text):
    assert old_llama.decode(old_llama.encode(text)) == text
    assert old_llama.end == "</s>" and old_llama.end_of_text == 2


@pytest.mark.parametrize("seed", range(20))
def test_a_tokenizer_like_that_of_llama_2_gives_any_bytes_back(old_llama, seed):
    noise = random.Random(seed).randbytes(20)
    for data in (b"a\xffb", b"\xffa", b" \xff a", noise, b"the cat" + noise + TEXT.encode() + noise):
        assert old_llama.decode_bytes(old_llama.encode_bytes(data)) == data
    assert old_llama.encode_bytes(TEXT.encode()) == old_llama.encode(TEXT)


def test_a_tokenizer_like_that_of_gpt_neox_gives_any_text_back(tokenizer, tmp_path):
    theirs = json.loads(tokenizer.engine.to_str())  # GPT-NeoX adds runs of spaces as plain tokens behind the merges
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    theirs["added_tokens"] += [added | {"id": 290 + n, "content": " " * (24 - n)} for n in range(23)]
    (tmp_path / "tokenizer.json").write_text(json.dumps(theirs))
    neox = Tokenizer.load(tmp_path / "tokenizer.json")
    text = "def f():\n" + " " * 8 + "return  'naïve'"
    assert neox.decode(neox.encode(text)) == text and 306 in neox.encode(text)
    assert neox.byte_lengths()[neox.encode(text)].sum() == len(text.encode())


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
