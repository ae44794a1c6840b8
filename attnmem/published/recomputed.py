"""What recomputes the printed numbers: a function for each quantity."""

import torch

from attnmem.catalog import accelerator, model
from attnmem.formulas import standard_steps
from attnmem.prediction.trace import trace
from attnmem.programs import Program, dropout_attention, one_liner, standard_attention
from attnmem.roofline import limits
from attnmem.timeline import Step
from attnmem.workload import Workload

# The layer of Dao et al.'s Figure 2.
GPT2 = model("GPT-2 medium").workload(1024, batch=64, dtype=torch.float16)


def table_21(n: int) -> Workload:
    """The sizes of Dao et al.'s Table 21 at ``n`` tokens."""
    return Workload(batch=16, heads=8, seq_len=n, head_dim=64, dtype=torch.float16)


def standard_memory(n: int) -> int:
    """Bytes of standard attention in Table 21: 4S + 10X.

    Our own function has 6X, :func:`packed_attention` 8X; the rest is read off the table.
    """
    w = table_21(n)
    return 4 * w.score_bytes + 10 * w.head_bytes


def packed_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention on one tensor ``[B, N, 3, H, d]``, the layout of Dao et al.'s benchmark."""
    packed = torch.stack([x.transpose(1, 2) for x in (q, k, v)], dim=2)
    return one_liner(*(x.transpose(1, 2) for x in packed.unbind(2)))


def flash_memory(n: int) -> int:
    """Bytes of FlashAttention in Table 21: 11X + 2L, and 2X more above 256 tokens.

    Its first code (csrc/flash_attn/fmha_api.cpp) holds Q, K, V, O and their gradients, two rows L
    of 32 bit and, for more than one block of 256 keys, dQ in 32 bit, which is 2X. The other 3X are
    read off the table.
    """
    w = table_21(n)
    rows = 2 * w.batch * w.heads * n * torch.float32.itemsize
    return (13 if n > 256 else 11) * w.head_bytes + rows


def traffic(program: Program) -> int:
    """Bytes that the steps of a forward and a backward pass move in Figure 2, as traced.

    Without the copy of dK that is laid out like K. Standard attention: 18S + 12X.
    """
    steps = trace(program, GPT2, training=True).steps
    return sum(s.bytes_moved for s in steps if s.stage != "inputs" and s.name != "copy")


def products(how_many: int, heads: int = GPT2.heads) -> int:
    """FLOPs of so many products of an N×N with an N×d matrix in Figure 2."""
    return how_many * 2 * GPT2.batch * heads * GPT2.seq_len**2 * GPT2.head_dim


def traced_flops() -> int:
    """FLOPs of standard attention in Figure 2: six products, and 11 operations on each score."""
    return sum(s.flops for s in trace(standard_attention, GPT2, training=True).steps)


def score_terms(a: int, s: int, h: int) -> float:
    """5as/h of the sbh(34 + 5as/h) bytes that a layer keeps; 16 bit, dropout.

    ``a`` heads, ``s`` tokens, hidden size ``h``.
    """
    return 5 * a * s / h


def saved_share(a: int, s: int, h: int) -> float:
    """What part of these bytes the scores are, in per cent."""
    return 100 * score_terms(a, s, h) / (34 + score_terms(a, s, h))


def recomputed_share(a: int, s: int, h: int) -> float:
    """One more forward pass of attention, in per cent of the FLOPs of a step.

    A step takes 72sh²(1 + s/6h) a layer (Korthikanti et al., equation 7), and attention's two
    products 4s²h: the sum is 72sh²(1 + 2s/9h), for any number ``a`` of heads.
    """
    return 100 * ((1 + 2 * s / (9 * h)) / (1 + s / (6 * h)) - 1)


def equation_8(a: int, s: int, h: int) -> float:
    """The same by their equation 8, whose bracket is 1 + s/3h."""
    return 100 * ((1 + s / (3 * h)) / (1 + s / (6 * h)) - 1)


def kept_per_score() -> float:
    """Bytes kept for backward for each score, as traced, in 16 bit on CUDA."""
    w = Workload(batch=1, heads=12, seq_len=2048, head_dim=64, dtype=torch.bfloat16)
    return trace(dropout_attention, w, training=True).saved_bytes / w.score_elements


def whole(step: int) -> Step:
    """A step of a layer of Llama 2 7B on a whole sequence of 2048 tokens, in 16 bit."""
    w = Workload(batch=1, heads=32, seq_len=2048, head_dim=128, dtype=torch.float16)
    return standard_steps(w)[step]


def token(step: int) -> Step:
    """The same for one new token, whose query meets 2048 keys."""
    s = 32 * 2048
    x = s * 128
    product = Step("", 2 * x, 2 * (x + 32 * 128), 2 * s, True, torch.float16)
    softmax = Step("", 5 * s, 2 * s, 2 * s, False, torch.float16)
    return softmax if step == 2 else product


def exponentials_share() -> float:
    """The exponentials' time, in per cent of the products', on an H100.

    Both at the rates of its data sheet, at d = 128 in 16 bit.
    """
    w = Workload(batch=1, heads=16, seq_len=8192, head_dim=128, dtype=torch.float16)
    qk, _, softmax, pv = standard_steps(w)
    h100 = accelerator("H100 SXM")
    times = limits(qk, h100)["compute"] + limits(pv, h100)["compute"]
    return 100 * limits(softmax, h100)["special functions"] / times


def one_head(n: int, *, gradients: bool) -> int:
    """Bytes of Q, K and V of one head in bfloat16, and of O in float32 or else of dQ, dK and dV.

    At the d = 64 that Rabe and Staats's Table 2 implies.
    """
    return 64 * n * (12 if gradients else 10)


def score_matrices(how_many: int, element_bytes: int, n: int) -> int:
    """Bytes of so many N×N matrices of so many bytes an element."""
    return how_many * n**2 * element_bytes


def kv_cache(layers: int, kv_heads: int, head_dim: int, tokens: int) -> int:
    """Bytes of the keys and values of a sequence, over all layers, in 16 bit."""
    return 2 * 2 * layers * kv_heads * head_dim * tokens


def rates_ratio(flops: float, time: float) -> float:
    """How much slower than products, with 99.80 % of FLOPs and 61.0 % of time.

    ``flops`` and ``time`` are the shares of the other operations, in per cent.
    """
    return (99.80 / 61.0) / (flops / time)
