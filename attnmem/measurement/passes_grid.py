"""Which passes of attention a record of tiles holds.

``python -m attnmem.measurement.passes_grid FILE`` makes one on this machine's GPU. It needs torch
with CUDA and Triton, and for the traffic ``ncu``.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from attnmem.measurement.passes import Pass, record
from attnmem.workload import Workload

SHORT = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
LENGTHS = tuple(2**power for power in range(9, 16))
KERNELS = ("triton", "flash", "efficient", "cudnn")

#: Tiles of the eager program in a record: large, because every operation on one is a launch.
EAGER = (1024, 1024)

#: Block sizes of our kernel that are tried: queries, keys, warps, stages.
TRIED = {
    64: (
        *((q, k, 4, 3) for q in (32, 64, 128) for k in (32, 64, 128)),
        (16, 64, 4, 3),
        (128, 32, 8, 3),
        (128, 64, 8, 3),
        (128, 128, 8, 3),
        (256, 64, 8, 3),
        (128, 64, 4, 2),
        (128, 64, 4, 4),
        (128, 128, 4, 2),
    ),
    128: (
        *((q, k, 4, 3) for q in (32, 64) for k in (32, 64)),
        (16, 64, 4, 3),
        (128, 32, 8, 3),
        (128, 64, 8, 2),
        (128, 64, 8, 3),
        (128, 64, 4, 3),
        (128, 128, 8, 2),
        (128, 128, 8, 3),
        (64, 64, 4, 2),
    ),
}


def timed() -> list[Pass]:
    """Peak and time: every program in f16, and a part of that in bf16."""
    return [
        *_f16(),
        *(
            Pass(program=name, workload=_sized(n, d, torch.bfloat16), training=training)
            for name in ("standard", *KERNELS)
            for n, d, training in itertools.product((4096, 16384), (64, 128), (False, True))
        ),
        *(
            Pass(program="compiled", workload=_sized(n, 64), training=training)
            for n in (1024, 4096, 16384)
            for training in (False, True)
        ),
        *(
            Pass(program="tiled", workload=_sized(4096, 64), block=block)
            for block in ((128, 128), (256, 256), (512, 512), (512, None), (None, 512))
        ),
    ]


def blocks() -> list[Pass]:
    """Our kernel at N = 8192, with each of the block sizes that are tried."""
    return [
        Pass(program="triton", workload=_sized(8192, d), block=block, causal=causal)
        for d, tried in TRIED.items()
        for block in tried
        for causal in (False, True)
    ]


def counted() -> list[Pass]:
    """Traffic: kernels at every length, standard attention and the tiles where it is quick."""
    cells = [
        cell
        for cell in _f16()
        if cell.program in (*KERNELS, "standard")
        and (
            (cell.workload.head_dim == 64 and not cell.causal and not cell.training)
            or cell.workload.seq_len in (4096, 16384, 32768)
        )
        and not (cell.program == "standard" and cell.workload.seq_len > 16384)
    ]
    eager = [
        Pass(program="tiled", workload=_sized(4096, 64), block=EAGER, training=training)
        for training in (False, True)
    ]
    return [*cells, *eager, *(cell for cell in blocks() if not cell.causal)]


def _f16() -> Iterator[Pass]:
    for name, d, causal, training, n in itertools.product(
        ("standard", "tiled", *KERNELS), (64, 128), (False, True), (False, True), LENGTHS
    ):
        if d == 128 and causal and training:
            continue
        # Of N², what is slow or large adds nothing: seconds for one pass, or more than the GPU has.
        if name == "standard" and training and n > 16384:
            continue
        if name == "tiled" and (n > 16384 or (training and n > 8192)):
            continue
        block = EAGER if name == "tiled" else None
        yield Pass(
            program=name, workload=_sized(n, d), causal=causal, training=training, block=block
        )


def _sized(n: int, d: int, dtype: torch.dtype = torch.float16) -> Workload:
    return replace(SHORT, seq_len=n, head_dim=d, dtype=dtype)


def main(path: Path) -> list[str]:
    """Make the record, print what failed, and return that."""
    failures: list[str] = record(path, blocks(), timed(), counted())["failures"]
    print(*failures, sep="\n")
    return failures


if __name__ == "__main__":
    main(Path(sys.argv[1]))
