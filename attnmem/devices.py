"""Data-sheet figures of accelerators that readers own or rent, each with its source.

Matrix rates are dense: data sheets like to print the rate for sparse matrices, which is twice as
high. Sources were checked on 2026-11-22. ``read`` tells whether the vendor's own text was read,
or a text that quotes it.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

A100_POST = "https://developer.nvidia.com/blog/nvidia-ampere-architecture-in-depth/"
A100_SHEET = "NVIDIA A100 data sheet 2188504 (May 2022)"
H100_PAPER = "NVIDIA H100 architecture whitepaper v1.04, Tables 1 and 3"


@dataclass(frozen=True)
class Accelerator:
    """One accelerator's data sheet, in the units that data sheets use.

    ``memory_gib``: capacity. Vendors print GB and count GiB, or a little less: an H100 of "80 GB"
    reports 79.2 GiB (see the shipped record). ``bandwidth_gb_s``: 10⁹ bytes per second.

    ``matrix_tflops`` is the dense rate of the matrix units on 16-bit inputs with 32-bit
    accumulation, ``vector_tflops`` that of the 32-bit vector units (NVIDIA: CUDA cores).
    """

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    matrix_tflops: float
    vector_tflops: float
    source: str
    read: Literal["vendor", "quoted"]
    note: str = ""

    @property
    def memory_bytes(self) -> int:
        """The capacity in bytes, an upper limit to what a program can get."""
        return int(self.memory_gib * 2**30)

    @property
    def bandwidth(self) -> float:
        """Bytes per second to and from memory."""
        return self.bandwidth_gb_s * 10**9

    def peak_flops(self, *, matrix: bool) -> float:
        """FLOP/s of the matrix units, or of the vector units."""
        return (self.matrix_tflops if matrix else self.vector_tflops) * 10**12


# fmt: off
ACCELERATORS = (
    Accelerator("V100 SXM2 32 GB", 32, 900, 125, 15.7, A100_POST, "vendor"),
    Accelerator(
        "T4", 16, 320, 65, 8.1, "NVIDIA T4 product page", "quoted",
        "The data sheet (951643) prints 300 GB/s; 256 bit × 10 Gbit/s are 320.",
    ),
    Accelerator("A100 40 GB SXM4", 40, 1555, 312, 19.5, A100_POST, "vendor"),
    Accelerator("A100 80 GB PCIe", 80, 1935, 312, 19.5, A100_SHEET, "quoted"),
    Accelerator("A100 80 GB SXM4", 80, 2039, 312, 19.5, A100_SHEET, "quoted"),
    Accelerator(
        "RTX 3090", 24, 936, 71, 35.6,
        "NVIDIA GA102 architecture whitepaper v2, appendix A", "quoted",
    ),
    Accelerator(
        "RTX 4090", 24, 1008, 165.2, 82.6,
        "NVIDIA Ada architecture whitepaper, appendix A", "quoted",
    ),
    Accelerator(
        "RTX 5090", 32, 1792, 209.5, 104.8,
        "NVIDIA RTX Blackwell architecture whitepaper v1.1, Table 3", "quoted",
    ),
    Accelerator(
        "L4", 24, 300, 121, 30.3, "NVIDIA L4 product page", "quoted",
        "Half of the printed 242, which is with sparsity.",
    ),
    Accelerator(
        "L40S", 48, 864, 362.05, 91.6, "NVIDIA L40S data sheet 2841316 (August 2023)", "quoted",
        "Printed beside 733 with sparsity, which would be 366.5 dense.",
    ),
    Accelerator(
        "H100 PCIe", 80, 2039, 756, 51, H100_PAPER, "quoted",
        "The data sheet rounds the bandwidth to 2000 GB/s. The vector rate is from "
        "third-party tables.",
    ),
    Accelerator(
        "H100 SXM", 80, 3350, 989.4, 66.9, H100_PAPER, "quoted",
        "The whitepaper prints 3352 GB/s, the data sheet 3.35 TB/s.",
    ),
    Accelerator(
        "H200 SXM", 141, 4800, 989.5, 67, "NVIDIA H200 data sheet 3367400 (July 2024)", "quoted",
        "Half of the printed 1979, which is with sparsity.",
    ),
    Accelerator(
        "B200", 180, 8000, 2250, 75,
        "https://github.com/NVIDIA/exemplar-performance, Peak Theoretical Throughput; "
        "bandwidth: NVIDIA DGX B200 page", "quoted",
        "Bandwidth is printed as “up to 8 TB/s” and elsewhere as 7.7. The vector rate "
        "is from third-party tables.",
    ),
    Accelerator(
        "MI300X", 192, 5300, 1307.4, 163.4,
        "https://rocm.docs.amd.com/en/latest/conceptual/gpu-arch/mi300.html", "vendor",
    ),
)
# fmt: on


def find(name: str) -> Accelerator:
    """The accelerator called ``name``. Raises ``LookupError``, with near misses, if unknown."""
    names = [accelerator.name for accelerator in ACCELERATORS]
    if name in names:
        return ACCELERATORS[names.index(name)]
    near = difflib.get_close_matches(name, names, cutoff=0.3) or names
    raise LookupError(
        f"no accelerator {name!r} in attnmem.devices; did you mean {' or '.join(near)}?"
    )
