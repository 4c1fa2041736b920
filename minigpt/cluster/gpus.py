"""What a GPU can do, from its maker's figures: the table that a plan reads."""

import difflib
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One device as torch counts them. Rates are peaks in one direction; sizes are decimal, as makers count."""

    name: str
    maker: str
    flops_per_second: float
    """Dense bf16 matrices; figures "with sparsity" are twice these."""
    memory_bytes: float
    memory_bandwidth: float
    """Bytes a second between the GPU and its memory."""
    watts: float
    """The board's power limit; of a board with two devices, half."""
    link_bandwidth: float
    """Bytes a second to the other GPUs of the node."""
    network_bandwidth: float
    """Bytes a second to other nodes, this GPU's share of the node's network cards."""
    price_per_hour: float | None = None
    """US dollars, rented by the hour; None if no dated price was read."""
    price_source: str = ""
    source: str


MAY_2026 = ("middle of what specialized clouds asked on demand in May 2026 "
            "(Mercatus, \"Cloud GPU pricing\", table of hyperscaler, specialty and long-tail prices)")

LOCKWOOD = "G. K. Lockwood, \"Processors\" (glennklockwood.com/garden), after NVIDIA's data sheets"

GPUS = {gpu.name: gpu for gpu in (
    Gpu(name="a100-40gb", maker="NVIDIA", flops_per_second=312e12, memory_bytes=40e9, memory_bandwidth=1.555e12,
        watts=400, link_bandwidth=300e9, network_bandwidth=25e9,
        source=f"SXM4. {LOCKWOOD}; network of 1,600 Gbit/s a node of eight as in MosaicML's training benchmarks"),
    Gpu(name="a100", maker="NVIDIA", flops_per_second=312e12, memory_bytes=80e9, memory_bandwidth=2.039e12,
        watts=400, link_bandwidth=300e9, network_bandwidth=25e9, price_per_hour=1.30, price_source=MAY_2026,
        source=f"SXM4, 80 GB. {LOCKWOOD}; network as above"),
    Gpu(name="h100", maker="NVIDIA", flops_per_second=989e12, memory_bytes=80e9, memory_bandwidth=3.35e12,
        watts=700, link_bandwidth=450e9, network_bandwidth=50e9, price_per_hour=3.00, price_source=MAY_2026,
        source=f"SXM5. {LOCKWOOD}; network of 400 Gbit/s: NVIDIA, DGX SuperPOD reference architecture, DGX H100"),
    Gpu(name="h200", maker="NVIDIA", flops_per_second=989e12, memory_bytes=141e9, memory_bandwidth=4.8e12,
        watts=700, link_bandwidth=450e9, network_bandwidth=50e9, price_per_hour=4.00, price_source=MAY_2026,
        source="The H100's processor; memory, power and links: AI Wiki, \"NVIDIA H200\"; network as the H100's"),
    Gpu(name="b200", maker="NVIDIA", flops_per_second=2250e12, memory_bytes=180e9, memory_bandwidth=8e12,
        watts=1000, link_bandwidth=900e9, network_bandwidth=50e9,
        source=f"HGX at 1,000 W. {LOCKWOOD}; memory, network: NVIDIA, DGX SuperPOD reference architecture, DGX B200"),
    Gpu(name="mi250x", maker="AMD", flops_per_second=191.5e12, memory_bytes=64e9, memory_bandwidth=1.6e12,
        watts=280, link_bandwidth=50e9, network_bandwidth=12.5e9,
        source="One of the two dies of a module, which torch and Slurm count as a GPU. TorchTitan, get_peak_flops; "
               "AMD, ROCm documentation, \"MI250 microarchitecture\" (a link's 50 GB/s); LUMI's documentation, LUMI-G"),
    Gpu(name="mi300x", maker="AMD", flops_per_second=1307e12, memory_bytes=192e9, memory_bandwidth=5.3e12,
        watts=750, link_bandwidth=448e9, network_bandwidth=50e9,
        source="gpu.blog and Emergent Mind on the MI300X (memory, power, seven links of 64 GB/s); peak: AMD's 1,307 "
               "TFLOP/s, which TorchTitan rounds to 1,300; the network is an assumption, 400 Gbit/s as the H100's"),
)}
"""By the name that `minigpt plan --gpu` takes."""


def find(name: str) -> Gpu:
    """The GPU of that name. Raises ValueError, naming the near ones, if the table has none."""
    if name.lower() in GPUS:
        return GPUS[name.lower()]
    near = difflib.get_close_matches(name.lower(), GPUS, n=2) or list(GPUS)
    raise ValueError(f"there is no GPU {name!r} in the table; choose one of {', '.join(near)}")
