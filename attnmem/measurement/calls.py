"""Records of calls, such as training steps: what each did to the memory of one device."""

import gc
import gzip
import json
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from attnmem.measurement.device import Provenance, provenance, resolve_device
from attnmem.measurement.memory import MeasuredCall, measure_call
from attnmem.measurement.records import DATA, JSON, code_digest

STEPS_RECORD = DATA / "steps" / "nvidia-h200.json.gz"


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """What calls did, by their names; ``digest`` identifies the code that measured them.

    ``failures`` holds the name and the traceback of each call that raised.
    """

    digest: str
    provenance: Provenance
    calls: dict[str, MeasuredCall]
    failures: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write the record as compressed JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(json.dumps(JSON.unstructure(self)).encode(), mtime=0))


def record_calls(
    calls: Iterable[tuple[str, Callable[[], object]]], device: str | torch.device | None = None
) -> CallRecord:
    """Measure named calls on ``device``, one after another; each may be made by its iterator.

    What raises is noted, and the rest goes on. Where the iterator itself raises, nothing is left.
    """
    device = resolve_device(device)
    found = {}
    failures: list[str] = []
    gc.freeze()  # each call collects garbage several times: it need not look at what is here now
    try:
        for name, call in calls:
            try:
                found[name] = measure_call(call, device)
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
    )


def load_calls(path: Path) -> CallRecord:
    """Read a record that :meth:`CallRecord.save` wrote. Raises ``OSError`` if it is not there."""
    content = json.loads(gzip.decompress(path.read_bytes()))
    for call in content["calls"].values():
        call["provenance"] = content["provenance"]
    return JSON.structure(content, CallRecord)
