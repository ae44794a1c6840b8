"""A record of decode steps, read: what one token took over each cache, and what its call held."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from attnmem.measurement.decode import MEASURING_CODE, PACKAGE, Cell, from_json
from attnmem.measurement.device import Provenance
from attnmem.measurement.digest import digest
from attnmem.measurement.records import DATA, JSON
from attnmem.measurement.timing import Time
from attnmem.roofline import Ceilings

# One token over caches of all lengths.
DECODE = DATA / "decode" / "nvidia-h200.json"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is recorded of one cell; ``None`` where it was not measured.

    ``graph``: the time of a layer in a CUDA graph; ``eager``: launched by Python. ``call_events``
    and ``run_events``: bytes of each allocation, and of each release, negative, of the call alone
    and of a run with its inputs; ``call_peak`` and ``run_peak`` are their peaks.
    """

    eager: Time | None = None
    graph: Time | None = None
    call_peak: int | None = None
    call_events: tuple[int, ...] | None = None
    run_peak: int | None = None
    run_events: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class DecodeRecord:
    """Decode steps on one device."""

    digest: str
    provenance: Provenance
    ceilings: Ceilings
    failures: tuple[str, ...]
    cells: dict[Cell, Found]

    @property
    def stale(self) -> bool:
        """Whether the record was made by other code than the code that reads it."""
        return self.digest != digest(PACKAGE / name for name in MEASURING_CODE)

    def find(
        self,
        cache: str,
        tokens: int,
        program: str = "kernel",
        *,
        users: int = 1,
        splits: int | None = None,
        eight_bit: bool = False,
    ) -> tuple[Cell, Found]:
        """The cell, and what is recorded of it. Raises ``LookupError`` if it is not there."""
        wanted = (cache, tokens, users, program, splits, eight_bit)
        for cell, found in self.cells.items():
            w = cell.workload
            if wanted == (
                cell.cache,
                w.kv_len,
                w.batch,
                cell.program,
                cell.splits,
                cell.eight_bit,
            ):
                return cell, found
        raise LookupError(
            f"the record made on {self.provenance.device} has no step of {program!r} over {tokens} "
            f"tokens of {cache!r}, users={users}, splits={splits}, eight_bit={eight_bit}"
        )


@cache
def load(path: Path = DECODE) -> DecodeRecord:
    """Read a record that :func:`attnmem.measurement.decode.record` wrote."""
    content = json.loads(path.read_text())
    return DecodeRecord(
        digest=content["digest"],
        provenance=JSON.structure(content["provenance"], Provenance),
        ceilings=JSON.structure(content["ceilings"], Ceilings),
        failures=tuple(content["failures"]),
        cells={from_json(row["cell"]): _found(row) for row in content["cells"]},
    )


def _found(row: dict[str, Any]) -> Found:
    """What a row says of its cell."""
    call, run, times = (row.get(name) or {} for name in ("call", "run", "time"))
    return Found(
        **{way: Time(**times[way]) for way in ("eager", "graph") if way in times},
        call_peak=call.get("peak_bytes"),
        call_events=tuple(call["events"]) if call else None,
        run_peak=run.get("peak_bytes"),
        run_events=tuple(run["events"]) if run else None,
    )
