"""Memory that is reserved and can't be used: training on lengths that change, in four settings.

Run as ``python -m attnmem.cures.fragmentation`` it prints what this process's setting gives. What
the setting is, PyTorch's allocator reads once, when it starts: each needs a process of its own.
"""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import torch

from attnmem.cures.kernels import unfused
from attnmem.programs import run
from attnmem.workload import Workload, round_up

_draw = random.Random(0).random

#: Sequence lengths, in the order in which batches bring them.
LENGTHS = {
    "random": tuple(1024 + int(2048 * _draw()) for _ in range(60)),
    "growing": tuple(range(1024, 2944, 32)),
}

#: Name -> (the setting of PyTorch's allocator, the multiple up to which lengths are padded).
SETTINGS = {
    "default": ("", 1),
    "expandable segments": ("expandable_segments:True", 1),
    "rounded sizes": ("roundup_power2_divisions:4", 1),
    "padded lengths": ("", 512),
}


def batches(order: str, multiple: int = 1) -> list[Workload]:
    """One workload for each length of an order, padded up to a multiple."""
    first = Workload(batch=1, heads=12, seq_len=1, head_dim=64, dtype=torch.float16)
    return [replace(first, seq_len=round_up(n, multiple)) for n in LENGTHS[order]]


def scenario(order: str, multiple: int = 1) -> dict[str, Any]:
    """Train on one batch after the other on the GPU, and note the peaks after each.

    Bytes from after a first small batch, so that what libraries keep is not among them:
    ``allocated``, the peak of what tensors took, and ``reserved``, of what the allocator took.
    ``settings`` are the allocator's, as it tells them.
    """
    device = torch.device("cuda")

    def train(w: Workload) -> None:
        for _ in run(unfused, w, training=True, device=device):
            pass
        torch.cuda.synchronize()

    train(Workload(batch=1, heads=1, seq_len=16, head_dim=16, dtype=torch.float16))
    torch.cuda.empty_cache()
    base = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    found: dict[str, Any] = {"allocated": [], "reserved": []}
    for w in batches(order, multiple):
        train(w)
        found["allocated"].append(torch.cuda.max_memory_allocated() - base[0])
        found["reserved"].append(torch.cuda.max_memory_reserved() - base[1])
    found["settings"] = torch.cuda.memory._snapshot()["allocator_settings"]
    return found


def record() -> dict[str, dict[str, Any]]:
    """The scenario for each order and in each setting: order -> setting -> what it gives.

    Raises ``subprocess.CalledProcessError`` where there is no GPU.
    """
    return {
        order: {name: _alone(order, *setting) for name, setting in SETTINGS.items()}
        for order in LENGTHS
    }


def _alone(order: str, setting: str, multiple: int) -> Any:
    """The scenario in a process of its own."""
    own = {key: value for key, value in os.environ.items() if key != "PYTORCH_ALLOC_CONF"}
    if setting:
        own["PYTORCH_ALLOC_CONF"] = setting
    command = [sys.executable, "-W", "ignore", "-m", __name__, order, str(multiple)]
    done = subprocess.run(command, env=own, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    print(json.dumps(scenario(sys.argv[1], int(sys.argv[2]))))
