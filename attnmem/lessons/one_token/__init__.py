"""The page on writing one token at a time: what its text looks up, and what it says."""

import math
import warnings
from dataclasses import replace
from functools import cache
from typing import Any

from attnmem import figures
from attnmem.cache import max_cached_tokens, token_bytes, weight_bytes
from attnmem.catalog import model, recognise
from attnmem.formulas import peak_bytes, standard_steps
from attnmem.lessons.one_token.times import (
    CARD,
    EIGHT_K,
    GIGABYTE,
    LLAMA,
    LONG,
    READ,
    READING,
    RECORD,
    TABLE,
    beyond,
    eight_bit_gains,
    excess,
    kernel_bytes,
    large,
    latent_ratios,
    near_figure,
    of_sizes,
    on_top,
    over,
    predicted,
    recorded,
    shared,
    step_seconds,
    table_of_caches,
    table_of_cards,
    table_of_designs,
    table_of_eight_bits,
    table_of_memory,
    table_of_one_user,
    table_of_splits,
    table_of_times,
    traced,
)
from attnmem.lessons.roofline.steps import H100, H200
from attnmem.lessons.shared import at_most, known
from attnmem.lessons.tiles.runs import RECORD as TILES
from attnmem.lessons.tiles.runs import case_seconds
from attnmem.measurement.decode import CACHES, SHORTEST
from attnmem.tiles import decode
from attnmem.workload import Workload

__all__ = [
    "claims",
    "numbers",
    "table_of_caches",
    "table_of_cards",
    "table_of_designs",
    "table_of_eight_bits",
    "table_of_memory",
    "table_of_one_user",
    "table_of_splits",
    "table_of_times",
]


@cache  # it draws, and claims ask for one number after the other
def numbers() -> dict[str, Any]:
    """What the text looks up."""
    made_by = " by an older version of this code" if RECORD.stale else ""
    peak = known(CARD.peak_flops(matrix=True))
    own, read, kept = weight_bytes(LLAMA), 2 * READ, LONG * token_bytes(LLAMA)
    prefill = LLAMA.workload()
    products = 2 * prefill.score_elements * prefill.head_dim * LLAMA.layers  # half is masked
    # Two for each weight of the blocks and each token; logits are wanted of the last token alone.
    weights_flops = 2 * (READ - TABLE) * LONG + 2 * TABLE
    rate, other_rate = (known(r.ceilings).matmul["bfloat16"] for r in (TILES, H200))
    floor = recorded("GQA", SHORTEST)
    token = replace(CACHES["GQA"], kv_len=LONG)
    flops = 2 * READ + 4 * LLAMA.layers * token.score_elements * token.head_dim
    users = max_cached_tokens(LLAMA, CARD.memory_bytes) // LONG
    layer = RECORD.find("GQA", LONG)[0].cache_bytes
    cast = traced(RECORD.find("GQA", LONG, "cast", eight_bit=True)[0])
    most = parts_of(LONG)
    return {
        "origin": f"recorded{made_by} on {RECORD.provenance}",
        "made": f"{CARD.name.split()[0]}, recorded",
        "cost": figures.token_cost({"weights": read, "cache": kept}, READING, flops, peak),
        "pages": figures.pages((700, 300, 1000), 2048, 128),
        "programs": figures.programs_at_work(
            {"uncut: 1 program": 1, f"cut: {most} programs": most},
            known(CARD.multiprocessors),
        ),
        "near": near_figure(),
        "step": figures.step_bytes(read, EIGHT_K * token_bytes(LLAMA), [2**i for i in range(9)]),
        "gflop": flops / 1e9,
        "tflops": peak / 1e12,
        "compute_ms": 1e3 * flops / peak,
        "naive": round(peak / flops, -3),
        "weights_gb": own / 1e9,
        "read_gb": read / 1e9,
        "table_gb": 2 * TABLE / 1e9,
        "cache_gb": kept / 1e9,
        "reading_tb": READING / 1e12,
        "real": 1 / step_seconds(1, LONG),
        "wrong": peak / flops * step_seconds(1, LONG),
        "llama_layers": LLAMA.layers,
        "llama_n": LONG,
        "token_kib": token_bytes(LLAMA) / 1024,
        "gib_tokens": 2**30 // token_bytes(LLAMA),
        "even": round(own // token_bytes(LLAMA), -2),
        "driver": 1 - RECORD.provenance.memory_bytes / CARD.memory_bytes,
        "large_over": at_most(max(map(abs, large()))),
        "beyond": at_most(beyond()),
        "sheet_tb": CARD.bandwidth / 1e12,
        "gqa_over": over("GQA", LONG),
        "mha_over": over("MHA", LONG),
        "top_least_us": 1e6 * min(on_top()),
        "top_most_us": 1e6 * max(on_top()),
        "gqa_layer_gb": layer / 1e9,
        "gqa_layer_us": 1e6 * layer / READING,
        "gqa_times": 1 + over("GQA", LONG),
        "each_us": 1e6 * recorded("GQA", EIGHT_K, users=32) / 32,
        "own_us": 1e6 * predicted(RECORD.find("GQA", EIGHT_K)[0]),
        "mqa_us": 1e6 * recorded("MQA", LONG),
        "mqa_bytes_us": 1e6 * predicted(RECORD.find("MQA", LONG)[0]),
        "latent_least": min(latent_ratios().values()),
        "latent_most": max(latent_ratios().values()),
        "latent_many_least": min(many := [*latent_ratios(8).values(), *latent_ratios(32).values()]),
        "latent_many_most": max(many),
        "shared_least": min(shared()),
        "shared_most": max(shared()),
        "layer_weights": (READ - TABLE) / 1e9,
        "eight_there_mb": cast.parameter_bytes / 1e6,
        "eight_made_mb": cast.peak_bytes / 1e6,
        "floor_us": 1e6 * floor,
        "shortest": SHORTEST,
        "even_users": read / (EIGHT_K * token_bytes(LLAMA)),
        "one_mqa": recorded("MQA", LONG, splits=1) / recorded("MQA", LONG),
        "multiprocessors": known(CARD.multiprocessors),
        "s_share": 2 * token.score_bytes / peak_bytes(token),
        "peak_gb": peak_bytes(token) / 1e9,
        "eight_least": min(eight_bit_gains()[1:]),
        "eight_many": max(eight_bit_gains()[1:]),
        "eight_gain": eight_bit_gains()[0],
        "cast_slower": recorded("GQA", LONG, "cast", eight_bit=True) / recorded("GQA", LONG),
        "prefill_weights_pflop": weights_flops / 1e15,
        "prefill_attention_pflop": products / 1e15,
        "prefill_weights_s": weights_flops / rate,
        "prefill_attention_s": LLAMA.layers * case_seconds("cudnn"),
        "attention_tflops": products / LLAMA.layers / case_seconds("cudnn") / 1e12,
        "rate_tflops": rate / 1e12,
        "other_tflops": other_rate / 1e12,
        "other_date": H200.provenance.date,
        "decode_ms": 1e3 * step_seconds(1, LONG),
        "weights_ms": 1e3 * read / READING,
        "cache_ms": 1e3 * LLAMA.layers * recorded("GQA", LONG),
        "cache_predicted_ms": 1e3 * kept / READING,
        "users_fit": users,
        "users_ms": 1e3 * step_seconds(users, LONG),
        "users_share": users * kept / (read + users * kept),
        "latent_intensity": _intensities()["latent"],
    }


#: Numbers that a reader divides, as the page prints them: their digits after the point.
SHOWN_DIGITS = {
    **dict.fromkeys(("gflop", "tflops", "real", "wrong"), 0),
    **dict.fromkeys(("read_gb", "cache_gb", "weights_gb", "table_gb"), 2),
    **dict.fromkeys(("weights_ms", "cache_predicted_ms", "decode_ms"), 2),
    **{"reading_tb": 3, "compute_ms": 3},
}


def parts_of(tokens: int) -> int:
    """In how many parts our kernel cuts the keys of one head, for one user."""
    return decode.cut(tokens, 1, None, known(CARD.multiprocessors))[1]


def _intensities() -> dict[str, float]:
    """FLOPs of the products for each byte of the cache."""
    steps = {name: standard_steps(replace(w, kv_len=LONG)) for name, w in CACHES.items()}
    return {
        name: (s[0].flops + s[-1].flops) / RECORD.find(name, LONG)[0].cache_bytes
        for name, s in steps.items()
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    intensity = _intensities()
    balance = known(CARD.peak_flops(matrix=True)) / CARD.bandwidth
    reported = [(r.provenance, known(recognise(r.provenance.device))) for r in (RECORD, H100)]
    left = [found.memory_bytes / card.memory_bytes for found, card in reported]
    shown = {name: round(numbers()[name], digits) for name, digits in SHOWN_DIGITS.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        equal = all(
            traced(cell).peak_bytes == found.call_peak
            for cell, found in RECORD.cells.items()
            if found.call_peak and cell.program != "kernel"
        )
    return {
        "who divides what is printed gets what is printed": (
            round(shown["gflop"] / shown["tflops"], 3) == shown["compute_ms"]
            and round(shown["read_gb"] / shown["reading_tb"], 2) == shown["weights_ms"]
            and round(shown["cache_gb"] / shown["reading_tb"], 2) == shown["cache_predicted_ms"]
            and round(shown["weights_ms"] + shown["cache_predicted_ms"], 2) == shown["decode_ms"]
            and round(1e3 / shown["decode_ms"]) == shown["real"]
            and round(shown["decode_ms"] / shown["compute_ms"]) == shown["wrong"]
            and round(1e3 / shown["compute_ms"], -3) == numbers()["naive"]
            and round(shown["weights_gb"] - shown["table_gb"], 2) == shown["read_gb"]
        ),
        "a driver leaves about one per cent less than data sheets have in GiB": all(
            0.985 < share < 0.995 for share in left
        ),
        "Llama 3.1 8B is Llama 3 8B but for its context": replace(
            model("Llama 3 8B"),
            **{x: getattr(LLAMA, x) for x in ("name", "context", "mlp_width", "source")},
        )
        == LLAMA,
        "a GiB is a whole number of its tokens": 2**30 % token_bytes(LLAMA) == 0,
        "the intensity of heads of their own is 1, and of groups their size": (
            [intensity[name] for name in ("MHA", "GQA", "MQA")] == [1, 4, 32]
        ),
        "a latent cache has about 60": 55 < intensity["latent"] < 65,
        "below the balance point of the card": max(intensity.values()) < balance,
        "and with 128 heads above it": intensity["latent"] * 128 / CACHES["latent"].heads > balance,
        "a gigabyte of MHA or GQA takes what is predicted, within the share that is printed": (
            len(large()) > 8
            and max(map(abs, large())) <= float(f"{numbers()['large_over']:.2f}") < 0.15
        ),
        "some are faster than predicted, by no more than is printed, none than the data sheet": (
            0.03 < beyond() <= float(f"{numbers()['beyond']:.2f}")
            and READING / (1 - beyond()) < CARD.bandwidth
        ),
        "caches of MQA and latent ones are further off": all(
            known(found.graph).seconds / predicted(cell) - 1 > max(map(abs, large()))
            for cell, found in of_sizes(("MQA", "latent"))
        ),
        "half a gigabyte does not": (
            over("GQA", LONG) > numbers()["large_over"]
            and 0.45e9 < RECORD.find("GQA", LONG)[0].cache_bytes < GIGABYTE / 1.8
        ),
        "and the same bytes of 8 or 32 users take less": (
            len(shared()) > 2 and max(shared()) < 0.1 < over("GQA", LONG)
        ),
        "a cast makes a copy of two times the 8-bit cache, and little more": (
            2 < numbers()["eight_made_mb"] / numbers()["eight_there_mb"] < 2.02
        ),
        "8 bits gain with one user, and less with many": (
            eight_bit_gains()[0] > max(eight_bit_gains()[1:]) and min(eight_bit_gains()) > 1
        ),
        "launches are a part of what comes on top of a small cache": (
            recorded("GQA", SHORTEST) < min(on_top())
        ),
        "the bytes of a short cache take less than that": over("GQA", EIGHT_K) > 1,
        "of many users, each pays for his own bytes": (
            abs(numbers()["each_us"] / numbers()["own_us"] - 1) < 0.02
        ),
        "what MQA takes beyond its bytes grows with its parts, four times with four times": (
            parts_of(LONG // 4) == 4 * parts_of(LONG // 16)
            and abs(excess("MQA", LONG // 4) / excess("MQA", LONG // 16) / 4 - 1) < 0.05
        ),
        "standard attention is faster on a latent cache than our kernel, from 8192 tokens on": all(
            ratio > 1 for users in (1, 8, 32) for ratio in latent_ratios(users).values()
        ),
        "from 14 users of 8192 tokens on a step reads more cache than weights": (
            math.ceil(numbers()["even_users"]) == 14
        ),
        "the two records of products differ by less than a tenth": (
            1 < numbers()["rate_tflops"] / numbers()["other_tflops"] < 1.1
        ),
        "flash and our kernel are within a tenth where the cache is large": all(
            abs(recorded(c, LONG) / recorded(c, LONG, "flash") - 1) < 0.1 for c in ("MHA", "GQA")
        ),
        "each trace of a call is the allocator's peak": equal,
        "and each of our kernel its formula": all(
            kernel_bytes(cell) == found.call_peak
            for cell, found in RECORD.cells.items()
            if found.call_peak and cell.program == "kernel"
        ),
        "the run of standard attention peaks as by the formula": all(
            peak_bytes(cell.workload) == found.run_peak
            for cell, found in RECORD.cells.items()
            if found.run_peak
        ),
        "cut keys are faster with each cache": all(
            recorded(c, LONG, splits=1) > 3 * recorded(c, LONG) for c in ("MHA", "GQA", "MQA")
        ),
        "8 bits save time in the kernel, and cost time where they are cast before": (
            recorded("GQA", LONG, eight_bit=True)
            < recorded("GQA", LONG)
            < recorded("GQA", LONG, "cast", eight_bit=True)
        ),
        "users share the weights and not the cache": all(
            isinstance(w, Workload) and w.k_bytes == 8 * replace(w, batch=1).k_bytes
            for w in [replace(CACHES["GQA"], batch=8, kv_len=EIGHT_K)]
        ),
    }
