"""The peaks of the cures in closed form, by hand: what the trace and a GPU must agree with.

S is one N×N tensor over batch and heads, X one of Q, K, V, O, L a number in 32 bit for each row of
S, N² a byte for each pair of positions, B a byte. They hold on CUDA where S is larger than what
else is alive at any other moment, N of some hundred, and with the kernels of an H100 or H200.
"""

from attnmem.workload import Workload

#: Program -> peak in inference and in training; ``None`` where no run is recorded, or no form is
#: short.
PEAKS: dict[str, tuple[str | None, str | None]] = {
    "unfused": ("2S + 3X", "4S + 6X"),
    "fused": ("4X + 272B", "10X + 2L + 272B"),
    "unfused_dropout": (None, "4S + 6X"),
    "four_dimensions": ("4X + 272B", "10X + 2L + 272B"),
    "full_float_mask": ("2S + 3X + 1N²", "2S + 3X + 1N²"),
    "bool_mask": ("4X + 3N² + 272B", None),
    "causal_flag": ("4X + 272B", "10X + 2L + 272B"),
    "repeated_heads": ("6X + 272B", "12X + 2L + 272B"),
    "shared_heads": ("4X + 272B", None),
    "repeated_in_float32": ("6X", None),
    "three_names": ("3S + 4X", None),
    "no_names": ("2S + 3X", None),
    "in_place": ("1S + 4X", None),
    "weights_kept": ("5S + 4X", None),
    "weights_dropped": ("2S + 4X", None),
    "split_unfused": ("2S + 3X", None),
    "split_fused": ("4X + 272B", "10X + 2L + 272B"),
    "split_contiguous": ("8X", "14X + 2L + 272B"),
    "autocast_unfused": (None, "4S + 6X"),
    "softmax_in_32_bit": (None, "7S + 6X"),
    "layers_unfused": (None, "7S + 9X"),
    "layers_checkpointed": (None, "4S + 9X"),
    "layers_offloaded": (None, "4S + 7X"),
    "whole_batch": ("4S + 4X + 8B", None),
}


def bytes_of(form: str, w: Workload) -> int:
    """A closed form for a workload, in bytes.

    >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
    >>> bytes_of("2S + 4X", w)
    15728640
    """
    units = {
        "S": w.score_bytes,
        "X": w.head_bytes,
        "L": w.batch * w.heads * w.seq_len * 4,
        "N²": w.seq_len**2,
        "B": 1,
    }
    total = 0
    for term in form.split(" + "):
        count = term.rstrip("".join(units))
        total += int(count) * units[term.removeprefix(count)]
    return total
