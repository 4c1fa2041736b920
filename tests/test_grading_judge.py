"""What runs in a worker, what it costs, and how it is judged."""

import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from test_grading_tiny import EXPOSED, LAB, cell, tiny_course

from grading.course import read_cells
from grading.ingest import rebuild
from grading.judge import BLANK, BY_HAND, REVIEW, RIGHT, TIME_IS_OVER, WRONG, Judge, course_secret, draw
from grading.preflight import ATTEMPTS, HOSTILE, check_odd_values, preflight
from grading.question import Call, Probe, Read
from grading.session import ENDED, Failure, Limits, Lost, Session, Step, Value, WarmParent

LIMITS = Limits(cell_seconds=1, grace_seconds=0.5, output_characters=500)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return tiny_course(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def parent():
    with WarmParent(LIMITS, exposed=EXPOSED) as parent:
        yield parent


@pytest.fixture(scope="module")
def judge(course, parent):
    with Judge(course.lab("01"), parent, b"secret") as judge:
        yield judge


def session(parent, *sources):
    return Session(parent, [Step(f"cell-{n}", source) for n, source in enumerate(sources)])


def ask(parent, source, *cases, seconds=1):
    with session(parent, source) as running:
        return running.ask(list(cases), seconds)


def handed_in(judge, extra=(), **answers):
    """A submission with the solution in every cell but those named."""
    answers = {name.replace("_", "-"): source for name, source in answers.items()}
    cells = judge.lab.with_answers(answers)
    extra_cells = read_cells(json.dumps({"cells": [cell("code", f"x{n}", text) for n, text in enumerate(extra)]}))
    return rebuild(judge.lab, "ada", [*cells, *extra_cells])


def judged(judge, extra=(), **answers):
    judgements, outputs = judge.judge(handed_in(judge, extra, **answers))
    return {judgement.question: judgement for judgement in judgements}, outputs


# --- the worker ---


def test_a_worker_runs_cells_as_a_notebook_does():
    source = "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()\n!true\nx = 3"
    with WarmParent(exposed=EXPOSED) as parent:  # with the usual limits: the import takes a while
        assert ask(parent, source, Read("x")) == [Value(3)]


def test_top_level_await_and_display_work(parent):
    source = (
        "import asyncio\nfrom IPython.display import Markdown\nawait asyncio.sleep(0)\ndisplay(Markdown('hi'))\nx = 1"
    )
    assert ask(parent, source, Read("x")) == [Value(1)]


def test_a_value_is_read_called_or_probed(parent):
    source = "x = 2\ndef f(a, b=1):\n    return a - b"
    cases = [Read("x"), Call("f", 5, b=3), Probe("answer = f(y) + x", {"y": 10})]
    assert ask(parent, source, *cases) == [Value(2), Value(2), Value(11)]


def test_arguments_are_fresh_for_every_call(parent):
    source = "seen = []\ndef f(entries):\n    entries.append(1)\n    return len(entries)"
    entries = []
    assert ask(parent, source, Call("f", entries), Call("f", entries)) == [Value(1), Value(1)]


def test_an_error_comes_back_as_a_failure(parent):
    (failure,) = ask(parent, "def f():\n    return 1 / 0", Call("f"))
    assert failure == Failure("ZeroDivisionError", "division by zero")
    assert ask(parent, "x = 1", Read("y")) == [Failure("Undefined", "y")]


def test_output_is_kept_but_not_more_than_the_limit(parent):
    with session(
        parent, "print('a' * 10**6)", "import sys\nprint('\\rhalf\\rwhole', file=sys.stderr)\n1 + 1"
    ) as running:
        running.ready()
        assert len(running.outputs["cell-0"]) < 600
        assert "more characters" in running.outputs["cell-0"]
        assert "whole" in running.outputs["cell-1"] and "half" not in running.outputs["cell-1"]
        assert "2" in running.outputs["cell-1"]


def test_a_worker_starts_in_an_empty_folder_with_a_clean_environment(parent, monkeypatch):
    monkeypatch.setenv("TOKEN", "hidden")
    source = "import os\nfiles = os.listdir()\nnames = list(os.environ)"
    files, names = ask(parent, source, Read("files"), Read("names"))
    assert files == Value([])
    assert "TOKEN" not in names.value


def test_an_endless_loop_is_stopped_and_the_next_cell_runs(parent):
    with session(parent, "while True: pass", "x = 1") as running:
        assert running.ask([Read("x")], 1) == [Value(1)]
        assert running.failures["cell-0"].kind == "OutOfTime"


@pytest.mark.parametrize(
    "source",
    [
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import os\nos._exit(0)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
        "import os\nos.close(4); os.closerange(3, 100)",
    ],
)
def test_a_cell_that_takes_the_process_down_costs_only_itself(parent, source):
    with session(parent, "x = 1", source, "y = x + 1") as running:
        assert running.ask([Read("y")], 1) == [Value(2)]
        assert set(running.failures) == {"cell-1"}


def test_a_call_that_takes_the_process_down_costs_only_its_question(parent):
    source = "import os\ndef f():\n    os._exit(1)\nx = 1"
    with session(parent, source) as running:
        assert running.ask([Call("f"), Call("f")], 1) == [Failure("Ended")] * 2
        assert running.ask([Read("x")], 1) == [Value(1)]


def test_too_much_memory_is_an_error_and_not_a_crash(parent):
    (failure,) = ask(parent, "import numpy as np\ndef f():\n    return np.ones(2**33).sum()", Call("f"), seconds=3)
    assert "Memory" in failure.kind


def test_no_process_of_a_submission_outlives_it(parent):
    source = "import subprocess\nchild = subprocess.Popen(['sleep', '61.25'])\nx = 1"
    with session(parent, source) as running:
        assert running.ask([Read("x")], 1) == [Value(1)]
        assert any(b"61.25" in words for words in command_lines())
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        if not any(b"61.25" in words for words in command_lines()):
            return
        time.sleep(0.05)
    pytest.fail("the process is still there")


def command_lines():
    """The words of every process on this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().split(b"\0")
        except OSError:
            continue


def test_what_one_judge_has_lost_can_be_told_to_another():
    assert pickle.loads(pickle.dumps(Lost(ENDED))).failure == ENDED


# --- the judgement ---


def test_the_solution_earns_all_points_that_a_judge_can_give(judge):
    judgements, _ = judged(judge)
    assert {j.status for name, j in judgements.items() if name != "why"} == {RIGHT}
    assert judgements["why"].status == BY_HAND


def test_the_blank_lab_earns_nothing(judge):
    judgements, _ = judge.judge(rebuild(judge.lab, "ada", judge.lab.release))
    assert {(j.status, j.points) for j in judgements} == {(BLANK, 0)}


def test_noise_costs_no_points(judge):
    noisy = (
        "import sys, warnings\nfrom tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass\nwarnings.warn('careful')\n"
        "print('error', file=sys.stderr)\ndef double(x):\n    print(x)\n    warnings.warn('again')\n    return x * 2"
    )
    judgements, outputs = judged(judge, double=noisy)
    assert judgements["double"].status == RIGHT
    assert "careful" in outputs["double"]


def test_a_mistake_is_called_by_its_name(judge):
    judgements, _ = judged(judge, double="def double(x):\n    return x * 3 - x * 5")
    assert (judgements["double"].recognized, judgements["double"].points) == ("sign", 0)
    assert judgements["double"].sentence == "The sign is turned around."
    assert judgements["total"].status == RIGHT


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("def double(x):\n    return 3.5 * x", "another value than it should for a number"),
        ("def double(x):\n    2 * x", "does every path end in a `return`"),
        ("def double(x):\n    return x.double()", "stops with AttributeError"),
        ("def double(x)\n    return 2 * x", "stops with SyntaxError in line 1"),
        ("def twice(x):\n    return 2 * x", "`double` is not defined: keep the name"),
        ("1 / 0", "stops with ZeroDivisionError"),
        ("def double(x):\n    while True: pass", "still running after 2 seconds for a number"),
        ("def double(x):\n    return {x}", "cannot be read"),
        ("def double(x):\n    return float('nan')", "another value than it should"),
        ("def double(x):\n    import os\n    os._exit(0)", "ended the Python process"),
        ("def double(x):\n    return [2 * x] * 2 if isinstance(x, float) else x", "another value"),
        ("double = 4", "stops with TypeError"),
        ("import math\ndef double(x):\n    return math.fsum([x, x])", "uses math.fsum"),
    ],
)
def test_an_unlisted_mistake_gets_a_sentence(judge, answer, words):
    judgements, _ = judged(judge, double=answer)
    assert judgements["double"].status == WRONG
    assert words in judgements["double"].sentence
    assert judgements["counter"].status == RIGHT


def test_an_endless_cell_costs_only_its_own_question(judge):
    judgements, _ = judged(judge, double="while True: pass")
    assert judgements["double"].sentence.startswith("Your cell was still running")
    assert [j.status for j in judgements.values()] == [WRONG, RIGHT, RIGHT, RIGHT, BY_HAND]


def test_a_wrong_variable_is_named_without_its_right_value(judge):
    judgements, _ = judged(judge, answer_seven="answer_seven = 12")
    assert "7" not in judgements["answer-seven"].sentence
    judgements, _ = judged(judge, answer_seven="answer_seven = 'seven'")
    assert "is text, but a number is asked for" in judgements["answer-seven"].sentence


def test_a_question_is_answered_by_what_runs_last(judge):
    judgements, _ = judged(judge, extra=["def double(x):\n    return x + x"], double="def double(x): return 0")
    assert judgements["double"].status == RIGHT


def test_a_fault_of_a_check_needs_review_and_is_never_zero(judge, monkeypatch):
    question = judge.lab.questions[0]
    monkeypatch.setitem(vars(question), "expected", lambda x: 1 / 0)
    judgements, _ = judged(judge)
    assert (judgements["double"].status, judgements["double"].points) == (REVIEW, None)
    monkeypatch.setitem(vars(question), "expected", lambda x: x)
    monkeypatch.setitem(vars(question), "accepts", lambda given, expected, case: given.nothing)
    judgements, _ = judged(judge)
    assert judgements["double"].status == REVIEW


def test_one_array_in_place_of_several_values_is_told(judge, monkeypatch):
    monkeypatch.setitem(vars(judge.lab.questions[0]), "expected", lambda x: (np.ones(2), 1.0))
    judgements, _ = judged(judge, double="def double(x):\n    return np.ones(3)")
    assert (judgements["double"].status, judgements["double"].points) == (WRONG, 0)
    assert "is one array for a number, but several values are asked for" in judgements["double"].sentence


def test_an_answer_for_which_there_is_no_sentence_needs_review_and_ends_no_run(judge, monkeypatch):
    monkeypatch.setattr("grading.judge.say", lambda *given: 1 / 0)
    judgements, _ = judged(judge, double="def double(x):\n    return 3.5 * x")
    assert (judgements["double"].status, judgements["double"].points) == (REVIEW, None)
    assert "finds no sentence" in judgements["double"].fault and judgements["counter"].status == RIGHT
    monkeypatch.setattr("grading.preflight.say", lambda *given: 1 / 0)
    assert "ZeroDivisionError" in check_odd_values(judge.lab.questions[0])[0]


@pytest.mark.parametrize("link", [".b", " + 1"])
def test_expressions_of_any_depth_end_no_run(judge, link):
    depths = (100, *range(850, 1000, 3), 1100, 100_000)
    judgements, _ = judged(judge, extra=[f"x = a{link * depth}" for depth in depths])
    assert judgements["double"].status in (RIGHT, REVIEW)
    assert [j.status for name, j in judgements.items() if name != "double"] == [RIGHT, RIGHT, RIGHT, BY_HAND]


def test_an_error_that_nobody_thought_of_needs_review_and_costs_no_other_question(judge, monkeypatch):
    compare = Judge._compare

    def fails_once(self, question, *given):
        if question.id == "total":
            raise RecursionError("too deep")
        return compare(self, question, *given)

    monkeypatch.setattr(Judge, "_compare", fails_once)
    judgements, _ = judged(judge)
    assert [j.status for j in judgements.values()] == [RIGHT, REVIEW, RIGHT, RIGHT, BY_HAND]
    assert judgements["total"].fault == "the judge fails (RecursionError: too deep)"


SLOW = "import time\ntime.sleep(0.7)\n"


@pytest.mark.parametrize("first", [True, False])
def test_slow_cells_of_the_students_own_cost_no_points(course, first):
    """Those on which an answer rests are run, those that were added beside them can be left out."""
    limits = Limits(cell_seconds=1, grace_seconds=0.5, total_seconds=3)
    own = [f"{SLOW}factor = 2", *[f"{SLOW}print({n})" for n in range(6)]]
    own = read_cells(json.dumps({"cells": [cell("code", f"x{n}", text) for n, text in enumerate(own)]}))
    with WarmParent(limits, exposed=EXPOSED) as parent, Judge(course.lab("01"), parent, b"secret") as judge:
        cells = judge.lab.with_answers({"double": "def double(x):\n    return factor * x"})
        submission = rebuild(judge.lab, "ada", [*own, *cells] if first else [*cells, *own])
        judgements, _ = judge.judge(submission)
    assert [j.status for j in judgements] == [RIGHT, RIGHT, RIGHT, RIGHT, BY_HAND]


def test_what_the_time_did_not_reach_is_told_so(course):
    limits = Limits(cell_seconds=3, grace_seconds=0.5, total_seconds=2)
    with WarmParent(limits, exposed=EXPOSED) as parent, Judge(course.lab("01"), parent, b"secret") as judge:
        judge.judge(handed_in(judge))  # so that the warm parent stands
        sources = {q.id: SLOW + SLOW + judge.lab.model_answer(q).source for q in judge.lab.questions if not q.written}
        judgements, _ = judge.judge(rebuild(judge.lab, "ada", judge.lab.with_answers(sources)))
    assert [j.status for j in judgements] == [RIGHT, WRONG, WRONG, WRONG, BY_HAND]
    assert {j.sentence for j in judgements[1:4]} == {TIME_IS_OVER}


def test_inputs_differ_by_student_and_attempt_and_repeat_otherwise():
    first = draw(b"key", "ada", "lab01", "q", "1").random()
    assert first == draw(b"key", "ada", "lab01", "q", "1").random()
    others = [("eve", "lab01", "q", "1"), ("ada", "lab02", "q", "1"), ("ada", "lab01", "q", "2")]
    assert all(first != draw(b"key", *names).random() for names in others)
    assert first != draw(b"other", "ada", "lab01", "q", "1").random()


def test_the_secret_is_made_once_and_for_the_grader_alone(tmp_path):
    first = course_secret(tmp_path / "work")
    assert course_secret(tmp_path / "work") == first
    assert (tmp_path / "work" / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("answer", "cells"),
    [
        ("import math\ndef double(x):\n    return vars(math)['fs' + str('um')]([x, x])", []),
        ("def double(x):\n    return help([x, x])", ["import math\nhelp = getattr(math, 'fs' + str('um'))"]),
        ("def double(x):\n    return help([x, x])", ["from math import fsum as help"]),
    ],
)
def test_what_is_forbidden_is_named_however_it_is_reached(judge, answer, cells):
    judgements, _ = judged(judge, extra=cells, double=answer)
    assert (judgements["double"].status, judgements["double"].points) == (WRONG, 0)
    assert "uses math.fsum" in judgements["double"].sentence
    assert judgements["counter"].status == RIGHT


# --- preflight ---


def test_preflight_passes_the_tiny_lab(course, parent):
    report = preflight(course.lab("01"), parent, tell=lambda line: None)
    assert report.faults == []
    assert report.n_tried == 18
    assert set(report.hostile) == set(HOSTILE) and not any(report.hostile.values())
    assert len(ATTEMPTS) >= 3


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("return x * x", "return x * 2", "wrong answer 'square' is judged right"),
        ("return x * x", "return -2 * x", "wrong answer 'sign' is judged wrong as 'square'"),
        ("return x + x", "return x + 1", "right answer 'sum' is judged wrong"),
        ("    return 2 * x", "    return 7 * x", "the solution is judged wrong"),
        ("expected=7", "expected=7, accepts=lambda g, e, c: abs(g - e) < 1", "`accepts` fails when the answer is None"),
        ("expected=7", "expected=7, accepts=lambda g, e, c: True", "wrong answer 'eight' is judged right"),
        ("expected=double", "expected=lambda x: x", "double: the hostile answer 'returns_its_input' earns its points"),
    ],
)
def test_preflight_refuses_checks_that_break_a_promise(tmp_path, parent, old, new, sentence):
    course = tiny_course(tmp_path)
    checks = tmp_path / "grading" / "checks" / f"{LAB}.py"
    assert old in checks.read_text()
    checks.write_text(checks.read_text().replace(old, new, 1))
    report = preflight(course.lab("01"), parent, tell=lambda line: None)
    assert any(sentence in fault for fault in report.faults), report.faults
