"""Whatever honest students do to a notebook, a right answer keeps its points: on the real labs of this course.

What other programs write into a notebook: Colab saves nbformat 4.0 unless the file came with ids, puts
`colab.provenance` and `accelerator` beside the kernel, and `id`, `colab` and `outputId` into each cell's metadata
(googlecolab/colabtools 5402, jupyter/nbformat 148). VS Code writes the interpreter's hash, and has erased the
metadata of cells when they ran (microsoft/vscode-jupyter 8412, microsoft/vscode-python 9997).
"""

import copy
import json
from pathlib import Path

import pytest
from test_grading_tiny import EXPOSED

from grading.course import Course, write_whole
from grading.demonstration import hand_in
from grading.ingest import ingest
from grading.judge import BY_HAND, RIGHT, Judge
from grading.session import WarmParent

pytestmark = pytest.mark.slow
COURSE = Course(Path(__file__).resolve().parents[1])
NEURON, JOURNEY = COURSE.lab("01"), COURSE.lab("00")


def solution(lab):
    return json.loads(hand_in(lab, "solution"))


def new_cell(source, **more):
    return {"cell_type": "code", "execution_count": 3, "metadata": {}, "outputs": [], "source": source} | more


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def place(notebook, grade_id):
    marks = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in notebook["cells"]]
    return marks.index(grade_id)


def answered(**sources):
    """The solution of lab 01 with other sources in some answer cells."""
    notebook = solution(NEURON)
    for grade_id, source in sources.items():
        notebook["cells"][place(notebook, grade_id)]["source"] = source
    return notebook


def with_cell(source, before="forward"):
    """The solution of lab 01 with one cell more."""
    notebook = solution(NEURON)
    notebook["cells"].insert(place(notebook, before), new_cell(source))
    return notebook


# --- what students write ---

NEURON_ANSWER = "def neuron(X, w, b):\n    return np.tanh(X @ w + b)"

WRITTEN = {
    "warnings": with_cell("import warnings\nwarnings.warn('careful')\nnp.log(0), np.zeros(1) / 0"),
    "a warning in every call": answered(forward="import warnings\ndef neuron(X, w, b):\n    warnings.warn('slow')\n"
                                        "    return np.tanh(X @ w + b)"),
    "prints": answered(forward="def neuron(X, w, b):\n    print(X, w, b)\n    return np.tanh(X @ w + b)\n"
                               "print(neuron(np.ones((2, 2)), np.ones(2), 0))"),
    "a progress bar": answered(forward="from tqdm.auto import tqdm\ndef neuron(X, w, b):\n"
                                       "    return [np.tanh(row @ w + b) for row in tqdm(X)]"),
    "plots": with_cell("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot(distance, velocity)\nplt.show()"),
    "magics": with_cell("%load_ext autoreload\n%autoreload 2\n%timeit -n 1 -r 1 np.ones(3)\n!ls -la\nfiles = !ls\n"
                        "%env\n%whos\n%cd ."),
    "a timed answer": answered(forward=f"%%time\n{NEURON_ANSWER}"),
    "an installing cell": with_cell("!pip install numpy > /dev/null\n%pip --version"),
    "help": with_cell("np.tanh?\nhelp(np.tanh)"),
    "HTML and widgets": with_cell("from IPython.display import HTML, display\ndisplay(HTML('<b>mine</b>'))"),
    "a cell that fails": with_cell("1 / 0"),
    "a cell that cannot be parsed": with_cell("my notes: look at section 2"),
    "a cell of another kernel": with_cell("%%bash\necho hello"),
    "JavaScript": with_cell("%%javascript\nalert(1)"),
    "work in progress above": with_cell("def neuron(X, w, b):\n    return None"),
    "a copy of the test below": with_cell("assert np.allclose(neuron(np.ones((1, 2)), np.ones(2), 0), np.tanh(2))",
                                          before="tolerance"),
    "typing": answered(forward="from __future__ import annotations\nimport numpy.typing as npt\n"
                               "def neuron(X: npt.NDArray, w: npt.NDArray, b: float) -> npt.NDArray:\n"
                               "    return np.tanh(X @ w + b)"),
    "a class behind it": answered(forward="class Neuron:\n    def __call__(self, X, w, b):\n"
                                          "        return np.tanh(X @ w + b)\nneuron = Neuron()"),
    "a lambda": answered(forward="neuron = lambda X, w, b: np.tanh(np.einsum('bd,d->b', X, w) + b)"),
    "a list": answered(forward="import math\ndef neuron(X, w, b):\n"
                               "    return [math.tanh(sum(x * y for x, y in zip(row, w)) + b) for row in X]"),
    "a tuple": answered(forward="def neuron(X, w, b):\n    return tuple(np.tanh(X @ w + b))"),
    "a torch tensor": answered(forward="import torch\ndef neuron(X, w, b):\n"
                                       "    return torch.tanh(torch.as_tensor(X) @ torch.as_tensor(w) + b)"),
    "a tensor that knows its gradient": answered(forward="import torch\ndef neuron(X, w, b):\n    w = torch.tensor(w, "
                                                 "requires_grad=True)\n    return torch.tanh(torch.tensor(X) @ w + b)"),
    "a number of NumPy": answered(price="answer_days = np.float64(2.2e8 / 86400)"),
    "an array with one number": answered(price="answer_days = np.array(2.2e8 / 86400)"),
    "a number of torch": answered(price="import torch\nanswer_days = torch.tensor(2.2e8 / 86400, dtype=float)"),
    "slow but in time": answered(forward="import time\ndef neuron(X, w, b):\n    time.sleep(0.3)\n"
                                         "    return np.tanh(X @ w + b)"),
    "recursion": answered(forward="def neuron(X, w, b):\n    if len(X) == 0:\n        return []\n"
                                  "    return [np.tanh(X[0] @ w + b), *neuron(X[1:], w, b)]"),
    "a cache": answered(forward="import functools\n@functools.lru_cache\ndef bend(z):\n    return np.tanh(z)\n"
                                "def neuron(X, w, b):\n    return [bend(float(z)) for z in X @ w + b]"),
    "a thread": answered(forward="from concurrent.futures import ThreadPoolExecutor\ndef neuron(X, w, b):\n"
                                 "    with ThreadPoolExecutor(2) as pool:\n"
                                 "        return list(pool.map(lambda row: np.tanh(row @ w + b), X))"),
    "a file of its own": answered(forward="%%writefile mine.py\nimport numpy as np\n" + NEURON_ANSWER),
    "float32": answered(tolerance="def bias_for(X, w, k):\n    z = np.sort((X @ w).astype(np.float32))[::-1]\n"
                                  "    return -(z[k - 1] + z[k]) / 2"),
    "inputs sorted in place": answered(tolerance="def bias_for(X, w, k):\n    z = X @ w\n    z.sort()\n    X[:] = 0\n"
                                                 "    return -(z[-k] + z[-k - 1]) / 2"),
}  # fmt: skip
WRITTEN["a file of its own"]["cells"].insert(place(WRITTEN["a file of its own"], "tolerance"),
                                             new_cell("from mine import neuron"))


# --- what programs make of it ---


def as_colab_saves_it(notebook):
    """The file came without cell ids, so it goes without them; everything is marked Colab's way."""
    for number, cell in enumerate(notebook["cells"]):
        cell.pop("id", None)
        cell["metadata"] |= {"id": f"x{number}YzA", "colab": {"base_uri": "https://localhost:8080/"}}
        if cell["cell_type"] == "code":
            cell["metadata"]["outputId"] = "5e0c3a1b-0000"
            cell["execution_count"] = number
    metadata = {"colab": {"provenance": [], "gpuType": "T4"}, "accelerator": "GPU"}
    notebook["metadata"] = metadata | {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return notebook | {"nbformat_minor": 0}


def as_code_saves_it(notebook):
    notebook["metadata"] |= {"orig_nbformat": 4, "vscode": {"interpreter": {"hash": "31f2aee4e71d21fb"}}}
    for cell in code_cells(notebook):
        cell["metadata"] |= {"vscode": {"languageId": "python"}}
    return notebook


def metadata_erased(notebook):
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    return notebook


def metadata_and_ids_erased(notebook):
    return metadata_erased(ids_erased(notebook))


def ids_erased(notebook):
    for cell in notebook["cells"]:
        cell.pop("id")
    return notebook | {"nbformat_minor": 4}


def sources_in_one_piece(notebook):
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def outputs_saved(notebook):
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBORw0KGgo=" * 10_000}}
    widget = {"output_type": "display_data", "metadata": {}, "data": {
        "application/vnd.jupyter.widget-view+json": {"model_id": "ab12", "version_major": 2}}}  # fmt: skip
    error = {"output_type": "error", "ename": "NameError", "evalue": "x", "traceback": ["\x1b[31mNameError\x1b[0m"]}
    for cell in code_cells(notebook):
        cell["outputs"] = [picture, widget, error]
    notebook["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    return notebook


def cells_reversed_in_pairs(notebook):
    """Each answer below its test."""
    cells = notebook["cells"]
    for grade_id in ("forward", "tolerance", "gradient"):
        at = place(notebook, grade_id)
        cells[at], cells[at + 1] = cells[at + 1], cells[at]
    return notebook


def answers_at_the_end(notebook):
    moved = [notebook["cells"].pop(place(notebook, name)) for name in ("slopes", "forward")]
    return notebook | {"cells": notebook["cells"] + moved}


def a_split_answer(notebook):
    """The answer in two cells, as the editor's command makes it: the lower half has no marks."""
    at = place(notebook, "forward")
    notebook["cells"][at]["source"] = "def bend(z):\n    return np.tanh(z)\n"
    notebook["cells"].insert(at + 1, new_cell("def neuron(X, w, b):\n    return bend(X @ w + b)", id="half"))
    return notebook


def merged_with_the_text_below(notebook):
    at = place(notebook, "forward")
    notebook["cells"][at]["source"] += "\n\n# what I tried:\n'''\nneuron(1)\n'''"
    return notebook


def every_test_copied_to_the_end(notebook):
    tests = [cell for cell in notebook["cells"] if cell["metadata"].get("nbgrader", {}).get("points")]
    return notebook | {"cells": notebook["cells"] + copy.deepcopy(tests)}


def without_tests(notebook):
    kept = [cell for cell in notebook["cells"] if not cell["metadata"].get("nbgrader", {}).get("grade")
            or cell["cell_type"] == "markdown"]  # fmt: skip
    return notebook | {"cells": kept}


def setup_deleted(notebook):
    del notebook["cells"][place(notebook, "setup")]
    return notebook


def setup_extended(notebook):
    notebook["cells"][place(notebook, "setup")]["source"] += "\nimport math, tqdm"
    return notebook


def slideshow_and_tags(notebook):
    for cell in notebook["cells"]:
        cell["metadata"] |= {"slideshow": {"slide_type": "slide"}, "collapsed": True, "tags": ["hide-input", "mine"]}
    return notebook


CHANGES = (as_colab_saves_it, as_code_saves_it, metadata_erased, metadata_and_ids_erased, ids_erased,
           sources_in_one_piece, outputs_saved, cells_reversed_in_pairs, answers_at_the_end, a_split_answer,
           merged_with_the_text_below, every_test_copied_to_the_end, without_tests, setup_deleted, setup_extended,
           slideshow_and_tags)  # fmt: skip


def with_bom(text):
    return b"\xef\xbb\xbf" + text.encode()


def with_crlf(text):
    return text.replace("\n", "\r\n").encode()


def with_crlf_in_the_sources(text):
    return text.replace("\\n", "\\r\\n").encode()




def in_utf_16(text):
    return text.encode("utf-16")


def on_one_line(text):
    return json.dumps(json.loads(text)).encode()


def with_every_letter_escaped(text):
    return json.dumps(json.loads(text), ensure_ascii=True, indent=4, sort_keys=True).encode()


FILES = (with_bom, with_crlf, with_crlf_in_the_sources, in_utf_16, on_one_line, with_every_letter_escaped)


@pytest.fixture(scope="module")
def judges():
    with WarmParent(exposed=EXPOSED) as parent, Judge(NEURON, parent, b"honest") as neuron, \
            Judge(JOURNEY, parent, b"honest") as journey:  # fmt: skip
        yield {NEURON.name: neuron, JOURNEY.name: journey}


def keeps_all(judges, folder, lab, data, name=""):
    """The questions that lost points, with what the student was told."""
    write_whole(folder / (name or f"{lab.name}.ipynb"), data)
    judgements, _ = judges[lab.name].judge(ingest(lab, "honest", folder))
    return [j for j in judgements if j.status not in (RIGHT, BY_HAND)]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_honest_students_write_keeps_its_points(judges, tmp_path, name):
    assert keeps_all(judges, tmp_path, NEURON, json.dumps(WRITTEN[name])) == []


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_programs_make_of_a_notebook_keeps_its_points(judges, tmp_path, change):
    lost = keeps_all(judges, tmp_path, NEURON, json.dumps(change(solution(NEURON))))
    written = {question.id for question in NEURON.questions if question.written}
    assert [j for j in lost if j.question not in written or change is not metadata_and_ids_erased] == []


@pytest.mark.parametrize("encode", FILES, ids=lambda encode: encode.__name__)
def test_how_a_file_is_written_costs_nothing(judges, tmp_path, encode):
    assert keeps_all(judges, tmp_path, NEURON, encode(hand_in(NEURON, "solution"))) == []


@pytest.mark.parametrize("name", ["lab01_neuron(1).ipynb", "Kopie von lab01.ipynb", "final FINAL.ipynb", "猫.ipynb"])
def test_a_renamed_notebook_keeps_its_points(judges, tmp_path, name):
    assert keeps_all(judges, tmp_path, NEURON, hand_in(NEURON, "solution"), name) == []


@pytest.mark.parametrize("change", [as_colab_saves_it, as_code_saves_it, metadata_erased, outputs_saved])
def test_a_lab_that_forbids_something_is_as_patient(judges, tmp_path, change):
    notebook = change(solution(JOURNEY))
    notebook["cells"].append(new_cell("import minigpt\nfrom minigpt.recipes import journey\nprint(journey().name)"))
    assert keeps_all(judges, tmp_path, JOURNEY, json.dumps(notebook)) == []
