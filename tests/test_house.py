"""The house: what imports what, and what lies where."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import setuptools

HERE = Path(__file__).parents[1]

STOREYS = [
    {"config", "disk", "alarm", "energy", "kernels", "memory"},
    {"tokenizer", "model", "recipes", "autograd", "huggingface", "schedule", "machine"},
    {"corpus", "checkpoint", "generate", "quantize", "distributed"},
    {"evaluate", "resume"},
    {"train"},
    {"journey", "tune", "cluster", "serve", "science"},
    {"cli"},
]
"""Imports point downward: a module may import from lower storeys, and inside its own folder."""

ROOMS = {"README.md", "Makefile", "make.py", "environment.yml", "requirements.txt", "pyproject.toml", "CHANGELOG.md",
         "LICENSE", "LICENSE-text", "book", "notebooks", "solutions", "labs", "minigpt", "grading", "bench", "tests",
         ".ci", ".github", ".gitignore"}


def modules():
    return sorted((HERE / "minigpt").rglob("*.py"))


def part(path):
    """The storey's name of a file: `corpus/shards.py` belongs to `corpus`."""
    return path.relative_to(HERE / "minigpt").with_suffix("").parts[0]


def imported(path):
    """Full names of everything a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(HERE).as_posix())
def test_imports_point_downward(path):
    if path.name == "__init__.py" and path.parent.name == "minigpt":
        return
    heights = {name: height for height, storey in enumerate(STOREYS) for name in storey}
    assert part(path) in heights, f"{part(path)} has no place among the storeys"
    for name in imported(path):
        if name.startswith("minigpt."):
            other = name.split(".")[1]
            same_folder = other == part(path)
            assert same_folder or heights[other] < heights[part(path)], f"{path.name} imports {name} from above"


def test_the_model_knows_nothing_of_lightning_data_or_disk():
    roots = {name.split(".")[0] for name in imported(HERE / "minigpt" / "model.py")}
    assert roots == {"zlib", "torch", "minigpt"}


def test_minigpt_imports_nothing_of_grading():
    assert not [name for path in modules() for name in imported(path) if name.startswith("grading")]


def test_each_outside_library_has_one_door():
    doors = {"lightning": {"distributed.py"}, "datasets": {"sources.py"}, "tokenizers": {"tokenizer.py"},
             "safetensors": {"checkpoint.py"}, "tyro": {"cli.py"}, "matplotlib": {"figures.py"},
             "filelock": {"disk.py"}, "pynvml": {"energy.py"}, "wandb": {"log.py"}}
    for library, files in doors.items():
        found = {path.name for path in modules() if library in {name.split(".")[0] for name in imported(path)}}
        assert found == files, library


def test_submitit_has_one_door():
    files = (HERE / "grading").glob("*.py")
    assert [path.name for path in files if "submitit" in set(imported(path))] == ["cluster.py"]


def test_nothing_else_lies_at_the_top():
    listed = subprocess.run(["git", "ls-files"], cwd=HERE, capture_output=True, text=True, check=True).stdout
    assert {name.split("/")[0] for name in listed.splitlines()} <= ROOMS


def test_what_students_install_answers_no_question():
    """A wheel holds the judge's modules and no folder of theirs: checks and zoo would tell answers, and the template
    for authors is half without its notebooks. All three are read from a checkout.
    """
    find = tomllib.loads((HERE / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packed = setuptools.find_namespace_packages(str(HERE), **find)
    assert {"minigpt", "minigpt.corpus"} < set(packed)
    assert [name for name in packed if name.startswith("grading")] == ["grading"]


def test_the_code_is_clean():
    subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "."], cwd=HERE, check=True)


@pytest.mark.parametrize("lab", sorted((HERE / "solutions").glob("lab*")), ids=lambda path: path.name)
def test_a_unit_has_one_stem_in_four_rooms(lab):
    stem = lab.name.removeprefix("lab")
    for path in (f"notebooks/{stem}.ipynb", f"labs/{lab.name}/{lab.name}.ipynb", f"grading/checks/{lab.name}.py"):
        assert (HERE / path).exists(), path
