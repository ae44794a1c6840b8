"""Where bytes can be on a GPU and beside it: how many fit at each level, and how fast they come."""

from dataclasses import dataclass

from attnmem.catalog.accelerators import Accelerator

# Of one multiprocessor of compute capability 9.0: 64 Ki registers of 32 bits, and shared memory
# (Hopper Tuning Guide, "Occupancy"), whose 32 banks give 32 bits a clock each (CUDA C++ Programming
# Guide, "Shared Memory").
REGISTER_BYTES = 64 * 2**10 * 4
SHARED_BYTES = 228 * 2**10
SHARED_BYTES_PER_CLOCK = 32 * 4
# PCIe Gen 5, 16 lanes, in one direction (NVIDIA Hopper Architecture In-Depth).
HOST_BYTES_PER_SECOND = 64e9


@dataclass(frozen=True)
class Level:
    """A level of the memory hierarchy.

    ``bytes``: how many fit, on the whole GPU; ``None`` where the machine decides.
    ``bytes_per_second``: to the compute units, and from the host in one direction; ``None`` where
    NVIDIA prints no rate.
    """

    name: str
    bytes: int | None
    bytes_per_second: float | None


def levels(card: Accelerator) -> tuple[Level, ...]:
    """The levels of a Hopper GPU with SXM socket, from the nearest to the compute units.

    Raises ``ValueError`` for other cards, whose sizes are not in this module.

    >>> from attnmem.catalog import accelerator
    >>> [level.name for level in levels(accelerator("H100 SXM"))]
    ['registers', 'shared memory', 'L2 cache', 'memory (HBM)', 'host, by PCIe']
    """
    if card.name not in ("H100 SXM", "H200 SXM"):
        raise ValueError(f"card must be an H100 SXM or an H200 SXM, got {card.name}")
    units, clock_ghz = card.multiprocessors, card.clock_ghz
    assert units is not None
    assert clock_ghz is not None  # both sheets have them
    shared_rate = units * clock_ghz * 1e9 * SHARED_BYTES_PER_CLOCK
    return (
        Level("registers", units * REGISTER_BYTES, None),
        Level("shared memory", units * SHARED_BYTES, shared_rate),
        Level("L2 cache", card.l2_bytes, None),
        Level("memory (HBM)", card.memory_bytes, card.bandwidth),
        Level("host, by PCIe", None, HOST_BYTES_PER_SECOND),
    )
