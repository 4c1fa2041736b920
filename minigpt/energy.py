"""What training draws from the wall, as far as the machine tells: joules since the last look, and who says so."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of Intel and AMD processors (RAPL)."""

WATTS_PER_THREAD = 3.5
"""A processor's virtual core at full load, averaged over AWS's machines.

Source  Cloud Carbon Footprint, "Methodology", average maximum watts of AWS.
"""


@dataclass
class Meter:
    """`lap()` gives the joules since the lap before; `origin` says whether they are measured or declared."""

    origin: str
    read: Callable[[], float]
    one_a_process: bool = True
    """False if every process of a machine would read the same counter."""
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.last = self.read()

    def lap(self) -> float:
        before, self.last = self.last, self.read()
        return self.last - before


def make_meter(device: torch.device, watts: float = 0.0, powercap: Path = POWERCAP) -> Meter | None:
    """A GPU's own counter, else the processor's, else declared watts; None if nothing is known of the device.

    A counter sees all that runs on its GPU or processor; it sees neither memory nor fans.
    """
    if device.type == "cuda" and (counter := gpu_counter(device)):
        return Meter("measured by the GPU (NVML)", counter)
    if device.type == "cpu" and (domains := rapl_domains(powercap)):
        return Meter("measured by the processor (RAPL)", Rapl(domains).joules, one_a_process=False)
    if watts:
        return Meter(f"declared, {watts:g} W a process", lambda: watts * time.perf_counter())
    if device.type == "cpu":
        power = WATTS_PER_THREAD * torch.get_num_threads()
        return Meter(f"declared, {WATTS_PER_THREAD} W a thread", lambda: power * time.perf_counter())
    return None


def gpu_counter(device: torch.device) -> Callable[[], float] | None:
    """Joules of one GPU since its driver was loaded, if the package nvidia-ml-py is installed and the GPU counts."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000


def rapl_domains(powercap: Path) -> list[Path]:
    """The folders of whole processors whose counters this user may read; since 2020 that is mostly root alone."""
    packages = (path for path in sorted(powercap.glob("intel-rapl:*")) if re.fullmatch(r"intel-rapl:\d+", path.name))
    return [path for path in packages if readable(path / "energy_uj")]


def readable(path: Path) -> bool:
    try:
        path.read_text()
    except OSError:
        return False
    return True


class Rapl:
    """Counters in microjoules that begin again at zero when they are full."""

    def __init__(self, domains: list[Path]) -> None:
        self.full = {path: int((path / "max_energy_range_uj").read_text()) for path in domains}
        self.seen = {path: self.count(path) for path in domains}
        self.total = 0

    @staticmethod
    def count(path: Path) -> int:
        return int((path / "energy_uj").read_text())

    def joules(self) -> float:
        """Energy of all processors since this object was made."""
        for path, before in self.seen.items():
            self.seen[path] = self.count(path)
            self.total += (self.seen[path] - before) % (self.full[path] + 1)
        return self.total / 1e6
