"""The book: its sources, its build, and the site as a reader meets it in a browser.

Browser tests need Chromium and a site that is up to date. Where one is missing they are skipped, in CI they fail.
"""

import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest
import yaml
from conftest import missing

from grading.chapter import sections
from grading.course import Course

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
SITE = BOOK / "_build" / "html"
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CI = os.environ.get("CI") == "true"


def build_module():
    """book/build.py as a module; the book is a folder of pages, not a package."""
    spec = importlib.util.spec_from_file_location("book_build", BOOK / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Sources


def test_toc_names_every_chapter_and_only_pages_that_exist():
    build_module().check_toc()


def glossary_terms():
    lines = (BOOK / "glossary.md").read_text().split("```{glossary}")[1].split("```")[0].splitlines()
    return {line.lower(): ("glossary", line) for line in lines if line and not line.startswith(" ")}


HEADS = {"You will be able to", "You need", "Time", "Letters", "It failed like this", "We measured",
         "We found two causes", "We repaired", "The check shows it again"}
"""Bold words that define nothing: the heads in a chapter's first box and in its growth record."""


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_bold_word_of_a_chapter_is_in_the_glossary(path):
    sys.path.insert(0, str(BOOK))
    from terms import entry_of

    cells = json.loads(path.read_text())["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    words = {word.rstrip(".") for word in re.findall(r"\*\*([^*\n]+)\*\*", text)} - HEADS
    assert not [word for word in words if entry_of(word, glossary_terms()) is None]


def test_toc_that_leaves_out_a_chapter_is_refused(tmp_path, monkeypatch):
    build = build_module()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_neuron.ipynb").write_text("{}")
    (tmp_path / "intro.md").write_text("# Hello\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    monkeypatch.setattr(build, "BOOK", tmp_path)
    with pytest.raises(build.BuildError, match="is in no part"):
        build.check_toc()


def test_toc_that_names_a_missing_page_is_refused(tmp_path, monkeypatch):
    build = build_module()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    monkeypatch.setattr(build, "BOOK", tmp_path)
    with pytest.raises(build.BuildError, match="names intro, which does not exist"):
        build.check_toc()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_is_committed_without_outputs_and_with_cell_ids(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5), "cell ids need notebook format 4.5"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], f"cell {cell['id']} has outputs: clear them before you commit"
            assert cell["execution_count"] is None, f"cell {cell['id']} has a count: clear outputs"


def test_pictures_are_what_the_drawing_program_draws(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("book_draw", BOOK / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    monkeypatch.setattr(draw, "IMAGES", tmp_path)
    draw.main()
    for drawn in tmp_path.iterdir():
        assert drawn.read_text() == (BOOK / "images" / drawn.name).read_text()


def test_conda_environment_leads_to_the_pinned_requirements():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert "python=3.11" in conda["dependencies"]
    (pip,) = [item["pip"] for item in conda["dependencies"] if isinstance(item, dict)]
    assert pip == ["-r requirements.txt", "-e ."], "requirements.txt holds all pins: environment.yml repeats none"


def test_package_asks_for_nothing_that_requirements_do_not_pin():
    import tomllib

    pins = {line.strip() for line in (ROOT / "requirements.txt").read_text().splitlines()}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    torch_brings = {"numpy"}
    assert set(wanted) - pins - torch_brings == set()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_time_that_a_chapter_names_is_near_the_one_measured(path):
    words = {"a": 1, "one": 1, "two": 2} | {str(number): number for number in range(1, 100)}
    said = re.search(r"\*\*Time\*\* 4\d minutes to read[^,]*, ([^.]*) to compute", path.read_text())[1]
    times = [words[word] * (60 if "minute" in said else 1) for word in said.split() if word in words]
    measured = json.loads((ROOT / "bench" / "notebooks.json").read_text())["notebooks"][path.stem]["median"]
    assert min(times) / 1.5 < measured < max(times) * 1.5, f"{said}, and {measured:.0f} seconds were measured"


def test_every_page_calls_a_chapter_by_its_two_digits():
    pages = [*CHAPTERS, *BOOK.glob("*.md"), *BOOK.glob("parts/*.md"), *ROOT.glob("solutions/*/*.ipynb")]
    assert not {page.name: found for page in pages if (found := re.findall(r"[Cc]hapter \d(?!\d)", page.read_text()))}


def test_symbols_show_the_sizes_of_the_journey():
    from minigpt.recipes import journey

    run, table = journey(), (BOOK / "symbols.md").read_text()
    shown = {letter: int(size) for letter, size in re.findall(r"^\| \$([A-Z])\$ \|.*\| (\d+) \|$", table, re.M)}
    model = run.model
    assert shown == {
        "B": run.train.batch_size,
        "T": model.max_seq_len,
        "D": model.d_model,
        "H": model.n_heads,
        "G": model.n_kv_heads,
        "K": model.d_model // model.n_heads,
        "F": model.d_ff,
        "V": model.vocab_size,
    }


def test_the_bibliography_can_be_read_and_every_citation_is_in_it():
    from pybtex.database import parse_file

    known = set(parse_file(BOOK / "references.bib").entries)  # refuses broken entries and keys that stand twice
    pages = [*CHAPTERS, *BOOK.glob("*.md"), *BOOK.glob("parts/*.md")]
    cited = {key for page in pages for key in re.findall(r"\{cite\}`([^`]+)`", page.read_text())}
    assert cited and cited <= known, f"no entry for {', '.join(sorted(cited - known))}"


def test_changelog_lines_say_which_room_changed():
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    assert entries
    for line in entries:
        assert re.match(r"- (book|lab|grading|minigpt): \S", line), line


# Build


def chapter(*cells: str) -> str:
    """A notebook with these code cells."""
    listed = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "outputs": [], "execution_count": None, "source": text}
        for i, text in enumerate(cells)
    ]
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# A chapter"}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return json.dumps({"cells": [title, *listed], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


@pytest.mark.slow
def test_build_executes_again_what_changed_and_nothing_else(tmp_path):
    book, notebooks = tmp_path / "book", tmp_path / "notebooks"
    for folder in (book, notebooks, tmp_path / "minigpt"):
        folder.mkdir()
    (book / "notebooks").symlink_to("../notebooks")
    for program in ("build.py", "measurements.py"):
        shutil.copy(BOOK / program, book)
    (book / "_config.yml").write_text(
        "title: Scratch\nexecute: {execute_notebooks: cache}\nonly_build_toc_files: true\n"
        "sphinx: {config: {nb_execution_raise_on_error: true}}\n"
    )
    (book / "_toc.yml").write_text(
        "format: jb-book\nroot: intro\nchapters: [{file: notebooks/alone}, {file: notebooks/user}]\n"
    )
    (book / "intro.md").write_text("# Scratch\n")
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / "minigpt" / "model.py").write_text("width = 1\n")
    now = "import time\nprint('at', time.time_ns())"
    (notebooks / "alone.ipynb").write_text(chapter(now))
    (notebooks / "user.ipynb").write_text(chapter(now, "# import minigpt"))
    site = book / "_build" / "html"

    def build() -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, book / "build.py"], capture_output=True, text=True, timeout=300)

    def printed() -> dict[str, str]:
        assert (done := build()).returncode == 0, done.stdout + done.stderr
        pages = {name: (site / "notebooks" / f"{name}.html").read_text() for name in ("alone", "user")}
        return {name: re.search(r"at (\d+)", text)[1] for name, text in pages.items()}

    with ThreadPoolExecutor() as two:  # at a time; one of them waits, and finds it done
        both = [done.stdout for done in two.map(lambda _: build(), range(2))]
    assert any("The book is built" in said for said in both)
    assert any("waiting" in said and "up to date" in said for said in both)
    first = printed()
    (tmp_path / "minigpt" / "model.py").write_text("width = 2\n")
    second = printed()
    assert second["alone"] == first["alone"], "a chapter without minigpt was executed again"
    assert second["user"] != first["user"], "the chapter on minigpt shows outputs of the old code"
    (notebooks / "alone.ipynb").write_text(chapter(now, "1 + 1"))
    third = printed()
    assert third["alone"] != second["alone"]
    assert third["user"] == second["user"]

    whole = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    (notebooks / "alone.ipynb").write_text(chapter(now, "1 / 0"))
    done = build()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("No book: a cell of notebooks/alone.ipynb fails")
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == whole
    assert not any("up to date" in build().stdout for _ in range(1)), "a failed build was taken for a good one"


# Site


class Page(HTMLParser):
    """The ids and the links of one page."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        links = [attrs[key] for key in ("href", "src", "data-src") if attrs.get(key)]
        self.links += [link for link in links if not link.startswith(("data:", "mailto:"))]


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site; CI builds it first."""
    if CI:
        subprocess.run([sys.executable, BOOK / "build.py"], check=True)
    if not build_module().is_up_to_date():
        missing("the site is not built, or older than its sources: run `make book`")
    return SITE


@pytest.fixture(scope="session")
def address(site) -> str:
    """Where the site is served on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *parts):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_page(browser, address):
    """A function that opens a page of the site; at the end, whatever went wrong on the way fails the test."""
    contexts, complaints = [], []

    def open_page(path: str, scheme: str = "light"):
        if not contexts:
            contexts.append(browser.new_context(color_scheme=scheme))
            page = contexts[0].new_page()
            page.on("request", lambda r: r.url.startswith((address, "data:", "blob:")) or complain("asked for", r.url))
            page.on("requestfailed", lambda r: complain("failed", r.url))
            page.on("response", lambda r: r.status < 400 or complain(r.status, r.url))
            page.on("console", lambda m: m.type != "error" or complain("console", m.text, m.location["url"]))
            page.on("pageerror", lambda error: complain("script", error))
        page = contexts[0].pages[0]
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        return page

    def complain(*parts):
        complaints.append(" ".join(map(str, (contexts[0].pages[0].url, *parts))))

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints, "\n".join(complaints)


def lightness(color: str) -> float:
    """From 0, black, to 255, white: the mean of the three numbers in `rgb(...)`."""
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3


def html_pages(site: Path) -> list[str]:
    """All pages but index.html, which only sends the reader on."""
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return [name for name in names if not name.startswith(("_static/", "index.html"))]


def test_every_link_leads_somewhere(site):
    pages = {name: Page(site / name) for name in html_pages(site)}
    assert len(pages) > 10
    broken = []
    for name, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(urljoin(f"http://site/{name}", link))
            parts = urlparse(target)
            if parts.netloc != "site":
                public = parts.scheme == "https" and "." in parts.netloc and not re.search(r"\s", link)
                if not public and parts.hostname != "127.0.0.1":
                    broken.append(f"{name}: {link} is no address")
                continue
            path = unquote(parts.path).lstrip("/") or "index.html"
            if not (site / path).is_file():
                broken.append(f"{name}: {link} leads nowhere")
            elif anchor and path in pages and unquote(anchor) not in pages[path].ids:
                broken.append(f"{name}: {link} has no such anchor")
    assert not broken, "\n".join(broken)


def test_the_feedback_on_every_question_leads_to_a_section_of_the_site(site):
    course = Course(ROOT)
    for lab in map(course.lab, course.lab_names):
        found = sections(lab)
        assert found.keys() == {question.id for question in lab.questions}
        for section in found.values():
            page, _, anchor = section.place.partition("#")
            assert f'id="{anchor}"' in (site / page).read_text(), section


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_can_be_downloaded_and_opened_in_colab_and_binder(site, path):
    links = Page(site / "notebooks" / f"{path.stem}.html").links
    source = f"_sources/notebooks/{path.name}"
    assert any(link.endswith(source) for link in links)
    assert (site / source).read_bytes() == path.read_bytes()
    for host in ("colab.research.google.com", "mybinder.org"):
        assert any(host in link and link.endswith(f"/notebooks/{path.name}") for link in links), host
        assert not any(host in link and "/book/notebooks/" in link for link in links), "GitHub follows no links"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_opens_offline_without_error_or_sideways_scrolling(site, open_page, scheme):
    for name in html_pages(site):
        page = open_page(name, scheme)
        assert page.title(), name
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (lightness(ground) < 128) == (scheme == "dark"), f"{name}: {ground}"
        for width in (1280, 390):  # a desk and a phone
            page.set_viewport_size({"width": width, "height": 844})
            too_much = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert too_much <= 0, f"{name} is {too_much} pixels too wide for a screen of {width}"


def test_the_front_door_leads_to_the_first_page(open_page):
    page = open_page("")
    page.wait_for_url("**/intro.html")
    assert page.inner_text("h1").startswith("Seed Class")


def test_search_finds_the_learning_rate(open_page):
    page = open_page("search.html?q=learning+rate")
    page.wait_for_selector("#search-results li a")
    page.click("#search-results li a >> nth=0")
    page.wait_for_load_state("networkidle")
    assert "learning rate" in page.inner_text("main").lower()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chapter_shows_its_formulas_and_its_figures(open_page, path, scheme):
    page = open_page(f"notebooks/{path.stem}.html", scheme)
    if page.locator(".math").count():
        page.wait_for_selector("mjx-container mjx-math")
    assert page.locator("mjx-merror, .bd-article .error").count() == 0
    for figure in page.locator("div.cell_output img").all():
        figure.scroll_into_view_if_needed()
        assert figure.evaluate("image => image.complete && image.naturalWidth > 100")
        if scheme == "dark":
            ground = figure.evaluate("image => getComputedStyle(image).backgroundColor")
            assert lightness(ground) > 180, "dark lines on a dark page cannot be read"
