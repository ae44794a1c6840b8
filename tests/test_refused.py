"""What a prediction refuses or warns of by name, so that no number comes out that it can't give."""

# mypy: disable-error-code="attr-defined"

import contextlib
import sys
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnmem import Workload, measure, trace
from attnmem.prediction.dispatch import Dispatch
from attnmem.prediction.refusal import CannotFollow

W = Workload(batch=2, heads=2, seq_len=32, head_dim=16, dtype=torch.float32)
POOL = ThreadPoolExecutor(1)


def attend(q, k, v):
    return torch.softmax(q @ k.mT * 0.25, dim=-1) @ v


def silently(program, training=False, device="cuda"):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return trace(program, W, training, device)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    SCRIPTED = torch.jit.script(attend)
    MODULE = torch.jit.script(nn.GELU())


@torch.library.custom_op("attnmem_tests::without_shapes", mutates_args=())
def without_shapes(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@torch.library.custom_op("attnmem_tests::with_shapes", mutates_args=())
def with_shapes(x: torch.Tensor) -> torch.Tensor:
    return (x @ x.mT) @ x


@with_shapes.register_fake
def _(x):
    return torch.empty_like(x)


def in_a_thread(q, k, v):
    made = []
    thread = threading.Thread(target=lambda: made.append(attend(q, k, v)))
    thread.start()
    thread.join()
    return attend(q, k, v)


def on_a_stream(q, k, v):
    with torch.cuda.stream(torch.cuda.Stream()):
        return attend(q, k, v)


def swallowing(q, k, v):
    try:
        scale = q.max().item()
    except Exception:
        scale = 1.0
    return attend(q * scale, k, v)


def suppressing(q, k, v):
    with contextlib.suppress(RuntimeError):
        q = q[q > 0]
    return attend(q, k, v)


def failing_after(q, k, v):
    try:
        return q[q > 0]
    except RuntimeError as error:
        raise KeyError("no mask") from error


def jvp(q, k, v):
    return torch.func.jvp(lambda x: attend(x, k, v), (q,), (k,))[1]


def sparse(q, k, v):
    places = torch.zeros(2, 16, dtype=torch.long, device=q.device)
    return torch.sparse_coo_tensor(places, q[0, 0, 0], (32, 32), check_invariants=False) @ v


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    TRANSFORMER = nn.Transformer(16, 2, 1, 1, 16, batch_first=True, device="meta")


def causal_or_not(q, k, v):
    mask = nn.Transformer.generate_square_subsequent_mask(32, device=q.device)
    return TRANSFORMER(q[:, 0], k[:, 0], tgt_mask=mask + q.sum())


REFUSED = {
    "a mask that may be causal": (causal_or_not, "causal is in its values.*tgt_is_causal"),
    "scripted function": (lambda q, k, v: SCRIPTED(q, k, v), "TorchScript"),
    "scripted module": (lambda q, k, v: MODULE(q), "TorchScript"),
    "thread": (in_a_thread, "another thread"),
    "pool": (lambda q, k, v: POOL.submit(attend, q, k, v).result(), "another thread"),
    "forward mode": (jvp, "forward-mode"),
    "swallowed": (swallowing, r"item: .*values.*scale = q\.max"),
    "suppressed": (suppressing, r"values.*q = q\[q > 0\]"),
    "swallowed, then another error": (failing_after, "values"),
    "sparse": (sparse, "sparse tensors"),
    "nested": (lambda q, k, v: torch.nested.nested_tensor([q, k]), "nested tensors.*Pad"),
    "address": (lambda q, k, v: q if q.data_ptr() % 16 else k, "data_ptr"),
    "address of a storage": (lambda q, k, v: q if q.untyped_storage().data_ptr() else k, "address"),
    "operator without shapes": (lambda q, k, v: without_shapes(q), "register_fake"),
}
ON_A_GPU = {
    "repeats in a tensor": (
        lambda q, k, v: q.repeat_interleave(torch.ones(16, dtype=torch.int, device=q.device), 3),
        "values",
    ),
    "stream": (on_a_stream, "torch.cuda.Stream: memory belongs"),
    "event": (lambda q, k, v: torch.cuda.Event(), r"torch\.cuda\.Event"),
    "graph": (lambda q, k, v: torch.cuda.CUDAGraph(), r"torch\.cuda\.CUDAGraph"),
    "record_stream": (lambda q, k, v: q.record_stream(torch.cuda.default_stream()), "asks the GPU"),
    "current stream": (lambda q, k, v: torch.cuda.current_stream(), "asks the GPU"),
    "memory": (lambda q, k, v: q * torch.cuda.memory_allocated(), "asks the GPU"),
    "free memory": (lambda q, k, v: q * torch.cuda.mem_get_info()[0], "asks the GPU"),
    "name": (lambda q, k, v: torch.cuda.get_device_name(), "asks the GPU"),
    "second GPU": (lambda q, k, v: attend(q.to("cuda:1"), k, v), "one GPU, cuda:0, got cuda:1"),
    "second GPU by number": (lambda q, k, v: q.cuda(1), "one GPU, cuda:0, got cuda:1"),
}
# What such programs leave unclosed, and PyTorch's own notes, are not what is asked here.
AND_NO_MORE = pytest.mark.filterwarnings("ignore")


@AND_NO_MORE
@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_can_t_be_followed_is_refused_with_its_line(name, device):
    program, message = REFUSED[name]
    with pytest.raises(CannotFollow, match=message) as error:
        trace(program, W, device=device)
    assert "test_refused.py, line " in str(error.value)


@AND_NO_MORE
@pytest.mark.parametrize("name", ON_A_GPU)
def test_what_asks_the_gpu_is_refused_with_its_line(name):
    program, message = ON_A_GPU[name]
    with pytest.raises(CannotFollow, match=message) as error:
        trace(program, W)
    assert "test_refused.py, line " in str(error.value)


def penalised(q, k, v):
    o = attend(q, k, v)
    if not o.requires_grad:
        return o
    (slope,) = torch.autograd.grad(o.sum(), q, create_graph=True)
    return o + slope


def printing(q, k, v):
    assert f"{q}" == "tensor(..., device='cuda:0', size=(2, 2, 32, 16), dtype=torch.float32)"
    return q


def emptying(q, k, v):
    torch.cuda.empty_cache()
    return attend(q, k, v)


BY_VALUES = {
    "max": lambda q, k, v: q - q.max(),
    "min": lambda q, k, v: q - torch.min(input=q),
    "prod": lambda q, k, v: q.prod(-1, keepdim=True) * v,
    "cumprod": lambda q, k, v: torch.cumprod(q, dim=-1),
    "clamp": lambda q, k, v: q.clamp(min=k),
    "masked_fill": lambda q, k, v: q.masked_fill(torch.ones_like(q, dtype=torch.bool), v.sum()),
}
WARNED = {
    "gradients of gradients": (penalised, "gradients of gradients"),
    "fused attention under vmap": (
        lambda q, k, v: torch.vmap(F.scaled_dot_product_attention)(q, k, v),
        r"under torch\.vmap",
    ),
    "three in einsum": (
        lambda q, k, v: torch.einsum("bhid,bhjd,bhje->bhie", q, k, v),
        "package opt_einsum",
    ),
    "printing": (printing, "printed"),
    "empty_cache": (emptying, "empty_cache"),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_was_not_compared_warns_by_its_name(name):
    program, message = WARNED[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "scaled_dot_product_attention takes cuDNN")
        with pytest.warns(UserWarning, match=message):
            trace(program, W, training=True)


@pytest.mark.parametrize("name", BY_VALUES)
def test_a_backward_pass_that_goes_by_values_warns_where_there_is_one(name):
    with pytest.warns(UserWarning, match=f"backward pass of {name} goes by values"):
        trace(BY_VALUES[name], W, training=True)
    silently(BY_VALUES[name])
    silently(lambda q, k, v: q.clamp(min=0) - q.max(-1, keepdim=True).values, training=True)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_an_operator_of_others_warns_on_either_device(device):
    with pytest.warns(UserWarning, match="with_shapes.default was not looked at"):
        trace(lambda q, k, v: with_shapes(q), W, device=device)


def test_a_triton_kernel_is_refused(monkeypatch):
    class JITFunction:
        def run(self):
            """As Triton's."""

    module = types.SimpleNamespace(JITFunction=JITFunction)
    monkeypatch.setitem(sys.modules, "triton.runtime.jit", module)
    with pytest.raises(CannotFollow, match="Triton kernel"):
        trace(lambda q, k, v: JITFunction().run(), W)


def test_a_thread_that_leaves_the_device_alone_is_let_be():
    def preparing(q, k, v):
        table = POOL.submit(torch.arange, 32).result()
        return attend(q, k, v) + table.to(q.device)[:, None]

    silently(preparing)


def test_a_trace_is_over_for_threads_and_for_refusals():
    with pytest.raises(CannotFollow):
        trace(swallowing, W)
    assert POOL.submit(torch.ones, 2).result().sum() == 2
    silently(attend)
    assert torch.cuda.Stream.__module__ == "torch.cuda.streams"
    assert SCRIPTED(*torch.ones(3, 1, 2, 2)).shape == (1, 2, 2)


def test_inference_mode_is_followed():
    @torch.inference_mode()
    def inferring(q, k, v):
        return attend(q, k, v)

    assert silently(inferring).timeline == silently(attend).timeline
    with torch.inference_mode():
        assert silently(attend, training=True).peak_bytes == silently(attend, True).peak_bytes


def test_old_names_of_types_say_the_device():
    def asking(q, k, v):
        assert q.type() == "torch.cuda.FloatTensor"
        assert q.type(torch.float16).type() == "torch.cuda.HalfTensor"
        assert isinstance(q, torch.cuda.FloatTensor)
        assert not isinstance(q, torch.cuda.HalfTensor)
        table = torch.cuda.LongTensor(7, 16).zero_()
        assert table.device == q.device
        assert torch.ones(2).type(torch.cuda.HalfTensor).is_cuda
        assert q.type(torch.FloatTensor).device.type == "cpu"
        return q.type("torch.cuda.HalfTensor")

    made = [e.bytes for e in silently(asking).timeline]
    assert made.count(7 * 16 * 8) == 1
    assert silently(lambda q, k, v: (q * 1, q.type())[0], device="cpu").peak_bytes > 0


def test_what_asks_the_gpu_and_moves_no_memory_is_answered():
    def asking(q, k, v):
        with torch.cuda.device(q.device):
            assert torch.cuda.device_count() == 1
        assert torch.cuda.get_device_capability() == (8, 0)
        torch.cuda.set_rng_state(torch.cuda.get_rng_state())
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.nvtx.range_push("attention")
        noise = torch.rand(q.shape, generator=torch.Generator(q.device), device=q.device)
        return attend(q + noise, k, v)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(asking, W, capability=(8, 0))


def test_hooks_of_saved_tensors_see_the_device():
    places = set()

    def hooked(q, k, v):
        def pack(x):
            places.add(x.device.type)
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            return attend(q, k, v)

    silently(hooked, training=True)
    assert places == {"cuda"}


def test_the_rest_of_a_trace_is_followed_after_a_fast_path():
    """What is replaced for a trace stays so to its end, when a route sees calls again."""
    with Dispatch("cuda", (9, 0), lambda x: True) as dispatch:
        with dispatch._again():
            pass
        assert torch.cuda.is_available()
        assert torch.ones(1, device="cuda").is_cuda


def rolled(q, k, v):
    return attend(q.roll((1, 2), (2, 3)), k, v)


def offloaded(q, k, v):
    with torch.autograd.graph.save_on_cpu():
        return attend(q, k, v)


def checkpointed(q, k, v):
    return torch.utils.checkpoint.checkpoint(
        lambda q, k, v: torch.softmax(q @ k.mT, dim=-1) @ v, q, k, v, use_reentrant=False
    )


def turned(q, k, v):
    return torch.softmax((k @ q.mT).mT, dim=-1) @ v


KEYS = torch.zeros(2, 2, 40, 16)


def cached(q, k, v):
    with torch.no_grad():
        KEYS.index_copy_(2, torch.arange(32), k)
    return torch.softmax(q @ KEYS.mT, dim=-1) @ KEYS


def written(q, k, v):
    out = torch.zeros(2, 2, 32, 16)
    for i in range(4):
        out[:, :, 8 * i : 8 * i + 8] = q[:, :, 8 * i : 8 * i + 8] * 2
    return attend(torch.addcmul(out, k, v), k, v) @ torch.eye(16)


def averaged(q, k, v):
    s = q @ k.mT
    return attend((q**2).mean(-1, keepdim=True) * v, k, v) * (s.logsumexp(-1, keepdim=True) > 0.5)


def normed(q, k, v):
    q = F.layer_norm(q.transpose(1, 2), (16,), torch.ones(16), torch.zeros(16)).transpose(1, 2)
    return attend(q, k.std(-1, keepdim=True) * k, F.group_norm(v, 2))


def recomputed(q, k, v):
    if not q.requires_grad:
        return attend(q, k, v)
    return torch.utils.checkpoint.checkpoint(attend, q, k, v, use_reentrant=True)


def checkpointed_with_a_number(q, k, v):
    return torch.utils.checkpoint.checkpoint(attend, q, k, v, use_reentrant=False)


def repeated(q, k, v):
    table = torch.arange(32)[:, None].sub(torch.arange(32)).abs().expand(2, 32, 32)
    bias = F.embedding(table, q[0, 0].mean(-1, keepdim=True).repeat(1, 2))
    s = q @ k.mT + bias.permute(0, 3, 1, 2).tril()
    s = s.masked_fill(s < 0, 0).gather(-1, table[:, None].expand(2, 2, 32, 32).int().long())
    return s @ v.cumsum(2) + torch.ones(32, 1, dtype=torch.int32).cumsum(0, dtype=torch.float32)


WITH_NUMBERS = [averaged, normed, recomputed, checkpointed_with_a_number, repeated]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "program", [rolled, offloaded, checkpointed, turned, cached, written, *WITH_NUMBERS]
)
def test_on_a_cpu_it_is_what_the_allocator_says(program, training):
    predicted = silently(program, training, "cpu")
    assert predicted.peak_bytes == measure(program, W, training, "cpu").peak_bytes


def test_on_a_cpu_what_has_values_keeps_them():
    def by_length(q, k, v):
        n = int((torch.ones(3) * 4.0 / 2.0).sum().item())
        assert n == 6
        return attend(q[:, :, :n], k, v)

    silently(by_length, device="cpu")


def test_on_a_cpu_what_was_written_without_values_has_none():
    def reading(q, k, v):
        total = torch.zeros(1)
        total.add_(q.sum())
        return q * total.item()

    with pytest.raises(CannotFollow, match="item"):
        trace(reading, W, device="cpu")


def test_a_gradient_for_a_module_with_data_is_refused_with_what_to_do():
    layer = nn.Linear(16, 16)
    with pytest.raises(CannotFollow, match=r"a tensor that has data.*torch\.device\('meta'\)"):
        trace(lambda q, k, v: layer(q), W, True, "cpu")


def test_on_a_cpu_autocast_for_a_gpu_is_what_pytorch_does():
    def casting(q, k, v):
        with torch.autocast("cuda", torch.bfloat16):
            return attend(q, k, v)

    with pytest.warns(UserWarning, match="CUDA is not available"):
        predicted = trace(casting, W, device="cpu")
    assert predicted.peak_bytes == trace(attend, W, device="cpu").peak_bytes


def test_on_a_cpu_kernels_that_allocate_more_warn():
    with pytest.warns(UserWarning, match=r"_fft_r2c.default allocates up to [\d,]+ B"):
        trace(lambda q, k, v: torch.fft.fft(q).real, W, device="cpu")


# Words that the docstring shares with what is said.
LIMITS = (
    *("TorchScript", "another thread", "sparse", "nested", "values", "forward-mode"),
    *("gradients of gradients", "empty_cache", "printed", "causal", "einsum"),
)


def test_the_known_limits_say_what_is_refused_and_warned_of():
    limits = " ".join(trace.__doc__.partition("Known limits.")[2].partition("Raises")[0].split())
    said = [*(message for _, message in REFUSED.values()), *(why for _, why in WARNED.values())]
    for word in LIMITS:
        assert word in limits
        assert any(word in sentence for sentence in said)
