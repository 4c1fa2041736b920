"""Things that several tests start from: a small text, its tokenizer, a small model, a short run."""

import dataclasses
import os
import shutil

import pytest
import torch

from grading import sandbox
from minigpt.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from minigpt.corpus import prepare
from minigpt.model import GPT

torch.set_num_threads(1)  # tests run beside other work, and two threads on a busy core are slower than one
QUIET_BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
QUIET_BROWSER += ["--disable-component-update", "--disable-sync"]

LLAMA = ModelConfig(vocab_size=300, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48, max_seq_len=32)
NEOX = dataclasses.replace(LLAMA, n_kv_heads=4, norm="layernorm", mlp="gelu", parallel=True, rotary_fraction=0.25,
                           bias=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that those who run side by side end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(params=[LLAMA, NEOX, dataclasses.replace(LLAMA, tied=True),
                        dataclasses.replace(LLAMA, attention_pieces=3)], ids=["llama", "neox", "tied", "pieces"])
def model_config(request):
    return request.param


@pytest.fixture
def model(model_config):
    return GPT(model_config, seed=1).eval()


@pytest.fixture
def ids(model_config):
    return torch.randint(model_config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def texts(tmp_path):
    """A folder with forty small documents."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(40):
        line = f"Document {i}: the cat sat on the mat, {'very ' * (i % 7)}quietly. 猫 坐 {i * i}\n"
        (folder / f"{i:02}.txt").write_text(line * 8, encoding="utf-8")
    return folder


@pytest.fixture
def short_run(texts):
    """A run of twelve steps on that folder, saved every fourth."""
    return RunConfig(name="short", model=LLAMA, data=DataConfig(source=str(texts), validation_share=0.3),
                     train=TrainConfig(steps=12, batch_size=4, learning_rate=1e-2, warmup_steps=2, save_every=4,
                                       evaluate_every=6, evaluate_tokens=200, precision="32-true"))


@pytest.fixture
def prepared(short_run, tmp_path):
    """The short run, its tokenizer and its folder with shards."""
    folder = tmp_path / "run"
    return short_run, prepare(short_run, folder), folder


@pytest.fixture(scope="module", params=[
    name if name == "bubblewrap" else pytest.param(name, marks=pytest.mark.slow) for name in sandbox.BACKENDS
])  # fmt: skip
def backend(request):
    """Each program that builds sandboxes, in turn; bubblewrap has to be there in CI."""
    fault = sandbox.choose(request.param)[1]
    if fault and not (request.param == "bubblewrap" and os.environ.get("CI")):
        pytest.skip(f"no sandbox, because {fault}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADING_SANDBOX", request.param)
        yield request.param


@pytest.fixture(scope="module")
def parent():
    """A warm parent for the course's own answers, which need no sandbox."""
    from grading.session import WarmParent

    with WarmParent(exposed=bool(sandbox.fault())) as parent:
        yield parent


@pytest.fixture(scope="session")
def demonstration(tmp_path_factory):
    """A tiny course with its demonstration class, graded once; tests leave it as it is."""
    from test_grading_tiny import EXPOSED, tiny_course

    from grading.demonstration import build_class
    from grading.record import grade
    from grading.session import WarmParent

    course = tiny_course(tmp_path_factory.mktemp("course"))
    folder = build_class(course, [course.lab("01")], lambda line: None)
    with WarmParent(exposed=EXPOSED) as parent:
        return course, folder, grade(course, folder, parent, lambda line: None)


@pytest.fixture
def course(tmp_path, demonstration):
    """A fresh tiny course whose checks have already proven themselves."""
    from test_grading_tiny import tiny_course

    course = tiny_course(tmp_path / "course")
    shutil.copytree(demonstration[0].work / "proven", course.work / "proven")
    return course


def missing(what: str) -> None:
    """Skip on a learner's machine; fail in CI."""
    pytest.fail(what) if os.environ.get("CI") == "true" else pytest.skip(what)


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all tests."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing("no Chromium on this machine: install it to test the site (`apt install chromium`)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=QUIET_BROWSER)
        yield chromium
        chromium.close()
