"""Setup: devices, the versions of their software, and how much memory a card has."""

from collections.abc import Sequence
from typing import Any

from attnmem.catalog import recognise
from attnmem.lessons.shared import known
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.device import Provenance


def table_of_devices(devices: Sequence[Provenance]) -> Table:
    """What a measurement says about its device, a row a device."""
    rows = []
    for d in devices:
        versions = d.driver or "none", d.cuda or "none", d.torch, d.python
        rows.append((d.device, d.memory_bytes / 1e9, d.memory_bytes / 2**30, *versions, d.date))
    return Table(
        {"device": "", "memory (GB)": ".1f", "memory (GiB)": ".1f"}
        | dict.fromkeys(("driver", "CUDA", "torch", "Python", "date"), ""),
        rows,
    )


def numbers() -> dict[str, Any]:
    """What the text looks up: the GPU of the shipped record, and its memory."""
    gpu = records.load().provenance
    return {
        "origin": records.origin(),
        "gpu": gpu.device,
        "label": known(recognise(gpu.device)).memory_gib,
        "gpu_gb": gpu.memory_bytes / 1e9,
        "gpu_gib": gpu.memory_bytes / 2**30,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    found = numbers()
    return {"what the vendor counts are GiB, nearly": abs(found["gpu_gib"] - found["label"]) < 1}
