"""Programs as public projects write them, on this machine's CPU: predicted and measured."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from attnmem import Workload, measure, trace
from attnmem.corpus import CORPUS, WORKLOADS
from attnmem.prediction.refusal import CannotFollow

# Every seventh program, trained, on the smallest shape in 32 bit; benchmarks/cpu.py takes them all.
SMALLEST = min((w for w in WORKLOADS if w.dtype == torch.float32), key=lambda w: w.score_bytes)
SOME = [name for name in list(CORPUS)[::7] if CORPUS[name].fits(SMALLEST)]


def compare(program, w, training):
    """Exact, or said so: warned of, or refused."""
    m = measure(program, w, training, "cpu")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            t = trace(program, w, training, "cpu")
        except CannotFollow:
            return
    assert t.peak_bytes == m.peak_bytes or said


@pytest.mark.parametrize("name", SOME)
def test_a_program_is_predicted_to_the_byte_or_it_is_said_so(name):
    compare(CORPUS[name].make(SMALLEST), SMALLEST, training=True)


def rows(q):
    return torch.arange(40)[:, None].expand(40, 24)


def zeros(q):
    return torch.zeros(40, 24, dtype=q.dtype)


# Operations whose kernels on a CPU allocate more than their outputs, mostly in 16 bit.
OPERATIONS = {
    "compares with a number": lambda q: q != 0,
    "compares integers with a fraction": lambda q: torch.arange(50) > 2.5,
    "subtracts from a number": lambda q: 1 - q,
    "a power of a number": lambda q: 0.9 ** torch.arange(50),
    "a maximum of two dtypes": lambda q: torch.maximum(q, q.double()),
    "a mean": lambda q: q.mean(-1),
    "a sum over two loops": lambda q: q.mT.sum((0, 2)),
    "log-sum-exp": lambda q: q.logsumexp(-1),
    "gathers": lambda q: q.gather(2, torch.zeros(q.shape, dtype=torch.long)),
    "gathers rows": lambda q: q[0, 0].gather(0, rows(q)),
    "scatters": lambda q: q.scatter(2, torch.zeros(q.shape, dtype=torch.long), 1.0),
    "adds rows": lambda q: zeros(q).scatter_add(0, rows(q), q[0, 0]),
    "adds narrow rows": lambda q: zeros(q)[:, :8].index_add(0, torch.arange(40), q[0, 0, :, :8]),
    "gathers columns": lambda q: q[0, 0].mT.gather(0, rows(q)[:24].expand(24, 24)),
    "averages rows": lambda q: q.scatter_reduce(0, torch.zeros(q.shape).long(), q, "mean"),
    "selects columns": lambda q: q[0, 0].mT.index_select(1, torch.arange(5)),
    "fused attention": lambda q: F.scaled_dot_product_attention(q, q, q),
    "sorts along the first": lambda q: q[0, 0].sort(stable=True, dim=0, descending=True)[0],
    "adds twice by an index": lambda q: zeros(q).index_add(0, torch.arange(40), q[0, 0], alpha=2),
    "adds by an index": lambda q: zeros(q).index_add(0, torch.arange(40), q[0, 0]),
    "norms of a layer": lambda q: F.layer_norm(q.mT, (40,), q[0, 0, :, 0].contiguous()),
    "norms of groups": lambda q: F.group_norm(q, 3),
    "a product that BLAS can't read": lambda q: q[0, 0, :, ::2] @ q[0, 0, :12],
    "such products in a batch": lambda q: q[0, :, :, ::2] @ q[0, :, :12],
    "repeats": lambda q: q.repeat(2, 1, 1, 1, 1),
    "distances": lambda q: torch.cdist(q.float(), q.float()),
    "computed again": lambda q: torch.utils.checkpoint.checkpoint(
        lambda x: ((x * 2).exp() * 3).sin(), q * 1.5, use_reentrant=False
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_an_operation_of_the_cpu_allocates_is_known(name):
    w = Workload(batch=2, heads=3, seq_len=40, head_dim=24, dtype=torch.bfloat16)

    def program(q, k, v):
        return OPERATIONS[name](q)

    compare(program, w, training=name == "computed again")


def test_a_fast_path_of_the_cpu_is_refused():
    layer = torch.nn.MultiheadAttention(64, 2, batch_first=True).eval()
    w = Workload(batch=1, heads=1, seq_len=64, head_dim=64, dtype=torch.float32)

    def program(q, k, v):
        x = q[:, 0]
        return layer(x, x, x, need_weights=False)[0]

    with pytest.raises(CannotFollow, match="set_fastpath_enabled"):
        trace(program, w, device="cpu")


def test_a_number_ends_with_its_graph():
    def program(q, k, v):
        for _ in range(3):
            scaled = (q * 2.0).detach()
        return (q + scaled) @ k.mT @ v

    w = Workload(batch=1, heads=1, seq_len=64, head_dim=64, dtype=torch.float32)
    m = measure(program, w, training=True, device="cpu")
    assert trace(program, w, training=True, device="cpu").peak_bytes == m.peak_bytes


def test_what_is_moved_to_the_dtype_of_another_is_not_copied():
    def program(q, k, v):
        return q * torch.ones(q.shape[-2:], dtype=q.dtype).to(q).type_as(q)

    w = Workload(batch=1, heads=1, seq_len=64, head_dim=64, dtype=torch.float32)
    assert (
        trace(program, w, device="cpu").peak_bytes == measure(program, w, device="cpu").peak_bytes
    )
