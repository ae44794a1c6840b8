"""What a program sees of the device that is predicted, and what can't be predicted."""

import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from attnmem import Workload, measure, trace
from attnmem.corpus import REFUSED
from attnmem.prediction.refusal import CannotFollow

W = Workload(batch=2, heads=4, seq_len=512, head_dim=64, dtype=torch.float16)
S, X = W.score_bytes, W.head_bytes


def attend(q, k, v):
    return torch.softmax(q @ k.mT * 0.125, dim=-1) @ v


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_program_sees_the_device_that_it_will_run_on(device):
    def asking(q, k, v):
        assert q.device.type == device
        assert q.is_cuda == (device == "cuda")
        assert not q.is_meta
        assert torch.ones(2, device=q.device).device == q.device
        assert q.new_zeros(2).device == (q * 2).device == q.device
        return F.softmax(attend(q, k, v), -1)

    trace(asking, W, training=True, device=device)


def test_the_device_is_still_seen_after_a_fast_path():
    layer = nn.MultiheadAttention(64, 2, batch_first=True, device="meta").eval()

    def asking(q, k, v):
        q = q.flatten(0, 1).float()
        o, _ = layer(q, q, q, need_weights=False)
        assert torch.cuda.is_available()
        return o

    trace(asking, W)


def test_the_device_is_seen_in_functions_of_pytorch_and_inside_backward():
    seen = []

    def inner(q, k, v):
        seen.append(q.is_cuda)
        return attend(q, k, v)

    def checkpointed(q, k, v):
        return torch.utils.checkpoint.checkpoint(inner, q, k, v, use_reentrant=False)

    trace(checkpointed, W, training=True)
    assert seen == [True, True]


def test_what_stays_on_the_cpu_is_not_the_gpu_s_memory():
    def with_table(q, k, v):
        table = torch.arange(512)  # on the CPU, with values
        assert table.sum().item() == 511 * 256
        return attend(q, k, v) + table.to(q.device)[:, None].to(q.dtype)

    t = trace(with_table, W)
    assert [e.bytes for e in t.timeline if 0 < e.bytes <= 4096] == [4096, 1024]

    def offloading(q, k, v):
        return attend(q, k.cpu().to(q.device), v)

    assert trace(offloading, W).peak_bytes == trace(attend, W).peak_bytes + X


def linear_after(layer):
    return lambda q, k, v: layer(attend(q, k, v))


def test_parameters_are_baseline_and_their_gradients_are_not():
    with torch.device("meta"):
        layer = nn.Linear(64, 64, dtype=W.dtype)
    size = 64 * 65 * 2
    for training in (False, True):
        t = trace(linear_after(layer), W, training)
        assert t.parameter_bytes == size
    made = [e.bytes for e in t.timeline]
    assert made.count(64 * 64 * 2) == made.count(64 * 2) == 1
    assert layer.weight.grad is None
    assert trace(linear_after(layer), W, training=True).timeline == t.timeline


class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(64, 64, dtype=W.dtype)

    def forward(self, q, k, v):
        return self.out(attend(q, k, v))


def test_a_module_on_the_cpu_is_followed_on_a_copy_without_data():
    module = Projected()
    with torch.device("meta"):
        same = Projected()
    assert trace(module, W, training=True).timeline == trace(same, W, training=True).timeline
    assert module.out.weight.device.type == "cpu"
    assert module.out.weight.grad is None


def test_a_function_that_closes_over_a_module_on_the_cpu_is_told_what_to_do():
    layer = nn.Linear(64, 64, dtype=W.dtype)
    with pytest.raises(CannotFollow, match=r"on the CPU meets .*torch\.device\('meta'\).*line \d+"):
        trace(linear_after(layer), W)


@pytest.mark.filterwarnings("ignore")  # of what comes before
@pytest.mark.parametrize("entry", REFUSED.values(), ids=REFUSED)
def test_what_needs_values_or_a_compiler_is_refused_with_its_line(entry):
    with torch.device("meta"):
        program = entry.make(W)
    with pytest.raises(CannotFollow) as error:
        trace(program, W)
    assert "corpus/refused.py, line " in str(error.value)


def test_a_dtype_that_no_program_runs_in_is_refused():
    small = Workload(batch=1, heads=1, seq_len=8, head_dim=8, dtype=torch.float8_e4m3fn)
    with pytest.raises(ValueError, match=r"dtype must be one that torch\.randn makes"):
        trace(attend, small)


@pytest.mark.parametrize(
    ("dtype", "inference", "training"),
    [  # recorded on an NVIDIA H100, torch 2.11, 2026-11-25
        (torch.float16, 22_544_384, 37_748_736),
        (torch.bfloat16, 22_544_384, 36_700_160),
        (torch.float32, 24_117_248, 39_845_888),
    ],
)
def test_autocast_is_followed(dtype, inference, training):
    def mixed(q, k, v):
        with torch.autocast(q.device.type, dtype=torch.bfloat16):
            return attend(q, k, v)

    w = Workload(batch=2, heads=4, seq_len=512, head_dim=64, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trace(mixed, w).peak_bytes == inference
        assert trace(mixed, w, training=True).peak_bytes == training


def test_a_loss_under_autocast_warns():
    def loss(q, k, v):
        with torch.autocast(q.device.type, dtype=torch.float16):
            labels = torch.zeros(2 * 4 * 512, dtype=torch.long, device=q.device)
            scores = attend(q, k, v).flatten(0, 2)
            return F.cross_entropy(scores, labels, label_smoothing=0.1)[None]

    with pytest.warns(UserWarning, match="autocast casts inside cross_entropy_loss"):
        trace(loss, W)


def test_autocast_casts_a_weight_once():
    with torch.device("meta"):
        layer = nn.Linear(64, 64, bias=False)

    def twice(q, k, v):
        with torch.autocast(q.device.type, dtype=torch.float16):
            return layer(layer(q))

    made = [e.bytes for e in trace(twice, W, training=False).timeline]
    assert made.count(64 * 64 * 2) == 1


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_what_is_computed_on_the_cpu_is_what_pytorch_computes(device):
    def computing(q, k, v):
        x = torch.full((1, 2, 2), 3.0)
        assert (x * 2.0).tolist() == [[[6.0, 6.0], [6.0, 6.0]]]
        assert (x / 2).tolist() == [[[1.5, 1.5], [1.5, 1.5]]]
        assert torch.bmm(x, x).tolist() == [[[18.0, 18.0], [18.0, 18.0]]]
        noise = torch.randn(1000), torch.randn_like(x.expand(1000, 2, 2))
        assert all(0.9 < z.std().item() < 1.1 for z in noise)
        return q * x[0, 0, 0]

    trace(computing, W, device=device)


def test_on_a_cpu_what_does_not_come_from_q_has_values():
    def up_to_half(q, k, v):
        n = int(torch.tensor([k.shape[2] // 2], device=q.device).item())
        return attend(q, k[:, :, :n], v[:, :, :n])

    assert trace(up_to_half, W, device="cpu").peak_bytes > 0
    with pytest.raises(CannotFollow, match="item"):
        trace(lambda q, k, v: q * q.max().item(), W, device="cpu")


@pytest.mark.parametrize("move", [torch.Tensor.cuda, lambda x: x.cuda(0), lambda x: x.to("cuda")])
def test_a_tensor_can_be_moved_to_the_gpu(move):
    t = trace(lambda q, k, v: attend(q, k, v) + move(torch.ones(64, dtype=q.dtype)), W)
    assert [e.bytes for e in t.timeline].count(128) == 1
    assert t.parameter_bytes == 0


def test_an_index_on_the_cpu_is_copied():
    t = trace(lambda q, k, v: q[:, :, torch.arange(512)], W)
    assert [e.bytes for e in t.timeline].count(8 * 512) == 1


def test_attention_over_no_keys_is_followed():
    t = trace(lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :, :0], v[:, :, :0]), W)
    assert t.peak_bytes >= 4 * X


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda q, k, v: q.new_empty(16).resize_(1000), "changes its size"),
        (lambda q, k, v: q if torch.allclose(q, k) else k, "values"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_can_t_be_followed_is_said_so(program, message):
    with pytest.raises(CannotFollow, match=message):
        trace(program, W)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused():
    with pytest.raises(CannotFollow, match="TorchScript"):
        trace(torch.jit.script(attend), W)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_recurrent_net_warns_by_name():
    with torch.device("meta"):
        net = nn.LSTM(64, 64, batch_first=True, dtype=W.dtype)
    with pytest.warns(UserWarning, match="an LSTM is cuDNN's"):
        trace(lambda q, k, v: net(q[:, 0])[0], W)


def test_a_mode_of_the_program_has_pytorch_add_a_mask_out_of_place():
    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            return op(*args, **(kwargs or {}))

    def causal(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def watched(q, k, v):
        with Watching():
            return causal(q, k, v)

    with sdpa_kernel(SDPBackend.MATH):
        extra = len(trace(watched, W).timeline) - len(trace(causal, W).timeline)
    assert extra == 2  # one block more: attn.add in _scaled_dot_product_attention_math


def test_on_a_cpu_what_has_values_does_not_pass_a_gradient_on():
    def caching(make):
        def program(q, k, v):
            cache = make(q, k.shape)
            cache[:, :, :] = k
            return attend(q, cache, v)

        return program

    filled = caching(lambda q, shape: torch.ones(shape, dtype=q.dtype, device=q.device))
    with pytest.raises(CannotFollow, match=r"new_zeros.*line \d+: cache\[:, :, :\] = k"):
        trace(filled, W, training=True, device="cpu")
    # What is made to be written into stands for what has none.
    zeros = caching(lambda q, shape: torch.zeros(shape, dtype=q.dtype, device=q.device))
    like = caching(lambda q, shape: q.new_zeros(shape))
    w = replace(W, seq_len=64, dtype=torch.float32)
    peaks = {trace(f, w, training=True, device="cpu").peak_bytes for f in (zeros, like)}
    assert peaks == {measure(like, w, training=True, device="cpu").peak_bytes}


def test_operations_without_a_result_are_followed():
    def scaled(q, k, v):
        torch._foreach_mul_([q, k], 2.0)
        return attend(q, k, v)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert trace(scaled, W).peak_bytes == trace(attend, W).peak_bytes
