"""The front door: python make.py WORD [NAME=VALUE ...]

  class    everything: environment, journey, book, labs, demonstration class; then serve site and JupyterLab
  test     the test suite                                (SLOW=1 adds the slow ones; CI always runs them)
  book     execute every notebook and build the site     book/_build/html
  labs     generate labs/ from solutions/
  grade    grade the demonstration class
  lab      JupyterLab alone
  bench    six of the measurements behind the page of that name in the book; for the others: python bench/NAME.py
  clean    remove what can be made again: site and runs (marks in grading/_work and the environment stay)

  SERVE=0  class: do not serve at the end       SITE_PORT=8000, LAB_PORT=8888  where to serve

It needs nothing but Python 3.11: the first call makes .venv from requirements.txt, later calls use it. In the conda
environment of environment.yml it uses that one and makes none.
"""

import functools
import hashlib
import http.server
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import venv
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
IN_CONDA = os.environ.get("CONDA_PREFIX") == sys.prefix and importlib.util.find_spec("minigpt") is not None
BIN = Path(sysconfig.get_path("scripts")) if IN_CONDA else VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = Path(sys.executable) if IN_CONDA else BIN / "python"
SITE = HERE / "book" / "_build" / "html"
MADE = ("book/_build", "runs")


def environment() -> None:
    """Make .venv from requirements.txt, unless it is there and the pins have not changed."""
    if IN_CONDA:
        return
    pins = b"".join((HERE / name).read_bytes() for name in ("requirements.txt", "pyproject.toml"))
    stamp, wanted = VENV / "seed-class.txt", hashlib.sha256(pins).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("environment: installing requirements.txt into .venv (minutes, the first time)")
    if not BIN.exists():
        venv.create(VENV, with_pip=True)
    for target in (["-r", "requirements.txt"], ["--no-deps", "-e", "."]):
        run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *target)
    stamp.write_text(wanted)


def class_() -> None:
    serve = option("SERVE", "1") != "0"
    if serve:
        check_ports()
    journey()
    book()
    labs()
    grade()
    say(f"the site: {SITE / 'index.html'}")
    if serve:
        serve_all()


def journey() -> None:
    say("journey: text, tokenizer, shards, training, report card in runs/journey")
    run("minigpt", "journey")


def book() -> None:
    say("book: executing the notebooks and building the site")
    run("python", "book/build.py")


def labs() -> None:
    say("labs: generating labs/ from solutions/")
    run("grading", "labs")


def grade() -> None:
    say("grading: the demonstration class")
    run("grading", "demo")


def test() -> None:
    slow = option("SLOW", "0") != "0" or option("CI", "") == "true"
    side_by_side = ["-n", str(min(os.cpu_count() or 1, 4)), "--dist", "loadfile", "--no-loadscope-reorder"]
    run("python", "-m", "pytest", *side_by_side, *([] if slow else ["-m", "not slow"]))


def bench() -> None:
    for name in ("journey_seeds", "training", "generation", "tokenizer", "loader", "grading_speed"):
        run("python", f"bench/{name}.py")


def lab() -> None:
    port = free_port("LAB_PORT", "8888")
    token = secrets.token_hex(16)
    print(f"JupyterLab: http://127.0.0.1:{port}/lab?token={token}   (Ctrl-C stops it)", flush=True)
    finish(start_lab(port, token))


def clean() -> None:
    for name in MADE:
        shutil.rmtree(HERE / name, ignore_errors=True)
        print(f"removed {name}")


def serve_all() -> None:
    site_port, lab_port = check_ports()
    token = secrets.token_hex(16)
    handler = functools.partial(QuietHandler, directory=SITE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", site_port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    jupyter = start_lab(lab_port, token)
    print(f"\nsite:       http://127.0.0.1:{site_port}/\n"
          f"JupyterLab: http://127.0.0.1:{lab_port}/lab?token={token}\n(Ctrl-C stops both)", flush=True)
    try:
        finish(jupyter)
    finally:
        jupyter.terminate()
        server.shutdown()


def finish(jupyter: subprocess.Popen) -> None:
    """Wait until JupyterLab ends; stop with a sentence if it ended by a fault."""
    if status := jupyter.wait():
        stop(f"JupyterLab ended with status {status}; its last lines above say why")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *parts: object) -> None:
        pass


def start_lab(port: int, token: str) -> subprocess.Popen:
    """JupyterLab on this folder; its formgrader reads the course's grading/nbgrader_config.py."""
    configured = os.pathsep.join(filter(None, [str(HERE / "grading"), os.environ.get("JUPYTER_CONFIG_PATH")]))
    as_root = ["--ServerApp.allow_root=True"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return subprocess.Popen([BIN / "jupyter", "lab", "--no-browser", *as_root, "--ServerApp.ip=127.0.0.1",
                             f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--log-level=ERROR",
                             f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={HERE}"],
                            cwd=HERE, env={**inside(), "JUPYTER_CONFIG_PATH": configured})


def check_ports() -> tuple[int, int]:
    """The ports of site and JupyterLab. Stops with a sentence if one is taken."""
    return free_port("SITE_PORT", "8000"), free_port("LAB_PORT", "8888")


def free_port(name: str, default: str) -> int:
    value = option(name, default)
    if not value.isdigit() or not 0 < int(value) < 65536:
        stop(f"{name} is {value!r} but a port is a number from 1 to 65535; choose another, as in {name}={default}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(value)))
        except OSError:
            stop(f"port {value} is taken by another program; choose a free one, as in {name}={int(value) + 1}")
    return int(value)


def run(program: str, *arguments: str) -> None:
    """Run one of the environment's programs; stop if it fails. Ctrl-C lets it end in order first."""
    path = PYTHON if program == "python" else BIN / program
    process = subprocess.Popen([path, *arguments], cwd=HERE, env=inside())
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    if status:
        sys.exit(status if status > 0 else 128 - status)


def inside() -> dict[str, str]:
    """This process's variables, with the environment's programs found first.

    A thread that waits for another spins for a moment before it sleeps; that moment is cut short, because it stands in
    the way of every other program on the machine. Measured: two programs side by side on two cores run twice as fast.
    """
    return {"GOMP_SPINCOUNT": "1000", **os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}


def option(name: str, default: str) -> str:
    """NAME=VALUE from the command line or the environment."""
    given = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
    return given.get(name) or os.environ.get(name) or default


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def stop(sentence: str) -> None:
    sys.exit(f"make: {sentence}")


WORDS: dict[str, Callable[[], None]] = {"class": class_, "test": test, "book": book, "labs": labs, "grade": grade,
                                        "lab": lab, "bench": bench, "clean": clean}


def main() -> None:
    word = (sys.argv[1:2] or ["--help"])[0]
    if word in ("--help", "-h"):
        print(__doc__)
        return
    if word not in WORDS:
        stop(f"there is no word {word!r}; choose one of {', '.join(WORDS)}")
    if sys.version_info[:2] != (3, 11):
        stop(f"this is Python {sys.version.split()[0]} but the class is pinned to 3.11; call it with python3.11, "
             "or use conda and environment.yml")
    try:
        if word != "clean":
            environment()
        WORDS[word]()
    except KeyboardInterrupt:
        stop("stopped; the same command goes on from here")
    except OSError as fault:
        stop(f"{fault.filename or HERE}: {fault.strerror}; free some space or make the folder writable, "
             "then call the same command again")


if __name__ == "__main__":
    main()
