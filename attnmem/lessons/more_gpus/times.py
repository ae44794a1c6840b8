"""How long two GPUs take, what a link allows, and what a million tokens take."""

from typing import Any

from attnmem import figures
from attnmem.catalog import recognise
from attnmem.lessons.more_gpus.memory import LLAMA, LONG, MILLION, RECORD, find, flash_peak, part
from attnmem.lessons.shared import known
from attnmem.lessons.table import Table
from attnmem.measurement.ranks import PYTORCH
from attnmem.workload import Workload

CARD = known(recognise(RECORD.provenance.device))
NETWORK = 50e9  # bytes per second: a port of 400 Gbit/s
LENGTHS = (2048, 8192, LONG)  # tokens of a rank in the record
BLOCK = max(RECORD.link)
LINK = BLOCK / RECORD.link[BLOCK]  # bytes per second that a rank sends, of large blocks
BACKWARD = 2.5  # FLOPs of a flash kernel's backward over forward: five products for two
RECOMPUTED = 1 + 1 + BACKWARD  # with checkpointing, forward runs twice
ADAM = 16  # bytes of a parameter in training: weight and gradient in 16 bit, three numbers in 32


def seconds(split: str, n: int = LONG, **options: bool) -> float:
    """Of the slower rank."""
    return max(on.seconds for on in find(split, n, **options).ranks)


def alone(split: str, n: int = LONG, **options: bool) -> float:
    """All tokens on one of the GPUs."""
    return min(known(on.alone) for on in find(split, n, **options).ranks)


def step_flops(w: Workload) -> int:
    """The two products of one block: n queries, n keys."""
    return 4 * w.score_elements * w.head_dim


def rate(n: int = LONG) -> float:
    """The FLOP/s of a rank of the ring, forward, without a mask."""
    made = find("ring", n)
    return RECORD.ranks * step_flops(made.cell.workload) / seconds("ring", n)


def training_rate() -> float:
    """The FLOP/s of a rank of the balanced causal ring, forward and backward."""
    return _causal_rate("ring", balanced=True)


def exchange_rate() -> float:
    """The same of all-to-all, through cuDNN's kernel."""
    return _causal_rate("all-to-all", balanced=False)


def _causal_rate(split: str, *, balanced: bool) -> float:
    how = {"training": True, "causal": True, "balanced": balanced}
    w = find(split, **how).cell.workload
    flops = (1 + BACKWARD) * RECORD.ranks * step_flops(w) / 2
    return flops / seconds(split, **how)


def efficiency(ranks: int) -> float:
    """The most that a causal ring without balance can do of what its GPUs can."""
    return (ranks / 2) / (ranks - 0.5)


def sending(n: int) -> float:
    """The seconds of one block alone, forward: the record's block of the same size."""
    block = 2 * find("ring", n).cell.workload.head_bytes
    return RECORD.link[block]


def table_of_times() -> Table:
    """One GPU and two, with flash blocks: times, and what sending takes alone."""
    rows = []
    for n, training in [*((n, False) for n in LENGTHS), (LONG, True)]:
        one = alone("ring", n, training=training)
        both = [seconds(split, n, training=training) for split in ("ring", "gather")]
        run = "training" if training else "forward"
        sent = None if training else 1e3 * sending(n)
        times = (1e3 * one, *(1e3 * t for t in both), one / both[0], sent)
        rows.append((RECORD.ranks * n, run, *times))
    names = ("one GPU (ms)", "ring (ms)", "gather (ms)")
    last = {"one / ring": ".2f", "a block, sent alone (ms)": ".2f"}
    return Table({"N": ",", "run": ""} | dict.fromkeys(names, ",.2f") | last, rows)


def table_of_balance() -> Table:
    """Causal attention on two ranks, as they come and balanced: time of each rank, in ms."""
    rows = []
    for training in (False, True):
        for balanced in (False, True):
            made = find("ring", training=training, causal=True, balanced=balanced)
            times = [1e3 * on.seconds for on in made.ranks]
            run = "training" if training else "forward"
            rows.append((run, "balanced" if balanced else "as they come", *times))
    return Table({"run": "", "parts": "", "rank 0 (ms)": ",.0f", "rank 1 (ms)": ",.0f"}, rows)


def table_of_context_parallel() -> Table:
    """Causal, balanced and flash, two ranks: ours and PyTorch's, peaks in x and times."""
    rows = []
    for split in ("ring", "gather", *PYTORCH):
        made = [find(split, training=t, causal=True, balanced=True) for t in (False, True)]
        x = made[0].cell.workload.head_bytes
        first, last = (on.memory.peak_allocated_bytes / x for on in made[0].ranks)
        training = max(on.memory.peak_allocated_bytes for on in made[1].ranks) / x
        times = [1e3 * max(on.seconds for on in m.ranks) for m in made]
        rows.append((split, first, last, training, *times))
    names = ("rank 0 (x)", "rank 1 (x)", "training (x)")
    widths = {"forward (ms)": ",.0f", "training (ms)": ",.0f"}
    return Table({"program": ""} | dict.fromkeys(names, ".2f") | widths, rows)


def links_figure() -> Any:
    """A ring over the tokens of its blocks: its GPU's rate, two links, and the record."""
    bandwidths = {"this NVLink": LINK, "a port of 50 GB/s": NETWORK}
    return figures.links(rate(), bandwidths, [(n, rate(n)) for n in LENGTHS])


# Llama 3 8B, one sequence of a million tokens, trained


def fixed_bytes() -> int:
    """Weights, gradients and Adam's numbers, on all cards together."""
    return ADAM * LLAMA.parameters


def kept_bytes() -> int:
    """What checkpointing keeps: the input of each layer, on all cards together."""
    return LLAMA.layers * part(MILLION, 1)


def layer_bytes(split: str, ranks: int) -> int:
    """The peak of one layer's attention in training, on one card."""
    x, _ = flash_peak(split, ranks, training=True)
    return x * part(MILLION, ranks)


def card_bytes(split: str, ranks: int) -> float:
    """What one card holds: its shares of what is fixed and kept, one layer, and what NCCL took."""
    shares = (fixed_bytes() + kept_bytes()) / ranks
    return shares + layer_bytes(split, ranks) + RECORD.outside_bytes["all cells"]


def fewest(split: str, memory: int) -> int:
    """The fewest cards, a power of two, whose memory holds it."""
    return next(r for r in (2 << i for i in range(11)) if card_bytes(split, r) <= memory)


def attention_flops() -> float:
    """Of all layers in one step, causal, recomputed."""
    w = LLAMA.workload(MILLION)
    return RECOMPUTED * LLAMA.layers * step_flops(w) / 2


def weights_flops() -> float:
    """Of all products with weights in one step, recomputed: two a weight and token, four passes."""
    return 4 * 2 * LLAMA.parameters * MILLION


def table_of_cards() -> Table:
    """Llama 3 8B on cards: GB of each, by split, and seconds of a step's attention."""
    rows = []
    for ranks in (4, 8, 16, 32, 64):
        shares = (fixed_bytes() + kept_bytes()) / ranks
        whole = [card_bytes(s, ranks) for s in ("ring", "gather")]
        few = card_bytes("all-to-all", ranks) if ranks <= LLAMA.heads else None
        sizes = (None if s is None else s / 1e9 for s in (shares, *whole, few))
        rows.append((ranks, *sizes, attention_flops() / training_rate() / ranks))
    names = ("shares", "ring", "gather", "all-to-all")
    return Table({"cards": ""} | dict.fromkeys(names, ",.0f") | {"seconds": ",.0f"}, rows)
