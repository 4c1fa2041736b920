"""The sandbox of the students' code: by bubblewrap, or by podman, or by docker, whichever works first.

The environment variable GRADING_SANDBOX names one of them; then no other is tried.
"""

import os
import platform
import sys
from functools import cache

from grading.bubblewrap import Bubblewrap
from grading.container import Container
from grading.walls import REFUSED, Backend, Limits, Sandbox

BACKENDS: dict[str, Backend] = {
    "bubblewrap": Bubblewrap(),
    "podman": Container("podman"),
    "docker": Container("docker"),
}


@cache
def choose(wanted: str) -> tuple[str, str]:
    """The name of the backend that works here, and what is wrong with those before it."""
    if sys.platform != "linux":
        return "", "sandboxes need Linux"
    if platform.machine() not in REFUSED:
        return "", f"no list of refused system calls is known for {platform.machine()}"
    if wanted and wanted not in BACKENDS:
        return "", f"GRADING_SANDBOX is {wanted!r}, which is none of {', '.join(BACKENDS)}"
    faults = []
    for name in [wanted] if wanted else BACKENDS:
        fault = BACKENDS[name].fault()
        if not fault:
            return name, ""
        faults.append(fault)
    return "", ", ".join(faults)


def name() -> str:
    """The backend that is used here; empty if there is none."""
    return choose(os.environ.get("GRADING_SANDBOX", ""))[0]


def fault() -> str:
    """Why there can be no sandbox here; empty if there can be one."""
    return choose(os.environ.get("GRADING_SANDBOX", ""))[1]


def start(inner: list[str], environment: dict[str, str], limits: Limits, log: int) -> Sandbox:
    """A new sandbox in which `inner` runs.

    Raises  OSError if it ended before it could run.
    """
    return BACKENDS[name()].start(inner, environment, limits, log)
