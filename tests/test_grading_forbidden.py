"""What a question forbids is found in the text, is stopped at run time, and nothing honest is refused."""

import time

import pytest
from test_grading_tiny import EXPOSED

from grading.course import Cell
from grading.forbidden import LONGEST_KEPT, _statements, asked_names, forbidden_name, imports, statements
from grading.question import Call, Probe, Read
from grading.session import Failure, Session, Step, Value, WarmParent

ENTROPY = "torch.nn.functional.cross_entropy"
NAMES = (ENTROPY, "minigpt", "sum", ".backward")
FUNCTIONAL = "import torch.nn.functional as F"


def found(answer, *cells, asked=("f",), names=NAMES):
    """What is found in the answer cell among other cells; a cell in a tuple is the course's."""
    cells = [(cell[0], False) if isinstance(cell, tuple) else (cell, True) for cell in cells]
    return forbidden_name(cells, answer, set(asked), names)


@pytest.mark.parametrize(
    ("source", "forbidden", "is_found"),
    [
        ("import torch.autograd", "torch.autograd", True),
        ("from torch import autograd", "torch.autograd", True),
        ("from torch.autograd import grad", "torch.autograd", True),
        ("import torch as t\nt.autograd.grad(x)", "torch.autograd", True),
        ("import torch\ntorch.sum(x)", "torch.autograd", False),
        ("%time y = sum(x)", "sum", True),
        ("%%timeit -n 10 -r3\ny = sum(x)", "sum", True),
        ("%matplotlib inline\ny = sum(x)", "sum", True),
        ("y = x.sum()", "sum", False),
        ("loss.backward()", ".backward", True),
        ("# torch.autograd", "torch.autograd", False),
        ("def broken(", "sum", False),
    ],
)
def test_a_forbidden_name_is_found_in_the_answer_cell(source, forbidden, is_found):
    assert bool(found(source, names=(forbidden,))) is is_found


@pytest.mark.parametrize(
    ("answer", "cells", "name"),
    [
        ("def f(x): return F.cross_entropy(x)", [(FUNCTIONAL,)], ENTROPY),
        ("def f(x): return getattr(F, 'cross_' + 'entropy')(x)", [(FUNCTIONAL,)], ENTROPY),
        ("def f(x): return F.__dict__['cross_entropy'](x)", [FUNCTIONAL], ENTROPY),
        ("def f(x): return help(x)", [f"from {ENTROPY.rpartition('.')[0]} import cross_entropy as ce",
                                      "def help(x): return ce(x)"], ENTROPY),
        ("from torch.nn.functional import *\ndef f(x): return cross_entropy(x)", [], ENTROPY),
        ("def f(x):\n    import torch\n    n = torch.nn\n    return n.functional.cross_entropy(x)", [], ENTROPY),
        ("def f(x): return __import__('minigpt').x", [], "minigpt"),
        ("def f(x):\n    m = importlib.import_module('mini' + 'gpt')\n    return m.x", ["import importlib"], "minigpt"),
        ("import sys\ndef f(x): return sys.modules['minigpt'].x", [], "minigpt"),
        ("def f(x): return eval('sum(x)')", [], "sum"),
        ("def f(x): return eval(compile('sum(x)', 'text', 'eval'))", [], "sum"),
        ("def f(x): return globals()['help'](x)", ["help = sum"], "sum"),
        ("import builtins\ndef f(x): return builtins.__dict__['sum'](x)", [], "sum"),
        ("def f(x): return 0", ["def g(x): return sum(x)", "f = g"], "sum"),
        ("def f(x): return box.help(x)", ["import types\nbox = types.SimpleNamespace()", "box.help = sum"], "sum"),
    ],
)  # fmt: skip
def test_a_forbidden_name_is_found_in_whatever_the_answer_is_made_of(answer, cells, name):
    assert found(answer, *cells) == name


@pytest.mark.parametrize(
    ("answer", "cells"),
    [
        ("def f(x):\n    'like cross_entropy and sum'\n    loss = 0\n    return loss",
         ["from torch.nn.functional import cross_entropy\nloss = cross_entropy(f(1), 2)\nprint(sum([loss]))"]),
        ("def f(x):\n    sum = 0\n    for y in x: sum += y\n    return sum", []),
        ("def f(x): return F.relu(x)", [FUNCTIONAL, "F.cross_entropy(f(1))"]),
        ("def f(x): return help(x)", [("import minigpt\ndef help(x): return minigpt.x",)]),
        ("def f(x): return x", ["def g(x): return sum(x)"]),
        ("def f(x): return np.sum(x)", ["import numpy as np"]),
        ("loss = 3\ndef f(x): return loss", ["loss = sum([1, 2])"]),
        ("x = await y", []),
        ("import re\ndef f(x): return re.compile('sum').match(x)", []),
    ],
)  # fmt: skip
def test_trying_out_beside_the_answer_and_the_courses_own_cells_are_free(answer, cells):
    assert found(answer, *cells) == ""


@pytest.mark.parametrize("lines", [
    [f"x{n} = x{n + 1}" for n in range(10_000)],
    [f"x{n} = x{n + 1}" for n in reversed(range(10_000))],
    [f"x{n} = x{n + 1}.a" for n in range(10_000)],
    ["x0 = x0.a"] * 5_000 + ["x0 = x1; x1 = x0"] * 5_000,
    [f"x0 = x1{'.b' * 600}"] * 100,
], ids=["chain", "reversed", "growing", "circle", "deep"])
def test_ten_thousand_lines_are_read_in_a_moment(lines):
    started = time.process_time()
    assert found("def f(x): return x0", "\n".join([*lines, "x10000 = x1 = sum"])) == "sum"
    assert time.process_time() < started + 15


def test_more_text_than_anybody_writes_is_not_read():
    with pytest.raises(ValueError, match="the cells hold 600,000 characters"):
        found("def f(x): return x", "x = 1\n" * 100_000)


def test_an_alias_of_an_alias_is_seen_through():
    names = [f"n{i} = n{i + 1}" for i in range(40)]
    assert found("def f(x): return n0.functional.cross_entropy(x)", *names, "import torch\nn40 = torch.nn") == ENTROPY


def test_a_case_asks_for_names():
    assert asked_names(Call("f", 1)) == asked_names(Read("f")) == ["f"]
    assert asked_names(Probe("box = Box(n)\nanswer = [box.next() for _ in range(n)]", {"n": 2})) == ["Box"]


def test_the_modules_of_a_lab_are_those_that_its_cells_import_at_the_top():
    source = "%matplotlib inline\nimport torch.nn.functional as F, json\nfrom pathlib import Path\nfrom . import x"
    inner = Cell("code", "def f():\n    import wave")
    assert imports([Cell("code", source), inner, Cell("markdown", "import no")]) == \
        {"torch.nn.functional", "json", "pathlib"}


# --- at run time ---


@pytest.fixture(scope="module")
def parent():
    with WarmParent(exposed=EXPOSED, modules={"torch.nn.functional"}) as parent:
        yield parent


def ask(parent, forbidden, answer, *cells):
    """What f(1.0) gives while the names are forbidden, and what it gives afterwards; a cell in a tuple is the course's.

    The text is not looked at.
    """
    steps = [Step(f"cell-{n}", "".join(cell), isinstance(cell, tuple)) for n, cell in enumerate(cells)]
    with Session(parent, [*steps, Step("answer", answer, forbidden=forbidden)]) as running:
        (guarded,) = running.ask([Call("f", 1.0)], 5, forbidden)
        (free,) = running.ask([Call("f", 1.0)], 5)
    return guarded, free


LOGITS = f"import torch\n{FUNCTIONAL}\nx, y = torch.zeros(2, 3), torch.tensor([0, 1])\nname = 'cross_' + 'entropy'"
TINY = ("from minigpt.config import ModelConfig\nfrom minigpt.model import GPT\nimport torch\n"
        "model = GPT(ModelConfig(vocab_size=9, n_layers=1, d_model=8, n_heads=2, n_kv_heads=2, d_ff=8, max_seq_len=8))")
WEIGHTS = "import torch\nw = torch.ones(3, requires_grad=True)"


@pytest.mark.parametrize(
    ("forbidden", "answer", "cell"),
    [
        (ENTROPY, "def f(_): return getattr(F, name)(x, y)", LOGITS),
        (ENTROPY, "def f(_): return box[0](x, y)", f"{LOGITS}\nbox = [F.cross_entropy]"),
        (ENTROPY, "def f(_): return torch.vmap(getattr(F, name))(x[None], y[None])", LOGITS),
        (ENTROPY, "def f(_): return eval('F.cross_' + 'entropy' + '(x, y)')", LOGITS),
        ("math.fsum", "def f(x): return list(map(vars(math)['fs' + str('um')], [[x]]))", "import math"),
        ("math.fsum", "def f(x): return p()", "import math, functools\np = functools.partial(math.fsum, [1.0])"),
        ("sum", "def f(x): return vars(builtins)['s' + str('um')]([x])", "import builtins"),
        ("exec", "def f(x):\n    vars(builtins)['ex' + str('ec')]('1')\n    return x", "import builtins"),
        ("numpy.add", "def f(x): return np.add(x, x)", "import numpy as np"),
        ("torch.Tensor.softmax", "def f(_): return torch.ones(3).softmax(0)", "import torch"),
        ("torch.autograd", "def f(_): return torch.autograd.grad(w.sum(), w)[0]", WEIGHTS),
        ("torch.Tensor.backward", "def f(_):\n    w.sum().backward()\n    return w.grad", WEIGHTS),
        ("torch.nn.LayerNorm", "class N(nn.LayerNorm): pass\ndef f(_): return N(3).eps", "from torch import nn"),
        ("minigpt", "def f(_): return model(torch.zeros(1, 4, dtype=int)).sum()", TINY),
        ("minigpt", "def f(_):\n    m = __import__('mini' + 'gpt.recipes')\n    return m.recipes.journey().name", ""),
    ],
)
def test_the_guard_stops_it_while_the_question_is_asked_and_only_then(parent, forbidden, answer, cell):
    guarded, free = ask(parent, (forbidden,), answer, cell)
    assert guarded == Failure("Forbidden", forbidden)
    assert isinstance(free, Value)


@pytest.mark.parametrize(
    ("forbidden", "answer", "cell"),
    [
        (ENTROPY, "def f(_): return torch.nn.CrossEntropyLoss()(x, y)", LOGITS),
        (ENTROPY, "def f(_): return given()", (f"{LOGITS}\ndef given(): return F.cross_entropy(x, y)",)),
        ("exec", "def f(x): return namedtuple('Pair', 'a b')(x, 2)[0]", "from collections import namedtuple"),
        ("torch.nn.LayerNorm", "def f(_): return layer(torch.ones(1, 3, 4)).shape[0]",
         "import torch\nlayer = torch.nn.TransformerEncoderLayer(4, 2, 8)"),
        ("torch.autograd.grad", "def f(_):\n    w.sum().backward()\n    return w.grad", WEIGHTS),
        ("numpy.add", "def f(x): return np.cumsum([x, x])", "import numpy as np"),
        ("no.such.thing", "def f(x): return x", ""),
        ("str.join", "def f(x): return ','.join(['a'])", ""),  # a type in C: only the text can be judged
    ],
)  # fmt: skip
def test_a_librarys_and_the_courses_own_use_goes_on_working(parent, forbidden, answer, cell):
    guarded, free = ask(parent, (forbidden,), answer, cell)
    assert isinstance(guarded, Value) and isinstance(free, Value)


FALSE_NAMES = ("<course x>", "<course probe>", "/usr/lib/python3/x.py", "<frozen importlib x>")


@pytest.mark.parametrize("name", FALSE_NAMES)
def test_a_text_does_not_pass_for_the_courses_a_librarys_or_the_importers(parent, name):
    answer = f"def f(x): return eval(compile('math.fsum([x, x])', {name!r}, 'eval'), {{'math': math, 'x': x}})"
    guarded, _ = ask(parent, ("math.fsum",), answer, "import math")
    assert isinstance(guarded, Failure) and guarded.kind in ("Forbidden", "ValueError")


def test_a_text_may_have_any_other_name(parent):
    answer = "def f(x): return eval(compile('2 * x', 'mine.py', 'eval'), {'x': x})"
    assert ask(parent, ("math.fsum",), answer) == (Value(2.0), Value(2.0))


def test_a_stand_in_keeps_what_it_stands_for(parent):
    guarded, free = ask(parent, ("numpy.add", "sum"), "def f(x):\n    return np.add.reduce([x, x]) + sum([x])",
                        "import numpy as np")
    assert guarded.kind == "Forbidden" and free == Value(3.0)


def test_a_second_copy_of_what_is_forbidden_is_not_made(parent):
    cell = "import sys, minigpt.recipes as old\ndel sys.modules['minigpt.recipes']\nimport minigpt.recipes"
    with Session(parent, [Step("copy", cell), Step("answer", "", forbidden=("minigpt",))]) as running:
        running.ready()
        assert running.failures["copy"] == Failure("Forbidden", "minigpt")


@pytest.mark.parametrize("forbidden", ["torch.nn", "torch.nn.functional.relu"])
def test_what_stands_under_two_forbidden_names_is_barred_under_each(parent, forbidden):
    steps = [Step("x", "import torch"), Step("other", "pass", forbidden=("torch.nn", "torch.nn.functional.relu")),
             Step("answer", "def f(_): return getattr(torch.nn.functional, 're' + 'lu')(torch.ones(1))")]
    with Session(parent, steps) as running:
        assert running.ask([Call("f", 1.0)], 5, (forbidden,)) == [Failure("Forbidden", forbidden)]
        assert isinstance(running.ask([Call("f", 1.0)], 5)[0], Value)


def test_a_copy_that_was_made_while_it_was_allowed_is_barred_too(parent):
    cell = "import types, textwrap\nd = textwrap.dedent\ncopy = types.FunctionType(d.__code__, d.__globals__)"
    guarded, free = ask(parent, ("textwrap.dedent",), "def f(_): return copy(' a')", cell)
    assert guarded == Failure("Forbidden", "textwrap.dedent") and free == Value("a")


def test_what_is_forbidden_is_loaded_before_the_student_can(parent):
    cell = "import sys\nwas_there = 'wave' in sys.modules\nimport wave"
    with Session(parent, [Step("cell", cell), Step("answer", "", forbidden=("wave.open",))]) as running:
        assert running.ask([Read("was_there")], 5) == [Value(True)]


def test_a_huge_cell_is_read_and_not_kept():
    before = _statements.cache_info().currsize
    assert len(statements("x = 1\n" * LONGEST_KEPT)) == LONGEST_KEPT
    assert _statements.cache_info().currsize == before


def test_code_that_swallows_the_refusal_gets_no_value(parent):
    answer = "def f(x):\n    try:\n        return fsum([x, x])\n    except BaseException:\n        return 'refused'"
    assert ask(parent, ("math.fsum",), answer, "from math import fsum") == (Value("refused"), Value(2.0))
