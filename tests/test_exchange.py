"""nbgrader's exchange between accounts of one machine: what goes out, comes in, goes back, and who can read it."""

import re
from pathlib import Path

import pytest
from shared_machine import CHECKOUT, EXCHANGE, machine

from grading.course import Course
from grading.demonstration import hand_in
from grading.feedback import with_code

__all__ = ["machine"]

LAB = "lab01_neuron"
NEURON = Course(Path(__file__).resolve().parents[1]).lab("01")
COURSE = EXCHANGE / "seed-class"

pytestmark = pytest.mark.slow


def grading(machine, words):
    return machine.run("instructor", f"cd {CHECKOUT} && grading {words}")


def work(machine, student, kind):
    """The student writes answers of this kind, and a word of their own, into the lab that they fetched."""
    notebook = hand_in(NEURON, kind).replace("# Lab", f"{student}s-own-word # Lab", 1)
    machine.run(student, f"cat > {LAB}/{LAB}.ipynb", given=notebook)


def page(machine, student):
    machine.run(student, f"nbgrader fetch_feedback {LAB} --course seed-class")
    return machine.run(student, f"cat {LAB}/feedback/*/{LAB}.html")


def of_ada(machine, account):
    """The files with Ada's work or her page that the account can find and read."""
    return machine.run(account, "grep -rslE 'adas-own-word|<p>ada ·' /home /usr/local/share || true").splitlines()


@pytest.fixture(scope="module")
def graded(machine):
    """Ada hands in the first listed wrong answers, Bob right ones, and the pages have gone back."""
    assert "exchange  /usr/local/share/nbgrader/exchange" in grading(machine, "release 01 --exchange")
    for student, kind in (("ada", "wrong 1"), ("bob", "solution")):
        assert LAB in machine.run(student, "nbgrader list --course seed-class")
        machine.run(student, f"nbgrader fetch_assignment {LAB} --course seed-class")
        work(machine, student, kind)
        machine.run(student, f"nbgrader submit {LAB} --course seed-class")
    said = [grading(machine, f"collect {EXCHANGE}")]
    said += [grading(machine, "grade grading/_work/submitted"), grading(machine, "feedback")]
    return said


def test_each_student_gets_the_page_that_names_the_mistake(machine, graded):
    collected, told, returned = graded
    assert "2 taken, 0 known already, 0 notes" in collected
    assert "runs in a sandbox" in told
    assert "2 pages lie in" in returned and "2 of them new" in returned
    page_of_ada, page_of_bob = page(machine, "ada"), page(machine, "bob")
    for question in NEURON.questions:
        if question.wrong:
            sentence = str(with_code(question.wrong[0].sentence))
            assert sentence in page_of_ada and sentence not in page_of_bob


def test_a_student_reads_nothing_of_another(machine, graded):
    page(machine, "ada")
    assert of_ada(machine, "bob") == []
    assert any("/inbound/ada+" in name for name in of_ada(machine, "instructor"))
    assert any("/feedback/" in name for name in of_ada(machine, "instructor"))
    for place in (COURSE / "inbound", COURSE / "feedback", CHECKOUT, "/home/ada"):
        machine.run("bob", f"ls '{place}'", fails=True)


def test_nobody_hands_in_as_another_and_nobody_moves_the_exchange(machine, graded):
    work(machine, "bob", "blank")
    machine.run("bob", f"nbgrader submit {LAB} --course seed-class --student ada")
    machine.run("bob", f"mkdir '{COURSE}/inbound/ada+{LAB}+no time'")
    machine.run("bob", f"mv {COURSE} {EXCHANGE}/gone", fails=True)
    said = grading(machine, f"collect {EXCHANGE}")
    assert "0 taken, 2 known already, 2 notes" in said
    assert re.search(r"ada\+.*was put there by the account bob and was refused", said)


def test_new_work_gets_a_new_page_and_the_old_page_stays(machine, graded):
    work(machine, "ada", "solution")
    machine.run("ada", f"nbgrader submit {LAB} --course seed-class")
    assert "1 taken" in grading(machine, f"collect {EXCHANGE}")
    assert f"ada/{LAB} is not graded yet" in grading(machine, "feedback")
    grading(machine, "grade grading/_work/submitted")
    assert "1 of them new" in grading(machine, "feedback")
    assert "0 of them new" in grading(machine, "feedback")
    machine.run("ada", f"nbgrader fetch_feedback {LAB} --course seed-class")
    assert len(machine.run("ada", f"ls {LAB}/feedback").splitlines()) == 2
