"""Data-sheet figures of accelerators that readers own or rent, each with its source.

Matrix rates are dense: data sheets like to print the rate for sparse matrices, which is twice as
high. Sources were checked on 2026-11-23. ``read`` tells whether the vendor's own text was read, or
a text that quotes it.

Shown in :ref:`data-sheets`.
"""

from dataclasses import dataclass
from typing import Literal

from attnmem.names import find_by_name

A100_POST = "https://developer.nvidia.com/blog/nvidia-ampere-architecture-in-depth/"
A100_SHEET = "NVIDIA A100 data sheet 2188504 (May 2022)"
GA102_PAPER = "NVIDIA GA102 architecture whitepaper v2, Table 3 and appendix A"
H100_PAPER = "NVIDIA H100 architecture whitepaper v1.04, Tables 1 and 3"
CDNA3_PAPER = "AMD CDNA 3 white paper 2258402-B (2025), Table 2"

# Special functions (exponentials, sines, reciprocal roots …) per clock and multiprocessor, of
# compute capability 7.0 to 12.0. Source: CUDA C++ Programming Guide, "Arithmetic Instructions".
SPECIAL_PER_CLOCK = 16


@dataclass(frozen=True)
class Accelerator:
    """One accelerator's data sheet, in the units that data sheets use.

    ``memory_gib``: capacity. Vendors print GB and count GiB, or a little less: an H100 of "80 GB"
    reports 79.2 GiB (see its record). ``l2_mib``: the L2 cache; the same holds.
    ``bandwidth_gb_s``: 10⁹ bytes per second.

    ``matrix_tflops`` is the dense rate of the matrix units on 16-bit inputs with 32-bit
    accumulation, ``tf32_tflops`` that on TF32 inputs, ``vector_tflops`` that of the 32-bit vector
    units (NVIDIA: CUDA cores). ``multiprocessors`` and ``clock_ghz``, the clock at which the matrix
    rate is quoted, give the rate of special functions; data sheets do not print it.

    ``reported`` is what PyTorch calls the device. ``None`` stands for what no text was found for,
    or does not exist.

    >>> find("A100 80 GB SXM4").peak_flops(matrix=True)
    312000000000000

    Taught in :ref:`intensity-balance`.
    """

    name: str
    reported: str | None
    memory_gib: float
    bandwidth_gb_s: float
    matrix_tflops: float
    tf32_tflops: float | None
    vector_tflops: float | None
    multiprocessors: int | None
    clock_ghz: float | None
    l2_mib: float | None
    source: str
    read: Literal["vendor", "quoted"]
    note: str = ""

    @property
    def memory_bytes(self) -> int:
        """The capacity in bytes, an upper limit to what a program can get."""
        return int(self.memory_gib * 2**30)

    @property
    def l2_bytes(self) -> int | None:
        """The L2 cache in bytes; ``None`` if unknown."""
        return int(self.l2_mib * 2**20) if self.l2_mib else None

    @property
    def bandwidth(self) -> float:
        """Bytes per second to and from memory."""
        return self.bandwidth_gb_s * 10**9

    @property
    def special_rate(self) -> float | None:
        """Special functions (exponentials and the like) per second; ``None`` if unknown."""
        if self.multiprocessors is None or self.clock_ghz is None:
            return None
        return SPECIAL_PER_CLOCK * self.multiprocessors * self.clock_ghz * 10**9

    def peak_flops(self, *, matrix: bool, bits: int = 16) -> float | None:
        """FLOP/s of matrix products, or of other arithmetic, on numbers of ``bits`` bits.

        Products of 32-bit numbers are the vector units' work: PyTorch lets the matrix units round
        them to TF32 only if asked. Raises ``ValueError`` for products of 8 or 64 bits, whose rates
        are not in this list. ``None`` if the sheet has no such rate.
        """
        if matrix and bits not in (16, 32):
            raise ValueError(f"bits must be 16 or 32 for matrix products, got {bits}")
        rate = self.matrix_tflops if matrix and bits == 16 else self.vector_tflops
        return rate and rate * 10**12


# fmt: off
ACCELERATORS = (
    Accelerator(
        "V100 SXM2 16 GB", "Tesla V100-SXM2-16GB", 16, 900, 125, None, 15.7, 80, 1.53, 6,
        A100_POST, "vendor",
    ),
    Accelerator(
        "V100 SXM2 32 GB", "Tesla V100-SXM2-32GB", 32, 900, 125, None, 15.7, 80, 1.53, 6,
        A100_POST, "vendor",
    ),
    Accelerator(
        "T4", "Tesla T4", 16, 320, 65, None, 8.1, 40, 1.59, 4,
        "NVIDIA T4 data sheet 951643 and product page", "quoted",
        "The data sheet prints 300 GB/s; 256 bit × 10 Gbit/s are 320. L2 as devices report "
        "it.",
    ),
    Accelerator(
        "A100 40 GB SXM4", "NVIDIA A100-SXM4-40GB", 40, 1555, 312, 156, 19.5, 108, 1.41, 40,
        A100_POST, "vendor",
    ),
    Accelerator(
        "A100 80 GB PCIe", "NVIDIA A100 80GB PCIe", 80, 1935, 312, 156, 19.5, 108, 1.41, 40,
        A100_SHEET, "quoted",
    ),
    Accelerator(
        "A100 80 GB SXM4", "NVIDIA A100-SXM4-80GB", 80, 2039, 312, 156, 19.5, 108, 1.41, 40,
        A100_SHEET, "quoted",
    ),
    Accelerator(
        "A10", "NVIDIA A10", 24, 600, 125, 62.5, 31.2, 72, 1.695, 6,
        "NVIDIA A10 data sheet", "quoted",
        "Multiprocessors, clock and L2 as devices report them. The A10G is another card.",
    ),
    Accelerator(
        "RTX A6000", "NVIDIA RTX A6000", 48, 768, 154.8, 77.4, 38.7, 84, 1.8, 6,
        GA102_PAPER, "quoted",
    ),
    Accelerator(
        "RTX 3090", "NVIDIA GeForce RTX 3090", 24, 936, 71, 35.6, 35.6, 82, 1.695, 6,
        GA102_PAPER, "quoted",
        "GeForce cards accumulate in 32 bit at half the rate.",
    ),
    Accelerator(
        "RTX 4090", "NVIDIA GeForce RTX 4090", 24, 1008, 165.2, 82.6, 82.6, 128, 2.52, 72,
        "NVIDIA Ada architecture whitepaper v2.1, appendix A", "quoted",
        "GeForce cards accumulate in 32 bit at half the rate.",
    ),
    Accelerator(
        "RTX 5090", "NVIDIA GeForce RTX 5090", 32, 1792, 209.5, 104.8, 104.8, 170, 2.407, 96,
        "NVIDIA RTX Blackwell architecture whitepaper v1.1, Table 3", "quoted",
        "GeForce cards accumulate in 32 bit at half the rate.",
    ),
    Accelerator(
        "L4", "NVIDIA L4", 24, 300, 121, 60, 30.3, 58, 2.04, 48,
        "NVIDIA L4 product page", "quoted",
        "Half of the printed 242 and 120, which are with sparsity. L2 as devices report it.",
    ),
    Accelerator(
        "L40S", "NVIDIA L40S", 48, 864, 362.05, 183, 91.6, 142, 2.52, 96,
        "NVIDIA L40S data sheet 2841316 (August 2023)", "quoted",
        "Printed beside 733 with sparsity, which would be 366.5 dense. L2 as devices report "
        "it.",
    ),
    Accelerator(
        "H100 PCIe", "NVIDIA H100 PCIe", 80, 2039, 756, 378, 51, 114, 1.62, 50,
        H100_PAPER, "quoted",
        "The data sheet rounds the bandwidth to 2000 GB/s. Clock derived from the matrix "
        "rate.",
    ),
    Accelerator(
        "H100 SXM", "NVIDIA H100 80GB HBM3", 80, 3350, 989.4, 494.7, 66.9, 132, 1.83, 50,
        H100_PAPER, "quoted",
        "The whitepaper prints 3352 GB/s, the data sheet 3.35 TB/s.",
    ),
    Accelerator(
        "H200 SXM", "NVIDIA H200", 141, 4800, 989.5, 494.5, 67, 132, 1.83, 60,
        "NVIDIA H200 data sheet 3367400 (July 2024)", "quoted",
        "Half of the printed 1979, which is with sparsity. NVIDIA prints no L2 size: "
        "62,914,560 B as the recorded device reports; many tables copy the H100's 50.",
    ),
    Accelerator(
        "B200", "NVIDIA B200", 180, 8000, 2250, 1125, 75, 148, 1.856, 126.5,
        "NVIDIA Blackwell technical brief v2.1, Table 3; NVIDIA DGX B200 page", "quoted",
        "Bandwidth is printed as “up to 8 TB/s”; the brief prints 7.7 for the HGX B200. Clock"
        " derived from the matrix rate. L2 as devices report it.",
    ),
    Accelerator(
        "MI300X", "AMD Instinct MI300X", 192, 5300, 1307.4, 653.7, 163.4, None, None, 32,
        CDNA3_PAPER, "vendor",
        "8 parts with 4 MiB of L2 each; 256 MiB of Infinity Cache behind them.",
    ),
    Accelerator(
        "MI325X", "AMD Instinct MI325X", 256, 6000, 1307.4, 653.7, 163.4, None, None, 32,
        CDNA3_PAPER, "vendor",
        "Caches as in the MI300X.",
    ),
    Accelerator(
        "TPU v5e", None, 16, 819, 197, None, None, None, None, None,
        "https://docs.cloud.google.com/tpu/docs/v5e", "vendor",
        "Another rendering of the page prints 800 GiB/s, which are 859 GB/s.",
    ),
)
# fmt: on


def find(name: str) -> Accelerator:
    """The accelerator called ``name``. Raises ``LookupError``, with near misses, if unknown.

    >>> find("H100 SXM").bandwidth_gb_s
    3350

    Used in :ref:`intensity-bound`.
    """
    return find_by_name(ACCELERATORS, name, "accelerator")


def recognise(reported: str) -> Accelerator | None:
    """The accelerator that PyTorch calls ``reported``, or ``None`` if it is not in the list.

    >>> recognise("NVIDIA H200").name
    'H200 SXM'

    Used in :doc:`/roofline`.
    """
    return next((found for found in ACCELERATORS if found.reported == reported), None)
