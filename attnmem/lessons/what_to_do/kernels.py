"""What the page says of the kernels that calls get, and of their names."""

from typing import Any

import torch

from attnmem.lessons.what_to_do import cures
from attnmem.measurement import records
from attnmem.prediction.choice import assuming, which_kernel
from attnmem.workload import Workload


def _kernel(d: int, dtype: str, release: tuple[int, int] = (2, 11), **rest: Any) -> str | None:
    """The kernel that a call gets in training, with the record's cuDNN or another one."""
    w = Workload(batch=2, heads=8, seq_len=2048, head_dim=d, dtype=getattr(torch, dtype))
    cudnn = rest.pop("cudnn", cures.RECORDED_WITH["cudnn"])
    with assuming(release=release, cudnn=cudnn):
        return which_kernel(w, training=True, **rest).kernel


def _kernels_run(program: str) -> set[str]:
    """The kernels of a program, as the profiler named them when it was recorded."""
    runs = (run for run in records.load().runs if run.program == program)
    return {kernel for run in runs for step in run.steps for kernel in step.kernels}


def claims() -> dict[str, bool]:
    """What the text says of kernels."""
    taken_by = {words: cures.kernels_of(call) for words, call in cures.calls().items()}
    lost = {words for words, taken in taken_by.items() if set(taken) == {"math"}}
    return {
        "six of the calls lose the fused kernels, on all cards": lost
        == {
            "32 bit, grouped heads",
            "16 bit, one head of K and V, no `enable_gqa`",
            "64 bit",
            "a mask, $d = 60$",
            "$d = 320$, grouped heads",
            "3 dimensions",
        },
        "the other calls get a fused one, but on a T4 or a V100, and groups with a mask": {
            words for words, taken in taken_by.items() if words not in lost and "math" in taken[:-1]
        }
        == {"16 bit, grouped heads, a mask"},
        "grouped heads with a mask keep a fused kernel on an H100, causal ones on an A100, too": [
            cures.kernels_of(call)[:2]
            for call in (
                cures.calls()["16 bit, grouped heads, a mask"],
                cures.calls()["16 bit, grouped heads"] | {"is_causal": True},
                cures.calls()["a mask"],
            )
        ]
        == [("cudnn", "math"), ("cudnn", "flash"), ("cudnn", "efficient")],
        "and grouped causal ones on a T4 lose it": cures.kernels_of(
            cures.calls()["16 bit, grouped heads"] | {"is_causal": True}
        )[2]
        == "math",
        "an A100 and the RTX cards get the same, and so do a T4 and a V100": not any(
            "or" in kernel for taken in taken_by.values() for kernel in taken
        ),
        "what a call in 16 and in 32 bit gets on each": [
            taken_by[words] for words in ("16 bit", "16 bit, `bf16`", "32 bit")
        ]
        == [
            ("cudnn", "flash", "efficient"),
            ("cudnn", "flash", "math"),
            ("efficient", "efficient", "efficient"),
        ],
        "kernels have the names that the page says": all(
            any(name in kernel for kernel in _kernels_run(program))
            for program, name in (
                ("flash_sdpa", "flash_fwd_"),
                ("efficient_sdpa", "fmha_cutlassF_"),
                ("cudnn_sdpa", "cudnn_generated_"),
            )
        ),
        "in 16 bit an A100 gets flash, an H100 cuDNN's if its cuDNN is above 9.15, else flash": [
            _kernel(64, "float16", cudnn=91501),
            _kernel(64, "float16", cudnn=91500),
            _kernel(64, "float16", capability=(8, 0)),
        ]
        == ["cudnn", "flash", "flash"],
        "on a T4 in 16 bit a head that 8 does not divide loses it without a mask, too": (
            _kernel(60, "float16", capability=(7, 5)) == "math"
        ),
        "from 2.12 on, a dropout of 0.1 gets flash in place of cuDNN": [
            _kernel(64, "float16", release, dropout=0.1) for release in ((2, 11), (2, 12))
        ]
        == ["cudnn", "flash"],
        "without groups, above 256, efficient takes multiples of 8, in 32 bit of 4": [
            _kernel(d, dtype)
            for dtype, d in (("float16", 300), ("float16", 304), ("float32", 300), ("float32", 302))
        ]
        == ["math", "efficient", "efficient", "math"],
        "in 32 bit a head that 4 does not divide gets no fused kernel, with a mask or without": {
            _kernel(62, "float32", mask=mask) for mask in (None, "bool")
        }
        == {"math"},
    }
