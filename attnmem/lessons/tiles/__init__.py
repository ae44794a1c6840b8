"""The page on attention in tiles: what its text looks up, and what it says."""

from dataclasses import replace
from typing import Any

from attnmem import figures
from attnmem.catalog.accelerators import ACCELERATORS
from attnmem.formulas import peak_bytes, standard_steps
from attnmem.lessons.shared import W, at_most, known
from attnmem.lessons.tiles.cuts import (
    FAST,
    KIB,
    LONG,
    accuracy,
    eager_traffic,
    largest_block,
    products,
    table_of_bounds,
    table_of_flops,
    table_of_peaks,
)
from attnmem.lessons.tiles.runs import (
    BEST,
    BEST_CELL,
    CARD,
    CUTS,
    HALF,
    LLAMA,
    RECORD,
    SMALL,
    TRIED,
    case_seconds,
    found,
    least,
    peak_lines,
    share,
    shares,
    table_of_cuts,
    table_of_programs,
    table_of_traffic,
    tile_seconds,
    training_ratios,
    tried,
)
from attnmem.measurement.passes_grid import EAGER
from attnmem.prediction.trace import trace
from attnmem.published import CLAIMS
from attnmem.tiles import costs, tiled_attention

__all__ = [
    "claims",
    "numbers",
    "table_of_bounds",
    "table_of_cuts",
    "table_of_flops",
    "table_of_peaks",
    "table_of_programs",
    "table_of_traffic",
]


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    long, x = replace(W, seq_len=LONG), HALF.head_bytes
    ours, flash, cudnn, one = (found(n, W) for n in ("triton", "flash", "cudnn", "standard"))
    parts, wide = least(W), least(replace(W, head_dim=128))
    w, (as_asked, more) = LLAMA.workload(), tried()
    standard, fused = (claim for claim in CLAIMS if claim.acknowledged)  # GFLOPs
    counted = found("standard", HALF)
    made_by = " by an older version of this code" if RECORD.stale else ""
    return {
        "origin": f"recorded{made_by} on {RECORD.provenance}",
        "made": f"{CARD.name.split()[0]}, recorded",
        "peaks": figures.across(*peak_lines(), lifts={"tiles": 6, "4X + L": -6}),
        "tiles": figures.tiles(),
        "block_traffic": figures.block_traffic(W, as_asked, more, known(found("triton", W).read)),
        "shares": figures.across(
            shares(),
            shares(),
            share=True,
            lifts={"cuDNN": 6, "compiled": 12, "standard": 4, "tiles, eager": 5},
        ),
        "s_long_gb": long.score_bytes / 1e9,
        "standard_long_gb": peak_bytes(long) / 1e9,
        "x4_long_mb": 4 * long.head_bytes / 1e6,
        "tiles_long_mb": costs.peak_bytes(long, EAGER) / 1e6,
        "ratio_long": peak_bytes(long) / costs.peak_bytes(long, EAGER),
        "error_128": accuracy(128),
        "error_1": accuracy(1),
        "tiles_slower": known(RECORD.find("tiled", HALF, block=(128, 128)).seconds)
        / known(counted.seconds),
        "constant_mib": (costs.peak_bytes(W, (128, 128)) - 4 * W.head_bytes - 4 * 12 * 8192)
        / 2**20,
        "l2_mib": known(CARD.l2_mib),
        "l2_million": known(CARD.l2_bytes) / W.element_bytes / 1e6,
        "kv_million": 2 * W.seq_len * W.head_dim / 1e6,
        "block_slowest": max(TRIED.values()) / min(TRIED.values()),
        "more": more[128] / costs.received(W, 128),
        "tile_least_us": 1e6 * min(tile_seconds(HALF, b) for b in SMALL),
        "tile_most_us": 1e6 * max(tile_seconds(HALF, b) for b in SMALL),
        "tiles_traffic": _traffic_share(SMALL[0]),
        "product_tflops": RECORD.ceilings.matmul["float16"] / 1e12,
        "product_32_tflops": RECORD.ceilings.matmul["float32"] / 1e12,
        "ours_us": 1e6 * known(ours.seconds),
        "flash_faster": known(flash.seconds) / known(ours.seconds) - 1,
        "standard_over": known(one.seconds) / known(ours.seconds),
        "half_over": known(counted.seconds) / known(found("triton", HALF).seconds),
        "products_us": 1e6 * parts["products"],
        "exponentials_us": 1e6 * parts["exponentials"],
        "sum_us": 1e6 * (parts["products"] + parts["exponentials"]),
        "cudnn_us": 1e6 * known(cudnn.seconds),
        "traffic_us": 1e6 * parts["traffic"],
        "wide_sum_us": 1e6 * (wide["products"] + wide["exponentials"]),
        "wide_us": 1e6 * known(found("triton", replace(W, head_dim=128)).seconds),
        "compiled_training": _with_backward("compiled") / _with_backward("cudnn"),
        "worst_training": at_most(max(training_ratios()) - 1),
        "ridge": products(W, 2) / (4 * W.head_bytes),
        "more_printed": fused.published / standard.published - 1,
        "more_computed": fused.compute() / standard.compute() - 1,
        "more_products": 7 / 6 - 1,
        "kv_mb": 2 * W.head_bytes / 1e6,
        "tried": len(TRIED),
        "sizes": len({known(cell.block)[:2] for cell in TRIED}),
        "naive_times": (4096 // 64) ** 2,
        "real_times": (4 * HALF.score_bytes + 4 * x) / (4 * x),
        "ours_times": sum(step.bytes_moved for step in standard_steps(HALF)) / (4 * x),
        "counted_times": (known(counted.read) + known(counted.written)) / (4 * x),
        "llama_peak_tb": peak_bytes(w) / 1e12,
        "llama_gb": (4 * w.head_bytes + 4 * w.heads * w.seq_len) / 1e9,
        "llama_heads": w.heads,
        "llama_d": w.head_dim,
        "llama_n": w.seq_len,
        "llama_layers": LLAMA.layers,
        "llama_ms": 1e3 * case_seconds("triton"),
        "llama_all_s": LLAMA.layers * case_seconds("triton"),
        "llama_cudnn_s": LLAMA.layers * case_seconds("cudnn"),
        "card_gb": CARD.memory_bytes / 1e9,
    }


def _traffic_share(block: costs.Block) -> float:
    """What share of the eager tiles' time memory needs for all that their operations move."""
    seconds = known(RECORD.find("tiled", HALF, block=block).seconds)
    return eager_traffic(HALF, block) / RECORD.ceilings.largest["copy"] / seconds


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
        costs.traffic(W, largest_block(W, kib * KIB)) / costs.bound(W, kib * KIB) for kib in FAST
    ]
    seen, more = tried()
    received = {cell: known(RECORD.passes[cell].received) for cell in TRIED}
    return {
        "S is more than any card of the list holds": (
            replace(W, seq_len=LONG).score_bytes > max(card.memory_bytes for card in ACCELERATORS)
        ),
        "what tiles need beside 4X and L does not grow": len(beside) == 1,
        "up to 1024 tokens large tiles are all of S, and need more than S and P; then less": all(
            (costs.peak_bytes(w, EAGER) == costs.peak_bytes(w, (None, None))) == (n <= 1024)
            and (costs.peak_bytes(w, EAGER) > peak_bytes(w)) == (n <= 1024)
            for n in (512, 1024, 2048, LONG)
            for w in [replace(W, seq_len=n)]
        ),
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
            accuracy(128) < 1.5 * accuracy(16384) < 10 * accuracy(128) < accuracy(1)
        ),
        "the loop moves about eight times the bound": all(7.5 < r < 8.5 for r in ratios),
        "the bound is proved for all sizes of the table, and not for the L2 cache": all(
            (W.head_dim <= size / W.element_bytes <= W.seq_len * W.head_dim) == proved
            for proved, sizes in ((True, [k * KIB for k in FAST]), (False, [known(CARD.l2_bytes)]))
            for size in sizes
        ),
        "the counters are the formula, to a thousandth, in all configurations but one": (
            sum(
                abs(size / costs.received(W, known(known(cell.block)[0])) - 1) > 1e-3
                for cell, size in received.items()
            )
            == 1
            == len(more)
        ),
        "that one is 128 × 128 with 4 warps in 2 stages, and others of this size are not": (
            received[replace(BEST_CELL, block=(128, 128, 4, 2))] == more[128]
            and all(
                received[replace(BEST_CELL, block=(128, 128, *rest))] < 1.001 * seen[128]
                for rest in ((4, 3), (8, 3))
            )
        ),
        "standard attention does d/3 FLOPs of products a byte, to 2 per cent": (
            abs(products(W, 2) / sum(s.bytes_moved for s in standard_steps(W)) * 3 / W.head_dim - 1)
            < 0.02
        ),
        "memory is read for 3X, whatever the block": all(
            abs(known(RECORD.passes[c].read) / (3 * W.head_bytes) - 1) < 0.01 for c in TRIED
        ),
    }


def _with_backward(name: str) -> float:
    """The recorded seconds of a program at N = 4096."""
    return known(found(name, HALF, training=True).seconds)


def _claims_on_time() -> dict[str, bool]:
    long = [replace(W, seq_len=n) for n in (4096, 8192, 16384, 32768)]
    compiled = [found("compiled", replace(W, seq_len=n)) for n in (4096, 16384)]
    same = [found("cudnn", replace(W, seq_len=n)) for n in (4096, 16384)]
    tiles = [tile_seconds(HALF, block) for block in SMALL]
    return {
        "from 128 to 512 a tile takes as long whatever its size, to 5 per cent": (
            max(tiles) < 1.05 * min(tiles)
        ),
        "traffic needs about a hundredth of the time of small tiles": (
            0.005 < _traffic_share(SMALL[0]) < 0.015
        ),
        "our forward kernel is faster than flash from 4096 on": all(
            known(found("triton", w).seconds) < known(found("flash", w).seconds) for w in long
        ),
        "cuDNN is the fastest from 4096 on": all(
            known(found("cudnn", w).seconds)
            < min(known(found(name, w).seconds) for name in ("triton", "flash", "efficient"))
            for w in long
        ),
        "with backward we are slower than flash by no more than is printed": (
            0 < max(training_ratios()) - 1 <= float(f"{numbers()['worst_training']:.2f}") < 0.2
        ),
        "eager tiles are slower than standard attention": all(
            share("tiled", w) < share("standard", w) for w in long[:3]
        ),
        "compiled is as fast as cuDNN, and needs the same memory": all(
            abs(known(a.seconds) / known(b.seconds) - 1) < 0.02 and a.peak_bytes == b.peak_bytes
            for a, b in zip(compiled, same, strict=True)
        ),
        "the block that asks for least is not the fastest": BEST[0] == 128,
        "ours takes about the sum of products and exponentials": all(
            abs(sum(p for k, p in least(w).items() if k != "traffic") / t - 1) < 0.1
            for w in (W, replace(W, head_dim=128))
            for t in [known(found("triton", w).seconds)]
        ),
        "compiled, forward and backward take longer than flash's": (
            _with_backward("compiled") > _with_backward("flash")
        ),
        "cuDNN takes less than that sum": known(found("cudnn", W).seconds)
        < least(W)["products"] + least(W)["exponentials"],
    }


def _claims_on_others() -> dict[str, bool]:
    loops = trace(tiled_attention, replace(W, seq_len=512), training=True).steps
    backward = sum(s.flops for s in loops if s.matrix and s.stage == "backward")
    return {
        "five products in backward": backward == products(replace(W, seq_len=512), 5),
        "a mask halves the two products": (
            abs(2 * products(LLAMA.workload(), 2, causal=True) / products(LLAMA.workload(), 2) - 1)
            < 1e-4
        ),
        "the layer's scores do not fit the card": (
            LLAMA.workload().score_bytes > 7 * CARD.memory_bytes
        ),
    }
