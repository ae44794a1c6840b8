"""The first page: memory over sequence length, predicted and measured."""

from dataclasses import replace

from attnmem import figures
from attnmem.catalog import accelerator
from attnmem.formulas import peak_bytes
from attnmem.lessons.shared import SHORT, measured
from attnmem.measurement import records
from attnmem.measurement.memory import Measurement

LONG = replace(SHORT, seq_len=64 * 512)
CARDS = accelerator("RTX 4090"), accelerator("H100 SXM")


def numbers() -> dict[str, object]:
    """What the text looks up: the sizes of a short and a long sequence, and the figure."""
    runs = _runs()
    failed = sum(m.out_of_memory for m in runs)
    return {
        "story": figures.peaks(runs, CARDS),
        "origin": records.origin(),
        "exact": len(runs) - failed,
        "failed": failed,
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
    """What the text says of its numbers."""
    runs = _runs()
    more_scores = LONG.score_bytes / SHORT.score_bytes
    lengths = [m.workload.seq_len for m in runs]
    first, last = (replace(SHORT, seq_len=n) for n in (min(lengths), max(lengths)))
    small, large = (card.memory_bytes for card in CARDS)
    return {
        "64 times as many words take 64² times the space": more_scores == 64**2,
        "inputs and output grow with the sequence": LONG.head_bytes == 64 * SHORT.head_bytes,
        "the dots lie on the lines": all(
            m.peak_bytes == peak_bytes(m.workload, training=m.training)
            for m in runs
            if not m.out_of_memory
        ),
        "the figure goes from 512 to 131072": (first.seq_len, last.seq_len) == (512, 131072),
        "both lines cross the memory of an RTX 4090 and then of an H100": all(
            peak_bytes(first, training=on) < small < large < peak_bytes(last, training=on)
            for on in (False, True)
        ),
    }


def _runs() -> list[Measurement]:
    """The dots and crosses of the figure."""
    lengths = [2**power for power in range(9, 18)]
    return measured(SHORT, lengths) + measured(SHORT, lengths[:-2], training=True)
