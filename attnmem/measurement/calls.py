"""Records of calls, such as training steps: what each did to the memory of one device."""

import gc
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attnmem.measurement.device import Provenance, provenance, resolve_device
from attnmem.measurement.grid import Case
from attnmem.measurement.memory import MeasuredCall, measure_call
from attnmem.measurement.records import DATA, JSON, code_digest, read, write
from attnmem.programs import Program, run
from attnmem.workload import Workload

STEPS_RECORD = DATA / "steps" / "nvidia-h200.json.gz"
MODULES_RECORD = DATA / "corpus" / "modules-nvidia-h200.json.gz"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a GPU's allocator held before a call, and so which holes the call could fill.

    ``before``: for each segment, the sizes of its blocks in their order, those of free ones
    negative. ``segments``: the rank of the address of each segment, of these and then of those that
    the call made, in order.
    """

    before: tuple[tuple[int, ...], ...]
    segments: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """What calls did, by their names; ``digest`` identifies the code that measured them.

    ``failures`` holds the name and the traceback of each call that raised.
    ``layouts``: what the allocator held before each, on a GPU.
    """

    digest: str
    provenance: Provenance
    calls: dict[str, MeasuredCall]
    layouts: dict[str, Layout]
    failures: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write the record as compressed JSON."""
        write(self, path)


def record_calls(
    calls: Iterable[tuple[str, Callable[[], object]]], device: str | torch.device | None = None
) -> CallRecord:
    """Measure named calls on ``device``, one after another; each may be made by its iterator.

    What raises is noted, and the rest goes on. Where the iterator itself raises, nothing is left.
    """
    device = resolve_device(device)
    found, layouts = {}, {}
    failures: list[str] = []
    gc.freeze()  # each call collects garbage several times: it need not look at what is here now
    try:
        for name, call in calls:
            try:
                found[name], layouts[name] = measure_with_layout(call, device)
            except Exception:
                failures.append(f"{name}: {traceback.format_exc()}")
            del call  # with what it holds, before the next is made
    except Exception:  # of the iterator, which ends with it
        failures.append(traceback.format_exc())
    return CallRecord(
        digest=code_digest(),
        provenance=provenance(device),
        calls=found,
        failures=tuple(failures),
        layouts=layouts if device.type == "cuda" else {},
    )


def as_calls(
    cases: Iterable[tuple[str, Case]], device: str | torch.device
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Runs of programs as calls, each after a first that warms up."""
    for name, (program, w, training, _) in cases:

        def call(
            program: Program = program, w: Workload = w, training: bool = training
        ) -> list[tuple[str, int]]:
            return list(run(program, w, training=training, device=torch.device(device)))

        call()
        yield name, call


def measure_with_layout(
    call: Callable[[], object], device: torch.device
) -> tuple[MeasuredCall, Layout]:
    """As :func:`measure_call`, with what the allocator held before; nothing on a CPU."""
    held: list[list[dict[str, Any]]] = []

    def noting() -> None:
        held.append(_segments(device))
        call()
        held.append(_segments(device))

    m = measure_call(noting, device)
    addresses = [segment["address"] for segment in held[0]]
    new = [x for segment in held[-1] if (x := segment["address"]) not in addresses]
    if not m.out_of_memory:
        addresses += [new[rank] for rank in m.segments]
    before = tuple(
        tuple(
            block["size"] if block["state"] == "active_allocated" else -block["size"]
            for block in segment["blocks"]
        )
        for segment in held[0]
    )
    ranks = {address: rank for rank, address in enumerate(sorted(addresses))}
    return m, Layout(before=before, segments=tuple(ranks[address] for address in addresses))


def _segments(device: torch.device) -> list[dict[str, Any]]:
    """The allocator's segments on ``device``, in the order of their addresses."""
    if device.type != "cuda":
        return []
    found = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
    mine = [segment for segment in found if segment["device"] == torch.cuda.current_device()]
    return sorted(mine, key=lambda segment: int(segment["address"]))


def load_calls(path: Path) -> CallRecord:
    """Read a record that :meth:`CallRecord.save` wrote. Raises ``OSError`` if it is not there."""
    content = read(path)
    for call in content["calls"].values():
        call["provenance"] = content["provenance"]
    return JSON.structure(content, CallRecord)
