"""The demonstration class: a dozen students whose answers come from the solutions and the checks themselves.

It is kept apart from the real class: its submissions, marks and pages lie in a folder of their own.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from grading.course import Course, Lab, to_json, write_whole
from grading.question import Question

# Each student with what they hand in for the labs in turn (a third lab starts again with the first column).
# "wrong N" gives the N-th listed wrong answer of every question, "another way N" the N-th other right answer.
STUDENTS: dict[str, tuple[str, str]] = {
    "amara": ("solution", "another way 2"),
    "bruno": ("another way 1", "wrong 1"),
    "chen": ("noisy", "solution"),
    "divya": ("wrong 1", "partly right"),
    "elif": ("wrong 2", "wrong 3"),
    "farid": ("partly right", "wrong 2"),
    "greta": ("wrong 3", "noisy"),
    "hugo": ("blank", "wrong 4"),
    "ines": ("wrong 4", "blank"),
    "jonas": ("broken file", "another way 1"),
    "kaia": ("another way 2", "wrong 5"),
    "liam": ("wrong 5", "broken file"),
}

CONFIG = '''"""nbgrader on the demonstration class; found when JupyterLab is started in this folder."""

from pathlib import Path

from grading.gradebook import settings

HERE = Path(__file__).resolve().parent
c = get_config()  # noqa: F821  (defined by traitlets, which runs this file)
c.merge(settings(HERE.parents[2], HERE))
'''

NOISE = """import sys, warnings
from tqdm import tqdm
for _ in tqdm(range(50), desc="checking my answer"):
    pass
warnings.warn("this warning costs no points")
print("neither does this line", file=sys.stderr)

"""

FREE_CELL = """%matplotlib inline
import matplotlib.pyplot as plt
plt.plot([1, 2, 4, 8])
plt.title("my own plot")
plt.show()
print("a cell of my own")"""


def answer(lab: Lab, question: Question, kind: str) -> str:
    """What a student of this kind writes into the question's answer cell."""
    solution, blank = lab.model_answer(question).source, lab.blank(question).source
    number = int(kind.rsplit(" ", 1)[1]) - 1 if kind[-1].isdigit() else 0
    if kind == "blank" or (kind == "partly right" and question.part != "core"):
        return blank
    if kind == "noisy" and not question.written:
        return NOISE + solution
    if kind.startswith("another way") and question.right:
        return question.right[number % len(question.right)].source
    if kind.startswith("wrong") and number < len(question.wrong):
        return question.wrong[number].source
    return solution


def hand_in(lab: Lab, kind: str) -> str:
    """The notebook file that a student of this kind hands in."""
    sources = {question.id: answer(lab, question, kind) for question in lab.questions}
    notebook = json.loads(lab.release_path.read_bytes())
    for cell in notebook["cells"]:
        marks = cell["metadata"].get("nbgrader", {})
        if marks.get("solution"):
            cell["source"] = sources[marks["grade_id"]]
    if kind == "noisy":
        notebook["cells"].append(
            {
                "cell_type": "code",
                "execution_count": 1,
                "id": "mine",
                "metadata": {},
                "outputs": [],
                "source": FREE_CELL,
            }
        )
    text = to_json(notebook)
    return text[: len(text) // 2] if kind == "broken file" else text


def demonstration(course: Course) -> Course:
    """The course with the demonstration class in place of the real one."""
    return replace(course, beside="demo")


def build_class(course: Course, labs: list[Lab], tell: Callable[[str], None] = print) -> Path:
    """Write the class's notebooks to submitted/STUDENT/LAB/LAB.ipynb, the folder that comes back."""
    folder = course.work / "submitted"
    for number, lab in enumerate(labs):
        for student, kinds in STUDENTS.items():
            kind = kinds[number % len(kinds)]
            write_whole(folder / student / lab.name / f"{lab.name}.ipynb", hand_in(lab, kind))
        tell(f"  {lab.name}: {len(STUDENTS)} submissions written")
    if course.beside:
        write_whole(course.work / "nbgrader_config.py", CONFIG)
    return folder
