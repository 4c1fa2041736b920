"""A small lab on torch for bench/grading_speed.py: four questions, with checks, in the course's own form."""

import json
from pathlib import Path

NAME = "lab01_torch"

CHECKS = '''
"""Axes: B batch, T time, D width."""
import math

import torch

from grading.question import Call, Question, Right, Wrong, close

HINTS = ("Look at the shapes.", "Think of one row.", "Begin with `return`.")

def attention(q, k, v):
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    hidden = torch.ones(q.shape[-2], q.shape[-2]).triu(1).bool()
    return scores.masked_fill(hidden, -math.inf).softmax(-1) @ v

def rms_norm(x, gain):
    return gain * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

def loss(logits, ids):
    return float(torch.nn.functional.cross_entropy(logits, ids))

def slope(w, x, y):
    w = w.clone().requires_grad_()
    (x @ w - y).square().mean().backward()
    return w.grad

def draw(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape)).float()

def rows(f):
    return lambda *given: f(*(torch.as_tensor(array) for array in given)).numpy()

def cases(name, *shapes):
    return lambda rng: [Call(name, *(draw(rng, *shape).numpy() for shape in shapes)) for _ in range(4)]

def question(id, expected, cases, wrong, right, part, points):
    return dict(id=id, title=id, points=points, part=part, teaches="torch-lab", hints=HINTS, cases=cases,
                expected=expected, accepts=close(1e-4), seconds=10,
                wrong=tuple(Wrong(f"wrong {n}", text, f"Mistake {n}.") for n, text in enumerate(wrong, 1)),
                right=tuple(Right(f"right {n}", text) for n, text in enumerate(right, 1)))

def answers(head, *bodies):
    return [f"def {head}:\\n    {body}" for body in bodies]

T = "torch.as_tensor"
ATTENTION = Question(**question(
    "attention", rows(attention), cases("attention", (2, 16, 8), (2, 16, 8), (2, 16, 8)),
    answers("attention(q, k, v)",
            f"q, k, v = map({T}, (q, k, v)); return (q @ k.mT / 8 ** 0.5).softmax(-1) @ v",
            f"q, k, v = map({T}, (q, k, v)); return torch.nn.functional.scaled_dot_product_attention("
            "q, k, v, is_causal=True, scale=1.0)",
            f"q, k, v = map({T}, (q, k, v)); return (q @ k.mT / 8 ** 0.5).tril() @ v"),
    answers("attention(q, k, v)",
            f"return torch.nn.functional.scaled_dot_product_attention(*map({T}, (q, k, v)), is_causal=True)",
            f"q, k, v = map({T}, (q, k, v)); s = q @ k.mT / 8 ** 0.5; "
            "return (s + torch.full_like(s, float('-inf')).triu(1)).softmax(-1) @ v"), "core", 40))
NORM = Question(**question(
    "rms-norm", rows(rms_norm), cases("rms_norm", (4, 32), (32,)),
    answers("rms_norm(x, gain)", f"x = {T}(x); return {T}(gain) * x / x.norm(dim=-1, keepdim=True)",
            f"x = {T}(x); return x / x.square().mean(-1, keepdim=True).sqrt()",
            f"x = {T}(x); return {T}(gain) * (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)"),
    answers("rms_norm(x, gain)", f"return torch.nn.functional.rms_norm({T}(x), (32,), {T}(gain), eps=1e-6)",
            f"x = {T}(x); return {T}(gain) * x * torch.rsqrt((x ** 2).mean(-1, keepdim=True) + 1e-6)"), "core", 30))
LOSS = Question(**question(
    "loss", lambda logits, ids: loss(torch.as_tensor(logits), torch.as_tensor(ids)),
    lambda rng: [Call("loss", draw(rng, 16, 64).numpy(), rng.integers(64, size=16)) for _ in range(4)],
    answers("loss(logits, ids)", f"return float(-{T}(logits).softmax(-1)[range(16), ids].mean())",
            f"return float(torch.nn.functional.cross_entropy({T}(logits), {T}(ids), reduction='sum'))",
            f"return float({T}(logits).log_softmax(-1)[range(16), ids].mean())"),
    answers("loss(logits, ids)", f"return float(-{T}(logits).log_softmax(-1)[range(16), ids].mean())",
            f"x = {T}(logits); return float((x.logsumexp(-1) - x[range(16), ids]).mean())"), "stretch", 20))
SLOPE = Question(**question(
    "slope", rows(slope), cases("slope", (8,), (32, 8), (32,)),
    answers("slope(w, x, y)", f"w, x, y = map({T}, (w, x, y)); return x.T @ (x @ w - y) / 32",
            f"w, x, y = map({T}, (w, x, y)); return 2 * x.T @ (x @ w - y)",
            f"w, x, y = map({T}, (w, x, y)); return -2 * x.T @ (x @ w - y) / 32"),
    answers("slope(w, x, y)", f"w, x, y = map({T}, (w, x, y)); return 2 * x.T @ (x @ w - y) / 32",
            f"w = {T}(w).requires_grad_(); e = {T}(x) @ w - {T}(y); e.pow(2).mean().backward(); return w.grad"),
    "record", 10))
QUESTIONS = [ATTENTION, NORM, LOSS, SLOPE]
'''

SOLUTIONS = {
    "attention": ("attention(q, k, v)", 40, "q, k, v = (torch.as_tensor(a) for a in (q, k, v))\n"
                  "    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)"),
    "rms-norm": ("rms_norm(x, gain)", 30, "x = torch.as_tensor(x)\n"
                 "    return torch.as_tensor(gain) * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()"),
    "loss": ("loss(logits, ids)", 20,
             "return float(torch.nn.functional.cross_entropy(torch.as_tensor(logits), torch.as_tensor(ids)))"),
    "slope": ("slope(w, x, y)", 10, "w = torch.as_tensor(w).requires_grad_()\n"
              "    (torch.as_tensor(x) @ w - torch.as_tensor(y)).square().mean().backward()\n    return w.grad"),
}
HINTS = ("Look at the shapes.", "Think of one row.", "Begin with `return`.")


def cell(kind: str, name: str, source: str, **marks: object) -> dict:
    metadata = {"nbgrader": {"schema_version": 3, "grade": False, "solution": False, "locked": False} | marks}
    made = {"cell_type": kind, "id": name, "metadata": metadata if marks else {}, "source": source}
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def notebook() -> dict:
    hints = "\n\n".join(f"<details><summary>Hint {n}</summary>\n\n{text}\n\n</details>"
                        for n, text in enumerate(HINTS, 1))
    cells = [cell("markdown", "title", "# Lab 01: torch"), cell("markdown", "hints", hints),
             cell("code", "setup", "import torch", grade_id="setup", locked=True)]
    for name, (head, points, body) in SOLUTIONS.items():
        source = f"def {head}:\n    ### BEGIN SOLUTION\n    {body}\n    ### END SOLUTION"
        cells.append(cell("code", name, source, grade_id=name, solution=True))
        test = f"assert callable({head.split('(')[0]})"
        cells.append(cell("code", f"test-{name}", test, grade_id=f"test-{name}", grade=True, locked=True,
                          points=points))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def write_lab(root: Path) -> None:
    """Write solution, chapter and checks of the lab into the course in `root`."""
    chapter = {"cells": [{"cell_type": "markdown", "source": ["(torch-lab)=\n## Torch"]}]}
    for path, text in {
        f"solutions/{NAME}/{NAME}.ipynb": json.dumps(notebook(), indent=1) + "\n",
        "notebooks/01_torch.ipynb": json.dumps(chapter),
        f"grading/checks/{NAME}.py": CHECKS,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
