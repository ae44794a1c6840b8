"""A record of whole passes, read: what each of them needed, took and moved.

The counter of matrix products that :mod:`attnmem.measurement.passes` asks for said 0 of every pass
on an H200, of standard attention too: it counts nothing there, and is not read.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from attnmem.measurement import traffic
from attnmem.measurement.device import Provenance
from attnmem.measurement.digest import digest
from attnmem.measurement.passes import MEASURING_CODE, PACKAGE, Block, Pass, from_json
from attnmem.measurement.records import DATA, JSON
from attnmem.roofline import Ceilings
from attnmem.workload import Workload

# Attention in tiles, and what it is compared with.
TILES = DATA / "tiles" / "nvidia-h200.json"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is recorded of one pass; ``None`` where it was not measured.

    ``events``: the bytes of each allocation, and of each release, negative; of short runs only.
    ``read``, ``written``: the bytes of the GPU's memory; ``received``: what multiprocessors got
    through the L2 cache.
    """

    peak_bytes: int | None = None
    events: tuple[int, ...] | None = None
    seconds: float | None = None
    read: int | None = None
    written: int | None = None
    received: int | None = None


@dataclass(frozen=True, kw_only=True)
class PassRecord:
    """Whole passes on one device. ``blocks``: our kernel, with each block size that was tried."""

    digest: str
    provenance: Provenance
    ceilings: Ceilings
    passes: dict[Pass, Found]
    blocks: dict[Pass, float]

    @property
    def stale(self) -> bool:
        """Whether the record was made by other code than the code that reads it."""
        return self.digest != digest(PACKAGE / name for name in MEASURING_CODE)

    def find(
        self,
        program: str,
        w: Workload,
        *,
        causal: bool = False,
        training: bool = False,
        block: Block | None = None,
    ) -> Found:
        """What is recorded of a pass: with ``block``, or with the one that it was recorded with.

        Raises ``LookupError`` if the record does not have it.
        """
        for cell, found in self.passes.items():
            same = (cell.program, cell.workload, cell.causal, cell.training)
            if same == (program, w, causal, training) and block in (None, cell.block):
                return found
        raise LookupError(
            f"the record made on {self.provenance.device} has no pass of {program!r} with {w}, "
            f"causal={causal}, training={training}, block={block}"
        )


@cache
def load(path: Path = TILES) -> PassRecord:
    """Read a record that :func:`attnmem.measurement.passes.record` wrote.

    >>> w = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype="float16")
    >>> load().find("triton", w).peak_bytes / w.head_bytes
    4.03125
    """
    content = json.loads(path.read_text())
    values: dict[Pass, dict[str, Any]] = {}
    for row in (*content["passes"], *content["counts"], *content["blocks"]):
        cell, measured = _split(row)
        values[cell] = _values(measured) | values.get(cell, {})  # what comes first stays
    seconds = {
        cell: measured["time"]["seconds"] for cell, measured in map(_split, content["blocks"])
    }
    return PassRecord(
        digest=content["digest"],
        provenance=JSON.structure(content["provenance"], Provenance),
        ceilings=JSON.structure(content["ceilings"], Ceilings),
        passes={cell: Found(**found) for cell, found in values.items()},
        blocks=seconds,
    )


def _split(row: dict[str, Any]) -> tuple[Pass, dict[str, Any]]:
    """Which pass a row is of, and what it says of it."""
    said: dict[str, Any] = {
        name: row[name] for name in ("memory", "time", "counters") if name in row
    }
    return from_json({name: value for name, value in row.items() if name not in said}), said


def _values(said: dict[str, Any]) -> dict[str, Any]:
    """The fields of a :class:`Found`."""
    memory, time = said.get("memory", {}), said.get("time", {})
    counters = said.get("counters", {})
    events = memory.get("timeline")
    found = {
        "peak_bytes": memory.get("peak_bytes"),
        "events": events and tuple(events),
        "seconds": time.get("seconds"),
        "read": counters.get(traffic.READ),
        "written": counters.get(traffic.WRITTEN),
        "received": counters.get(traffic.RECEIVED),
    }
    return {name: value for name, value in found.items() if value is not None}
