import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from minigpt.model import GPT, Cache, rotary_angles, rotate


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
    cos, sin = rotary_angles(model_config, 32, torch.device("cpu"))
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


def test_a_token_sees_its_own_document_alone(model, ids):
    documents = torch.tensor([[0] * 7 + [1] * 13, [5] * 19 + [6]])
    whole = model(ids, documents=documents)
    torch.testing.assert_close(whole[:1, 7:], model(ids[:1, 7:]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole[:1, :7], model(ids[:1, :7]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole[1:, 19:], model(ids[1:, 19:]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(whole[:1, 7:], model(ids)[:1, 7:], atol=1e-4)


@pytest.mark.parametrize("cuts", [[1] * 20, [7, 13], [9, 1, 10]], ids=str)
def test_any_split_of_the_cache_keeps_documents_apart(model, ids, cuts):
    documents = torch.tensor([[0] * 7 + [1] * 13, [0] * 3 + [1] * 12 + [2] * 5])
    cache = Cache(model.config, 2, ids.device, torch.float32)
    pieces = [model(piece, cache, marks)
              for piece, marks in zip(ids.split(cuts, dim=1), documents.split(cuts, dim=1), strict=True)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids, documents=documents), atol=1e-5, rtol=1e-5)
