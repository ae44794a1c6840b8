"""What a record says besides peaks: reserved memory that can't be used, and times."""

import json
from functools import cache
from typing import Any

from attnmem.cures.compiled import timed
from attnmem.cures.fragmentation import LENGTHS
from attnmem.lessons.table import Table
from attnmem.lessons.what_to_do.cures import record
from attnmem.measurement import records

#: In which orders lengths come: each longer than the one before, or at random.
ORDERS = ("growing", "random")

#: How the page calls what is timed.
WAYS = {
    "layers_unfused": "as it stands",
    "GraphedLayers": "CUDA graph",
    "CompiledLayers": "compiled",
    "layers_fused": "fused call",
}


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


@cache
def times() -> dict[int, dict[str, float]]:
    """Length -> what is timed -> seconds of a forward pass of four layers."""
    runs = {(run.program, run.workload.seq_len): run.whole for run in record().runs}
    return {
        n: {name: whole.seconds for name in WAYS if (whole := runs[name, n])}
        for n in sorted({each.workload.seq_len for each in timed()})
    }


def table_of_times() -> Table:
    """Times of four layers in microseconds."""
    rows = [(n, *(found[name] * 1e6 for name in WAYS)) for n, found in times().items()]
    return Table({"N": ""} | {f"{way} (µs)": ",.0f" for way in WAYS.values()}, rows)


def numbers() -> dict[str, Any]:
    """What the text looks up of both."""
    allocated, reserved = peaks("growing", "default")
    short, *_, long = times().values()
    return {
        "batches": len(LENGTHS["growing"]),
        "grown_gb": allocated / 1e9,
        "grown_reserved_gb": reserved / 1e9,
        "grown_factor": reserved / allocated,
        "graph_gain": short["layers_unfused"] / short["GraphedLayers"],
        "fused_gain": long["layers_unfused"] / long["layers_fused"],
    }


def claims() -> dict[str, bool]:
    """What the text says of both."""
    settings = fragmentation()["growing"]
    short, _, third, long = times().values()
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
        "a graph gains nothing at 2048 and at 4096": all(
            abs(1 - row["GraphedLayers"] / row["layers_unfused"]) < 0.02 for row in (third, long)
        ),
        "a graph is the fastest at 128, and at 2048 it is not": (
            min(short, key=lambda way: short[way]) == "GraphedLayers"
            and third["layers_fused"] < third["GraphedLayers"]
        ),
    }
