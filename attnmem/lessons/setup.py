"""Setup: devices, the versions of their software, and how much memory a card has."""

from collections.abc import Sequence

from attnmem.catalog import recognise
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.device import Provenance


def table_of_devices(devices: Sequence[Provenance]) -> Table:
    """What a measurement says about its device, a row a device."""
    return Table(
        [
            {
                "device": device.device,
                "memory (GB)": device.memory_bytes / 1e9,
                "memory (GiB)": device.memory_bytes / 2**30,
                "driver": device.driver or "none",
                "CUDA": device.cuda or "none",
                "torch": device.torch,
                "Python": device.python,
                "date": device.date,
            }
            for device in devices
        ],
        {"memory (GB)": ".1f", "memory (GiB)": ".1f"},
    )


def numbers() -> dict[str, object]:
    """What the page's text looks up: the GPU of the shipped record, and its memory."""
    gpu = records.load().provenance
    return {
        "origin": records.origin(),
        "gpu": gpu.device,
        "label": _label(gpu),
        "gpu_gb": gpu.memory_bytes / 1e9,
        "gpu_gib": gpu.memory_bytes / 2**30,
    }


def claims() -> dict[str, bool]:
    """The page's sentences that depend on what was recorded."""
    gpu = records.load().provenance
    return {
        "what the vendor counts are GiB, nearly": abs(gpu.memory_bytes / 2**30 - _label(gpu)) < 1,
    }


def _label(gpu: Provenance) -> float:
    """The number of "GB" under which a card is sold."""
    card = recognise(gpu.device)
    assert card
    return card.memory_gib
