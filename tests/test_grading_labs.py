"""The labs of this course, and the walls between the rooms."""

import ast
from pathlib import Path

import numpy as np
import pytest
from test_grading_tiny import EXPOSED

from grading.course import Course
from grading.forbidden import forbidden_name
from grading.gradebook import release_labs
from grading.preflight import check_odd_values, disagreements, preflight
from grading.session import WarmParent
from minigpt.evaluate import parses

COURSE = Course(Path(__file__).resolve().parents[1])
ENGINE = sorted((COURSE.root / "grading").glob("*.py"))


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("name", COURSE.lab_names)
def test_a_lab_agrees_with_its_chapter_and_checks(name):
    assert disagreements(COURSE.lab(name)) == []


def test_lab_00_finds_the_end_of_a_function_where_minigpt_does():
    (question,) = (q for q in COURSE.lab("lab00_journey").questions if q.id == "parses")
    for case in question.cases(np.random.default_rng(0)):
        assert question.expected(*case.args) == parses(*case.args), case.label


def test_labs_are_what_the_solutions_generate():
    assert release_labs(COURSE, check=True) == []


@pytest.mark.parametrize("name", COURSE.lab_names)
def test_no_odd_value_is_a_fault_of_a_check(name):
    questions = [question for question in COURSE.lab(name).questions if not question.written]
    assert [fault for question in questions for fault in check_odd_values(question)] == []


@pytest.mark.parametrize(
    ("lab", "question", "line"),
    [
        ("02", "mlp-gradient", "from torch.autograd import backward as b; b(loss)"),
        ("02", "mlp-gradient", "torch.func.grad(loss)(w)"),
        ("02", "mlp-gradient", "torch.autograd.functional.jacobian(loss, w)"),
        ("05", "weights", "torch.ops.aten.scaled_dot_product_attention(q, k, v)"),
        ("05", "step", "torch.ops.aten.scaled_dot_product_attention(q, k, v)"),
        ("06", "grouped", "torch.ops.aten.scaled_dot_product_attention(q, k, v)"),
        ("06", "norms", "torch.ops.aten.layer_norm(x, [4])"),
        ("06", "norms", "torch.native_layer_norm(x, [4], gain, bias, eps)"),
        ("06", "norms", "torch.nn.functional.group_norm(x, 1)"),
    ],
)
def test_what_a_question_asks_for_is_no_call_of_a_library(lab, question, line):
    (asked,) = [one for one in COURSE.lab(lab).questions if one.id == question]
    assert forbidden_name([], f"import torch\n{line}", set(), asked.forbidden)


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSE.lab_names)
def test_a_labs_checks_prove_themselves(name):
    with WarmParent(exposed=EXPOSED) as parent:
        report = preflight(COURSE.lab(name), parent, tell=lambda line: None)
    assert report.faults == []


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.stem)
def test_only_the_warm_worker_knows_minigpt(path):
    assert path.stem == "worker" or not any(name.split(".")[0] == "minigpt" for name in imports_of(path))


def test_neither_checks_nor_expected_values_are_loaded_in_the_worker():
    engine = {name for name in imports_of(COURSE.root / "grading" / "worker.py") if name.startswith("grading")}
    assert engine == {"grading.guard", "grading.wire"}
    for name in ("guard", "wire"):
        assert not any(i.startswith("grading") for i in imports_of(COURSE.root / "grading" / f"{name}.py"))
