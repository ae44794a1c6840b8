"""The page on attention over several GPUs: what its text looks up, and what it says."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from attnmem import figures
from attnmem.cache import token_bytes, weight_bytes
from attnmem.catalog import accelerator
from attnmem.formulas import peak_bytes
from attnmem.lessons.more_gpus.memory import (
    LLAMA,
    LONG,
    MILLION,
    OURS,
    RECORD,
    STATE,
    WIDE,
    as_recorded,
    by_formula,
    find,
    flash_peak,
    part,
    peaks_figure,
    row_bytes,
    sent,
    table_of_memory,
    table_of_ranks,
    traced,
    waiting,
)
from attnmem.lessons.more_gpus.printed import (
    ALONE_GB,
    GROWN_GB,
    GROWN_TOKENS,
    HEADS,
    PEAKS,
    PRINTED,
    PRINTED_BALANCED,
    PRINTED_BEFORE,
    STEP_SECONDS,
    balanced_shares,
    kept_gb,
    logit,
    more_alone_gb,
    ring_shares,
    scores,
    step_rates,
    table_of_printed,
)
from attnmem.lessons.more_gpus.times import (
    ADAM,
    BLOCK,
    CARD,
    LINK,
    NETWORK,
    alone,
    attention_flops,
    card_bytes,
    efficiency,
    exchange_rate,
    fewest,
    fixed_bytes,
    kept_bytes,
    links_figure,
    rate,
    seconds,
    sending,
    table_of_balance,
    table_of_cards,
    table_of_context_parallel,
    table_of_times,
    training_rate,
    weights_flops,
)
from attnmem.measurement.ranks import PYTORCH, SPLITS
from attnmem.prediction.kernels.fused import CUDNN_PLAN
from attnmem.prediction.ranks import as_rank
from attnmem.prediction.trace import trace

__all__ = [
    "claims",
    "numbers",
    "table_of_balance",
    "table_of_cards",
    "table_of_context_parallel",
    "table_of_memory",
    "table_of_ranks",
    "table_of_times",
]

EIGHT = LLAMA.workload(MILLION // 8)  # what one of eight ranks has, keys repeated to all heads
WHOLE = LLAMA.workload(MILLION)
ALONE = replace(WIDE.cell.workload, seq_len=RECORD.ranks * WIDE.cell.workload.seq_len)
SMALL, LARGE = accelerator("H100 SXM").memory_bytes, CARD.memory_bytes


def _rank_of_eight(split: str) -> int:
    """The peak of a forward pass with flash blocks, in bytes."""
    x, columns = flash_peak(split, 8)
    return x * EIGHT.head_bytes + columns * row_bytes(EIGHT)


def _exchanged_through_flash(*, training: bool) -> tuple[int, int]:
    """How many x and L all-to-all holds on an A100, which gets PyTorch's flash."""
    cell = find("all-to-all", training=training).cell
    with as_rank(0, 2):
        t = trace(cell.program, cell.workload, training, capability=(8, 0))
    x, rest = divmod(t.peak_bytes, cell.workload.head_bytes)
    return x, rest // row_bytes(cell.workload)


def _ratio(*, training: bool) -> float:
    """Of the time of a causal ring, balanced, to that as the parts come."""
    balanced, plain = (
        seconds("ring", training=training, causal=True, balanced=b) for b in (True, False)
    )
    return balanced / plain


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    made_by = " by an older version of this code" if RECORD.stale else ""
    wide, waited, outside = WIDE.cell.workload, waiting(), RECORD.outside_bytes
    whole_wide = 4 * wide.score_bytes
    few, many = step_rates()
    return {
        "origin": f"recorded{made_by} on {RECORD.provenance}",
        "made": f"{CARD.name.split()[0]}, recorded",
        "held": figures.held(4, 1),
        "peaks": peaks_figure(),
        "balance": figures.balance(4),
        "links": links_figure(),
        "ends_gb": 4 * WHOLE.head_bytes / 1e9,
        "eighth_gb": 4 * EIGHT.head_bytes / 1e9,
        "ring_gb": _rank_of_eight("ring") / 1e9,
        "standard_tb": 3 * EIGHT.score_bytes / 1e12,
        "wrong": _rank_of_eight("ring") / (4 * EIGHT.head_bytes),
        "ranks": 2 * len(OURS),
        "cells": len(RECORD.cells),
        "rings": len(waited),
        "waited": sum(w > 0 for w in waited),
        "waited_x": max(waited),
        "outside_gb": outside["one group"] / 1e9,
        "another_mb": (outside["another group"] - outside["one group"]) / 1e6,
        "wide_n": RECORD.ranks * wide.seq_len,
        "wide_s_gb": whole_wide / 1e9,
        "wide_gb": WIDE.ranks[0].memory.peak_allocated_bytes / 1e9,
        "card_gb": CARD.memory_bytes / 1e9,
        "bound_2": efficiency(2),
        "bound_8": efficiency(8),
        "ratio": _ratio(training=False),
        "ratio_training": _ratio(training=True),
        "link_gb": LINK / 1e9,
        "block_gib": BLOCK / 2**30,
        "block_ms": 1e3 * RECORD.link[BLOCK],
        "network_gb": NETWORK / 1e9,
        "rate_tflops": rate() / 1e12,
        "hides": rate() / LINK,
        "hides_network": rate() / NETWORK,
        "most_ranks": int(131072 // (rate() / NETWORK)),
        "slower": seconds("ring", 2048) / alone("ring", 2048),
        "ring_times": alone("ring") / seconds("ring"),
        "over_ms": 1e3 * (seconds("ring") - alone("ring") / 2),
        "over": 2 * seconds("ring") / alone("ring") - 1,
        "sent_ms": 1e3 * sending(LONG),
        "shortest_us": 1e6 * sending(2048),
        "ring_training_over": seconds("ring", training=True) / seconds("gather", training=True) - 1,
        "ring_training_ms": 1e3
        * (seconds("ring", training=True) - seconds("gather", training=True)),
        # Two passes of dK and dV, which in 32 bit are four x.
        "sums_ms": 1e3 * 2 * 4 * find("ring").cell.workload.head_bytes / LINK,
        "short_balanced": 1e3 * seconds("ring", 8192, causal=True, balanced=True),
        "short_plain": 1e3 * seconds("ring", 8192, causal=True),
        "exchange_ms": 1e3 * seconds("all-to-all"),
        "before_least": min(PRINTED_BEFORE) / 100,
        "before_most": max(PRINTED_BEFORE) / 100,
        "grown_gb": GROWN_GB,
        "kept_grown_gb": kept_gb(GROWN_TOKENS),
        "logit": logit(),
        "logits_gb": more_alone_gb(),
        "one_card": ALONE_GB,
        "four_cards": PEAKS[8192],
        "few_tflops": few,
        "many_tflops": many,
        "printed": table_of_printed(),
        "step_s": STEP_SECONDS,
        "adam": ADAM,
        "state": STATE,
        "state_all": STATE + CUDNN_PLAN,
        "fixed_gb": fixed_bytes() / 1e9,
        "kept_gb": kept_bytes() / 1e9,
        "case_outside_gb": outside["all cells"] / 1e9,
        "case_gb": card_bytes("ring", 8) / 1e9,
        "case_flops": attention_flops() / 1e18,
        "case_seconds": attention_flops() / training_rate() / 8,
        "case_tflops": training_rate() / 1e12,
        "case_exchange_seconds": attention_flops() / exchange_rate() / 8,
        "case_weights": weights_flops() / attention_flops(),
        "case_few_cards": fewest("all-to-all", LARGE),
        "case_few_80": fewest("all-to-all", SMALL),
        "read_gb": (MILLION * token_bytes(LLAMA) + weight_bytes(LLAMA)) / 1e9,
        "case_gather_80": fewest("gather", SMALL),
        "case_ring_80": fewest("ring", SMALL),
        "case_waiting_gb": max(waited) * part(MILLION, 8) / 1e9,
        "small_gb": SMALL / 1e9,
    }


def _exact() -> bool:
    """Whether all recorded ranks did what their trace says, and peaked there."""
    return all(
        as_recorded(traced(made.cell, rank, RECORD.ranks), on.memory)
        for made in OURS
        for rank, on in enumerate(made.ranks)
    )


def _by_hand() -> bool:
    """Whether the formulas are the traces, for the record's cells and for other ranks."""
    cells = [made.cell for made in OURS if not made.cell.causal]
    flash = [cell for cell in cells if cell.flash]
    standard = [c for c in cells if not (c.flash or c.training or c.split == "all-to-all")]
    return len(flash) == 24 and all(
        by_formula(cell, ranks) == traced(cell, 0, ranks).peak_bytes
        for ranks in (2, 4, 8)
        for cell in (*flash, *standard)
    )


def _most(splits: Iterable[str], *, training: bool) -> int:
    """The highest peak of any rank, causal and balanced, in bytes."""
    return max(
        on.memory.peak_allocated_bytes
        for split in splits
        for on in find(split, training=training, causal=True, balanced=True).ranks
    )


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    found = numbers()
    few = {way: sent(way, MILLION, 2) or 0 for way in ("ring", "all-to-all")}
    many = {way: sent(way, MILLION, 32) or 0 for way in ("ring", "all-to-all")}
    k_and_v = 2 * part(MILLION, 1) * LLAMA.kv_heads / LLAMA.heads
    balanced = [seconds(s, causal=True, balanced=True) for s in ("ring", "gather", *PYTORCH)]
    return {
        "a rank of a ring of eight holds almost four times the eighth": 3.7 < found["wrong"] < 4,
        "the explorer's example is what a rank of eight has": EIGHT.seq_len == 131072,
        "at 131072 tokens a rank has an eighth of what it has at a million": (
            8 * part(131072, 8) == part(MILLION, 8)
        ),
        "with few ranks and shared keys the ring sends less, with many all-to-all": (
            few["ring"] < few["all-to-all"] and many["all-to-all"] < many["ring"]
        ),
        "a ring sends nearly all of K and V through each rank": 0.95 < many["ring"] / k_and_v < 1,
        "all formulas are the traces, on 2, 4 and 8 ranks": _by_hand(),
        "each recorded rank does and holds what its trace says": _exact(),
        "some ranks of rings wait, and none of others": (
            0 < found["waited"] < found["rings"]
            and all(
                on.memory.peak_bytes <= on.memory.peak_allocated_bytes
                for made in OURS
                for on in made.ranks
                if made.cell.split != "ring"
            )
        ),
        "standard attention holds two S, more than the card": (
            peak_bytes(ALONE) > 2 * ALONE.score_bytes > CARD.memory_bytes
        ),
        "and did not fit": all(on.alone is None for on in WIDE.ranks),
        "two cards of either size hold the cache and the weights": all(
            memory < 1e9 * found["read_gb"] < 2 * memory for memory in (SMALL, LARGE)
        ),
        "two ranks fit": by_formula(WIDE.cell, 2) < CARD.memory_bytes,
        "balance saves what the bound says, within five per cent of it": all(
            1 <= _ratio(training=t) / efficiency(2) < 1.05 for t in (False, True)
        ),
        "two GPUs are slower than one at 4096 tokens, and faster from 16384 on": (
            seconds("ring", 2048) > alone("ring", 2048)
            and all(seconds("ring", n) < alone("ring", n) for n in (8192, LONG))
        ),
        "sending is small at the longest": found["over"] < 0.02,
        "a small block takes as long as one of a quarter": (
            0.9 < sending(2048) / min(RECORD.link.values()) < 1.1
        ),
        "all-to-all takes cuDNN": any(
            "cudnn" in step.name for step in traced(find("all-to-all").cell, 0, 2).steps
        ),
        "and forward some rank holds a third more": (
            1.3 < _most(PYTORCH, training=False) / _most(("ring",), training=False) < 1.36
        ),
        "PyTorch's are within a tenth of ours": max(balanced) < 1.1 * min(balanced),
        "and hold a fifth less in training": (
            0.78 < _most(PYTORCH, training=True) / _most(("ring",), training=True) < 0.83
        ),
        "seven of eight printed rings are below the bound, one half a point above or so": (
            sum(share > 100 * efficiency(8) for share in PRINTED) == 1
            and max(PRINTED) - 100 * efficiency(8) < 0.7
        ),
        "what is printed are its iterations' shares": all(
            abs(100 * share - printed) < 0.1  # one was cut, not rounded
            for shares, all_printed in (
                (ring_shares(), PRINTED),
                (balanced_shares(), PRINTED_BALANCED),
            )
            for share, printed in zip(shares, all_printed, strict=True)
        ),
        "logits would explain the growth of four cards, and not the peak of one": (
            more_alone_gb() > 10 and abs(ALONE_GB - PEAKS[8192]) < 1
        ),
        "32 heads of scores have a terabyte, and a mask a thirtieth": (
            round(scores(HEADS) / 1e12) == 1 and HEADS * scores(1) == scores(HEADS)
        ),
        "eight large cards hold a ring": fewest("ring", LARGE) == 8,
        "a block that waits is too much for eight small ones": (
            card_bytes("ring", 8) < SMALL < card_bytes("ring", 8) + 1e9 * found["case_waiting_gb"]
        ),
        "the network's balance point is above NVLink's": LINK > NETWORK,
        "a short ring gains nothing from balance": found["short_balanced"] > found["short_plain"],
        "at 16384 tokens PyTorch's takes half as long again, or more": all(
            min(seconds(s, 8192, training=t, causal=True, balanced=True) for s in PYTORCH)
            > 1.45 * seconds("ring", 8192, training=t, causal=True, balanced=True)
            for t in (False, True)
        ),
        "through flash, all-to-all holds a little more": [
            _exchanged_through_flash(training=t) for t in (False, True)
        ]
        == [(7, 1), (17, 2)],
        "a causal, balanced rank holds less than the formula": all(
            traced(find(s, training=True, causal=True, balanced=True).cell, 0, 8).peak_bytes
            < flash_peak(s, 8, training=True)[0] * find(s).cell.workload.head_bytes
            for s in ("ring", "gather")
        ),
        "every split was recorded": {made.cell.split for made in OURS} == set(SPLITS),
    }
