"""The rules of kernels, against sizes of blocks that were recorded on an H100 with torch 2.11."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnmem.prediction import kernels
from attnmem.prediction.kernels import kernel_of, measured, unknown
from attnmem.prediction.kernels.reductions import blocks, loops
from attnmem.prediction.kernels.rules import RULES
from attnmem.prediction.kernels.sorting import UNIQUE_TILE, radix_sort, scan
from attnmem.prediction.shapes import DENSE, ITERATED, SHAPES

aten = torch.ops.aten
F16, BF16, F32, I64, BOOL = torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.bool


def empty(shape, dtype=F16, stride=None):
    if stride:
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
    return torch.empty(shape, dtype=dtype, device="meta")


def kernel(op, *args, **kwargs):
    """The kernel of a call on tensors without data, on CUDA."""
    out = op(*args, **kwargs)
    outputs = [x for x in (out if isinstance(out, tuple | list) else [out]) if x is not None]
    found = torch.utils._pytree.tree_leaves((args, kwargs))
    inputs = [x for x in found if isinstance(x, torch.Tensor)]
    return kernel_of(op, args, inputs, outputs, "cuda")


def buffers(op, *args, **kwargs):
    """The sizes of the kernel's own buffers, in order."""
    return [x[1] for x in kernel(op, *args, **kwargs).actions if isinstance(x, tuple)]


@pytest.mark.parametrize(
    ("op", "shape", "dtype", "dims", "sizes"),
    [
        (aten.sum.dim_IntList, (1024, 256), F16, [0], [2097152, 8]),
        (aten.sum.dim_IntList, (1024, 768), F16, [0], [6291456, 24]),
        (aten.sum.dim_IntList, (1024, 256), BF16, [0], [2097152, 8]),
        (aten.sum.dim_IntList, (1024, 256), F32, [0], [2097152, 8]),
        (aten.sum.dim_IntList, (1024, 768), F32, [0], [6291456, 24]),
        (aten.amax.default, (2, 4, 512, 266), F32, [-1, -2], [544, 32]),
        (aten.amax.default, (3, 8, 256, 621), F32, [-1, -2], [1920, 96]),
        (aten.sum.dim_IntList, (2, 4, 512, 64), F16, [-1], []),
    ],
)
def test_reductions_keep_the_results_of_blocks(op, shape, dtype, dims, sizes):
    assert buffers(op, empty(shape, dtype), dims, True) == sizes


@pytest.mark.parametrize(
    ("op", "args", "sizes"),
    [
        # Sums cast what they do not add in its own dtype, but not 16-bit numbers to 32 bit.
        (aten.sum.default, (empty((5, 5, 5), BOOL),), [1000]),
        (aten.any.default, (empty((1,)),), [1]),
        (aten.any.default, (empty((1,), BOOL),), []),
        (aten.pow.Scalar, (2.0, empty((4,))), [8]),
        (aten.pow.Scalar, (1, empty((4,))), []),
        (aten.roll.default, (empty((3, 5)), [1, 2], [0, 1]), [30]),
        (aten.roll.default, (empty((3, 5)), [1], [0]), []),
        (aten.logsumexp.default, (empty(()), [0]), [2, 2, 1, 2]),
        (aten.cumsum.default, (empty((5,), F32), 0), [1023]),
        (aten.cumsum.default, (empty((5,), F16), 0), [1279]),
        (aten.cumsum.default, (empty((5, 5), F16), 0), []),
        (aten.cumprod.default, (empty((5, 4), F16, (1, 0)), 0), [40]),
        (aten.sort.default, (empty((5, 5)),), [40]),
        (aten.unfold_backward.default, (empty((4, 2)), [5], 0, 2, 1), [40]),
        (aten.topk.default, (empty((2, 512)), 6), []),
        (
            aten.topk.default,
            (empty((4096, 512)), 8),
            [8192, 32768, 32768, 2097152, 4194304, 16384, 16384, 1279, 1279],
        ),
    ],
)
def test_small_operations(op, args, sizes):
    assert buffers(op, *args) == sizes


def test_cub_sorts_and_scans_with_storage_of_its_own():
    assert radix_sort(262144, bits=10) == 4257279
    assert radix_sort(262144) == 4269567
    assert radix_sort(65536) == 1080831
    assert radix_sort(110889) == 1817087
    assert radix_sort(2000) == 1
    assert [scan(n, UNIQUE_TILE, 16) for n in (65536, 110889, 262144)] == [1279, 1535, 2047]


def test_embedding_backward_sorts_many_indices():
    args = 41, -1, False
    n = empty((2, 256, 128), I64)
    sizes = buffers(aten.embedding_dense_backward.default, empty((*n.shape, 128), BF16), n, *args)
    sort = [524288, 524288, 524288, 1080831]
    segments = [524288, 8, 524288, 1279, 328, 328, 1279, 8, 52752, 52752, 20992]
    assert sizes == sort + segments
    few = empty((2, 512), I64)
    assert not buffers(aten.embedding_dense_backward.default, empty((2, 512, 64)), few, *args)


def test_indexing_gives_its_indices_the_same_strides():
    columns, rows = empty((512, 35), I64), empty((512, 1), I64)
    assert buffers(aten.index.Tensor, empty((512, 512)), [rows, columns]) == [143360]
    assert buffers(aten.index.Tensor, empty((512, 512)), [columns, columns]) == []
    place = empty((512, 512), I64)
    sizes = buffers(
        aten._index_put_impl_.default, empty((1023, 4)), [place], empty((512, 512, 4)), True, True
    )
    assert sizes == [2097152] * 5 + [4257279]
    on_the_cpu = torch.zeros(512, dtype=I64)  # its way to a linear index is there, too
    args = empty((63, 64)), [on_the_cpu], empty((512, 64)), True, True
    found = kernel_of(aten._index_put_impl_.default, args, [], [args[0]], "cuda")
    assert [x[1] for x in found.actions if isinstance(x, tuple)] == [4096, 4096, 4096, 4096, 1]


def image(batch, channels, rows, columns, dtype=F16):
    """An image with the numbers of a pixel beside each other."""
    pixels = rows * columns
    stride = (channels * pixels, 1, columns * channels, channels)
    return empty((batch, channels, rows, columns), dtype, stride)


SIGNAL = empty((2, 4, 64, 512), F32, (131072, 32768, 1, 64))
SPECTRUM = empty((2, 256, 513), torch.complex64)
NO_BIAS = None, [1], [1], [1], False, [0]


# As in lists of events that were recorded on an H200, torch 2.11.
@pytest.mark.parametrize(
    ("op", "args", "sizes"),
    [
        (
            aten.im2col.default,
            (image(2, 256, 16, 32), [3, 3], [1, 1], [1, 1], [2, 2]),
            [524288] * 2,
        ),
        (aten.im2col.default, (empty((2, 8, 4, 4)), [1, 1], [1, 1], [0, 0], [1, 1]), []),
        (
            aten.upsample_bicubic2d_backward.default,
            (image(1, 256, 16, 32, F32), [16, 32], [1, 256, 7, 7], False),
            [524288],
        ),
        (
            aten.upsample_linear1d_backward.default,
            (empty((1, 64, 63), F16, (4032, 1, 64)), [63], [1, 64, 61], False),
            [8064],
        ),
        (aten.avg_pool2d.default, (image(2, 256, 16, 32), [2, 2]), []),
        (aten.avg_pool2d.default, (image(2, 256, 16, 32)[:, :, ::2], [2, 2]), [262144]),
        (aten.bernoulli.default, (empty((2, 4, 512, 512)),), [8388608]),
        (aten.bernoulli.default, (empty((2, 4, 512, 512), F32),), []),
        (aten._log_softmax.default, (empty((4, 3001), F32, (72024, 1)), 1, False), [48016]),
        (aten.abs.default, (empty((2, 201, 50), torch.complex64),), [160800]),
        (aten.abs.default, (empty((2, 201, 50)),), []),
        (aten._fft_c2r.default, (SPECTRUM, [2], 2, 1024), [2101248]),
        (aten._fft_r2c.default, (SIGNAL, [3], 0, True), [1048576]),
        (aten._fft_r2c.default, (SIGNAL.contiguous(), [3], 0, True), []),
        (
            aten.grid_sampler_2d.default,
            (empty((2, 4, 31, 63), F16, (0, 1953, 63, 1)), empty((2, 512, 128, 2)), 0, 0, True),
            [31248],
        ),
        (
            aten.convolution.default,
            (empty((2, 512, 256)).mT, empty((256, 1, 3)), *NO_BIAS, 256),
            [524288],
        ),
        (
            aten.bmm.default,
            (empty((4, 2, 64), F16, (1, 256, 4)), empty((4, 64, 64), F16, (1, 256, 4))),
            [32768, 1024],
        ),
        # A gradient of a sum is one number for all, and every second column is not dense.
        (aten.mm.default, (empty((256, 64), F16, (0, 0)), empty((64, 32))), [32768]),
        (aten.mm.default, (empty((256, 128))[:, ::2], empty((64, 64)).T[:, :32]), [32768]),
    ],
)
@pytest.mark.filterwarnings("ignore:aten.*(cuFFT|cuDNN)")
def test_what_a_kernel_can_t_read_is_copied(op, args, sizes):
    assert buffers(op, *args) == sizes


@pytest.mark.parametrize(
    ("loss", "sizes"),
    [
        (aten.mse_loss.default, [1048576, 128, 4]),
        (aten.smooth_l1_loss.default, [1048576, 128, 4]),
        (aten.huber_loss.default, [1048576, 128, 4]),
        (aten.binary_cross_entropy_with_logits.default, [1048576, 1048576, 128, 4]),
    ],
)
def test_losses_are_made_for_each_element_first(loss, sizes):
    x = empty((4, 4, 128, 128), F32)
    found = kernel(loss, x, x)
    assert [item[1] for item in found.actions if isinstance(item, tuple)] == sizes
    # Two of them are one number in the memory of all.
    large = loss in (aten.mse_loss.default, aten.smooth_l1_loss.default)
    assert found.outputs[0].untyped_storage().nbytes() == (1048576 if large else 4)
    per_element = (None, None, 0) if "entropy" in str(loss) else (0,)
    assert kernel(loss, x, x, *per_element).outputs[0].shape == x.shape


def test_means_by_index_count_first():
    x, src, index = empty((4, 8), F32), empty((6, 8), F32), empty((6, 8), I64)
    assert buffers(aten.scatter_reduce.two, x, 0, index, src, "amax") == []
    assert buffers(aten.scatter_reduce.two, x, 0, index, src, "mean") == [192, 128, 32]


def test_a_smaller_image_keeps_the_memory_of_its_windows():
    windows = empty((2, 2304, 128))
    out = kernel(aten.col2im.default, windows, [16, 32], [3, 3], [1, 1], [1, 1], [2, 2]).outputs[0]
    assert out.shape == (2, 256, 16, 32)
    assert out.untyped_storage().nbytes() == 2 * windows.numel()


@pytest.mark.parametrize("op", ITERATED + DENSE, ids=str)
@pytest.mark.parametrize("stride", [(20, 5, 1), (20, 1, 4), (1, 15, 3)])
def test_results_have_the_strides_of_the_kernels(op, stride):
    x, y = torch.empty_strided((3, 4, 5), stride).fill_(0.5), torch.full((3, 4, 5), 0.5)
    tensors = [y, y, x]
    required = [a for a in op._schema.arguments if a.default_value is None and not a.kwarg_only]
    args = [
        tensors.pop()
        if str(a.type) == "Tensor"
        else F32
        if a.name == "input_dtype"
        else {"bool": False, "int": 1, "float": 1.0, "number": 2}.get(str(a.type))
        for a in required
    ]
    without = torch.utils._pytree.tree_map_only(torch.Tensor, lambda z: z.to("meta"), args)
    assert SHAPES[op](*without).stride() == op(*args).stride()


def test_a_batch_s_norm_on_images_warns_of_cudnn():
    few = empty((256,), F32)
    args = few, few, few, few, True, 0.1, 1e-5
    with pytest.warns(UserWarning, match="native_batch_norm.*cuDNN"):
        kernel(aten.native_batch_norm.default, empty((2, 256, 512)), *args)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel(aten.native_batch_norm.default, empty((64, 256)), *args)


def test_norms_sum_many_short_rows_in_blocks():
    grad = empty((2, 512, 512, 4), stride=(1048576, 512, 1, 262144))
    x, mean, weight = empty((2, 512, 512, 4)), empty((2, 512, 512, 1), F32), empty((4,))
    args = grad, x, [4], mean, mean, weight, weight, [True] * 3
    sizes = buffers(aten.native_layer_norm_backward.default, *args)
    assert sizes == [4194304, 131072, 131072, 8, 8]
    x, mean, weight = empty((262144, 8)), empty((262144, 1), F32), empty((8,))
    args = x, x, [8], mean, mean, weight, weight, [False, True, True]  # of what needs no gradient
    assert buffers(aten.native_layer_norm_backward.default, *args) == [131072, 131072, 16, 16]
    group = empty((1, 6, 3)), empty((6,)), empty((6,)), 1, 6, 3, 2, 1e-5
    assert buffers(aten.native_group_norm.default, *group) == [24, 24]


@st.composite
def reductions(draw):
    shape = draw(st.lists(st.integers(0, 70) | st.sampled_from([1, 512, 4096]), max_size=4))
    dtype = draw(st.sampled_from([F16, BF16, F32, torch.float64]))
    order = draw(st.permutations(range(len(shape))))
    x = empty([shape[at] for at in order], dtype).permute(
        [order.index(i) for i in range(len(order))]
    )
    if shape and draw(st.booleans()):
        x = x[..., : max(1, shape[-1] // 2)]
    if draw(st.booleans()):
        x = x.unsqueeze(0).expand(3, *x.shape)
    dims = draw(st.lists(st.integers(0, max(0, x.ndim - 1)), unique=True)) if x.ndim else []
    return x, dims, draw(st.booleans())


@given(reductions())
def test_a_rule_has_an_answer_for_every_reduction(drawn):
    x, dims, keepdim = drawn
    ops = [
        aten.sum.dim_IntList,
        aten.mean.dim,
        aten.var.correction,
        aten.linalg_vector_norm.default,
    ]
    for op in ops if x.numel() else ops[:2]:
        args = (x, 2, dims, keepdim) if "norm" in str(op) else (x, dims)
        kwargs = {} if "norm" in str(op) else {"keepdim": keepdim}
        assert all(size > 0 for size in buffers(op, *args, **kwargs))


@given(reductions())
def test_loops_keep_every_number_and_put_what_is_reduced_first(drawn):
    x, dims, keepdim = drawn
    dims = dims or list(range(x.ndim))
    out = torch.sum(x, dims, keepdim) if dims else x.clone()
    it = loops(x, out, dims)
    assert torch.Size(it.sizes).numel() == x.numel()
    assert all(not stride for stride in it.output[: it.reduced])
    if x.numel():
        assert it.outputs == out.numel()
        size, counters = blocks(it, x.element_size(), 4, 4)
        assert bool(size) == bool(counters)


def test_long_sums_are_cut_into_parts_of_32_bit_indices():
    low = buffers(aten.sum.dim_IntList, empty((2**16, 2**16)), [0])
    assert low[0] == 4 * 2**16  # accumulated between the parts
    assert len(low[1:]) % 2 == 0


@pytest.mark.parametrize(
    "op", [aten.add.Tensor, aten.mm.default, aten.view.default, aten.sum.default]
)
def test_what_is_known_does_not_warn(op):
    assert unknown(op) == ""


def test_an_operation_without_a_rule_warns_by_its_name():
    with pytest.warns(UserWarning, match=r"aten.mode.default allocates up to [\d,]+ B"):
        kernel_of(aten.mode.default, (), [], [], "cuda")
    with pytest.warns(UserWarning, match=r"aten.linalg_ldl_solve.out was not looked at"):
        kernel_of(aten.linalg_ldl_solve.out, (), [], [], "cuda")
    with pytest.warns(UserWarning, match=r"aten.sort.default allocates buffers"):
        kernel(aten.sort.default, empty((5000,)))
    with pytest.warns(UserWarning, match=r"aten.convolution.default allocates up to [\d,]+ B"):
        kernel_of(aten.convolution.default, (), [], [], "cpu")


def test_no_operation_is_both_measured_and_ruled():
    assert len(measured()) > 400
    assert not measured().keys() & {str(op) for op in RULES["cuda"]}


def test_a_kernel_that_copies_what_is_not_contiguous_warns_there_alone(monkeypatch):
    assert len(measured("cpu")) > 300
    pad = aten.reflection_pad1d.default
    monkeypatch.setattr(kernels, "measured", lambda device: {str(pad): (0, 72)})
    assert unknown.__wrapped__(pad, "cpu", contiguous=True) == ""
    assert "up to 72 B" in unknown.__wrapped__(pad, "cpu", contiguous=False)
