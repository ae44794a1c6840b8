"""Reserved memory that can't be used: what lengths that change leave, and what helps."""

import json
from functools import cache
from typing import Any

from attnmem.cures.fragmentation import LENGTHS
from attnmem.lessons.table import Table
from attnmem.measurement import records

#: In which orders lengths come: each longer than the one before, or at random.
ORDERS = ("growing", "random")


@cache
def fragmentation() -> dict[str, dict[str, Any]]:
    """Order -> setting -> peaks after each batch, as recorded."""
    found: dict[str, Any] = json.loads(records.FRAGMENTATION.read_text())
    return {order: found[order] for order in ORDERS}


def peaks(order: str, setting: str) -> tuple[int, int]:
    """The peaks of allocated and of reserved bytes after all batches."""
    run = fragmentation()[order][setting]
    return run["allocated"][-1], run["reserved"][-1]


def table_of_fragmentation(order: str) -> Table:
    """What tensors took and what the allocator took, in each setting."""
    rows = [
        (setting, *(b / 1e9 for b in peaks(order, setting))) for setting in fragmentation()[order]
    ]
    return Table({"setting": "", "allocated (GB)": ".2f", "reserved (GB)": ".2f"}, rows)


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    allocated, reserved = peaks("growing", "default")
    return {
        "batches": len(LENGTHS["growing"]),
        "grown_gb": allocated / 1e9,
        "grown_reserved_gb": reserved / 1e9,
        "grown_factor": reserved / allocated,
    }


def claims() -> dict[str, bool]:
    """What the text says of it."""
    settings = fragmentation()["growing"]
    gaps = {s: r["reserved"][-1] / r["allocated"][-1] for s, r in settings.items()}
    return {
        "expandable segments reserve what is allocated, to 2 per cent": all(
            abs(1 - r / a) < 0.02
            for a, r in (peaks(order, "expandable segments") for order in ORDERS)
        ),
        "padding helps more than rounding, and both less than expandable segments": (
            gaps["expandable segments"]
            < gaps["padded lengths"]
            < gaps["rounded sizes"]
            < gaps["default"]
        ),
    }
