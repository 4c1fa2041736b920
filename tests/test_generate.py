"""Generation: what is drawn, how it is cut, and that a batch writes what its rows would write alone."""

import dataclasses

import pytest
import torch

from minigpt.generate import Sampling, complete, complete_many, generate, left_pad, next_tokens, pick, stream
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer


def draws(n):
    return torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def test_greedy_generation_repeats_the_argmax_without_a_cache(model, ids):
    made = generate(model, ids[:, :5], 10, Sampling(temperature=0))
    slow = ids[:, :5]
    for _ in range(10):
        slow = torch.cat((slow, model(slow)[:, -1].argmax(-1, keepdim=True)), dim=1)
    assert torch.equal(made, slow)


def test_the_same_seed_writes_the_same_text(model, ids):
    first, again, other = (generate(model, ids, 8, Sampling(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(("keep", "allowed"), [
    ({"top_k": 2}, {0, 1}), ({"top_p": 0.7}, {0, 1}), ({"top_p": 0.5}, {0}), ({"min_p": 0.15}, {0, 1, 2}),
    ({"min_p": 0.5}, {0}), ({"top_k": 3, "top_p": 0.7}, {0, 1}), ({}, {0, 1, 2, 3})], ids=str)
def test_sampling_keeps_only_the_likely_tokens(keep, allowed):
    logits = torch.tensor([0.6, 0.25, 0.1, 0.05]).log().repeat(2000, 1)
    assert set(pick(logits, Sampling(**keep), draws(2000)).tolist()) == allowed


@pytest.mark.parametrize(("setting", "sentence"), [
    ({"temperature": -1.0}, "temperature is -1.0"), ({"temperature": float("nan")}, "temperature is nan"),
    ({"temperature": float("inf")}, "temperature is inf"), ({"top_k": 0}, "top_k is 0"),
    ({"top_p": 0.0}, "top_p is 0.0"), ({"min_p": 1.5}, "min_p is 1.5")], ids=str)
def test_an_impossible_sampling_is_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampling(**setting)


@pytest.mark.parametrize("keep", [{"top_k": 2}, {"top_p": 0.55}], ids=str)
def test_of_equal_tokens_the_first_are_kept_and_no_more_than_asked_for(keep):
    logits = torch.tensor([0.1, 0.3, 0.3, 0.3]).log().repeat(2000, 1)
    assert set(pick(logits, Sampling(**keep), draws(2000)).tolist()) == {1, 2}
    assert set(pick(logits, Sampling(top_k=1), draws(2000)).tolist()) == {1}
    assert set(pick(torch.zeros(2000, 4), Sampling(top_k=9), draws(2000)).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-40, 1e-300])
def test_a_temperature_near_zero_takes_the_likeliest_token(temperature):
    logits = 100 * torch.randn(50, 300, generator=torch.Generator().manual_seed(0))
    for row in (logits, logits - 1e4):
        assert torch.equal(pick(row, Sampling(temperature=temperature), draws(50)), row.argmax(dim=-1))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_are_not_finite_are_refused(wrong, temperature):
    logits = torch.zeros(2, 4)
    logits[1, 2] = wrong
    with pytest.raises(ValueError, match="the model's scores are not finite"):
        pick(logits, Sampling(temperature=temperature), draws(2))


def test_sampling_follows_the_probabilities():
    probabilities = torch.tensor([0.6, 0.25, 0.1, 0.05])
    picked = pick(probabilities.log().repeat(20_000, 1), Sampling(), draws(20_000))
    torch.testing.assert_close(picked.bincount(minlength=4) / 20_000, probabilities, atol=0.015, rtol=0)


@pytest.mark.parametrize(("n", "new", "sentence"), [
    (0, 5, "no tokens"), (30, 5, "ask for at most 2"), (40, 5, "shorten the prompt")])
def test_a_prompt_that_does_not_fit_is_refused(model, n, new, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate(model, torch.zeros(1, n, dtype=torch.long), new, Sampling())


def test_an_unknown_id_is_refused(model):
    with pytest.raises(ValueError, match="an id outside 0 to 299"):
        generate(model, torch.tensor([[5, 300]]), 3, Sampling())


def test_a_completion_starts_with_its_prompt_and_stops_at_the_end_of_the_text():
    from conftest import LLAMA

    tokenizer = Tokenizer.train(["the cat sat on the mat, the rat ran over it. " * 9], 270)
    model = GPT(dataclasses.replace(LLAMA, vocab_size=270))
    texts = complete(model, tokenizer, "the cat", 12, samples=3)
    assert len(texts) == 3 and all(text.startswith("the cat") for text in texts)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[tokenizer.end_of_text] = 1e3
        model.norm.weight.zero_()
    assert complete(model, tokenizer, "the cat", 12, sampling=Sampling(temperature=0)) == ["the cat"]


@pytest.fixture(scope="module")
def writer():
    """A model and a tokenizer with characters of several bytes."""
    from conftest import LLAMA

    tokenizer = Tokenizer.train(["the cat sat on the mat, 猫坐在垫子上。 " * 9], 280)
    return GPT(dataclasses.replace(LLAMA, vocab_size=280), seed=3).eval(), tokenizer


def streamed(writer, seed, **options):
    return list(stream(*writer, "the cat", 24, sampling=Sampling(seed=seed), **options))


@pytest.mark.parametrize("seed", range(5))
def test_streamed_pieces_add_up_to_the_completed_text(writer, seed):
    text = complete(*writer, "the cat", 24, sampling=Sampling(seed=seed))[0]
    assert "the cat" + "".join(streamed(writer, seed)) == text


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_stop_string_ends_the_text_before_it_wherever_tokens_are_cut(writer, seed, length):
    text = "".join(streamed(writer, seed))
    for start in range(0, len(text) - length, 3):
        word = text[start : start + length]
        assert "".join(streamed(writer, seed, stop=[word, "never there"])) == text[: text.find(word)]


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(seed=4), Sampling(top_k=20, top_p=0.9)],
                         ids=["greedy", "free", "among the likely"])
def test_a_batch_of_unequal_prompts_writes_what_its_rows_write_alone(model, sampling):
    prompts = [[5], [7, 8, 9, 10, 11], [40, 41, 42], [250] * 12]
    ids, documents = left_pad(prompts)
    rows = torch.stack(list(next_tokens(model, ids, 15, sampling, documents)), dim=1)
    for i, prompt in enumerate(prompts):
        alone = dataclasses.replace(sampling, seed=sampling.seed + i)
        assert rows[i].tolist() == generate(model, torch.tensor([prompt]), 15, alone)[0, len(prompt) :].tolist()


def test_a_batch_is_written_as_its_prompts_are_streamed(writer):
    prompts = ["", "the cat", "on the mat, 猫坐在", "the"]
    for stop in ((), ("a", "坐")):
        texts = complete_many(*writer, prompts, 12, sampling=Sampling(seed=7), stop=stop)
        for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            assert text == prompt + "".join(stream(*writer, prompt, 12, sampling=Sampling(seed=7 + i), stop=stop))


def test_the_longer_of_two_stop_strings_counts_if_it_begins_first(writer):
    text = "".join(streamed(writer, 1))
    assert "".join(streamed(writer, 1, stop=[text[3:9], text[5]])) == text[: min(3, text.find(text[5]))]


def test_fewer_tokens_than_none_are_refused(writer):
    with pytest.raises(ValueError, match="max_new_tokens is -1 but counts tokens"):
        list(stream(*writer, "the cat", -1))


@pytest.mark.parametrize(("prompt", "new", "sentence"), [
    ("the cat", -1, "max_new_tokens is -1"), ("the cat " * 20, 5, "shorten the prompt")])
def test_a_stream_is_refused_before_its_first_piece(writer, prompt, new, sentence):
    with pytest.raises(ValueError, match=sentence):
        stream(*writer, prompt, new)
    with pytest.raises(ValueError, match="a stop string is empty"):
        stream(*writer, prompt[:7], 3, stop=[""])


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(), Sampling(top_k=400)], ids=str)
def test_ids_that_the_tokenizer_lacks_are_never_drawn(writer, sampling):
    """Models in Hugging Face's format often have a few more ids than their tokenizer, for round sizes."""
    from conftest import LLAMA

    padded, tokenizer = GPT(dataclasses.replace(LLAMA, vocab_size=400), seed=3).eval(), writer[1]
    with torch.no_grad():
        padded.head.weight[:280] = 0
        padded.head.weight[280:] *= 1e3
    text = complete(padded, tokenizer, "the cat", 20, samples=3, sampling=sampling)[0]
    assert text == "the cat" + "".join(stream(padded, tokenizer, "the cat", 20, sampling=sampling))


def test_no_text_at_all_is_refused(writer):
    with pytest.raises(ValueError, match="samples is 0 but counts texts"):
        complete(*writer, "the cat", 3, samples=0)
    with pytest.raises(ValueError, match="there are no prompts"):
        complete_many(*writer, [], 3)


def test_an_empty_stop_string_is_refused(writer):
    with pytest.raises(ValueError, match="a stop string is empty"):
        streamed(writer, 0, stop=[""])


def test_a_batch_with_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="a prompt has no tokens"):
        left_pad([[1, 2], []])
