"""Build the book: execute the chapters here and now, and write the site to book/_build/html.

    python book/build.py

A chapter is executed again when its cells change, or when `minigpt/` changes and the chapter uses it.
Nothing at all is done when nothing changed since the last build. The site is built aside and moved into
place whole, so that a build that was interrupted or that failed leaves no half of a site behind.
"""

import hashlib
import itertools
import json
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import yaml
from filelock import AcquireReturnProxy, FileLock, Timeout

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
BUILD = BOOK / "_build"
SITE = BUILD / "html"
ASIDE = BUILD / "aside"
MEASUREMENTS = BUILD / "measurements"
CACHE = BUILD / ".jupyter_cache"
STAMP = BUILD / "built-from"
EXECUTED_WITH = BUILD / "executed-with.json"


class BuildError(Exception):
    """The one sentence that says why there is no book."""


def digest(*paths: Path) -> str:
    """One hash of the names and bytes of files, and of all files in folders."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not {"_build", "__pycache__", ".ipynb_checkpoints"} & set(file.parts):
                total.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return total.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file aside and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def pages_in_toc() -> list[str]:
    """The pages of the book in reading order, as `_toc.yml` names them."""

    def walk(node) -> list[str]:
        if isinstance(node, list):
            return [page for item in node for page in walk(item)]
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [p for key in ("parts", "chapters", "sections") for p in walk(node.get(key, []))]

    return walk(yaml.safe_load((BOOK / "_toc.yml").read_text()))


def check_toc() -> None:
    """Refuse a table of contents that names a page that is not there, or leaves out a chapter."""
    if not (BOOK / "notebooks").is_dir():
        raise BuildError(
            "book/notebooks is no link to the folder notebooks/; "
            "check the repository out again with `git config core.symlinks true`"
        )
    pages = pages_in_toc()
    for page in pages:
        if not any((BOOK / f"{page}{suffix}").is_file() for suffix in (".md", ".ipynb")):
            raise BuildError(f"book/_toc.yml names {page}, which does not exist; add the page or drop the line")
    for chapter in sorted((BOOK / "notebooks").glob("*.ipynb")):
        if f"notebooks/{chapter.stem}" not in pages:
            raise BuildError(f"notebooks/{chapter.name} is in no part of book/_toc.yml; add it to its part")


def forget_stale_outputs() -> None:
    """Drop the cached outputs of chapters whose code changed underneath them.

    The cache knows a chapter by the text of its cells alone. Here it learns of `minigpt/`, for the chapters
    that use it, and of `requirements.txt`, for all.
    """
    from jupyter_cache import get_cache

    now = {"minigpt": digest(ROOT / "minigpt"), "requirements": digest(ROOT / "requirements.txt")}
    before = json.loads(EXECUTED_WITH.read_text()) if EXECUTED_WITH.exists() else {}
    if before.get("requirements") != now["requirements"]:
        shutil.rmtree(CACHE, ignore_errors=True)
    elif before.get("minigpt") != now["minigpt"]:
        cache = get_cache(CACHE)
        for record in cache.list_cache_records():
            if any("minigpt" in cell.source for cell in cache.get_cache_bundle(record.pk).nb.cells):
                cache.remove_cache(record.pk)
    write_text(EXECUTED_WITH, json.dumps(now))


def configuration() -> dict:
    """Sphinx's settings: `_config.yml`, and what only the build knows."""
    from jupyter_book.config import get_final_config

    known = {
        "external_toc_path": str(BOOK / "_toc.yml"),
        "latex_individualpages": False,
        "nb_execution_cache_path": str(CACHE),
        "nitpicky": True,
    }
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        known["html_theme_options"] = {"repository_url": f"https://github.com/{repository}"}
    settings, _ = get_final_config(user_yaml=BOOK / "_config.yml", cli_config=known, sourcedir=BOOK)
    needs_the_network = {"sphinx_thebe", "sphinx_comments", "sphinx.ext.intersphinx"}
    settings["extensions"] = [name for name in settings["extensions"] if name not in needs_the_network]
    settings.pop("comments_config", None)
    return settings


def report_progress(app) -> None:
    """Print a line for each page as it is read, and how long each chapter ran when it was executed."""
    count = itertools.count(1)

    def reading(_app, page: str, _text: list) -> None:
        print(f"[{next(count)}/{len(pages_in_toc())}] {page}", flush=True)

    def reading_done(_app, env) -> None:
        for page, known in sorted(getattr(env, "nb_metadata", {}).items()):
            if "exec_data" in known:
                print(f"executed {page} in {known['exec_data']['runtime']:.1f} s")
        print("writing the pages", flush=True)

    app.connect("source-read", reading)
    app.connect("env-updated", reading_done)


def build_aside() -> None:
    """Build the whole site in `book/_build/aside/html`; every warning is an error."""
    from measurements import write_measurements
    from myst_nb.core.execute.base import ExecutionError
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    shutil.rmtree(ASIDE, ignore_errors=True)
    write_measurements(MEASUREMENTS)
    with patch_docutils(), docutils_namespace():
        app = Sphinx(
            srcdir=BOOK,
            confdir=None,
            outdir=ASIDE / "html",
            doctreedir=ASIDE / "doctrees",
            buildername="html",
            confoverrides=configuration(),
            status=None,
            warningiserror=True,
            keep_going=True,
        )
        report_progress(app)
        try:
            app.build()
        except ExecutionError as error:
            fault, chapter = error.__cause__, Path(str(error)).name
            if isinstance(fault, CellExecutionError):
                what = f"{fault.ename}: {fault.evalue}".rstrip(": .")
            else:
                what = type(fault).__name__
            raise BuildError(
                f"a cell of notebooks/{chapter} fails ({what}); repair the cell and build again"
            ) from error
        except DeadKernelError as error:
            raise BuildError("a kernel died while it executed a chapter; free some memory and build again") from error
        except AssertionError as error:  # how nbclient ends when Ctrl-C stops its kernel
            raise KeyboardInterrupt from error
    if app.statuscode:
        raise BuildError("Sphinx warned of something, shown above; repair it and build again")
    front_door = ASIDE / "html" / "index.html"  # a redirection; without an icon browsers look for a favicon.ico
    icon = '<link rel="icon" href="data:,">\n'
    front_door.write_text(icon + front_door.read_text())


def move_into_place() -> None:
    """Replace the site by the one built aside."""
    old = BUILD / "html.old"
    shutil.rmtree(old, ignore_errors=True)
    if SITE.exists():
        os.replace(SITE, old)
    os.replace(ASIDE / "html", SITE)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(ASIDE)


def sources() -> str:
    """What the site is made from, as one text that changes with any of it."""
    figures = sorted((ROOT / "bench").glob("*.*"))
    made_from = digest(BOOK, ROOT / "notebooks", ROOT / "minigpt", ROOT / "requirements.txt", *figures)
    return made_from + os.environ.get("GITHUB_REPOSITORY", "")


def is_up_to_date() -> bool:
    """Is the built site what its sources say?"""
    return (SITE / "index.html").exists() and STAMP.exists() and STAMP.read_text() == sources()


def alone() -> AcquireReturnProxy:
    """A context in which no other build is at work; it waits for the one that is."""
    BUILD.mkdir(exist_ok=True)
    lock = FileLock(BUILD / "lock")
    with suppress(Timeout):
        return lock.acquire(timeout=0)
    print("Another build is at work; waiting for its end.", flush=True)
    return lock.acquire()


def build() -> None:
    """Build the book, unless the site is already what its sources say."""
    check_toc()
    with alone():
        if is_up_to_date():
            print("The book is up to date: book/_build/html/index.html")
            return
        made_from = sources()
        start = time.monotonic()
        forget_stale_outputs()
        build_aside()
        STAMP.unlink(missing_ok=True)
        move_into_place()
        write_text(STAMP, made_from)
        print(f"The book is built ({time.monotonic() - start:.0f} s): book/_build/html/index.html")


def main() -> int:
    """Build; on failure say why in one sentence and return 1."""
    try:
        build()
    except BuildError as error:
        print(f"No book: {error}.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"No book: {error.filename or BUILD}: {error.strerror or error}; "
              "free some space or make the folder writable, and build again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("No new book: the build was interrupted; run it again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
