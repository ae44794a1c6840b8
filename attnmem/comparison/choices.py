"""Which kernel PyTorch itself chooses for attention: many calls, asked of a real device.

And what each kernel that can be chosen would cost: its predicted peak.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel

from attnmem.comparison.configurations import ENUM, Configuration, configurations
from attnmem.measurement.device import provenance
from attnmem.prediction.choice import Choice, which_kernel
from attnmem.prediction.trace import trace
from attnmem.workload import Workload

Tensor = torch.Tensor
CHOICES = tuple(sorted((Path(__file__).with_name("data") / "choices").glob("*.json")))


def record_choices(path: Path) -> None:
    """Write PyTorch's choice for every configuration on this machine's GPU as JSON, a row a line.

    A row has the ``chosen`` kernel, ``None`` where PyTorch finds none, or the ``error`` it raises.
    """
    Configuration().chosen("cuda")  # the first choice sets the order of priority
    found = provenance(torch.device("cuda"))
    origin = {
        "device": found.device,
        "date": found.date,
        "torch": found.torch,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "capability": list(torch.cuda.get_device_capability()),
    }
    text = json.dumps({"provenance": origin}).removesuffix("}") + ', "rows": [\n'
    path.write_text(text + ",\n".join(map(json.dumps, _rows())) + "\n]}\n")


def _rows() -> Iterator[dict[str, Any]]:
    for configuration in configurations():
        row: dict[str, Any] = {"configuration": asdict(configuration)}
        try:
            row["chosen"] = configuration.chosen("cuda")
        except RuntimeError as error:
            row["error"] = str(error).splitlines()[0]
        yield row


def load_choices(path: Path) -> list[tuple[Configuration, str | None, Choice]]:
    """What a file of :func:`record_choices` has: each call, PyTorch's choice, the predicted one."""
    content = json.loads(path.read_text())
    origin = content["provenance"]
    major, minor = origin["torch"].split(".")[:2]
    circumstances = {
        "capability": tuple(origin["capability"]),
        "cudnn": origin["cudnn"],
        "release": (int(major), int(minor)),
    }
    calls = [(Configuration.from_json(row["configuration"]), row) for row in content["rows"]]
    return [
        (call, row["chosen"], call.predicted(**circumstances))
        for call, row in calls
        if "error" not in row
    ]


def peaks(
    w: Workload,
    *,
    kv_heads: int | None = None,
    value_dim: int | None = None,
    mask: Literal["bool", "float"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    training: bool = False,
    device: Literal["cuda", "cpu"] = "cuda",
    capability: tuple[int, int] = (9, 0),
) -> dict[str, int]:
    """The predicted peak of each kernel that can be taken, in bytes, first of the one that is.

    The arguments are those of :func:`attnmem.prediction.choice.which_kernel`. K and V are there
    with all heads of Q; with ``kv_heads``, the first of these are taken. With ``value_dim``,
    another V is made.

    >>> w = Workload(batch=2, heads=4, seq_len=512, head_dim=64, dtype="float16")
    >>> peaks(w, kv_heads=1)
    {'cudnn': 2097424, 'flash': 4243480, 'math': 25169924}
    """
    choice = which_kernel(
        w,
        kv_heads=kv_heads,
        value_dim=value_dim,
        mask=mask,
        causal=causal,
        dropout=dropout,
        training=training,
        device=device,
        capability=capability,
    )
    kinds = {"bool": torch.bool, "float": w.dtype}

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape = q.shape[-2], k.shape[-2]
        added = torch.empty(shape, dtype=kinds[mask], device=q.device) if mask else None
        if value_dim:
            v = v.new_empty(*v.shape[:-1], value_dim, requires_grad=training)
        k, v = k[:, :kv_heads], v[:, :kv_heads]
        return F.scaled_dot_product_attention(q, k, v, added, dropout, causal, enable_gqa=True)

    found = {}
    for name in choice.possible:
        with sdpa_kernel(ENUM[name]), contextlib.suppress(RuntimeError):  # heads may not fit
            found[name] = trace(attention, w, training, device, capability=capability).peak_bytes
    return found
