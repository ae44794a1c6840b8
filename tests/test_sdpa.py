"""The kernel that attention takes: the rules one by one, and against PyTorch's own choice."""

import functools
import itertools
import json
import re
import warnings
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from typer.testing import CliRunner

from attnmem import Workload, measure, trace, which_kernel
from attnmem.__main__ import app
from attnmem.comparison.choices import CHOICES, load_choices, peaks
from attnmem.comparison.configurations import Configuration, configurations
from attnmem.prediction.choice import Choice, assuming, choose, kernel_for
from attnmem.prediction.obstacles import KERNELS, NEWEST, Call, Operand
from attnmem.prediction.sdpa import attention
from attnmem.prediction.work import step

W = Workload(batch=2, heads=4, seq_len=512, head_dim=64, dtype=torch.float16)
CONFIGURATIONS = configurations()
A100, HOPPER, B200, L4, T4, V100, PASCAL = (8, 0), (9, 0), (10, 0), (8, 9), (7, 5), (7, 0), (6, 0)


def new(*shape, dtype=torch.float16, grad=False):
    return Operand.new(shape, dtype, grad)


def call(q=(2, 8, 128, 64), k=None, v=None, dtype=torch.float16, grad=False, **fields):
    k = k or q
    q, k, v = (new(*shape, dtype=dtype, grad=grad) for shape in (q, k, v or k))
    return Call(q=q, k=k, v=v, **fields)


def dims(d, d_v=None):
    return {"q": (2, 8, 128, d), "v": (2, 8, 128, d_v or d)}


COLUMNS = replace(new(128, 128, dtype=torch.bool), stride=(1, 128))


@pytest.mark.parametrize(
    ("of", "kernel", "why"),
    [
        # The order of priority.
        (call(), "cudnn", {"flash": "cudnn comes before it"}),
        (call(capability=B200), "cudnn", {}),
        (call(capability=(10, 1), release=(2, 11)), "flash", {}),
        (call(capability=(10, 1), release=(2, 13)), "cudnn", {}),
        (call(cudnn=91500), "flash", {"cudnn": "flash comes before it"}),
        (call(capability=A100), "flash", {"cudnn": "flash comes before it"}),
        (call(priority=("efficient", "flash", "cudnn", "math")), "efficient", {}),
        (call(priority=("flash", "efficient", "math", "cudnn")), "flash", {}),
        (call(enabled=("flash", "math")), "flash", {"cudnn": "switched off"}),
        (call(enabled=()), None, {"math": "switched off"}),
        # The dtype and the GPU.
        (call(dtype=torch.float32), "efficient", {"flash": "float32: it takes float16"}),
        (call(dtype=torch.float64), "math", {"efficient": "float64: it takes"}),
        (call(dtype=torch.bfloat16, capability=T4), "math", {"efficient": "bfloat16"}),
        (call(capability=T4), "efficient", {"flash": r"capability 7\.5: it takes 8\.0 to 12\.1"}),
        (call(capability=(13, 0)), "math", {"cudnn": r"13\.0", "efficient": r"13\.0"}),
        # Head dimensions.
        (call(**dims(256)), "cudnn", {}),
        (call(**dims(256), capability=B200), "flash", {"cudnn": "head_dim 256 is over 128"}),
        (call(**dims(192, 128), capability=B200), "cudnn", {"flash": "head_dim 192 of Q"}),
        (call(**dims(192, 128), capability=B200, cudnn=91002), "efficient", {}),
        (call(**dims(72, 60)), "math", {"cudnn": "head_dim 60 is no multiple of 8"}),
        (call(**dims(33)), "flash", {"efficient": "head_dim 33 is no multiple of 8"}),
        (call(**dims(320)), "efficient", {"flash": "head_dim 320 is over 256"}),
        (call(**dims(36), dtype=torch.float32), "efficient", {}),
        (call(**dims(33), dtype=torch.float32), "math", {"efficient": "multiple of 4"}),
        (call(**dims(33), dtype=torch.float32, capability=V100), "efficient", {}),
        (call(**dims(33), capability=V100), "math", {"efficient": "multiple of 8"}),
        (call(**dims(33), capability=PASCAL), "efficient", {}),
        (call(**dims(64, 128)), "cudnn", {"flash": "head_dim 64 of Q, 64 of K and 128 of V"}),
        (call(**dims(64, 128), capability=A100), "efficient", {}),
        (call(**dims(200), grad=True, training=True, capability=L4), "efficient", {"flash": "8.9"}),
        (call(**dims(256), grad=True, training=True, capability=L4), "flash", {}),
        (call(**dims(200), grad=True, capability=L4), "flash", {}),
        # Heads and sequences.
        (call(k=(2, 1, 128, 64)), "math", {"flash": "K has 1 head for 8 of Q without enable_gqa"}),
        (call(k=(2, 2, 128, 64), enable_gqa=True), "cudnn", {"efficient": "2 heads .* repeat K"}),
        (call(k=(2, 2, 128, 64), enable_gqa=True, capability=A100), "flash", {}),
        (
            call(k=(2, 4, 128, 64), v=(2, 2, 128, 64), enable_gqa=True),
            "cudnn",
            {"flash": "as many"},
        ),
        (call(k=(2, 3, 128, 64), enable_gqa=True), "math", {"cudnn": "a number that divides"}),
        (
            call(k=(2, 2, 128, 64), enable_gqa=True, dtype=torch.float32),
            "math",
            {"efficient": "repeat K and V"},
        ),
        (
            call(q=(2, 8, 9, 320), k=(2, 2, 9, 320), enable_gqa=True),
            "math",
            {"flash": "over 256", "efficient": "repeat K and V"},
        ),
        (call(k=(1, 8, 128, 64)), "math", {"flash": "2 sequences of Q, 1 of K"}),
        (call(q=(65536, 1, 2, 8), release=(2, 12)), "cudnn", {}),
        (call(q=(65536, 1, 2, 8), release=(2, 13)), "flash", {"cudnn": "65,536 sequences"}),
        (call(q=(8, 128, 64)), "math", {"flash": r"3 dimensions: it takes 4"}),
        (call(q=(2, 2, 8, 128, 64)), "math", {"efficient": "5 dimensions"}),
        # Lengths, dropout, causality.
        (call(k=(2, 8, 1, 64)), "flash", {"cudnn": "1 key: it takes 2"}),
        (call(q=(2, 8, 0, 64), k=(2, 8, 4, 64)), "math", {"flash": "0 queries"}),
        (call(dropout=0.1, release=(2, 11)), "cudnn", {}),
        (call(dropout=0.1, release=(2, 12)), "flash", {"cudnn": "dropout 0.1 is no multiple"}),
        (call(dropout=0.25, cudnn=91300), "flash", {"cudnn": "none in version 91300"}),
        (call(q=(2, 8, 1, 64), k=(2, 8, 9, 64), dropout=0.25), "flash", {"cudnn": "1 query"}),
        (call(k=(2, 8, 64, 64), causal=True, cudnn=91500), "efficient", {"flash": "is_causal"}),
        (call(deterministic=True), "flash", {"cudnn": "deterministic"}),
        # Masks.
        (
            call(mask=new(128, 128, dtype=torch.bool)),
            "cudnn",
            {"flash": "takes no mask but is_causal"},
        ),
        (call(mask=new(8, 128, 128)), "efficient", {"cudnn": r"a mask \[8, 128, 128\]"}),
        (call(mask=new(128, 128, grad=True)), "efficient", {"cudnn": "the mask needs a gradient"}),
        (call(mask=COLUMNS), "math", {"efficient": "of the mask has another stride"}),
        # Memory.
        (
            replace(call(), q=replace(new(2, 8, 128, 64), stride=(65536, 8192, 1, 128))),
            "math",
            {"flash": r"contiguous\(\)"},
        ),
        (
            replace(call(dtype=torch.float32), v=replace(new(2, 8, 128, 64), dtype=torch.float32)),
            "efficient",
            {},
        ),
        (
            replace(
                call(dtype=torch.float32),
                k=replace(new(2, 8, 128, 64), dtype=torch.float32, offset=1),
            ),
            "math",
            {"efficient": r"clone\(\)"},
        ),
        # A CPU.
        (call(dtype=torch.float32, device="cpu"), "flash", {"cudnn": "for GPUs"}),
        (call(device="cpu", dropout=0.1), "math", {"flash": "dropout 0.1: it takes none"}),
        (call(device="cpu", k=(2, 2, 128, 64), enable_gqa=True), "flash", {}),
        (call(device="cpu", mask=COLUMNS), "flash", {}),
        (call(device="cpu", **dims(64, 32)), "math", {"flash": "are not the same"}),
    ],
)
def test_each_rule_decides(of, kernel, why):
    choice = choose(of)
    assert choice.kernel == kernel
    for name, text in why.items():
        assert any(re.search(text, r) for r in choice.reasons[name])
    check(choice)


def check(choice: Choice):
    assert tuple(choice.reasons) == KERNELS
    assert all(bool(reasons) == (name != choice.kernel) for name, reasons in choice.reasons.items())
    assert choice.possible[:1] == ((choice.kernel,) if choice.kernel else ())
    lines = str(choice).splitlines()
    assert lines[0] == (f"{choice.kernel} is taken" if choice.kernel else "no kernel can be taken")
    assert len(lines) == 1 + sum(map(bool, choice.reasons.values())) + (
        choice.kernel in (None, "math")
    )


SIZES = st.sampled_from([1, 2, 3, 8, 33, 64, 72, 128, 192, 256, 320, 65536])
SHAPES = st.lists(st.sampled_from([0, *range(1, 9), 33, 64, 200]), min_size=2, max_size=5)
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
CAPABILITIES = st.tuples(st.integers(5, 13), st.integers(0, 9))


@st.composite
def workloads(draw):
    sizes = (draw(SIZES) for _ in range(4))
    return Workload(
        **dict(zip(("batch", "heads", "seq_len", "head_dim"), sizes, strict=True)),
        dtype=draw(DTYPES),
    )


@given(
    workloads(),
    st.fixed_dictionaries(
        {},
        optional={
            "kv_heads": st.integers(0, 9),
            "kv_len": SIZES,
            "value_dim": SIZES,
            "mask": st.sampled_from(["bool", "float", None]),
            "causal": st.booleans(),
            "dropout": st.sampled_from([0.0, 0.1, 0.25]),
            "enable_gqa": st.booleans(),
            "training": st.booleans(),
            "device": st.sampled_from(["cuda", "cpu"]),
            "capability": CAPABILITIES,
        },
    ),
)
@settings(max_examples=300)
def test_any_workload_has_a_choice_with_reasons(w, options):
    check(which_kernel(w, **options))


@given(
    st.tuples(SHAPES, SHAPES, SHAPES),
    DTYPES,
    st.none() | SHAPES,
    st.fixed_dictionaries(
        {},
        optional={
            "dropout_p": st.sampled_from([0.0, 0.1, 0.25]),
            "is_causal": st.booleans(),
            "enable_gqa": st.booleans(),
            "training": st.booleans(),
            "device": st.sampled_from(["cuda", "cpu"]),
            "capability": CAPABILITIES,
            "cudnn": st.sampled_from([90100, 91100, 91300, 91900]),
            "release": st.sampled_from([(2, 9), (2, 11), (2, 12), (2, 13)]),
            "enabled": st.sets(st.sampled_from(KERNELS)).map(tuple),
            "priority": st.permutations(KERNELS).map(tuple),
            "deterministic": st.booleans(),
        },
    ),
)
@settings(max_examples=300)
def test_any_tensors_have_a_choice_with_reasons(shapes, dtype, mask, options):
    inputs: Any = [torch.empty(shape, dtype=dtype, device="meta") for shape in shapes]
    mask = None if mask is None else torch.empty(mask, dtype=dtype, device="meta")
    q, k, v = inputs
    check(kernel_for(q, k, v, mask, **options))


def test_there_are_configurations_enough_for_every_kernel():
    assert len(CONFIGURATIONS) >= 240
    kernels = [configuration.predicted().kernel for configuration in CONFIGURATIONS]
    assert all(kernels.count(name) >= 40 for name in KERNELS)


def test_on_this_machine_s_cpu_the_choice_is_pytorch_s_own():
    for configuration in CONFIGURATIONS:
        expected = configuration.chosen("cpu")
        assert configuration.predicted("cpu").kernel == expected, configuration


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: path.stem)
def test_on_a_gpu_the_choice_was_pytorch_s_own(path):
    rows = load_choices(path)
    assert len(rows) >= 300
    assert not [call for call, chosen, predicted in rows if predicted.kernel != chosen]


RTX_5090, GB200 = (12, 0), (10, 0)
GROUPED = {"efficient": "repeat K and V"}


# What people met, and found the reason of by hand. Heads that a report does not tell are 8 and 2.
@pytest.mark.parametrize(
    ("sizes", "options", "circumstances", "why"),
    [
        pytest.param(
            {"heads": 8, "seq_len": 8192, "head_dim": 512, "dtype": "bfloat16"},
            {"kv_heads": 2},
            {},
            GROUPED | {"flash": "head_dim 512 is over 256", "cudnn": "head_dim 512 is over 256"},
            id="huggingface/transformers#46960",
        ),
        pytest.param(
            {"heads": 28, "seq_len": 16_000, "head_dim": 128, "dtype": "float16"},
            {"kv_heads": 4, "mask": "float", "capability": RTX_5090},
            {"release": (2, 9), "cudnn": 91300},
            GROUPED | {"flash": "no mask", "cudnn": "math comes before it"},
            id="Comfy-Org/ComfyUI#15135",
        ),
        pytest.param(
            {"heads": 8, "seq_len": 8192, "head_dim": 128, "dtype": "bfloat16"},
            {"kv_heads": 2, "mask": "bool", "capability": RTX_5090},
            {},
            GROUPED | {"flash": "no mask", "cudnn": "math comes before it"},
            id="huggingface/diffusers#14518",
        ),
        pytest.param(
            {"batch": 4, "heads": 32, "seq_len": 2048, "head_dim": 128, "dtype": "float16"},
            {"kv_heads": 1, "enable_gqa": False, "capability": GB200},
            {},
            GROUPED | {"flash": "without enable_gqa", "cudnn": "without enable_gqa"},
            id="pytorch/pytorch#191085",
        ),
        pytest.param(
            {"heads": 8, "seq_len": 3072, "head_dim": 64, "dtype": "float32"},
            {"kv_heads": 2, "capability": RTX_5090},
            {"release": (2, 11)},
            GROUPED | {"flash": "float32: it takes", "cudnn": "float32: it takes"},
            id="facebookresearch/sapiens2#3",
        ),
    ],
)
def test_reported_fall_backs_to_math_are_explained(sizes, options, circumstances, why):
    with assuming(**circumstances):
        choice = which_kernel(Workload(**{"batch": 1} | sizes), **options)
        repeated = which_kernel(
            Workload(**{"batch": 1} | sizes), **options | {"kv_heads": sizes["heads"]}
        )
    assert choice.kernel == "math"
    for name, text in why.items():
        assert any(text in reason for reason in choice.reasons[name])
    assert repeated.kernel != "math"  # as each report found out
    check(choice)


def test_a_configuration_survives_json():
    for configuration in CONFIGURATIONS[::20]:
        fields = json.loads(json.dumps(asdict(configuration)))
        assert Configuration.from_json(fields) == configuration


def test_sdpa_kernel_has_its_say():
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        assert which_kernel(W).kernel == "efficient"
        assert which_kernel(W, kv_heads=1).kernel is None
        assert "efficient" in str(which_kernel(W, kv_heads=1)).splitlines()[-1]
    order = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        assert which_kernel(W).possible == ("efficient", "math")
    assert which_kernel(W).kernel == "cudnn"


# As measured on an NVIDIA H100, torch 2.11.
def grouped(q, k, v):
    return F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True)


def wide_values(q, k, v):
    return F.scaled_dot_product_attention(q, k, torch.cat([v, v], dim=-1))


@pytest.mark.filterwarnings("ignore:.*takes cuDNN")
@pytest.mark.parametrize(
    ("program", "inference", "training"),
    [(grouped, 2097424, 5538064), (wide_values, 3670288, 7897360)],
)
def test_peaks_measured_on_a_gpu_were_predicted(program, inference, training):
    assert trace(program, W).peak_bytes == inference
    assert trace(program, W, training=True).peak_bytes == training


def test_every_kernel_that_can_be_taken_has_a_peak():
    assert peaks(W, kv_heads=1) == {"cudnn": 2097424, "flash": 4243480, "math": 25169924}
    assert list(peaks(W, mask="bool", training=True)) == ["cudnn", "efficient", "math"]
    x, rows = W.head_bytes, W.batch * W.heads * W.seq_len
    flash = peaks(W, kv_heads=1, training=True)["flash"]
    own = 5 * x + 4 * rows + 24  # Q, K, V, O and dO, and what forward keeps
    copies, every_head, accumulated = 2 * x, 2 * x, 4 * rows * (W.head_dim + 1)
    assert flash == own + copies + x + 2 * x // W.heads + accumulated + every_head


def masked(q, k, v, **options):
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    return F.scaled_dot_product_attention(q, k, v, mask, **options)


def biased(q, k, v):
    bias = torch.zeros(q.shape[-2], k.shape[-2], device=q.device, requires_grad=True)
    return F.scaled_dot_product_attention(q, k, v, bias)


@pytest.mark.parametrize(
    "program",
    [
        grouped,
        wide_values,
        biased,
        lambda q, k, v: masked(q, k[:, :2], v[:, :2], enable_gqa=True),
        lambda q, k, v: masked(q, k, v, dropout_p=0.1, scale=-0.3),
        lambda q, k, v: masked(q, k.mT.contiguous().mT[..., ::3, :], v[..., ::3, :]),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.ones_like(q @ k.mT).mT),
        lambda q, k, v: masked(q[0], k[0], v[0]),
        lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :1], v[:, :1]),
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k[:, :2], v[:, :1], None, 0.1, True, enable_gqa=True
        ),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_the_way_of_the_choice_is_traced_on_this_cpu(program, training):
    w = replace(W, seq_len=150, head_dim=16, dtype=torch.float32)
    m, t = measure(program, w, training, "cpu"), trace(program, w, training, "cpu")
    assert (t.peak_bytes, t.saved_bytes) == (m.peak_bytes, m.saved_bytes)


def test_a_gradient_of_a_mask_is_as_large_as_the_scores():
    def program(q, k, v):
        with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
            bias = torch.zeros(512, 512, dtype=q.dtype, device=q.device, requires_grad=True)
            return F.scaled_dot_product_attention(q, k, v, bias)

    sizes = trace(program, W, training=True).at_peak.values()
    assert W.score_bytes in sizes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q.float(), k, v), "one dtype"),
        (lambda q, k, v: (q[0, 0, 0], k, v), "2 dimensions"),
        (lambda q, k, v: (q, k, v, torch.ones(512, 512, dtype=torch.int32)), "attn_mask must be"),
        (lambda q, k, v: (q, k[:, :3], v[:, :3], None, 0.0, True), "must divide"),
    ],
)
def test_what_pytorch_refuses_is_refused(change, message):
    inputs: Any = (torch.empty(W.shape, dtype=W.dtype, device="meta") for _ in range(3))
    with pytest.raises(RuntimeError, match=message):
        functools.partial(attention, "cuda", enable_gqa=True)(*change(*inputs))


def test_the_capability_reaches_the_choice():
    inputs: Any = [torch.empty(W.shape, dtype=W.dtype, device="meta") for _ in range(3)]
    with pytest.warns(UserWarning, match="takes cuDNN on Hopper"):
        attention("cuda", *inputs)
    attention("cuda", *inputs, capability=A100)


def test_no_warning_where_the_version_of_cudnn_is_known_or_has_no_say():
    inputs: Any = [torch.empty(W.shape, dtype=W.dtype, device="meta") for _ in range(3)]
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with assuming(cudnn=91900):
            attention("cuda", *inputs)
        with sdpa_kernel(order, set_priority=True):
            attention("cuda", *inputs)


def test_a_newer_pytorch_than_the_rules_know_is_warned_of(monkeypatch):
    newer = NEWEST[0], NEWEST[1] + 1
    monkeypatch.setattr(torch, "__version__", "{}.{}.0+cpu".format(*newer))
    with pytest.warns(UserWarning, match=r"2\.14 may .* knows .* up to PyTorch 2\.13"):
        assert which_kernel(W).kernel == "cudnn"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose(call(release=NEWEST))
        with assuming(release=NEWEST):
            which_kernel(W)


def test_one_query_over_many_keys_is_warned_of():
    def decoding(q, k, v):
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return F.scaled_dot_product_attention(q[:, :, :1], k, v)

    x = W.head_bytes
    assert trace(decoding, W).peak_bytes == 3 * x + x // 512 + 16
    with pytest.warns(UserWarning, match="one query and more than 512 keys"):
        trace(decoding, replace(W, seq_len=513))


def command(*arguments):
    result = CliRunner().invoke(app, ["kernels", "--seq-len", "512", *arguments])
    return result.exit_code, result.output


def test_the_command_tells_the_kernel_the_reasons_and_the_peaks():
    given = ["--batch", "2", "--heads", "4", "--kv-heads", "1"]
    code, text = command(*given)
    assert code == 0
    assert text.startswith("cudnn is taken\n")
    assert "efficient is not taken: K has 1 head for 4 of Q" in text
    assert re.search(r"^flash +4,243,480$", text, re.MULTILINE)
    code, text = command(*given, "--json", "--capability", "8.0", "--mask", "float", "--training")
    answer = json.loads(text)
    assert (code, answer["kernel"], answer["reasons"]["math"]) == (0, "math", [])
    assert list(answer["peak_bytes"]) == ["math", "cudnn"]
    code, text = command("--value-dim", "128", "--causal", "--dropout", "0.1", "--json")
    assert list(json.loads(text)["peak_bytes"]) == ["efficient", "math"]
    assert command("--capability", "8")[0] == command("--mask", "int")[0] == 2


def test_the_work_of_grouped_heads_is_that_of_all_heads():
    def cut(groups):
        def program(q, k, v):
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                return F.scaled_dot_product_attention(
                    q, k[:, :groups], v[:, :groups], enable_gqa=True
                )

        return program

    flops = [
        [s.flops for s in trace(cut(groups), W, training=True).steps if s.matrix]
        for groups in (1, 2, 4)
    ]
    assert flops[0] == flops[1] == flops[2] != []


def test_the_work_of_a_convolution_counts_in_backward():
    backward = torch.ops.aten.convolution_backward.default
    x, kernel = torch.empty(2, 4, 16, 16), torch.empty(8, 4, 3, 3)
    grad = torch.empty(2, 8, 16, 16)
    product = 2 * grad.numel() * kernel[0].numel()
    for wanted in itertools.product([False, True], repeat=3):
        args = grad, x, kernel, [8], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
        outputs = [y for y in backward(*args) if y is not None]
        if outputs:
            made = step(backward, args, [grad, x, kernel], outputs, device="cuda", stage="backward")
            assert made.flops == sum(wanted[:2]) * product
