"""JupyterHub with this course's configuration: people log in with their accounts and do everything in a browser."""

import csv
import io
from contextlib import ExitStack
from pathlib import Path

import pytest
from jupyter_pages import (
    free_ports,
    mark,
    open_assignments,
    open_submission,
    submissions,
    validate,
    wait_for,
    watched_page,
)
from shared_machine import CHECKOUT, EXCHANGE, machine

from grading.course import Course
from grading.demonstration import hand_in

__all__ = ["machine"]

LAB = "lab01_neuron"
NEURON = Course(Path(__file__).resolve().parents[1]).lab("01")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub(machine):
    """The address of the Hub, started by root as the handbook says."""
    door, inner, api = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    command = (f"mkdir /home/hub && cd /home/hub && jupyterhub -f {CHECKOUT}/grading/jupyterhub_config.py "
               f"--JupyterHub.bind_url={door} --JupyterHub.hub_bind_url={inner} --ConfigurableHTTPProxy.api_url={api}")
    with machine.running("root", command, "hub.log") as (process, log):
        wait_for(f"{door}/hub/login", lambda: process.poll() is None, log.read_text)
        yield door


@pytest.fixture
def log_in(browser, hub, machine):
    """A function that logs an account in and waits for its JupyterLab."""
    with ExitStack() as pages:

        def log_in(account):
            page = pages.enter_context(watched_page(browser, account))
            page.goto(f"{hub}/hub/login")
            page.fill("#username_input", account)
            page.fill("#password_input", machine.passwords[account])
            page.click("#login_submit")
            page.wait_for_selector("#jp-MainMenu")
            return page

        yield log_in


def grading(machine, words):
    return machine.run("instructor", f"cd {CHECKOUT} && grading {words}")


def points(machine):
    """Points by student, as grades.csv has them."""
    rows = csv.DictReader(io.StringIO(machine.run("instructor", f"cat {CHECKOUT}/grading/_work/grades.csv")))
    return {row["student"]: float(row["points"]) for row in rows}


def test_a_lab_makes_its_whole_way_in_the_browser(machine, log_in, hub):
    grading(machine, "release 01 --exchange")
    student = log_in("ada")
    fetch_work_and_submit(machine, student)
    grading(machine, f"collect {EXCHANGE}")
    grading(machine, "grade grading/_work/submitted")
    before = points(machine)["ada"]
    instructor, formgrader = log_in("instructor").main_frame, f"{hub}/user/instructor/formgrader"
    assert submissions(instructor, formgrader, LAB)["ada"] == ("ada,", f"{before:g} / 100")
    open_submission(instructor, formgrader, LAB, "ada")
    mark(instructor, "why-dead", 7, "A reason, but not the reason")
    grading(machine, "grade grading/_work/submitted")
    assert points(machine)["ada"] == before + 7
    assert "1 of them new" in grading(machine, "feedback")
    assert "A reason, but not the reason" in fetch_feedback(machine, student)


def fetch_work_and_submit(machine, page):
    """The released lab is fetched; *Validate* lists every question until all are answered right."""
    open_assignments(page)
    page.click('#released_assignments_list button:text-is("Fetch")')
    assert validate(page, LAB).count("The following cell failed") == len(NEURON.questions)
    machine.run("ada", f"cat > {LAB}/{LAB}.ipynb", given=hand_in(NEURON, "solution"))
    assert "passes all the tests" in validate(page, LAB)
    page.click('#fetched_assignments_list button:text-is("Submit")')
    page.wait_for_selector(f"#submitted_assignments_list >> text={LAB}")


def fetch_feedback(machine, page):
    page.click("#refresh_assignments_list")
    page.click("#submitted_assignments_list button:has-text('Fetch Feedback')")
    page.wait_for_selector("#submitted_assignments_list >> text=View Feedback")
    return machine.run("ada", f"cat {LAB}/feedback/*/{LAB}.html")


def test_a_wrong_password_opens_nothing(browser, hub, machine):
    page = browser.new_page()
    page.goto(f"{hub}/hub/login")
    page.fill("#username_input", "bob")
    page.fill("#password_input", "guess")
    page.click("#login_submit")
    page.wait_for_selector("text=Invalid username or password")
    page.close()


def test_a_student_has_no_formgrader_and_no_way_into_another_account(log_in, hub):
    page = log_in("bob")
    for path in ("user/bob/formgrader/gradebook", "user/instructor/lab", "user/ada/lab", "hub/admin"):
        assert page.request.get(f"{hub}/{path}").status in (403, 404), path
