"""JupyterLab and nbgrader's pages in a browser. A page is waited for by what it shows, never by the clock alone."""

import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 240  # seconds until what should come is held for lost; a busy machine takes its time over a JupyterLab
KNOWN = ("cdnjs.cloudflare.com", "MathJax is not defined", "ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED")
"""The formgrader's page of a submission asks the network for MathJax; without it formulas stay as they are typed."""


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(address: str, alive: Callable[[], bool], said: Callable[[], str]) -> None:
    """Wait until the server answers; fail with what it said if it has ended, or does not answer in time."""
    end = time.monotonic() + PATIENCE
    while alive() and time.monotonic() < end:
        try:
            return urllib.request.urlopen(address).close()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"nothing answers at {address}\n{said()}")


@contextmanager
def watched_page(browser, who: str) -> Iterator:
    """A page of its own; what goes wrong on it fails the test: a script, the console, an error that is left open."""
    context, complaints = browser.new_context(viewport={"width": 1280, "height": 860}), []
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.on("pageerror", lambda error: complaints.append(f"{who}: script {error}"))
    page.on("console", lambda m: m.type != "error" or complaints.append(f"{who}: {m.text} {m.location['url']}"))
    try:
        yield page
        complaints += [f"{who}: {text}" for text in page.locator(".jp-Dialog").all_inner_texts()]
    finally:
        context.close()
    complaints = [line for line in complaints if not any(known in line for known in KNOWN)]
    assert not complaints, "\n".join(complaints)


def choose(page, entry: str) -> None:
    """The entry of JupyterLab's menu Nbgrader that runs this command."""
    page.click("#jp-MainMenu >> text=Nbgrader")
    page.click(f'li[data-command="nbgrader:{entry}"]')


def mark(frame, question: str, points: float, comment: str) -> None:
    """Mark a written answer on the formgrader's page of a submission, and wait until both are saved."""
    frame.wait_for_function("window.formgrader?.grades?.loaded && formgrader.comments?.loaded")
    for kind, field, text in (("grade", f"#{question}", f"{points:g}"), ("comment", f"#{question}-comment", comment)):
        with frame.page.expect_response(lambda r, kind=kind: f"/api/{kind}/" in r.url and r.request.method == "PUT"):
            frame.fill(field, text)
            frame.locator(field).blur()


def open_assignments(page) -> None:
    choose(page, "open-assignment-list")
    page.wait_for_selector("#released_assignments_list .list_item")


def validate(page, lab: str) -> str:
    """What *Validate* in the list of assignments says about a fetched lab."""
    button = page.locator("#fetched_assignments_list .list_item button:text-is('Validate')")
    if not button.is_visible():
        page.click(f"#fetched_assignments_list a:text-is('{lab}')")
    button.click()
    dialog = page.locator(".jp-Dialog")
    said = dialog.inner_text()
    dialog.locator("button").click()
    dialog.wait_for(state="detached")
    return said


def submissions(frame, formgrader: str, lab: str) -> dict[str, tuple[str, str]]:
    """By student the name and the points that the formgrader's table of a lab's submissions shows."""
    frame.goto(f"{formgrader}/manage_submissions/{lab}")
    frame.wait_for_function("window.models?.loaded")
    rows = [row.locator("td").all_inner_texts() for row in frame.locator("#main-table tr").all()]
    return {student: (name, points) for name, student, _, _, points, *_ in rows}


def open_submission(frame, formgrader: str, lab: str, student: str) -> None:
    """The page on which a student's work is marked; the list shows names only to whom asks for them."""
    frame.goto(f"{formgrader}/gradebook/{lab}/{lab}")
    frame.wait_for_function("window.models?.loaded")
    assert student not in frame.inner_text("#main-table")
    frame.click("#toggle_names")
    frame.click(f"td.name a.name-shown:has-text('{student}')")
