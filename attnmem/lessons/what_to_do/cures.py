"""Every cure before and after its change: predicted, recorded, and whether the two are equal."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch

from attnmem import figures
from attnmem.cures import CURES, Cure, made
from attnmem.cures.compiled import Compiled
from attnmem.cures.peaks import PEAKS
from attnmem.figures.style import Picture
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.memory import Measurement
from attnmem.prediction.choice import assuming, kernel_for
from attnmem.prediction.trace import Trace, trace
from attnmem.workload import Workload

#: The software of the record, on which PyTorch's choice of kernels depends.
RECORDED_WITH = {"release": (2, 11), "cudnn": 91900}

#: The section of a page -> the cures that it tells.
SECTIONS = {
    "what-to-do-kernel": ("fused kernel",),
    "what-to-do-lost": (
        "dropout",
        "dimensions",
        "mask",
        "mask with a gradient",
        "groups in 16 bit",
        "groups in 32 bit",
        "odd head dimension",
    ),
    "what-to-do-checkpoint": ("checkpoint", "blocks"),
    "what-to-do-loss": ("loss",),
    "more-cures-micro-batches": ("accumulation",),
    "more-cures-names": ("names", "chunks", "returned weights"),
    "more-cures-copies": ("split heads", "contiguous"),
    "more-cures-autocast": ("autocast", "softmax in 32 bit"),
    "more-cures-compile": ("compile",),
}

#: Where a cure has several changes, what the page calls each.
CHANGES = {
    "bool_mask": "one boolean mask for all heads",
    "causal_flag": "`is_causal=True` in place of a mask",
    "no_names": "no names",
    "in_place": "no names, and in place (inference only)",
    "layers_checkpointed": "checkpoint the attention",
    "layers_offloaded": "keep P in the CPU's memory",
    "layers_fused": "call the fused kernel",
    "AttentionCheckpointed": "checkpoint the attention",
    "BlocksCheckpointed": "checkpoint each block",
    "Model": "call the fused kernel",
    "SelectivelyCheckpointed": "fused, and checkpoint all but products",
    "FusedBlocksCheckpointed": "fused, and checkpoint each block",
}

#: What the figures call tensors.
TENSORS = {
    "bmm": "QKᵀ",
    "mm": "logits",
    "to_copy": "in 32 bit",
    "log_softmax": "log-softmax",
    "nll_loss_backward": "its gradient",
}

#: What the page calls a run.
RUNS = {False: "inference", True: "training"}


class Found(NamedTuple):
    """One program on one workload: what was predicted, if anything was, and what recorded."""

    predicted: Trace | None
    recorded: Measurement

    @property
    def equal(self) -> bool:
        """Whether both have the same peak."""
        return bool(self.predicted) and self.difference == 0

    @property
    def difference(self) -> int:
        """Recorded minus predicted, in bytes; nothing where nothing was predicted."""
        peak = self.recorded.peak_bytes
        return peak - (self.predicted.peak_bytes if self.predicted else peak)


@cache
def record() -> records.Record:
    """The record of the cures, of memory and of time."""
    return records.load(records.CURES_RECORD)


@cache
def found(version: Callable[..., Any], w: Workload, training: bool) -> Found:
    """The prediction for a program with the software of the record, and its recorded run."""
    with torch.device("meta"):
        program = made(version, w)
    recorded = record().measurement(program, w, training)
    if isinstance(program, Compiled):
        return Found(None, recorded)
    with assuming(**RECORDED_WITH):
        return Found(trace(program, w, training), recorded)


def shown(cure: Cure) -> list[Found]:
    """The versions of a cure on its first workload, in training if it is recorded so."""
    return [found(version, cure.workloads[0], cure.modes[-1]) for version in cure.versions]


def run_of(cure: str, name: str, training: bool = True, which: int = 0) -> Found:
    """A program of a cure, on the first of its workloads or another."""
    (version,) = (v for v in CURES[cure].versions if v.__name__ == name)
    return found(version, CURES[cure].workloads[which], training)


def profiles(cure: str, names: Mapping[str, str], training: bool = True) -> Picture:
    """The profiles of some programs of a cure, by what the figure calls them."""
    runs = {words: run_of(cure, name, training).predicted for name, words in names.items()}
    traces = {words: t for words, t in runs.items() if t}
    return figures.profiles(traces, TENSORS, same_time=cure != "loss")


def kept_per_score(cure: str, name: str) -> float:
    """Bytes kept for each score, without copies of Q, K and V in another dtype."""
    w = CURES[cure].workloads[0]
    casts = 3 * w.head_elements * 2 if cure == "autocast" else 0
    return (run_of(cure, name).recorded.saved_bytes - casts) / w.score_elements


def table_of_cures() -> Table:
    """All cures: the symptom, the change that saves most, and the peaks before and after it."""
    rows = []
    for section, names in SECTIONS.items():
        for cure in map(CURES.__getitem__, names):
            before, *after = (run.recorded.peak_bytes / 1e6 for run in shown(cure))
            best = min(range(len(after)), key=after.__getitem__)
            symptom = f"[{cure.symptom}]({_place(section)})"
            rows.append((symptom, change(cure, cure.after[best]), before, after[best]))
    columns = {"symptom": "", "best change": "", "before (MB)": ",.1f", "after (MB)": ",.1f"}
    return Table(columns, rows)


def _place(section: str) -> str:
    """Where the table of the page on what to do leads: a section of it, or of another page."""
    page = "" if section.startswith("what-to-do-") else "more-cures.html"
    return f"{page}#{section}"


def change(cure: Cure, version: Callable[..., Any]) -> str:
    """In a few words, what was changed in one of the versions of a cure."""
    return CHANGES.get(version.__name__, cure.change) if len(cure.after) > 1 else cure.change


def table_of(section: str, both: bool = False, by_hand: bool = False) -> Table:
    """The cures of a section: each change, and the recorded peaks before and after it.

    In training if it is recorded so, and with ``both`` in inference, too; ``by_hand`` adds the
    closed forms of both peaks.
    """
    rows = []
    for cure in (CURES[name] for name in SECTIONS[section]):
        for version in cure.after:
            for training in cure.modes if both else cure.modes[-1:]:
                pair, w = (cure.before, version), cure.workloads[0]
                before, after = (found(x, w, training).recorded.peak_bytes / 1e6 for x in pair)
                forms = [PEAKS.get(x.__name__, (None, None))[training] for x in pair]
                row = {
                    "change": change(cure, version),
                    "run": RUNS[training],
                    "before (MB)": before,
                    "after (MB)": after,
                    "by hand": " → ".join(map(_readable, forms)) if all(forms) else None,
                }
                rows.append(row)
    formats = {"change": "", "run": "", "before (MB)": ",.1f", "after (MB)": ",.1f", "by hand": ""}
    wanted = {"run": both, "by hand": by_hand}
    columns = {name: form for name, form in formats.items() if wanted.get(name, True)}
    return Table(columns, ([row[name] for name in columns] for row in rows))


def _readable(form: str | None) -> str:
    """A closed form as the page writes it: no 1 before a letter, and bytes in a word."""
    return re.sub(r"\b1(?=[A-Z])", "", re.sub(r"(\d+)B\b", r"\1 bytes", form or ""))


def _of(*, dtype: str = "float16", d: int = 64, groups: int = 1, **rest: Any) -> dict[str, Any]:
    """A call of the fused function, by what is special about it."""
    kind = getattr(torch, dtype)
    q = torch.empty(2, 8, 2048, d, dtype=kind, device="meta")
    k = torch.empty(2, 8 // groups, 2048, d, dtype=kind, device="meta")
    return {"query": q, "key": k, "value": k, "enable_gqa": groups > 1} | rest


def calls() -> dict[str, dict[str, Any]]:
    """Calls that readers make: in words -> the arguments."""
    boolean = torch.empty(2048, 2048, dtype=torch.bool, device="meta")
    joined = torch.empty(16, 2048, 64, dtype=torch.float16, device="meta")
    return {
        "16 bit": _of(),
        "16 bit, `bf16`": _of(dtype="bfloat16"),
        "32 bit": _of(dtype="float32"),
        "32 bit, grouped heads": _of(dtype="float32", groups=4),
        "64 bit": _of(dtype="float64"),
        "16 bit, grouped heads": _of(groups=4),
        "16 bit, grouped heads, a mask": _of(groups=4, attn_mask=boolean),
        "16 bit, one head of K and V, no `enable_gqa`": _of(groups=8, enable_gqa=False),
        "a mask": _of(attn_mask=boolean),
        "a mask, $d = 60$": _of(d=60, attn_mask=boolean),
        "$d = 60$": _of(d=60),
        "$d = 320$": _of(d=320),
        "$d = 320$, grouped heads": _of(d=320, groups=4),
        "dropout, $p = 0.1$": _of(dropout_p=0.1),
        "3 dimensions": {"query": joined, "key": joined, "value": joined},
    }


#: What the table calls GPUs -> their compute capabilities, on which PyTorch's choice depends.
CARDS = {
    "H100, H200": ((9, 0),),
    "A100, RTX 3090, 4090, 5090": ((8, 0), (8, 6), (8, 9), (12, 0)),
    "T4, V100": ((7, 5), (7, 0)),
}


def kernels_of(call: dict[str, Any]) -> tuple[str, ...]:
    """The kernel that training gets on each of the cards."""
    with assuming(**RECORDED_WITH):
        taken = (
            {kernel_for(**call, training=True, capability=each).kernel or "none" for each in group}
            for group in CARDS.values()
        )
        return tuple(" or ".join(sorted(kernels)) for kernels in taken)


def table_of_kernels() -> Table:
    """Which kernel calls get."""
    rows = ((words.replace("$", "`"), *kernels_of(call)) for words, call in calls().items())
    return Table(dict.fromkeys(("the call has", *CARDS), ""), rows)
