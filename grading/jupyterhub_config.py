"""JupyterHub for this course on one machine, started by root in a folder for the Hub's own state:

    jupyterhub -f /home/instructor/seed-class/grading/jupyterhub_config.py

Who has an account and a password on the machine logs in with them (PAM), and gets a JupyterLab that runs as that
account. nbgrader's exchange knows by a folder's owner who handed it in, so every student needs an account.
The instructor is the account that owns this checkout; only theirs is the formgrader.
"""

import pwd
import sys
from pathlib import Path

from jupyterhub.spawner import Spawner

c = get_config()  # noqa: F821  (defined by traitlets, which runs this file)
COURSE = Path(__file__).resolve().parents[1]
MINE = COURSE / ".venv" / "bin" / "python"  # the instructor's environment; students use the one that runs the Hub
STUDENTS_DO_WITHOUT = ("formgrader", "course_list")


def prepare(spawner: Spawner) -> None:
    """The instructor's JupyterLab opens in the checkout; a student's opens at home, without the formgrader."""
    if spawner.user.name == pwd.getpwuid(COURSE.stat().st_uid).pw_name:
        spawner.notebook_dir = str(COURSE)
        spawner.environment["JUPYTER_CONFIG_PATH"] = str(COURSE / "grading")
        spawner.cmd = [str(MINE), "-m", "jupyterhub.singleuser"] if MINE.exists() else spawner.cmd
        return
    for name in STUDENTS_DO_WITHOUT:
        spawner.args.append(f"--ServerApp.jpserver_extensions=nbgrader.server_extensions.{name}=False")


c.JupyterHub.bind_url = "http://127.0.0.1:8000"  # to be reached from elsewhere, put a web server with TLS before it
c.ConfigurableHTTPProxy.command = [str(Path(sys.executable).parent / "configurable-http-proxy")]  # needs no Node.js
c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.open_sessions = False
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.start_timeout = c.Spawner.http_timeout = 180  # seconds; a busy machine takes its time over a JupyterLab
c.Spawner.default_url = "/lab"
c.Spawner.pre_spawn_hook = prepare
