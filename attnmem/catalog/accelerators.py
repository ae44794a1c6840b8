"""Data-sheet figures of accelerators that readers own or rent, each with its source.

Matrix rates are dense: data sheets like to print the rate for sparse matrices, which is twice as
high. Sources were checked on 2026-11-23. ``read`` tells whether the vendor's own text was read, or
a text that quotes it.
"""

from dataclasses import dataclass
from typing import Any, Literal

from attnmem.catalog.lookup import by_name, rows

# Special functions (exponentials, sines, reciprocal roots …) per clock and multiprocessor, of
# compute capability 7.0 to 12.0. Source: CUDA C++ Programming Guide, "Arithmetic Instructions".
SPECIAL_PER_CLOCK = 16


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One accelerator's data sheet, in the units that data sheets use.

    ``memory_gib``: capacity. Vendors print GB and count GiB, or a little less: an H100 of "80 GB"
    reports 79.2 GiB (see its record). ``l2_mib``: the L2 cache; the same holds.
    ``bandwidth_gb_s``: 10⁹ bytes per second.

    ``matrix_tflops`` is the dense rate of the matrix units on 16-bit inputs with 32-bit
    accumulation, ``tf32_tflops`` that on TF32 inputs, ``vector_tflops`` that of the 32-bit vector
    units (NVIDIA: CUDA cores). ``multiprocessors`` and ``clock_ghz``, the clock at which the matrix
    rate is quoted, give the rate of special functions; data sheets do not print it.

    ``reported`` is what PyTorch calls the device, ``capability`` a GPU's compute capability by
    NVIDIA's list, developer.nvidia.com/cuda-gpus. ``None`` stands for what no text was found for,
    or does not exist.

    >>> accelerator("A100 80 GB SXM4").peak_flops(matrix=True)
    312000000000000
    """

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    matrix_tflops: float
    source: str
    read: Literal["vendor", "quoted"]
    reported: str | None = None
    capability: tuple[int, int] | None = None
    tf32_tflops: float | None = None
    vector_tflops: float | None = None
    multiprocessors: int | None = None
    clock_ghz: float | None = None
    l2_mib: float | None = None
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


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    """A row with tuples for TOML's lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


ACCELERATORS = tuple(Accelerator(**_tuples(row)) for row in rows("accelerator"))


def accelerator(name: str) -> Accelerator:
    """The accelerator called ``name``. Raises ``LookupError``, with near misses, if unknown.

    >>> accelerator("H100 SXM").bandwidth_gb_s
    3350
    """
    return by_name(ACCELERATORS, name, "accelerator")


def recognise(reported: str) -> Accelerator | None:
    """The accelerator that PyTorch calls ``reported``, or ``None`` if it is not in the list.

    >>> recognise("NVIDIA H200").name
    'H200 SXM'
    """
    return next((found for found in ACCELERATORS if found.reported == reported), None)
