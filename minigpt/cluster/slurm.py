"""Job scripts for Slurm: one file of shell that a person can read, keep and change.

Source  SchedMD, manual pages of sbatch, srun, scontrol and gres.conf (22.05).
"""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from minigpt.config import RunConfig, check_positive, flatten
from minigpt.disk import write_text
from minigpt.recipes import recipe

Vendor = Literal["nvidia", "amd", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a job asks of Slurm, and what it does when something happens."""

    nodes: int = 1
    """Machines."""
    gpus_per_node: int = 8
    """GPUs that a machine gives, each with one process (rank); an MI250X counts as two."""
    gpu: str = ""
    """Slurm's name for the kind of GPU, such as h100 or mi300x; empty: whatever the queue has."""
    vendor: Vendor | Literal[""] = ""
    """Who made the GPUs; empty: as the name of the GPU says, else nvidia; `cpu`: ranks without GPUs."""
    partition: str = ""
    """The queue; empty: the cluster's default."""
    account: str = ""
    """Who pays; empty: the cluster's default."""
    time: str = "1-00:00:00"
    """The longest stay at a time, days-hours:minutes:seconds; a longer run comes back as often as it needs."""
    warning_seconds: int = 300
    """How long before the end of a stay all ranks are told to save and stop: more than a step and a checkpoint."""
    cpus_per_gpu: int = 8
    """Processor cores of each rank, or of each task that writes shards."""
    local: str = ""
    """A folder on each node's own disk for a copy of the shards; empty: $TMPDIR or /tmp; `none`: no copy."""
    slow: float = 0.7
    """The health check refuses a GPU or link that is slower than this share of the median of its kind."""
    faults: int = 5
    """After how many faults without a new checkpoint between them the job stays away."""

    def __post_init__(self) -> None:
        check_positive(self, "nodes", "gpus_per_node", "warning_seconds", "cpus_per_gpu")
        if self.faults < 0:
            raise ValueError(f"faults is {self.faults} but counts comebacks; 0 never comes back after a fault")
        if not 0 < self.slow < 1:
            raise ValueError(f"slow is {self.slow} but is a share of the median; choose it between 0 and 1")
        if self.seconds <= self.warning_seconds:
            raise ValueError(f"time {self.time} is over before the warning that comes {self.warning_seconds} seconds "
                             "ahead of its end; choose a longer time or fewer warning_seconds")
        for name in ("gpu", "partition", "account"):
            if not re.fullmatch(r"[\w.,-]*", getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}, which is no name in Slurm; "
                                 "use letters, digits, dots and hyphens")
        if self.vendor and self.gpu and self.vendor != vendor_of(self.gpu):
            raise ValueError(f"the GPU {self.gpu} is not one of the vendor {self.vendor}; leave one of the two out")
        if self.local not in ("", "none") and not Path(self.local).is_absolute():
            raise ValueError(f"local is {self.local!r} but is a folder on every node; give a path that begins with /")

    @property
    def seconds(self) -> int:
        """The longest stay. Raises ValueError if the time is not written as Slurm writes times."""
        found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", self.time)
        if not found:
            raise ValueError(f"time is {self.time!r}, which is no time; write days-hours:minutes:seconds, "
                             "such as 1-00:00:00 or 12:00:00")
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    @property
    def ranks(self) -> int:
        """Processes, one a GPU."""
        return self.nodes * self.gpus_per_node

    @property
    def maker(self) -> Vendor:
        """Whose GPUs they are."""
        return self.vendor or vendor_of(self.gpu)


def vendor_of(gpu: str) -> Vendor:
    """Whose GPU has this name: AMD's are called MI and a number."""
    return "amd" if re.match(r"(?i)(amd|instinct|[-_ ])*mi\d", gpu) else "nvidia"


def write_training(config: RunConfig, recipe_name: str, folder: Path, job: Job) -> Path:
    """The script that trains the run: slurm/train.sh in its folder.

    Raises  ValueError if the folder's name cannot stand in a line of sbatch.
    """
    kind = {"cpu": "no GPUs", "nvidia": "NVIDIA GPUs", "amd": "AMD GPUs"}[job.maker]
    staged = job.local != "none"
    return write_script("train", "train.out", config, folder, job, {
        "parameters": f"{config.model.n_parameters:,}",
        "machines": f"{job.nodes} {'machine' if job.nodes == 1 else 'machines'} with {job.gpus_per_node} ranks each "
                    f"({kind})",
        "gpus": "" if job.maker == "cpu" else section("gpus", kind=job.gpu and f"{job.gpu}:", n=job.gpus_per_node),
        "vendor": section(job.maker), "vendor_place": section(f"{job.maker}_place"),
        "device": "cpu" if job.maker == "cpu" else "cuda",
        "stage": section("stage", local=shlex.quote(job.local) if job.local else '"${TMPDIR:-/tmp}"') if staged else "",
        "stage_name": "own_disk stage unstage " if staged else "", "staging": section("staging") if staged else "",
        "shards": section("shards") if staged else "  local shards=$run/shards\n",
        "cleaning": section("cleaning") if staged else "",
        "train": shlex.join(["minigpt", "train", recipe_name, *overrides(recipe(recipe_name), config)]),
    })


def write_shards_array(config: RunConfig, recipe_name: str, folder: Path, job: Job, parts: int) -> Path:
    """The script of an array whose tasks write the run's shards: slurm/shards.sh in its folder."""
    return write_script("shards", "shards-%a.out", config, folder, job, {
        "parts": parts, "last_part": parts - 1,
        "shards": shlex.join(["minigpt", "shards", recipe_name, *overrides(recipe(recipe_name), config)]),
    })


def write_script(word: str, output: str, config: RunConfig, folder: Path, job: Job, values: dict[str, object]) -> Path:
    """The template WORD.sh with these values, the job's fields, and what all scripts have."""
    run = Path(folder).absolute()
    home = run / "slurm"
    if found := sorted(set(f"{run}{config.name}") & set('"\\\n')):
        raise ValueError(f"{str(run)!r} has {found[0]!r} in its name, which sbatch does not read; "
                         "name another folder with --folder")
    script = home / f"{word}.sh"
    text = fill(template(word), asdict(job) | values | {
        "name": config.name, "run": run, "home": home, "script": shlex.quote(str(script)),
        "quoted_run": shlex.quote(str(run)), "comment": f'"{comment(run)}"',
        "partition": option("partition", job.partition, "The queue"),
        "account": option("account", job.account, "Who pays"),
        "output": shlex.quote(str(home / output)), "output_pattern": f'"{str(home).replace("%", "%%")}/{output}"',
        "bin": shlex.quote(str(Path(sys.executable).parent)),
    })
    home.mkdir(parents=True, exist_ok=True)
    write_text(script, text)
    script.chmod(0o755)
    return script


def template(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sh").read_text(encoding="utf-8")


def section(name: str, **values: object) -> str:
    """A piece of script that stands in some scripts only: what follows `# == NAME` in sections.sh."""
    return fill(template("sections").partition(f"# == {name}\n")[2].partition("# == ")[0], values)


def fill(text: str, values: dict[str, object]) -> str:
    """The text with each @name@ replaced."""
    return re.sub(r"@([a-z_]+)@", lambda found: str(values[found[1]]), text)


def option(name: str, value: str, what: str) -> str:
    """A line that asks sbatch for something, or a comment that says how."""
    return (f"# {what}.\n#SBATCH --{name}={value}" if value else
            f"# {what}: as the cluster decides. To choose: #SBATCH --{name}=NAME")


def comment(run: Path) -> str:
    """What a job says of itself in the queue."""
    return f"minigpt {Path(run).absolute()}"


def overrides(base: RunConfig, config: RunConfig) -> list[str]:
    """The words of the command line that turn one config into the other."""
    before, words = flatten(asdict(base)), []
    for key, value in flatten(asdict(config)).items():
        *path, name = key.replace("_", "-").split(".")
        if value == before[key]:
            continue
        if isinstance(value, bool):
            words.append("--" + ".".join([*path, name if value else f"no-{name}"]))
        else:
            words.append(f"--{'.'.join([*path, name])}={value}")
    return words


def submit(script: Path) -> str:
    """Hand the script to Slurm; the number of the job.

    Raises  ValueError with what sbatch said if it does not take it.
    """
    if not shutil.which("sbatch"):
        raise ValueError(f"there is no Slurm here (sbatch is not installed); send {script} from a machine that has it")
    done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True)
    if done.returncode:
        said = " ".join(line.removeprefix("sbatch: error: ") for line in done.stderr.strip().splitlines())
        raise ValueError(f"sbatch does not take {script} ({said}); change the settings that it names")
    return done.stdout.strip().split(";")[0]


def jobs_of(run: Path, must_know: bool) -> list[str]:
    """The numbers of the jobs, waiting or running, of whoever, that work in this folder.

    Raises  ValueError if Slurm does not answer and we must know.
    """
    if not shutil.which("squeue"):
        return []
    done = subprocess.run(["squeue", "--noheader", "--format", "%i %k"], capture_output=True, text=True)
    if done.returncode and must_know:
        raise ValueError(f"squeue does not answer ({done.stderr.strip()}); is Slurm running? Call again when it does")
    lines = (line.split(" ", 1) for line in done.stdout.splitlines())
    return [number for number, said in lines if said.strip() == comment(run)]
