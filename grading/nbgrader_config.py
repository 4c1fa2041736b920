"""What nbgrader needs to know about this course; found when nbgrader runs in this folder.

Elsewhere: JUPYTER_CONFIG_PATH=<this folder> nbgrader ...
"""

from pathlib import Path

from grading.gradebook import settings

c = get_config()  # noqa: F821  (defined by traitlets, which runs this file)
c.merge(settings(Path(__file__).resolve().parents[1]))
