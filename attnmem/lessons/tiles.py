"""The page on attention in tiles: its tables, what its text looks up, and what it says."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from attnmem import figures
from attnmem.catalog import model, recognise
from attnmem.formulas import peak_bytes, standard_steps
from attnmem.lessons.shared import SHORT, W, known
from attnmem.lessons.table import Table
from attnmem.measurement import passes_record
from attnmem.measurement.passes_grid import EAGER, LENGTHS
from attnmem.measurement.passes_record import Found
from attnmem.prediction.trace import trace
from attnmem.programs import Program, standard_attention
from attnmem.published import CLAIMS
from attnmem.tiles import attend, costs, finish, merge, tiled_attention
from attnmem.workload import Workload, dtype_name

RECORD = passes_record.load()
CARD = known(recognise(RECORD.provenance.device))
LONG = 131072
HALF = replace(W, seq_len=4096)  # where everything was counted
CUTS = ((512, None), (None, 512), (512, 512), (128, 128))
NAMES = {
    "standard": "standard",
    "tiled": "tiles, eager",
    "triton": "our kernel",
    "efficient": "efficient",
    "flash": "flash",
    "cudnn": "cuDNN",
    "compiled": "compiled",
}
LLAMA = model("Llama 3.1 8B")
KIB = 2**10


def found(name: str, w: Workload, **options: Any) -> Found:
    """What is recorded of a program, of the eager one with its large tiles."""
    return RECORD.find(name, w, block=EAGER if name == "tiled" else None, **options)


def products(w: Workload, count: int, *, causal: bool = False) -> int:
    """The FLOPs of so many products of N×N×d; with a mask, of the scores that count."""
    scores = w.score_elements * (w.seq_len + 1) // (2 * w.seq_len) if causal else w.score_elements
    return count * 2 * scores * w.head_dim


def least(w: Workload, *, causal: bool = False) -> dict[str, float]:
    """The seconds that each part of an ideal fused forward pass takes on the recorded GPU."""
    reading, writing = RECORD.ceilings.largest["sum"], RECORD.ceilings.largest["fill"]
    flops = products(w, 2, causal=causal)
    return {
        "traffic": 3 * w.head_bytes / reading + w.head_bytes / writing,
        "products": flops / RECORD.ceilings.matmul[dtype_name(w.dtype)],
        "exponentials": flops / (4 * w.head_dim) / known(CARD.special_rate),
    }


def share(name: str, w: Workload, *, causal: bool = False) -> float:
    """What share of the ideal fused pass's roof the forward pass of a program reaches."""
    seconds = known(found(name, w, causal=causal).seconds)
    return max(least(w, causal=causal).values()) / seconds


def recorded_lengths(name: str) -> list[int]:
    """The sequence lengths at which a program was timed."""
    return sorted(
        c.workload.seq_len
        for c, f in RECORD.passes.items()
        if (c.program, c.causal, c.training) == (name, False, False)
        and replace(c.workload, seq_len=W.seq_len) == W
        and (name != "tiled" or c.block == EAGER)
        and f.seconds
        and not (name == "triton" and c.block != BEST)
    )


BEST = min(
    (c for c in RECORD.blocks if not c.causal and c.workload == W),
    key=lambda c: RECORD.blocks[c],
).block


def table_of_cuts() -> Table:
    """Three ways to cut: peak by formula, trace and allocator; traffic; time."""
    one = found("standard", HALF)
    moved = sum(step.bytes_moved for step in standard_steps(HALF))
    x = HALF.head_bytes
    first = peak_bytes(HALF) / x, known(one.peak_bytes) / x, moved / x, 1e3 * known(one.seconds)
    rows: list[tuple[Any, ...]] = [("standard, uncut", *first)]
    for block in CUTS:
        name = " × ".join(str(size or "all") for size in block)
        run = RECORD.find("tiled", HALF, block=block)
        peaks = costs.peak_bytes(HALF, block) / x, known(run.peak_bytes) / x
        rows.append((name, *peaks, eager_traffic(HALF, block) / x, 1e3 * known(run.seconds)))
    return Table(
        {"queries × keys": "", "peak, formula (X)": ".3f", "peak, recorded (X)": ".3f"}
        | {"moved, traced (X)": ",.0f", "time (ms)": ",.1f"},
        rows,
    )


@cache
def eager_traffic(w: Workload, block: costs.Block) -> int:
    """What every operation of the eager program reads and writes, forward, in bytes."""
    t = trace(partial(tiled_attention, block=block), w)
    return sum(step.bytes_moved for step in t.steps if step.stage != "inputs")


def table_of_bounds(w: Workload, sizes: Sequence[int]) -> Table:
    """For fast memories of so many KiB: the largest block of queries, its traffic, the bound."""
    rows = []
    for kib in sizes:
        block = largest_block(w, kib * KIB)
        moved, bound = costs.traffic(w, block), costs.bound(w, kib * KIB)
        rows.append((kib, block, moved / w.head_bytes, bound / w.head_bytes, moved / bound))
    return Table(
        {"fast memory (KiB)": "", "queries": "", "loop moves (X)": ".1f"}
        | {"N²d²/M (X)": ".1f", "ratio": ".1f"},
        rows,
    )


def largest_block(w: Workload, memory: int) -> int:
    """The most queries whose block fits, beside 16 keys."""
    return max(b for b in range(1, w.seq_len) if costs.fast_bytes(w, (b, 16)) <= memory)


def table_of_peaks(lengths: Sequence[int]) -> Table:
    """The peak of the eager program in units of X, and what it needs beside tensors of N."""
    rows = []
    for n in lengths:
        w = replace(W, seq_len=n)
        forward, training = (costs.peak_bytes(w, (128, 128), training=t) for t in (False, True))
        row = 4 * w.batch * w.heads * n
        standard = peak_bytes(w) / w.head_bytes
        tiles = (forward - 4 * w.head_bytes - row) / 2**20
        rows.append((n, standard, forward / w.head_bytes, tiles, training / w.head_bytes))
    return Table(
        {"N": "", "standard (X)": ",.0f", "tiles (X)": ".3f"}
        | {"tiles − 4X − L (MiB)": ".3f", "tiles, training (X)": ".3f"},
        rows,
    )


def table_of_traffic(lengths: Sequence[int]) -> Table:
    """Our kernel's bytes by its loop and by the counters, over N."""
    rows = []
    for n in lengths:
        w = replace(W, seq_len=n)
        run, asked = found("triton", w), costs.received(w, known(BEST)[0] or n)
        got, read = known(run.received), known(run.read)
        rows.append((n, asked / w.head_bytes, got / asked, read / w.head_bytes))
    return Table(
        {"N": "", "the loop asks for (X)": ",.0f", "received / asked": ".4f"}
        | {"read from memory (X)": ".2f"},
        rows,
    )


def table_of_programs(w: Workload) -> Table:
    """Peak, bytes, time and share of the roof of each program."""
    rows = []
    for name, title in NAMES.items():
        run, train = found(name, w), found(name, w, training=True)
        moved = run.read is not None and (run.read + known(run.written)) / w.head_bytes
        received = run.received and run.received / w.head_bytes
        times = 1e3 * known(run.seconds), share(name, w), 1e3 * known(train.seconds)
        peak = known(run.peak_bytes) / w.head_bytes
        rows.append((title, peak, moved or None, received, *times))
    return Table(
        {"program": "", "peak (X)": ".2f", "memory (X)": ",.1f", "received (X)": ",.0f"}
        | {"forward (ms)": ".3f", "share of roof": ".0%", "with backward (ms)": ".2f"},
        rows,
    )


def flash_row(n: int) -> float:
    """MiB of FlashAttention's own row: 13X + 2L; 11X + 2L where one block holds all keys."""
    w = Workload(batch=16, heads=8, seq_len=n, head_dim=64, dtype=torch.float16)
    return ((13 if n > ONE_BLOCK else 11) * w.head_bytes + 2 * 4 * 16 * 8 * n) / 2**20


# Up to here FlashAttention's first version held all keys in one block, without a dQ in 32 bit.
ONE_BLOCK = 256
PRINTED = {128: 22, 256: 44, 512: 104, 1024: 209, 2048: 418}


def table_of_flash_row() -> Table:
    """What the paper printed of its own kernel, and what it is."""
    rows = [
        (n, "11X + 2L" if n <= ONE_BLOCK else "13X + 2L", p, flash_row(n))
        for n, p in PRINTED.items()
    ]
    return Table({"N": "", "is": "", "printed": "", "computed (MiB)": ".3f"}, rows)


def table_of_flops() -> Table:
    """Matrix products of a forward and a backward pass, in units of one."""
    unit = products(W, 1)
    ways: dict[str, Program] = {"standard": standard_attention, "tiles": tiled_attention}
    small = replace(W, seq_len=512)
    rows: list[tuple[str, float, float, float]] = []
    for name, program in ways.items():
        steps = [s for s in trace(program, small, training=True).steps if s.matrix]
        unit = products(small, 1)
        forward, backward = (
            sum(s.flops for s in steps if s.stage == stage) / unit
            for stage in ("forward", "backward")
        )
        rows.append((name, forward, backward, forward + backward))
    rows.append(("our kernels, by their loops", 2, 7, 9))
    return Table({"program": "", "forward": "g", "backward": "g", "both": "g"}, rows)


@cache
def accuracy(block: int, n: int = 65536) -> float:
    """The largest error of O in 32 bit, with keys merged so many at a time, by 64-bit softmax."""
    generator = torch.Generator().manual_seed(0)
    s, v = torch.randn(16, n, generator=generator), torch.randn(n, 64, generator=generator)
    exact = s.double().softmax(-1) @ v.double()
    rows = None
    for a, b in zip(torch.split(s, block, 1), torch.split(v, block), strict=True):
        part = attend(a.clone(), b)
        rows = part if rows is None else merge(rows, part)
    return (finish(known(rows))[0].double() - exact).abs().max().item()


def _peak_lines() -> tuple[dict[str, dict[int, float]], dict[str, dict[int, float]]]:
    lengths = [2**power for power in range(9, 18)]
    across = {n: replace(SHORT, seq_len=n) for n in lengths}
    lines: dict[str, dict[int, float]] = {
        "standard": {n: peak_bytes(w) for n, w in across.items()},
        "tiles": {n: costs.peak_bytes(w, EAGER) for n, w in across.items()},
        "4X + L": {n: 4 * w.head_bytes + 4 * w.heads * n for n, w in across.items()},
    }
    names = {"standard": "standard", "tiles": "tiled", "4X + L": "triton"}
    dots: dict[str, dict[int, float]] = {
        title: {
            n: known(found(name, across[n]).peak_bytes)
            for n in LENGTHS
            if name != "tiled" or n <= 16384
        }
        for title, name in names.items()
    }
    return lines, dots


def _shares() -> dict[str, dict[int, float]]:
    return {
        title: {n: share(name, replace(W, seq_len=n)) for n in recorded_lengths(name)}
        for name, title in NAMES.items()
    }


def _tried() -> tuple[dict[int, float], dict[int, float]]:
    """Received bytes over the queries of a block: with rows in registers, and spilled."""
    kept: dict[int, float] = {}
    spilled: dict[int, float] = {}
    for cell in RECORD.blocks:
        if cell.workload == W and not cell.causal:
            queries = known(known(cell.block)[0])
            size = known(RECORD.passes[cell].received)
            good = size < 1.01 * costs.received(W, queries)
            (kept if good else spilled)[queries] = size
    return dict(sorted(kept.items())), spilled


def case_seconds(name: str) -> float:
    """Seconds of one layer of the case, if a program is as fast as in the record, causal."""
    like = replace(W, seq_len=32768, head_dim=LLAMA.head_dim)
    w = LLAMA.workload()
    rate = products(like, 2, causal=True) / known(found(name, like, causal=True).seconds)
    return products(w, 2, causal=True) / rate


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    long, x = replace(W, seq_len=LONG), HALF.head_bytes
    ours, flash, cudnn, one = (found(n, W) for n in ("triton", "flash", "cudnn", "standard"))
    parts, wide = least(W), least(replace(W, head_dim=128))
    w, (kept, spilled) = LLAMA.workload(), _tried()
    tried = [t for c, t in RECORD.blocks.items() if c.workload == W and not c.causal]
    standard, fused = (claim for claim in CLAIMS if claim.acknowledged)  # GFLOPs
    counted = found("standard", HALF)
    return {
        "origin": f"recorded on {RECORD.provenance}",
        "made": f"{RECORD.provenance.device.removeprefix('NVIDIA ')}, recorded",
        "peaks": figures.across(*_peak_lines(), lifts={"tiles": 6, "4X + L": -6}),
        "tiles": figures.tiles(),
        "block_traffic": figures.block_traffic(W, kept, spilled, known(found("triton", W).read)),
        "shares": figures.across(
            _shares(), _shares(), share=True, lifts={"cuDNN": 6, "compiled": 0, "standard": 4}
        ),
        "s_long_gb": long.score_bytes / 1e9,
        "x4_long_mb": 4 * long.head_bytes / 1e6,
        "tiles_long_mb": costs.peak_bytes(long, (128, 128)) / 1e6,
        "kernel_long_mb": (4 * long.head_bytes + 4 * long.heads * LONG) / 1e6,
        "ratio_long": peak_bytes(long) / costs.peak_bytes(long, (128, 128)),
        "error_128": accuracy(128),
        "error_1": accuracy(1),
        "tiles_slower": known(RECORD.find("tiled", HALF, block=(128, 128)).seconds)
        / known(counted.seconds),
        "queries_peak": costs.peak_bytes(HALF, (512, None)) / x,
        "constant_mib": (costs.peak_bytes(W, (128, 128)) - 4 * W.head_bytes - 4 * 12 * 8192)
        / 2**20,
        "l2_mib": known(CARD.l2_mib),
        "bound_l2": costs.bound(W, known(CARD.l2_bytes)) / W.head_bytes,
        "fast_kib": costs.fast_bytes(W, (128, 64)) / KIB,
        "best": " × ".join(map(str, known(BEST)[:2])),
        "best_warps": known(BEST)[2],
        "fewest": max(kept.values()) / min(kept.values()),
        "block_slowest": max(tried) / min(tried),
        "spill": spilled[128] / costs.received(W, 128),
        "ours_us": 1e6 * known(ours.seconds),
        "flash_faster": known(flash.seconds) / known(ours.seconds) - 1,
        "ours_over_cudnn": known(ours.seconds) / known(cudnn.seconds) - 1,
        "standard_over": known(one.seconds) / known(ours.seconds),
        "products_us": 1e6 * parts["products"],
        "exponentials_us": 1e6 * parts["exponentials"],
        "sum_us": 1e6 * (parts["products"] + parts["exponentials"]),
        "cudnn_us": 1e6 * known(cudnn.seconds),
        "traffic_us": 1e6 * parts["traffic"],
        "wide_sum_us": 1e6 * (wide["products"] + wide["exponentials"]),
        "wide_us": 1e6 * known(found("triton", replace(W, head_dim=128)).seconds),
        "worst_training": max(_training_ratios()) - 1,
        "ridge": products(W, 2) / (4 * W.head_bytes),
        "more_printed": fused.published / standard.published - 1,
        "more_computed": fused.compute() / standard.compute() - 1,
        "naive_times": (4096 // 64) ** 2,
        "real_times": (4 * HALF.score_bytes + 4 * x) / (4 * x),
        "ours_times": sum(step.bytes_moved for step in standard_steps(HALF)) / (4 * x),
        "counted_times": (known(counted.read) + known(counted.written)) / (4 * x),
        "llama_s_tb": w.score_bytes / 1e12,
        "llama_peak_tb": peak_bytes(w) / 1e12,
        "llama_gb": (4 * w.head_bytes + 4 * w.heads * w.seq_len) / 1e9,
        "llama_heads": w.heads,
        "llama_d": w.head_dim,
        "llama_n": w.seq_len,
        "llama_layers": LLAMA.layers,
        "llama_pflop": products(w, 2, causal=True) / 1e12,
        "llama_ms": 1e3 * case_seconds("triton"),
        "llama_all_s": LLAMA.layers * case_seconds("triton"),
        "llama_cudnn_s": LLAMA.layers * case_seconds("cudnn"),
        "card_gb": CARD.memory_bytes / 1e9,
        "llama_read_gb": costs.received(w, 128, causal=True, keys=64) / 1e9,
    }


def _training_ratios() -> list[float]:
    """Our forward and backward pass over PyTorch's flash, from N = 4096 on."""
    return [
        known(f.seconds) / known(found("flash", c.workload, causal=c.causal, training=True).seconds)
        for c, f in RECORD.passes.items()
        if c.program == "triton" and c.training and c.workload.seq_len >= 4096 and f.seconds
    ]


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return _claims_on_memory() | _claims_on_time() | _claims_on_others()


def _claims_on_memory() -> dict[str, bool]:
    beside = {
        costs.peak_bytes(w, (128, 128)) - 4 * w.head_bytes - 4 * w.heads * w.seq_len
        for n in (512, 4096, LONG)
        for w in [replace(W, seq_len=n)]
    }
    cuts = [costs.peak_bytes(HALF, block) for block in CUTS]
    ratios = [
        costs.traffic(W, largest_block(W, kib * KIB)) / costs.bound(W, kib * KIB)
        for kib in (32, 64, 128, 227)
    ]
    seen, _ = _tried()
    return {
        "what tiles need beside 4X and L does not grow": len(beside) == 1,
        "every cut needs less than standard attention": max(cuts) < peak_bytes(HALF),
        "and moves more": all(
            eager_traffic(HALF, block) > sum(s.bytes_moved for s in standard_steps(HALF))
            for block in CUTS
        ),
        "and takes longer": all(
            known(RECORD.find("tiled", HALF, block=block).seconds)
            > 3 * known(found("standard", HALF).seconds)
            for block in CUTS
        ),
        "merging blocks of 128 is as exact as one sum, single keys are not": (
            accuracy(128) < 1.5 * accuracy(65536) < 10 * accuracy(128) < accuracy(1)
        ),
        "the loop moves about eight times the bound": all(7.5 < r < 8.5 for r in ratios),
        "the bound for the L2 cache is less than what must move": (
            costs.bound(W, known(CARD.l2_bytes)) < 4 * W.head_bytes
        ),
        "the counters are the formula, to a thousandth": all(
            abs(size / costs.received(W, b) - 1) < 1e-3 for b, size in seen.items()
        ),
        "memory is read for 3X, whatever the block": all(
            abs(known(RECORD.passes[c].read) / (3 * W.head_bytes) - 1) < 0.01
            for c in RECORD.blocks
            if c.workload == W and not c.causal
        ),
    }


def _claims_on_time() -> dict[str, bool]:
    long = [replace(W, seq_len=n) for n in (4096, 8192, 16384, 32768)]
    best = {name: known(found(name, W).seconds) for name in ("triton", "flash", "cudnn")}
    compiled = [found("compiled", replace(W, seq_len=n)) for n in (4096, 16384)]
    same = [found("cudnn", replace(W, seq_len=n)) for n in (4096, 16384)]
    return {
        "our forward kernel is faster than flash from 4096 on": all(
            known(found("triton", w).seconds) < known(found("flash", w).seconds) for w in long
        ),
        "cuDNN is the fastest": best["cudnn"] < best["triton"] < best["flash"],
        "with backward we are within a quarter of flash": max(_training_ratios()) < 1.25,
        "eager tiles are slower than standard attention": all(
            share("tiled", w) < share("standard", w) for w in long[:3]
        ),
        "compiled is as fast as cuDNN, and needs the same memory": all(
            abs(known(a.seconds) / known(b.seconds) - 1) < 0.02 and a.peak_bytes == b.peak_bytes
            for a, b in zip(compiled, same, strict=True)
        ),
        "the block that asks for least is not the fastest": known(BEST)[0] == 128,
        "ours takes about the sum of products and exponentials": all(
            abs(sum(p for k, p in least(w).items() if k != "traffic") / t - 1) < 0.1
            for w in (W, replace(W, head_dim=128))
            for t in [known(found("triton", w).seconds)]
        ),
        "cuDNN takes less than that sum": best["cudnn"]
        < least(W)["products"] + least(W)["exponentials"],
    }


def _claims_on_others() -> dict[str, bool]:
    loops = trace(tiled_attention, replace(W, seq_len=512), training=True).steps
    backward = sum(s.flops for s in loops if s.matrix and s.stage == "backward")
    return {
        "the paper's own row is 13X + 2L, or 11X + 2L": all(
            int(flash_row(n)) == printed for n, printed in PRINTED.items()
        ),
        "five products in backward": backward == products(replace(W, seq_len=512), 5),
        "the layer's scores do not fit the card": (
            LLAMA.workload().score_bytes > 7 * CARD.memory_bytes
        ),
    }
