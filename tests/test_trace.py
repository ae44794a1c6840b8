"""The trace against the other two sources: the formulas, and the allocators of real devices."""

import gc
import itertools
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from attnmem import Workload, max_seq_len, measure, standard_attention, trace
from attnmem.formulas import alive_at_peak, peak_bytes, standard_steps
from attnmem.measurement.records import RECORDS, load
from attnmem.prediction.allocator import CachingAllocator
from attnmem.prediction.choice import assuming
from attnmem.prediction.shapes import SHAPES
from attnmem.programs import PROGRAMS, cudnn_sdpa, efficient_sdpa, flash_sdpa

aten = torch.ops.aten
W = Workload(batch=2, heads=3, seq_len=200, head_dim=16, dtype=torch.float32)
BY_NAME = {program.__name__: program for program in PROGRAMS}
FUSED = (flash_sdpa, efficient_sdpa, cudnn_sdpa)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_every_recorded_run_was_predicted_to_the_byte(path, program):
    cells = [m for m in load(path).measurements if m.program == program.__name__ and m.warm_up]
    assert len(cells) >= 28
    for m in (m for m in cells if not m.out_of_memory):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            t = trace(program, m.workload, m.training)
        assert t.peak_bytes == m.peak_bytes, m
        assert t.saved_bytes == m.saved_bytes, m
        # The driver's addresses decide between equally large blocks; mostly they rise.
        assert t.replay(m.segments).peak_allocated == m.peak_allocated_bytes, m
        if list(m.segments) == sorted(m.segments):
            assert t.peak_allocated_bytes == m.peak_allocated_bytes, m
        assert t.peak_reserved_bytes == m.peak_reserved_bytes, m
        if m.timeline:  # older records have none
            assert [e.bytes for e in t.timeline] == [e.bytes for e in m.timeline], m
        if program not in FUSED:
            assert t.workspace_bytes() == m.workspace_bytes, m


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_runs_that_ran_out_of_memory_were_predicted_not_to_fit(path):
    failed = [m for m in load(path).measurements if m.out_of_memory]
    assert failed
    for m in failed:
        predicted = trace(BY_NAME[m.program], m.workload, m.training).peak_reserved_bytes
        assert predicted > m.provenance.memory_bytes


@pytest.mark.parametrize(
    ("dtype", "training", "peak", "saved"),  # recorded on an H200 with torch 2.11
    [
        *[("float16", False, 12058624, 0), ("float16", True, 18350080, 2621440)],
        *[("float32", False, 22020096, 0), ("float32", True, 34603008, 3145728)],
    ],
)
def test_what_a_program_keeps_is_there_before_it_runs_again(dtype, training, peak, saved):
    seen: dict[str, torch.Tensor] = {}

    def watched(q, k, v):
        seen.clear()
        s = torch.einsum("bhqd,bhkd->bhqk", q / 8, k)
        s = torch.where(torch.isnan(s), torch.zeros_like(s), s)
        p = torch.softmax(s, dim=-1)
        seen["weights"] = p.detach()
        return torch.einsum("bhqk,bhkd->bhqd", p, v)

    w = Workload(batch=2, heads=4, seq_len=512, head_dim=64, dtype=dtype)
    t = trace(watched, w, training)
    assert (t.peak_bytes, t.saved_bytes, t.parameter_bytes) == (peak, saved, w.score_bytes)
    assert t.replay().peak_allocated > 0


UNFUSED = [p for p in PROGRAMS if p not in FUSED]


@pytest.mark.parametrize("program", UNFUSED, ids=lambda program: program.__name__)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("w", [W, replace(W, batch=1, heads=1, seq_len=333, head_dim=7)])
def test_on_this_machine_s_cpu_the_trace_is_what_the_allocator_says(program, training, w):
    m = measure(program, w, training, "cpu")
    t = trace(program, w, training, "cpu")
    assert (t.peak_bytes, t.saved_bytes) == (m.peak_bytes, m.saved_bytes)
    assert t.peak_allocated_bytes == t.peak_bytes
    assert [event.bytes for event in t.timeline] == [event.bytes for event in m.timeline]
    assert t.workspace_bytes() == m.workspace_bytes == 0


def sigmoid_attention(q, k, v):
    return torch.sigmoid(q @ k.mT / 4) @ v


def blockwise(q, k, v):
    return torch.cat([standard_attention(part, k, v)[0] for part in q.split(50, dim=-2)], dim=-2)


def split_heads(q, k, v):
    def strided(x):  # as a model makes heads: [B, N, H·d] cut into H parts
        return x.transpose(1, 2).contiguous().transpose(1, 2)

    return standard_attention(strided(q), strided(k), strided(v))


def biased(q, k, v):
    s = q @ k.mT + torch.arange(k.shape[-2], dtype=q.dtype, device=q.device)
    return F.log_softmax(s, dim=-1).exp() @ v


def doubled_values(q, k, v):
    return standard_attention(q, k, v * 2.0)


def squared(q, k, v):
    return (q @ k.mT).clamp(-1, 1) ** 2 @ v


def every_second_key(q, k, v):
    return standard_attention(q, k[..., ::2, :], v[..., ::2, :])


def softmax_by_hand(q, k, v):
    s = q @ k.mT
    e = (s - s.max(dim=-1, keepdim=True).values).exp()
    return (e / e.sum(dim=-1, keepdim=True)) @ v


def softmax_by_hand_with_amax(q, k, v):
    s = q @ k.mT
    e = (s - s.amax(dim=-1, keepdim=True)).exp()
    return (e / e.sum(dim=-1, keepdim=True)) @ v


def residual(q, k, v):
    return q + standard_attention(q, k, v)[0]


def self_attention(q, k, v):
    return standard_attention(q, q, q)[0] + k + v


def two_layers(q, k, v):
    return standard_attention(standard_attention(q, k, v)[0], k, v)[0]


def one_head_of_keys(q, k, v):
    return standard_attention(q, k[:, :1].expand_as(k), v[:, :1].expand_as(v))


def with_einsum(q, k, v):
    s = torch.einsum("bhid,bhjd->bhij", q, k)
    return torch.einsum("bhij,bhjd->bhid", s.softmax(-1), v)


def bias_from_a_list(q, k, v):
    return standard_attention(q, k, v)[0] + torch.tensor([1.0] * q.shape[-1], device=q.device)


def mixed_dtypes(q, k, v):
    n = k.shape[-2]
    distance = torch.arange(n, device=q.device) - torch.arange(n, device=q.device)[:, None]
    s = q @ k.mT - distance.abs() * 0.1
    s += torch.ones(n, n, device=q.device, dtype=torch.float16)
    return s.softmax(-1) @ v


def selected_keys(q, k, v):
    chosen = torch.arange(0, k.shape[-2], 2, device=k.device)
    return standard_attention(q, k.index_select(-2, chosen), v.index_select(-2, chosen))


def heads_from_a_list(q, k, v):
    return standard_attention(q, k[:, [0, 2, 1]], v[..., (3, 1, 0, 2), :].sum(-2, keepdim=True) + v)


def a_code_for_each_place(q, k, v):
    code = F.one_hot(torch.arange(q.shape[-2], device=q.device) % 7, q.shape[-1])
    return standard_attention(q + code, k, v)


@pytest.mark.parametrize(
    "program",
    [
        heads_from_a_list,
        a_code_for_each_place,
        sigmoid_attention,
        blockwise,
        split_heads,
        biased,
        doubled_values,
        squared,
        every_second_key,
        softmax_by_hand,
        softmax_by_hand_with_amax,
        residual,
        self_attention,
        two_layers,
        one_head_of_keys,
        with_einsum,
        bias_from_a_list,
        mixed_dtypes,
        selected_keys,
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_programs_of_a_reader_s_own_are_traced_as_well(program, training):
    m = measure(program, W, training, "cpu")
    t = trace(program, W, training, "cpu")
    assert (t.peak_bytes, t.saved_bytes) == (m.peak_bytes, m.saved_bytes)


class BySigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, target):
        ctx.save_for_backward(x, target)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        x, target = ctx.saved_tensors
        return (torch.sigmoid(x) - target) * grad, None


def test_the_backward_pass_of_a_loss_overwrites_its_sigmoid():
    def made(program):
        backward = itertools.dropwhile(
            lambda event: event.label != "dO", trace(program, W, training=True).timeline
        )
        return [event.bytes for event in backward].count(4 * 2 * 3 * 200 * 16)

    def loss(q, k, v):
        return F.binary_cross_entropy_with_logits(q, k.detach())

    def written_out(q, k, v):  # by the program, which does not overwrite
        return BySigmoid.apply(q, k.detach())

    # As recorded on an H200: of the sigmoid, the difference and the product only the first.
    assert made(loss) == 1
    assert made(written_out) == 1 + 3  # dO is one more


def test_what_indexes_is_on_the_gpu_and_a_number_that_is_written_is_not():
    def saved(index):
        return trace(lambda q, k, v: q[:, index(q.device)] * v, W, training=True).saved_bytes

    def as_tensor(device):
        return torch.arange(3, device=device)

    assert saved(lambda _: [0, 1, 2]) == saved(lambda _: range(3)) == saved(as_tensor)
    assert saved(as_tensor) == saved(lambda _: slice(3)) + 3 * 8 + 4 * 2 * 3 * 200 * 16

    def written(q, k, v):
        o = q * k
        o[:, 0] = -1.0
        o[:, 1, torch.arange(9, device=q.device)] = 0  # this one goes to the GPU in the kernel
        return o + v

    labels = [event.label for event in trace(written, W).timeline]
    assert "scalar_tensor" not in labels
    assert labels.count("value on the GPU") == 2


WORKLOADS = st.builds(
    lambda batch, heads, head_dim, longer, dtype: Workload(
        batch=batch, heads=heads, seq_len=head_dim + longer, head_dim=head_dim, dtype=dtype
    ),
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(4, 256),
    st.integers(0, 10**5),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)


@settings(max_examples=50)
@given(WORKLOADS, st.booleans(), st.sampled_from(["cuda", "cpu"]))
def test_the_closed_form_is_the_trace(w, training, device):
    t = trace(standard_attention, w, training, device)
    assert t.peak_bytes == peak_bytes(w, training=training, device=device)
    expected = alive_at_peak(w, training=training, device=device)
    assert sorted(t.at_peak.values()) == sorted(expected.values())
    assert {"Q", "K", "V", "O", "P"} <= set(t.at_peak)


def test_the_timeline_begins_and_ends_with_nothing():
    t = trace(standard_attention, W, training=True)
    assert [event.label for event in t.timeline[:3]] == ["Q", "K", "V"]
    assert t.timeline[-1].live == 0
    assert sum(event.bytes for event in t.timeline) == 0
    assert sum(t.at_peak.values()) == t.peak_bytes == max(event.live for event in t.timeline)
    assert {"dO", "dV", "dP", "dS"} <= set(t.at_peak)


def test_the_steps_are_those_of_the_chapter():
    traced = [s for s in trace(standard_attention, W).steps if s.name != "randn"]
    for step, expected in zip(traced, standard_steps(W), strict=True):
        assert (step.flops, step.bytes_read, step.bytes_written, step.matrix) == (
            expected.flops,
            expected.bytes_read,
            expected.bytes_written,
            expected.matrix,
        )


def test_the_cost_does_not_grow_with_the_sequence():
    short, long = (trace(standard_attention, replace(W, seq_len=n), True) for n in (64, 10**6))
    assert len(short.timeline) == len(long.timeline)


def test_a_trace_leaves_nothing_behind():
    def tensors():
        gc.collect()
        return {id(x) for x in gc.get_objects() if type(x) is torch.Tensor and x.is_meta}

    before = tensors()
    trace(standard_attention, W, training=True)
    assert tensors() <= before


def test_an_operation_with_unknown_buffers_warns_by_name_and_line():
    def convolved(q, k, v):
        return torch.conv1d(q[:, 0], q.new_empty(200, 200, 3))

    with pytest.warns(UserWarning, match=r"aten\.convolution\.default allocates") as warned:
        trace(convolved, W)
    assert {w.filename for w in warned} == {__file__}


def test_a_choice_of_kernel_that_depends_on_the_build_warns():
    with pytest.warns(UserWarning, match="takes cuDNN on Hopper"):
        trace(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v), replace(W, dtype=torch.float16)
        )


def recomputed(program):
    def with_checkpoint(q, k, v):
        return checkpoint(program, q, k, v, use_reentrant=False)

    return with_checkpoint


@pytest.mark.parametrize("program", [flash_sdpa, efficient_sdpa, BY_NAME["dropout_attention"]])
def test_the_way_on_cuda_is_taken_inside_backward_too(program):
    w = replace(W, dtype=torch.float16)
    plain, again = (trace(p, w, training=True) for p in (program, recomputed(program)))
    assert again.saved_bytes < plain.saved_bytes
    assert again.peak_bytes <= plain.peak_bytes + 4 * w.head_bytes


def test_the_way_on_cuda_is_taken_inside_a_module_too():
    before = F.scaled_dot_product_attention
    w = Workload(batch=2, heads=1, seq_len=512, head_dim=64, dtype=torch.float16)

    def module(q, k, v):
        attention = torch.nn.MultiheadAttention(64, 1, batch_first=True, device=q.device)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            out, _ = attention.to(q.dtype)(q[:, 0], k[:, 0], v[:, 0], need_weights=False)
        return out.unsqueeze(1)

    assert trace(module, w).peak_bytes < w.score_bytes + 16 * w.head_bytes
    assert F.scaled_dot_product_attention is before  # and nothing stays replaced


def plain_sdpa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def causal_sdpa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def masked_sdpa(q, k, v):
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.tril())


def biased_sdpa(q, k, v):
    bias = torch.zeros(q.shape[-2], k.shape[-2], dtype=q.dtype, device=q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def dropped_sdpa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)


def masked_math(q, k, v):
    with sdpa_kernel(SDPBackend.MATH):
        return masked_sdpa(q, k, v)


@pytest.mark.parametrize(
    "program", [plain_sdpa, causal_sdpa, masked_sdpa, biased_sdpa, dropped_sdpa, masked_math]
)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("n", [20, 200, 1000])
def test_pytorch_s_own_attention_is_traced_on_this_cpu(program, training, n):
    w = replace(W, seq_len=n)
    m, t = measure(program, w, training, "cpu"), trace(program, w, training, "cpu")
    assert (t.peak_bytes, t.saved_bytes) == (m.peak_bytes, m.saved_bytes)


def test_a_mask_that_is_padded_does_not_stay():
    def program(q, k, v):
        mask = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
        with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    w = Workload(batch=1, heads=6, seq_len=777, head_dim=64, dtype=torch.float16)
    # As measured on an NVIDIA H200, torch 2.11, 2026-11-23.
    assert trace(program, w).peak_bytes == 4819731
    assert trace(program, w, training=True).peak_bytes == 7906008


def test_packed_matrices_on_a_cpu_warn(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    with pytest.warns(UserWarning, match="packs 16-bit matrices on a CPU with AMX"):
        trace(plain_sdpa, replace(W, dtype=torch.bfloat16), device="cpu")


def test_a_trace_inside_a_trace_is_not_counted():
    def asking(q, k, v):
        trace(standard_attention, W)
        return standard_attention(q, k, v)

    assert trace(asking, W).peak_bytes == trace(standard_attention, W).peak_bytes


@pytest.mark.parametrize("answer", [None, (), [], "O"])
def test_a_program_without_an_output_is_named(answer):
    with pytest.raises(TypeError, match=f"program must return O, .* got {type(answer).__name__}"):
        trace(lambda q, k, v: answer, W)


def test_an_output_that_is_an_input_counts_once():
    t = trace(lambda q, k, v: v.view_as(v), W)
    assert (t.saved_bytes, t.peak_bytes) == (0, 3 * W.head_bytes)
    assert measure(lambda q, k, v: v.view_as(v), W, device="cpu").saved_bytes == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda op, x: op(aten.mul.Tensor)(x, 0.5),
        lambda op, x: op(aten.div.Tensor)(x, 3),
        lambda op, x: op(aten.mul.Tensor)(x, x.float()),
        lambda op, x: op(aten.bmm.default)(x, x.mT),
        lambda op, x: op(aten.randn.default)(x.shape, dtype=x.dtype, device=x.device),
        lambda op, x: op(aten.randn_like.default)(x),
        lambda op, x: op(aten._softmax_backward_data.default)(x, x, -1, x.dtype),
    ],
)
@pytest.mark.parametrize(
    "layout", [lambda x: x, lambda x: x.mT, lambda x: x[:, ::2], torch.Tensor.half]
)
def test_shortcuts_give_the_shapes_that_pytorch_gives(call, layout):
    x = layout(torch.empty(4, 6, 8, device="meta"))
    ours, theirs = call(lambda op: SHAPES[op], x), call(lambda op: op, x)
    assert (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device)
    assert ours.untyped_storage().nbytes() == theirs.untyped_storage().nbytes()


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((8, 9), 8519680), ((9, 0), 2**25), ((10, 0), 2**25), ((11, 0), 8519680)],
)
def test_workspaces_are_reported_beside_the_peak(capability, expected):
    t = trace(standard_attention, W, training=True)
    assert t.workspace_bytes(capability) == 2 * expected  # autograd's thread has its own
    assert trace(standard_attention, W).workspace_bytes(capability) == expected
    assert trace(efficient_sdpa, W).workspace_bytes(capability) == 0  # not cuBLAS


def test_errors_are_the_reader_s_to_see():
    with pytest.raises(ValueError, match="device must be 'cuda' or 'cpu', got 'tpu'"):
        trace(standard_attention, W, device="tpu")
    with pytest.raises(ZeroDivisionError):
        trace(lambda q, k, v: 1 / 0, W)


@given(st.integers(10**5, 10**11), st.booleans(), st.sampled_from(["cuda", "cpu"]))
@settings(max_examples=20)
def test_the_longest_sequence_fits_and_the_next_does_not(memory, training, device):
    w = replace(W, batch=1, heads=1, head_dim=4)
    if device == "cuda":
        memory += 2**25  # a segment or two of the allocator
    n = max_seq_len(standard_attention, w, memory, training, device)
    fits, next_one = (
        trace(standard_attention, replace(w, seq_len=length), training, device)
        for length in (n, n + 1)
    )
    assert fits.peak_reserved_bytes <= memory < next_one.peak_reserved_bytes


def test_memory_that_holds_nothing_is_named():
    with pytest.raises(ValueError, match=r"memory_bytes must hold a run with N = 1, .* got 100"):
        max_seq_len(standard_attention, W, 100)


@given(st.lists(st.tuples(st.integers(1, 3 * 10**7), st.integers(0, 5)), max_size=60))
def test_the_allocator_keeps_its_books(steps):
    allocator = CachingAllocator()
    alive = []
    for size, how_many_to_free in steps:
        alive.append(allocator.allocate(size))
        assert alive[-1].size >= size
        for _ in range(min(how_many_to_free, len(alive))):
            allocator.free(alive.pop(len(alive) // 2))
        spans = sorted((block.address, block.address + block.size) for block in alive)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert allocator.allocated == sum(block.size for block in alive)
    assert allocator.allocated <= allocator.peak_allocated <= allocator.peak_reserved
    for block in alive:
        allocator.free(block)
    # Everything joined again: a second allocator's worth of the same takes nothing more.
    free = [entry[2] for pool in allocator._free.values() for entry in pool]
    assert all(block.before is None and block.after is None for block in free)
    assert sum(block.size for block in free) == allocator.reserved


@given(st.lists(st.integers(1, 2**26), min_size=1, max_size=40), st.data())
@settings(max_examples=50, deadline=None)
def test_an_allocator_goes_on_from_what_another_has_left(sizes, data):
    first = CachingAllocator()
    blocks = [first.allocate(size) for size in sizes]
    gone = [block for block in blocks if data.draw(st.booleans())]
    for block in gone:
        first.free(block)
    left = first.left()
    second = CachingAllocator(before=left)
    assert second.left() == left
    assert sorted(block.size for block in second.held) == sorted(
        block.size for block in blocks if block not in gone
    )
    assert second.reserved == second.allocated == 0  # it is baseline
    for block in second.held:
        second.free(block)
    assert second.left() == []


def test_workspaces_that_pytorch_does_not_keep_are_warned_of(monkeypatch):
    def no_product(q, k, v):
        return q + k + v

    with assuming(release=(2, 15)), warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(standard_attention, W)  # here they are kept: tests/conftest.py
        monkeypatch.delenv("TORCH_CUBLAS_WORKSPACE_CACHE")
        trace(no_product, W)
        trace(standard_attention, W, device="cpu")
        with assuming(release=(2, 14)):
            trace(standard_attention, W)
        with pytest.warns(UserWarning, match="set TORCH_CUBLAS_WORKSPACE_CACHE=1"):
            trace(standard_attention, W)
