"""What was trained is judged by measuring it: a tiny real model, trained in the worker, weighed outside."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_grading_tiny import EXPOSED, question

from grading.course import write_whole
from grading.judge import RIGHT, WRONG, Judge, say
from grading.question import Probe, Wrong
from grading.session import Session, Step, Value, WarmParent
from grading.trained import Trained
from minigpt.config import ModelConfig
from minigpt.model import GPT

CONFIG = ModelConfig(vocab_size=11, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, d_ff=32, max_seq_len=16)
CASE = Probe("answer = weights")


def counting(starts):
    """Texts that count upwards, modulo 11, in steps of one: what there is to learn."""
    return (torch.tensor(starts)[:, None] + torch.arange(16)) % 11


def loss_on(ids):
    def loss(model):
        return float(F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()))

    return loss


GIVEN = torch.from_numpy(np.random.default_rng(1).integers(11, size=(4, 16)))  # noise: nothing but itself to learn
TRAINED = Trained(model=functools.partial(GPT, CONFIG), unseen_loss=loss_on(counting([2, 5, 9])), at_most=0.5,
                  untrained=2.2, given_loss=loss_on(GIVEN))

TRAINING = """
import torch, torch.nn.functional as F
from minigpt.config import ModelConfig
from minigpt.model import GPT
torch.manual_seed(0)
model = GPT(ModelConfig(vocab_size=11, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, d_ff=32, max_seq_len=16))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
for step in range({steps}):
    ids = {data}
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
weights = model.state_dict()
"""
HONEST = TRAINING.format(steps=60, data="(torch.randint(11, (8, 1)) + torch.arange(16)) % 11")
MEMORIZED = TRAINING.format(steps=200, data=f"torch.tensor({GIVEN.tolist()})")
RANDOM = TRAINING.format(steps=0, data="None")

ANSWERS = {
    "nan": HONEST + "weights['norm.weight'][0] = float('nan')",
    "shape": HONEST + "weights['norm.weight'] = torch.ones(17)",
    "missing": HONEST + "del weights['head.weight']",
    "extra": HONEST + "weights['huge'] = torch.zeros(5_000_000)",
    "claims": RANDOM + "weights['loss'] = torch.tensor(0.0)",
    "too-large": HONEST + "weights['head.weight'] = torch.zeros(50_000_000)",
    "module": HONEST + "weights = model",
    "texts": HONEST + "weights = {name: 'good' for name in weights}",
    "whole-numbers": HONEST + "weights = {name: tensor.long() for name, tensor in weights.items()}",
    "loss-that-lies": RANDOM + "F.cross_entropy = lambda *_, **__: torch.tensor(0.0)\nGPT.forward = lambda *_: 0",
}


@pytest.fixture(scope="module")
def parent():
    with WarmParent(exposed=EXPOSED) as parent:
        yield parent


def weights_of(parent, source):
    with Session(parent, [Step("answer", source)]) as running:
        return running.ask([CASE], 5)[0]


QUESTION = question(
    cases=lambda rng: [CASE], expected=None, accepts=TRAINED,
    wrong=(Wrong("untrained", RANDOM, "The weights are as they were at the start.", when=TRAINED.is_untrained),
           Wrong("memorized", MEMORIZED, "It knows the given text by heart.", when=TRAINED.is_memorized),
           Wrong("number", "weights = 0.01", "This is a loss and no state dict.",
                 when=lambda given, expected, case: isinstance(given, float))),
)  # fmt: skip


def judged(parent, source):
    """The judgement of an answer to the question, without a lab around it."""
    judge = object.__new__(Judge)
    with Session(parent, [Step("q", source)]) as running:
        return judge._compare(QUESTION, running, [CASE], untouched=False)


def test_honest_training_earns_the_points(parent):
    judgement = judged(parent, HONEST)
    assert (judgement.status, judgement.points) == (RIGHT, QUESTION.points)


@pytest.mark.parametrize("name", ["untrained", "memorized", "number"])
def test_a_listed_mistake_is_called_by_its_name(parent, name):
    source = next(wrong.source for wrong in QUESTION.wrong if wrong.name == name)
    judgement = judged(parent, source)
    assert (judgement.status, judgement.points, judgement.recognized) == (WRONG, 0, name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan", "norm.weight holds NaN"),
        ("shape", "norm.weight has the shape (17,)"),
        ("missing", "head.weight is missing"),
        ("extra", "no tensor huge"),
        ("claims", "no tensor loss"),
        ("too-large", "the limit is"),
        ("module", "of type GPT"),
        ("texts", "no array"),
        ("whole-numbers", "no array of floating-point"),
        ("loss-that-lies", "The weights are as they were"),
    ],
)
def test_weights_that_do_not_fit_gain_nothing_and_are_told_why(parent, name, words):
    judgement = judged(parent, ANSWERS[name])
    assert (judgement.status, judgement.points) == (WRONG, 0)
    assert words in judgement.sentence


def test_a_model_that_has_learned_too_little_reads_its_own_loss():
    model = GPT(CONFIG)
    with torch.no_grad():
        model.head.weight.zero_()
    half = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    lenient = Trained(model=TRAINED.model, unseen_loss=TRAINED.unseen_loss, at_most=0.5, untrained=9.0)
    assert "has a loss of 2.40" in lenient.sentence(half)  # ln 11
    assert not lenient.is_untrained(half) and not lenient.is_memorized(half) and not lenient(half)
    assert say(question(accepts=lenient), CASE, Value(half), None, None) == lenient.sentence(half)


@pytest.mark.parametrize("odd", [None, "text", float("nan"), [], {}, {1: 2}, {"head.weight": None}, np.zeros(3)])
def test_it_survives_whatever_comes(odd):
    assert TRAINED(odd) is False and TRAINED.sentence(odd)


def test_the_sentence_about_an_odd_name_can_be_written(tmp_path):
    odd = {name: tensor.numpy() for name, tensor in GPT(CONFIG).state_dict().items()} | {"\ud800\n": np.zeros(1)}
    assert write_whole(tmp_path / "result.json", TRAINED.sentence(odd))
    assert "no tensor ??:" in TRAINED.sentence(odd)


def test_the_limits_must_make_sense():
    with pytest.raises(ValueError, match="the smaller one first"):
        Trained(model=GPT, unseen_loss=float, at_most=2, untrained=1)


def test_labs_that_train_nothing_start_without_pytorch():
    code = "import grading.record, grading.trained, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
