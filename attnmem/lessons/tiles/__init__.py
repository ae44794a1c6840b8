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
    by_hand,
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
    TILE,
    TRIED,
    case_rate,
    case_seconds,
    found,
    kernel_peak,
    least,
    peak_lines,
    standard_over_ours,
    table_of_cuts,
    table_of_passes,
    table_of_programs,
    table_of_traffic,
    tile_seconds,
    times,
    training_ratios,
    tried,
)
from attnmem.measurement.passes_grid import LENGTHS
from attnmem.prediction.trace import trace
from attnmem.published import CLAIMS
from attnmem.tiles import costs, tiled_attention

__all__ = [
    "claims",
    "numbers",
    "table_of_bounds",
    "table_of_cuts",
    "table_of_flops",
    "table_of_passes",
    "table_of_peaks",
    "table_of_programs",
    "table_of_traffic",
]


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    long, x = replace(W, seq_len=LONG), HALF.head_bytes
    ours, flash, cudnn, one = (
        known(found(name, HALF).seconds) for name in ("triton", "flash", "cudnn", "standard")
    )
    parts, over = least(HALF), standard_over_ours()
    w, (as_asked, more) = LLAMA.workload(), tried()
    standard, fused = (claim for claim in CLAIMS if claim.acknowledged)  # GFLOPs
    eager = known(RECORD.find("tiled", HALF, block=TILE).seconds)
    made_by = " by an older version of this code" if RECORD.stale else ""
    return {
        "origin": f"recorded{made_by} on {RECORD.provenance}",
        "made": f"{CARD.name.split()[0]}, recorded",
        "peaks": figures.across(*peak_lines()),
        "tiles": figures.tiles(),
        "block_traffic": figures.block_traffic(W, as_asked, known(found("triton", W).read)),
        "times": figures.across(
            times(), times(), of="time", unit="s", lifts={"flash": 8, "cuDNN": -10}
        ),
        "standard_long_gb": peak_bytes(long) / 1e9,
        "ours_long_mb": kernel_peak(long) / 1e6,
        "error_128": accuracy(128),
        "error_1": accuracy(1),
        "standard_x": peak_bytes(HALF) / x,
        "standard_ms": 1e3 * one,
        "tiles_ms": 1e3 * eager,
        "tiles_slower": eager / one,
        "constant_mib": (costs.peak_bytes(W, TILE) - kernel_peak(W)) / 2**20,
        "l2_mib": known(CARD.l2_mib),
        "best_keys": known(BEST[1]),
        "block_slowest": max(TRIED.values()) / min(TRIED.values()),
        "more": more[128] / costs.received(W, 128),
        "tile_us": 1e6 * tile_seconds(HALF, TILE),
        "large_tile_us": 1e6 * tile_seconds(HALF, (512, 512)),
        "product_tflops": RECORD.ceilings.matmul["float16"] / 1e12,
        "ours_us": 1e6 * ours,
        "flash_faster": flash / ours - 1,
        "half_over": one / ours,
        "least_over": min(over),
        "most_over": max(over),
        "products_us": 1e6 * parts["products"],
        "exponentials_us": 1e6 * parts["exponentials"],
        "sum_us": 1e6 * (parts["products"] + parts["exponentials"]),
        "cudnn_us": 1e6 * cudnn,
        "traffic_us": 1e6 * parts["traffic"],
        "compiled_training": _with_backward("compiled") / _with_backward("cudnn"),
        "worst_training": at_most(max(training_ratios()) - 1),
        "trained": len(training_ratios()),
        "trained_faster": sum(ratio < 1 for ratio in training_ratios()),
        "ridge": products(HALF, 2) / (4 * x),
        "more_printed": fused.published / standard.published - 1,
        "more_products": 7 / 6 - 1,
        "kv_mb": 2 * x / 1e6,
        "tried": len(TRIED),
        "sizes": len({known(cell.block)[:2] for cell in TRIED}),
        "naive_times": (4096 // 64) ** 2,
        "real_times": (4 * HALF.score_bytes + 4 * x) / (4 * x),
        "llama_peak_tb": peak_bytes(w) / 1e12,
        "llama_gb": kernel_peak(w) / 1e9,
        "llama_heads": w.heads,
        "llama_d": w.head_dim,
        "llama_n": w.seq_len,
        "llama_layers": LLAMA.layers,
        "llama_ms": 1e3 * case_seconds("triton"),
        "llama_tflops": case_rate("triton") / 1e12,
        "llama_cudnn_tflops": case_rate("cudnn") / 1e12,
        "llama_all_s": LLAMA.layers * case_seconds("triton"),
        "llama_cudnn_s": LLAMA.layers * case_seconds("cudnn"),
        "card_gb": RECORD.provenance.memory_bytes / 1e9,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return _claims_on_memory() | _claims_on_time() | _claims_on_others()


def _claims_on_memory() -> dict[str, bool]:
    long = replace(W, seq_len=LONG)
    beside = {
        costs.peak_bytes(w, TILE) - kernel_peak(w)
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
        "standard attention needs more than any card of the list holds": (
            peak_bytes(long) > max(card.memory_bytes for card in ACCELERATORS)
        ),
        "our kernel a thousandth, nearly all of it Q, K, V and O": (
            950 < peak_bytes(long) / kernel_peak(long) < 1050
            and kernel_peak(long) < 1.01 * 4 * long.head_bytes
        ),
        "its formula is what was recorded": all(
            found("triton", w).peak_bytes == kernel_peak(w)
            for n in LENGTHS
            for w in [replace(W, seq_len=n)]
        ),
        "the row by hand": (
            [round(x, 4) for x in by_hand()[:-1]]
            == [1.3679, 2.3679, 1.0498, 4.1494, 0.1353, 1.2349, 4.4698]
            and round(by_hand()[-1], 2) == round(4.4698 / 1.2349, 2) == 3.62
        ),
        "small tiles need a thirtieth": 29.5 < peak_bytes(HALF) / costs.peak_bytes(HALF, TILE) < 30,
        "strips grow with N": all(
            costs.peak_bytes(W, cut) - kernel_peak(W)
            > 1.9 * (costs.peak_bytes(HALF, cut) - kernel_peak(HALF))
            for cut in ((128, None), (None, 128))
        ),
        "blocks of 128 receive 65X": costs.received(HALF, 128) == 65 * HALF.head_bytes,
        "what tiles need beside 4X and L does not grow": len(beside) == 1,
        "every cut needs less than standard attention": max(cuts) < peak_bytes(HALF),
        "and moves more": all(
            eager_traffic(HALF, block) > sum(s.bytes_moved for s in standard_steps(HALF))
            for block in CUTS
        ),
        "and takes longer": all(
            known(RECORD.find("tiled", HALF, block=block).seconds)
            > known(found("standard", HALF).seconds)
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
        "of O, next to nothing is written when counting ends": all(
            known(found(name, HALF).written) < 0.01 * HALF.head_bytes
            for name in ("triton", "flash", "efficient", "cudnn")
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
        "compiled is as fast as cuDNN, and needs the same memory": all(
            abs(known(a.seconds) / known(b.seconds) - 1) < 0.02 and a.peak_bytes == b.peak_bytes
            for a, b in zip(compiled, same, strict=True)
        ),
        "the fastest block has 128 queries": BEST[0] == 128,
        "traffic needs a small part of our kernel's time, arithmetic most of it": (
            20 * least(HALF)["traffic"]
            < known(found("triton", HALF).seconds)
            < 1.2 * (least(HALF)["products"] + least(HALF)["exponentials"])
        ),
        "cuDNN takes less than products and exponentials": known(found("cudnn", HALF).seconds)
        < least(HALF)["products"] + least(HALF)["exponentials"],
        "launches take most of the time up to 2048": all(
            known(found("triton", replace(W, seq_len=n)).seconds)
            > 0.95 * known(found("triton", replace(W, seq_len=2048)).seconds)
            for n in (512, 1024)
        ),
        "from 4096 on the fused kernels are 4 to 11 times as fast as standard attention": all(
            4 < known(found("standard", w).seconds) / known(found(name, w).seconds) < 11
            for w in long
            for name in ("flash", "triton", "cudnn")
        ),
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
