"""A real Slurm on one machine: a controller and some nodes of its own, in a folder of their own.

`with Slurm() as slurm:` has sbatch, squeue and the rest speak to it for as long as the block lasts. By hand:

    python tests/slurm.py start FOLDER     prints the line that makes a shell use it
    python tests/slurm.py stop FOLDER

There are two partitions, `main` and `urgent`; a job in `urgent` preempts one in `main`, which is queued again. Each
node has two pretended GPUs. Its daemons belong to the user who starts it, and run no jobs but that user's.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
SECONDS = 30  # for a daemon to start or to stop

CONFIGURATION = """
ClusterName=seed
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
ReturnToService=2
MpiDefault=none
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName=DEFAULT CPUs={cores} RealMemory=64000 Gres=gpu:2 State=UNKNOWN
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{last}]
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=30 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2 GraceTime=30 PreemptMode=OFF State=UP
"""


def fault() -> str:
    """Why there can be no Slurm here; empty if there can be one."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    return f"{', '.join(missing)} not installed (apt install slurm-wlm munge)" if missing else ""


def free_ports(count: int) -> list[int]:
    """So many free ports in a row."""
    while True:
        first = 20_000 + secrets.randbelow(10_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as taken:
            for port in range(first, first + count):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            return [*range(first, first + count)]


class Slurm:
    """A running Slurm: a context."""

    def __init__(self, folder: Path | None = None, cores: int = 2, nodes: int = 2):
        self.own_folder = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="slurm-"))
        self.cores, self.nodes = cores, nodes
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> "Slurm":
        self.before = {name: os.environ.get(name) for name in self.environment}
        os.environ |= self.environment
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for name, value in self.before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if self.own_folder:
            shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start munge, the controller and the nodes, and wait until the nodes take jobs."""
        os.environ |= self.environment
        self._configure()
        self._munge()
        self._daemon("slurmctld", "-c")
        for node in range(1, self.nodes + 1):
            self._daemon("slurmd", "-N", f"n{node}")
        idle = f"idle {self.nodes}"
        wait(lambda: self.says("sinfo", "-h", "-p", "main", "-o", "%T %D") == idle, "the nodes are not idle")

    def _configure(self) -> None:
        for name in ("munge", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        host = socket.gethostname().split(".")[0]
        user = getpass.getuser()
        ports = free_ports(1 + self.nodes)
        text = CONFIGURATION.format(folder=self.folder, host=host, user=user, cores=self.cores, nodes=self.nodes,
                                    ports=ports, last=ports[-1])
        (self.folder / "slurm.conf").write_text(text)
        gpus = [self.folder / f"gpu{number}" for number in range(2)]
        for gpu in gpus:
            gpu.touch()
        lines = [f"NodeName=n[1-{self.nodes}] Name=gpu File={gpu}" for gpu in gpus]
        (self.folder / "gres.conf").write_text("\n".join(["AutoDetect=off", *lines, ""]))

    def _munge(self) -> None:
        place = self.folder / "munge"
        place.chmod(0o755)
        (place / "key").write_bytes(secrets.token_bytes(128))
        (place / "key").chmod(0o400)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        words = [f"--{option}={place / name}" for option, name in files.items()]
        self._run("munged", "--force", *words)

    def _daemon(self, program: str, *words: str) -> None:
        self._run(program, "-f", self.environment["SLURM_CONF"], *words)

    def _run(self, *words: str) -> None:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            raise RuntimeError(f"{words[0]} did not start: {done.stderr.strip() or done.stdout.strip()}")

    def says(self, *words: str) -> str:
        """What a command of Slurm prints; empty if it fails."""
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS)
        return done.stdout.strip() if done.returncode == 0 else ""

    def state(self, job: str) -> str:
        """The job's state and the reason for it, such as `PENDING BeginTime`; empty once it has ended."""
        return self.says("squeue", "-h", "-j", job, "-o", "%T %r")

    def lose(self, node: str) -> None:
        """Kill a node's daemon; Slurm is told at once what it would find out after some minutes."""
        os.kill(int((self.folder / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)
        self.says("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")

    def find(self, node: str) -> None:
        """Start a lost node's daemon again."""
        self._daemon("slurmd", "-N", node)

    def stop(self) -> None:
        """End all jobs, then the daemons, and wait until none is left."""
        os.environ |= self.environment
        if self.says("scontrol", "ping"):
            subprocess.run(["scancel", "--state=PENDING,RUNNING,SUSPENDED", "--me"], capture_output=True)
            with contextlib.suppress(TimeoutError):
                wait(lambda: not self.says("squeue", "-h"), "jobs are left")
        for path in [*self.folder.glob("slurmd.*.pid"), self.folder / "slurmctld.pid", self.folder / "munge" / "pid"]:
            end(path)


def end(pid_file: Path) -> None:
    """End the daemon that wrote this file, with force if it takes too long."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, kind)
        with contextlib.suppress(TimeoutError):
            return wait(lambda: has_ended(pid), f"process {pid} does not end")


def has_ended(pid: int) -> bool:
    """Whether a process is no more, or waits to be taken notice of by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait(is_so, complaint: str, seconds: float = SECONDS) -> None:
    """Return as soon as it is so.

    Raises  TimeoutError with the complaint if that takes too long.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        time.sleep(0.1)


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in ("start", "stop"):
        sys.exit(__doc__)
    if why := fault():
        sys.exit(why)
    slurm = Slurm(Path(sys.argv[2]).absolute())
    if sys.argv[1] == "stop":
        return slurm.stop()
    slurm.start()
    print(f"export SLURM_CONF={slurm.environment['SLURM_CONF']}")


if __name__ == "__main__":
    main()
