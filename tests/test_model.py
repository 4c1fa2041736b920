import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from minigpt.generate import Sampling, complete, generate, pick, stream
from minigpt.model import GPT, Cache, rotary_angles, rotate
from minigpt.tokenizer import Tokenizer


@pytest.fixture
def model(model_config):
    return GPT(model_config, seed=1).eval()


@pytest.fixture
def ids(model_config):
    return torch.randint(model_config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(2))


def test_a_later_token_does_not_change_earlier_logits(model, ids):
    changed = ids.clone()
    changed[:, 12] = (changed[:, 12] + 1) % model.config.vocab_size
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_the_first_loss_is_that_of_guessing(model, ids):
    loss = F.cross_entropy(model(ids).detach()[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert abs(float(loss) - math.log(model.config.vocab_size)) < 0.1


@pytest.mark.parametrize("cuts", [[20], [1] * 20, [7, 13], [7, 1, 12], [19, 1]], ids=str)
def test_any_split_of_the_cache_gives_the_same_logits(model, ids, cuts):
    cache = Cache(model.config, 2, ids.device, torch.float32)
    pieces = [model(piece, cache) for piece in ids.split(cuts, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), atol=1e-5, rtol=1e-5)


def test_a_batch_gives_what_single_texts_give(model, ids):
    torch.testing.assert_close(model(ids), torch.cat([model(row[None]) for row in ids]), atol=1e-5, rtol=1e-5)


def test_grouped_heads_are_full_heads_that_share_their_keys():
    from conftest import LLAMA

    grouped = GPT(LLAMA, seed=3)
    full = GPT(dataclasses.replace(LLAMA, n_kv_heads=4), seed=3)
    weights = grouped.state_dict()
    for name in [name for name in weights if "to_keys" in name or "to_values" in name]:
        weights[name] = weights[name].view(2, 8, 32).repeat_interleave(2, dim=0).reshape(32, 32)
    full.load_state_dict(weights)
    ids = torch.arange(10)[None]
    torch.testing.assert_close(grouped(ids), full(ids), atol=1e-5, rtol=1e-5)


def test_rotary_scores_depend_on_distance_alone(model_config):
    cos, sin = rotary_angles(model_config, 0, 32, torch.device("cpu"))
    q, k = torch.randn(2, 1, 1, 1, model_config.d_head).expand(2, 1, 1, 32, -1)
    scores = (rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(-1, -2))[0, 0]
    torch.testing.assert_close(scores[5, 2], scores[25, 22], atol=1e-4, rtol=1e-4)
    assert abs(scores[5, 2] - scores[5, 0]) > 1e-4


def test_weights_depend_on_the_seed_and_on_nothing_else(model_config):
    first, again, other = GPT(model_config, 5), GPT(model_config, 5), GPT(model_config, 6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


def test_a_text_that_is_too_long_is_refused(model):
    with pytest.raises(ValueError, match="the text has 33 tokens but max_seq_len is 32"):
        model(torch.zeros(1, 33, dtype=torch.long))


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
    assert set(pick(logits, Sampling(**keep), torch.Generator().manual_seed(0)).tolist()) == allowed


@pytest.mark.parametrize(("setting", "sentence"), [
    ({"temperature": -1.0}, "temperature is -1.0"), ({"top_k": 0}, "top_k is 0"), ({"top_p": 0.0}, "top_p is 0.0"),
    ({"min_p": 1.5}, "min_p is 1.5")], ids=str)
def test_an_impossible_sampling_is_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampling(**setting)


def test_sampling_follows_the_probabilities():
    probabilities = torch.tensor([0.6, 0.25, 0.1, 0.05])
    picked = pick(probabilities.log().repeat(20_000, 1), Sampling(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(picked.bincount(minlength=4) / 20_000, probabilities, atol=0.015, rtol=0)


@pytest.mark.parametrize(("n", "new", "sentence"), [(0, 5, "no tokens"), (30, 5, "ask for at most 2")])
def test_a_prompt_that_does_not_fit_is_refused(model, n, new, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate(model, torch.zeros(1, n, dtype=torch.long), new, Sampling())


def test_an_unknown_id_is_refused(model):
    with pytest.raises(ValueError, match="an id outside 0 to 299"):
        generate(model, torch.tensor([[5, 300]]), 3, Sampling())


def test_a_completion_starts_with_its_prompt_and_stops_at_the_end_of_the_text():
    from conftest import LLAMA

    tokenizer = Tokenizer.train(["the cat sat on the mat, the rat ran over it. " * 9], 270)
    model = GPT(LLAMA)
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
