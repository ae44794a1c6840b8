"""How we compute the numbers that others printed.

>>> flash_memory(1024), score_terms(*GPT3)
(1184.0, 80.0)
>>> round(traffic(), 2), round(products(6, heads=1) + pointwise(), 1)
(40.27, 66.6)
>>> score_matrices(1, 2**12, unit=MIB)
64.0
>>> kv_cache(layers=32, kv_heads=8, head_dim=128, tokens=1)
131072
"""

import torch

from attnmem.catalog import accelerator
from attnmem.formulas import standard_steps
from attnmem.prediction.trace import trace
from attnmem.programs import dropout_attention, standard_attention
from attnmem.roofline import limits
from attnmem.workload import Workload

MIB, GIB, GB = 2**20, 2**30, 10**9


def flash_memory(n: int) -> float:
    """MiB: 4S + 10X, for sequences of ``n`` tokens."""
    w = Workload(batch=16, heads=8, seq_len=n, head_dim=64, dtype=torch.float16)
    return (4 * w.score_bytes + 10 * w.head_bytes) / MIB


GPT2_MEDIUM = Workload(batch=64, heads=16, seq_len=1024, head_dim=64, dtype=torch.float16)


def traffic() -> float:
    """GB that the steps of a forward and a backward pass move, as traced: 18S + 12X.

    Without what makes the inputs and dO, and without the copy of dK that is laid
    out like K.
    """
    made = ("randn", "randn_like", "copy")
    steps = trace(standard_attention, GPT2_MEDIUM, training=True).steps
    return sum(step.bytes_moved for step in steps if step.name not in made) / GB


def products(how_many: int, heads: int = GPT2_MEDIUM.heads) -> float:
    """GFLOPs of so many products of N×N scores with d, of so many ``heads``."""
    w = GPT2_MEDIUM
    return how_many * 2 * w.batch * heads * w.seq_len**2 * w.head_dim / GB


def pointwise() -> float:
    """GFLOPs of 14 operations on each score of all heads.

    The 14 is what the printed number leaves.
    """
    return 14 * GPT2_MEDIUM.score_elements / GB


GPT3, MT_NLG = (96, 2048, 12288), (128, 2048, 20480)  # heads a, length s, hidden size h


def score_terms(a: int, s: int, h: int) -> float:
    """5as/h of the sbh(34 + 5as/h) bytes that a layer keeps; 16 bit, dropout.

    ``a`` heads, ``s`` tokens, hidden size ``h``.
    """
    return 5 * a * s / h


def saved_share(a: int, s: int, h: int) -> float:
    """What part of these bytes the scores are, in per cent."""
    return 100 * score_terms(a, s, h) / (34 + score_terms(a, s, h))


def recomputed_share(a: int, s: int, h: int) -> float:
    """Attention's products, in per cent of a layer's, forward."""
    return 100 * 4 * s * s * h / (24 * s * h * h + 4 * s * s * h)


def kept_per_score() -> float:
    """Bytes kept for backward for each score, as traced, in 16 bit on CUDA."""
    w = Workload(batch=1, heads=12, seq_len=2048, head_dim=64, dtype=torch.bfloat16)
    return trace(dropout_attention, w, training=True).saved_bytes / w.score_elements


def exponentials_share() -> float:
    """The exponentials' time, in per cent of the products', on an H100.

    Both at the rates of its data sheet, at d = 128 in 16 bit.
    """
    w = Workload(batch=1, heads=16, seq_len=8192, head_dim=128, dtype=torch.float16)
    qk, _, softmax, pv = standard_steps(w)
    h100 = accelerator("H100 SXM")
    products = limits(qk, h100)["compute"] + limits(pv, h100)["compute"]
    return 100 * limits(softmax, h100)["special functions"] / products


def intensities() -> tuple[float, float]:
    """Of QKᵀ and of softmax, in FLOPs per byte, at N = 2048 and d = 128 in 16 bit."""
    w = Workload(batch=1, heads=32, seq_len=2048, head_dim=128, dtype=torch.float16)
    qk, _, softmax, _ = standard_steps(w)
    return qk.intensity, softmax.intensity


def score_matrices(
    how_many: int,
    n: int,
    heads: int = 1,
    dtype: torch.dtype = torch.float32,
    unit: int = 1,
) -> float:
    """So many N×N tensors of all heads, in bytes or in a ``unit`` of so many bytes.

    Raises what :class:`attnmem.workload.Workload` raises.
    """
    w = Workload(batch=1, heads=heads, seq_len=n, head_dim=1, dtype=dtype)
    return how_many * w.score_bytes / unit


def kv_cache(layers: int, kv_heads: int, head_dim: int, tokens: int) -> int:
    """Bytes of the keys and values of a sequence, over all layers, in 16 bit."""
    return 2 * 2 * layers * kv_heads * head_dim * tokens


def rates_ratio(flops: float, time: float) -> float:
    """How much slower than products, with 99.80 % of FLOPs and 61.0 % of time.

    ``flops`` and ``time`` are the shares of the other operations, in per cent.
    """
    return (99.80 / 61.0) / (flops / time)
