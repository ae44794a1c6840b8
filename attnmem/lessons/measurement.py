"""Measurement: peaks of standard attention, cold starts, and what the allocator makes of sizes."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from attnmem import figures
from attnmem.catalog import model, recognise
from attnmem.formulas import peak_bytes
from attnmem.lessons.shared import SHORT, known, measured, same_events, total
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.device import provenance
from attnmem.measurement.memory import Measurement
from attnmem.prediction.allocator import CachingAllocator, cublas_workspace
from attnmem.prediction.trace import Trace, trace
from attnmem.programs import named_products, standard_attention
from attnmem.timeline import Event
from attnmem.workload import round_up

LENGTHS = (512, 1024, 2048, 4096, 131072)  # no GPU has the memory for the last
ODD = replace(SHORT, seq_len=777)  # no power of two, so blocks and segments have rests
GPT2 = model("GPT-2 medium")
H100 = (9, 0)  # its compute capability
MIB = 2**20


def table_of_peaks(runs: Sequence[Measurement]) -> Table:
    """Measured peaks beside predicted ones. A run that ended for want of memory says so."""
    rows = []
    for m in runs:
        found = m.peak_bytes / 1e6, (m.peak_bytes - m.input_bytes) / 1e6, _difference(m)
        shown = ("out of memory", None, None) if m.out_of_memory else found
        rows.append((m.workload.seq_len, m.input_bytes / 1e6, peak_bytes(m.workload) / 1e6, *shown))
    names = "inputs (MB)", "predicted peak (MB)", "measured peak (MB)", "beyond inputs (MB)"
    return Table(
        {"N": ""} | dict.fromkeys(names, ",.2f") | {"difference": "{:,} B"},
        rows,
    )


def table_of_cold_starts(
    cold: Sequence[Measurement], warm: Sequence[Measurement], workspace: int
) -> Table:
    """Peaks without and with a warm-up, and the workspace in bytes that a rule predicts."""
    names = "cold peak (B)", "warm peak (B)", "difference (B)", "workspace, predicted (B)"
    return Table(
        {"N": ""} | dict.fromkeys(names, ","),
        (
            (c.workload.seq_len, c.peak_bytes, w.peak_bytes, c.peak_bytes - w.peak_bytes, workspace)
            for c, w in zip(cold, warm, strict=True)
        ),
    )


def table_of_allocations(traced: Sequence[Event], listed: Sequence[Event]) -> Table:
    """The allocations, not the releases, of a trace and of the allocator's history, in order."""
    pairs = zip(traced, listed, strict=True)
    return Table(
        {"tensor": "", "traced (B)": "+,", "allocator (B)": "+,"},
        ((t.label, t.bytes, m.bytes) for t, m in pairs if t.bytes > 0),
    )


def table_of_three_peaks(runs: Sequence[Measurement]) -> Table:
    """What each run requested, allocated and reserved at most."""
    rows = []
    for m in runs:
        asked, got = m.peak_bytes, m.peak_allocated_bytes
        rows.append((m.workload.seq_len, asked, got, got - asked, m.peak_reserved_bytes))
    names = "requested (B)", "allocated (B)", "difference (B)", "reserved (B)"
    return Table({"N": ""} | dict.fromkeys(names, ","), rows)


def table_of_cpu_peaks(runs: Sequence[Measurement]) -> Table:
    """Peaks measured on a CPU, and how far they are from the formula."""
    rows = []
    for m in runs:
        sizes = m.input_bytes, m.peak_bytes, peak_bytes(m.workload)
        rows.append((m.workload.seq_len, *(size / 1e6 for size in sizes), _difference(m)))
    return Table(
        {"N": "", "inputs (MB)": ",.2f", "peak (MB)": ",.2f", "predicted peak (MB)": ",.2f"}
        | {"measured − predicted": "{:,} B"},
        rows,
    )


def table_of_cold_peaks(traces: Sequence[Trace], cold_peaks: Sequence[int]) -> Table:
    """Peaks warm and cold, in bytes and, without the inputs and O, in units of S."""
    rows = []
    for t, cold in zip(traces, cold_peaks, strict=True):
        w = known(t.workload)
        s, x = w.score_bytes, w.head_bytes
        in_scores = [(peak - 4 * x) / s for peak in (t.peak_bytes, cold)]
        rows.append((w.seq_len, t.peak_bytes, cold, s, *in_scores))
    return Table(
        {"N": "", "peak (B)": ",", "cold peak (B)": ",", "one S (B)": ","}
        | {"(peak − 4X) / S": ".2f", "(cold peak − 4X) / S": ".2f"},
        rows,
    )


def numbers() -> dict[str, object]:
    """What the text looks up."""
    *done, failed = measured(SHORT, LENGTHS)
    first, second = done[:2]
    cold = first.peak_bytes + first.workspace_bytes
    training = records.measured(standard_attention, SHORT, training=True)
    t = trace(standard_attention, GPT2.workload())
    workspace = t.workspace_bytes(H100)
    driver = t.peak_reserved_bytes + workspace
    short, long = (peak_bytes(GPT2.workload(n)) for n in (256, 512))
    older = cublas_workspace((8, 0))
    odd = trace(standard_attention, ODD)
    block, segment = round_up(ODD.score_bytes, 512), round_up(ODD.score_bytes, 2 * MIB)
    slack = 6 * (MIB + 511)
    return {
        "segments": figures.segments(odd),
        "odd_size": ODD.score_bytes,
        "odd_rounding": block - ODD.score_bytes,
        "odd_rest": segment - block,
        "slack_mb": slack / 1e6,
        "slack_share": slack / peak_bytes(replace(SHORT, seq_len=4096)),
        "origin": records.origin(),
        "cpu": str(provenance("cpu")),
        "formula_mb": peak_bytes(SHORT) / 1e6,
        "cold_mb": cold / 1e6,
        "extra_mb": (cold - peak_bytes(SHORT)) / 1e6,
        "extra_mib": (cold - peak_bytes(SHORT)) / MIB,
        "newer_mib": cublas_workspace(H100) / MIB,
        "older": older,
        "done": len(done),
        "worst": max(abs(_difference(m)) for m in done),
        "oom_n": failed.workload.seq_len,
        "oom_needs_gb": peak_bytes(failed.workload) / 1e9,
        "oom_next_gb": failed.workload.score_bytes / 1e9,
        "oom_had_gb": failed.peak_bytes / 1e9,
        "memory_gib": failed.provenance.memory_bytes / 2**30,
        "sold_gib": known(recognise(failed.provenance.device)).memory_gib,
        "memory_gb": failed.provenance.memory_bytes / 1e9,
        "first_factor": cold / first.peak_bytes,
        "cold_growth": (second.peak_bytes + second.workspace_bytes) / cold,
        "subtracted_growth": second.peak_bytes / cold,
        "true_growth": second.peak_bytes / first.peak_bytes,
        "workspace_training": training.workspace_bytes,
        "gpt2_heads": GPT2.heads,
        "gpt2_d": GPT2.head_dim,
        "gpt2_context": GPT2.context,
        "gpt2_idle_mb": (t.peak_reserved_bytes - t.peak_allocated_bytes) / 1e6,
        "gpt2_workspace_mb": workspace / 1e6,
        "gpt2_driver_mb": driver / 1e6,
        "gpt2_peak_mb": t.peak_bytes / 1e6,
        "gpt2_factor": driver / t.peak_bytes,
        "repair_seen": long / (short + older),
        "repair_true": long / short,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return _claims_on_peaks() | _claims_on_the_allocator() | _claims_on_gpt2()


def _claims_on_peaks() -> dict[str, bool]:
    *done, failed = measured(SHORT, LENGTHS)
    cold = [records.measured(standard_attention, m.workload, warm_up=False) for m in done]
    extra = [c.peak_bytes - m.peak_bytes for c, m in zip(cold, done, strict=True)]
    got, memory = failed.peak_bytes, failed.provenance.memory_bytes
    training = records.measured(standard_attention, SHORT, training=True)
    single = replace(SHORT, dtype=torch.float32)
    on_cpu = trace(standard_attention, single, device="cpu").peak_bytes
    return {
        "theory and device agree to the byte": not any(_difference(m) for m in done),
        "the run of 131072 tokens did not end": failed.out_of_memory,
        "the others did": not any(m.out_of_memory for m in done),
        "it asked for a tensor too many": got < memory < got + failed.workload.score_bytes,
        "the difference is the workspace": extra == [m.workspace_bytes for m in done],
        "training has a second workspace": training.workspace_bytes == 2 * done[0].workspace_bytes,
        "releases agree as well, in size and order": (
            same_events(training, trace(standard_attention, SHORT, training=True))
        ),
        "in inference, GPU and CPU need the same": on_cpu == peak_bytes(single),
        "powers of two hide rounding": all(m.peak_allocated_bytes == m.peak_bytes for m in done),
    }


def _claims_on_the_allocator() -> dict[str, bool]:
    odd = records.measured(standard_attention, ODD)
    seen = odd.peak_bytes, odd.peak_allocated_bytes, odd.peak_reserved_bytes
    t = trace(standard_attention, odd.workload)
    size = odd.workload.score_bytes
    block, segment = round_up(size, 512), round_up(size, 2 * MIB)
    difference = odd.peak_allocated_bytes - odd.peak_bytes
    alive = accumulate(1 if event.bytes > 0 else -1 for event in t.timeline)
    return {
        "the rest of the segment is less than 1 MiB": 0 < segment - block < MIB,
        "S is rounded and keeps the rest, P is rounded": (
            difference == (block - size) + (segment - block) + (block - size)
        ),
        "P needs no new segment": odd.peak_reserved_bytes == 20 * MIB + segment,
        "the trace arrives at the same three numbers": (
            seen == (t.peak_bytes, t.peak_allocated_bytes, t.peak_reserved_bytes)
        ),
        "it never holds more than six tensors": max(alive) == 6,
        "the difference is within the bound": 0 <= difference <= 6 * (MIB + 511),
    }


def _claims_on_gpt2() -> dict[str, bool]:
    w = GPT2.workload()
    t = trace(standard_attention, w)
    workspace = t.workspace_bytes(H100)
    cold = t.peak_bytes + workspace
    idle = t.peak_reserved_bytes - t.peak_allocated_bytes
    alone = CachingAllocator()
    alone.allocate(workspace)
    return {
        "the workspace is as large as one S": workspace == w.score_bytes,
        "the cold peak is 3S + 4X": cold == total(w, 3, 4),
        "exactly what named_products needs": cold == trace(named_products, w).peak_bytes,
        "Q, K, V and O leave the rest of one segment unused": idle == 20 * MIB - 4 * w.head_bytes,
        "the workspace fills its segment": alone.reserved == workspace,
    }


def _difference(m: Measurement) -> int:
    return m.peak_bytes - peak_bytes(m.workload)
