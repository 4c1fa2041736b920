"""How fast this machine could compute at best: the denominator of model FLOPs utilization (MFU).

MFU is the share of that rate which training turns into the operations that the model itself needs.
Source  Chowdhery et al. 2022, "PaLM", section 4.1.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from minigpt.disk import write_text
from minigpt.energy import Meter

DECLARED = {
    "NVIDIA A100-PCIE-40GB": 312e12, "NVIDIA A100-SXM4-40GB": 312e12, "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12, "NVIDIA B200": 2250e12, "NVIDIA L40S": 362e12,
}
"""Operations a second on dense bf16 matrices, by the name that torch gives the device.

Source  NVIDIA's product pages, as TorchTitan's get_peak_flops quotes them; figures "with sparsity" are twice these.
"""


@dataclass(frozen=True)
class Peak:
    """The best rate of one process's device, and where the figure comes from."""

    device: str
    flops_per_second: float
    origin: str


def note_machine(device: torch.device, precision: str, folder: Path, meter: Meter | None, memory: str) -> Peak:
    """The best rate, which is measured once a run; machine.json holds it and what is known of energy and memory."""
    path = Path(folder) / "machine.json"
    known = json.loads(path.read_text(encoding="utf-8"))["peak"] if path.exists() else {}
    dtype = torch.float32 if precision == "32-true" else torch.bfloat16
    found = Peak(**known) if known.get("device") == describe(device, dtype) else peak(device, dtype)
    notes = {"peak": asdict(found), "energy": meter.origin if meter else None, "memory": memory}
    write_text(path, json.dumps(notes, indent=2) + "\n")
    return found


def peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """The rate that the maker of a known GPU declares, else the one that is measured."""
    declared = DECLARED.get(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if declared and dtype == torch.bfloat16:
        return Peak(describe(device, dtype), declared, "declared by the maker")
    return Peak(describe(device, dtype), measure(device, dtype), "measured with a matrix product")


def describe(device: torch.device, dtype: torch.dtype) -> str:
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{kind}{threads}, {dtype}"


def measure(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Operations a second of the fastest of several products of two square matrices.

    The fastest, because whatever else the machine does can only slow a product down.
    """
    n = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(n, n, device=device, dtype=dtype)
    times: list[float] = []
    while len(times) < 4 or sum(times) < seconds:
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # reading a number waits for the device
        times.append(time.perf_counter() - started)
    return 2 * n**3 / min(times)
