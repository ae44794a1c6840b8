"""The first page: memory over sequence length, predicted and measured."""

from dataclasses import replace

import torch

from attnmem import figures
from attnmem.catalog import accelerator
from attnmem.formulas import peak_bytes
from attnmem.measurement import records
from attnmem.measurement.memory import Measurement
from attnmem.programs import standard_attention
from attnmem.workload import Workload

SHORT = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
LONG = replace(SHORT, seq_len=64 * 512)
CARDS = accelerator("RTX 4090"), accelerator("H100 SXM")


def numbers() -> dict[str, object]:
    """What the page's text looks up: the sizes of a short and a long sequence, and the figure."""
    runs = _runs()
    return {
        "story": figures.peaks(runs, CARDS),
        "origin": records.origin(),
        "exact": sum(not m.out_of_memory for m in runs),
        "failed": sum(m.out_of_memory for m in runs),
        "long": LONG.seq_len,
        "peak_short_mb": peak_bytes(SHORT) / 1e6,
        "peak_long_gb": peak_bytes(LONG) / 1e9,
        "factor": LONG.score_bytes // SHORT.score_bytes,
        "needed_short_mb": 4 * SHORT.head_bytes / 1e6,
        "needed_long_mb": 4 * LONG.head_bytes / 1e6,
        "between_short_mb": 2 * SHORT.score_bytes / 1e6,
        "between_long_gb": 2 * LONG.score_bytes / 1e9,
    }


def claims() -> dict[str, bool]:
    """The page's sentences that depend on what was measured or computed."""
    runs = _runs()
    lengths = [m.workload.seq_len for m in runs]
    ends = [replace(SHORT, seq_len=n) for n in (min(lengths), max(lengths))]
    small, large = CARDS
    return {
        "64 times as many words take 64² times the space": LONG.score_bytes
        == 64**2 * SHORT.score_bytes,
        "inputs and output grow in step with the sequence": LONG.head_bytes
        == 64 * SHORT.head_bytes,
        "the dots lie on the lines": all(
            m.peak_bytes == peak_bytes(m.workload, training=m.training)
            for m in runs
            if not m.out_of_memory
        ),
        "the figure goes from 512 to 131072": (min(lengths), max(lengths)) == (512, 131072),
        "both lines cross the memory of an RTX 4090 and then of an H100": all(
            peak_bytes(ends[0], training=training)
            < small.memory_bytes
            < large.memory_bytes
            < peak_bytes(ends[1], training=training)
            for training in (False, True)
        ),
    }


def _runs() -> list[Measurement]:
    """The dots and crosses of the figure."""
    return [
        records.measured(standard_attention, replace(SHORT, seq_len=2**power), training)
        for training, powers in ((False, range(9, 18)), (True, range(9, 16)))
        for power in powers
    ]
