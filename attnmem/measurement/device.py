"""Devices: the one that a name means, and where and when a number was measured."""

import contextlib
import datetime
import functools
import platform
import subprocess
from dataclasses import dataclass

import cpuinfo
import psutil
import torch


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a number comes from: the device, its memory in bytes, the versions, the day.

    ``driver`` and ``cuda`` are ``None`` for a CPU, ``driver`` also where nothing tells it. ``date``
    is that of UTC, in ISO 8601. As a string, it is what captions say.
    """

    device: str
    memory_bytes: int
    driver: str | None
    cuda: str | None
    torch: str
    python: str
    date: str

    def __str__(self) -> str:
        parts = [
            self.device,
            self.driver and f"driver {self.driver}",
            self.cuda and f"CUDA {self.cuda}",
            f"torch {self.torch}",
            self.date,
        ]
        return ", ".join(part for part in parts if part)


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """The torch device that ``device`` names; ``None``: CUDA if there is one, else the CPU.

    Raises ``ValueError`` for a device that is unknown, or not on this machine.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cuda", "cpu"):
        raise ValueError(f"device must be 'cuda', 'cuda:<index>' or 'cpu', got {str(device)!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(device)!r} is not on this machine: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices; use 'cpu', or a recorded run"
        )
    return found


def provenance(device: str | torch.device | None = None) -> Provenance:
    """What a reader needs to know about ``device`` to judge a number measured on it now.

    ``device`` is as for :func:`resolve_device`, which raises what this raises.

    >>> provenance("cpu").torch == torch.__version__
    True
    """
    device = resolve_device(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory
    else:
        name, memory = _cpu_name(), psutil.virtual_memory().total
    return Provenance(
        device=name,
        memory_bytes=memory,
        driver=_driver_version() if device.type == "cuda" else None,
        cuda=torch.version.cuda if device.type == "cuda" else None,
        torch=torch.__version__,
        python=platform.python_version(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


@functools.cache  # it takes a second
def _cpu_name() -> str:
    return cpuinfo.get_cpu_info().get("brand_raw") or platform.machine()


@functools.cache
def _driver_version() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(query, text=True).split()[0]
    return None
