"""What sorting, gathering, scattering and indexing allocate on a CPU beside their outputs.

Seen beside the allocator's own events on torch 2.13. Places are below aten/src/ATen/native;
where nothing is said, TensorAdvancedIndexing.cpp.
"""

import torch

from attnmem.prediction.kernels.reductions import LOW
from attnmem.prediction.kernels.rules import Kernel, rule
from attnmem.prediction.kernels.sorting import becomes_masked_fill, masks, sorted_size

aten = torch.ops.aten

ROWS = 16  # threshold in can_use_expanded_index_path


@rule("cpu", aten.gather.default)
def gather(kernel: Kernel) -> None:
    """gather_out: whole rows are copied."""
    x, dim, index = kernel.args[:3]
    out = kernel.outputs[0]
    kernel.allocate(0)
    if not _of_rows(out, dim, index, x):
        _results(kernel, index)


@rule("cpu", aten.scatter.src, aten.scatter.value, aten.scatter_.src, aten.scatter_.value)
def scatter(kernel: Kernel) -> None:
    """scatter_impl."""
    kernel.allocate(0)
    _results(kernel, kernel.args[2])


@rule("cpu", aten.scatter_add.default, aten.scatter_add_.default)
def scatter_add(kernel: Kernel) -> None:
    """scatter_add."""
    kernel.allocate(0)
    _add(kernel, *kernel.args[1:4])


@rule("cpu", aten.scatter_reduce.two, aten.scatter_reduce_.two)
def scatter_reduce(kernel: Kernel) -> None:
    """scatter_reduce_two: a mean counts what it adds."""
    dim, index, source, reduction = kernel.args[1:5]
    out = kernel.outputs[0]
    kernel.allocate(0)
    if _add(kernel, dim, index, source) or reduction != "mean":
        return
    kernel.buffer("ones", source.numel() * source.itemsize)
    kernel.buffer("counts", out.numel() * out.itemsize)
    _add(kernel, dim, index, torch.empty_like(source, device="meta"))
    kernel.buffer("zero", 8)
    kernel.buffer("cast zero", out.itemsize if out.dtype != torch.int64 else 0)
    kernel.buffer("counts of zero", out.numel())


@rule("cpu", aten.index_add.default, aten.index_add_.default)
def index_add(kernel: Kernel) -> None:
    """index_add_cpu_out: along the first or the last dimension it scatters."""
    x, dim, index, source = kernel.args[:4]
    kernel.allocate(0)
    kernel.contiguous(index)
    scatters = x.ndim > 1 and dim % x.ndim in (0, x.ndim - 1) and index.dtype == torch.int64
    if not scatters or kernel.kwargs.get("alpha", 1) != 1:
        return
    strides = [int(at == dim % x.ndim) for at in range(x.ndim)]
    sizes = source.shape  # apart from this dimension they are those of the result
    rows = torch.empty(0, dtype=torch.int64, device="meta").as_strided(sizes, strides)
    _add(kernel, dim % x.ndim, rows, source)


def _add(kernel: Kernel, dim: int, index: torch.Tensor, source: torch.Tensor) -> bool:
    """Whether it is by whole rows, of which each thread makes one at a time, in 32 bit."""
    out = kernel.outputs[0]
    by_rows = _of_rows(out, dim, index, source) and index[0].numel() >= ROWS
    if not by_rows:
        _results(kernel, index)
    elif out.dtype in LOW:
        numbers = torch.get_num_threads() * out[0].numel()
        kernel.buffer("rows in 32 bit", 4 * numbers)
    return by_rows


def _results(kernel: Kernel, index: torch.Tensor) -> None:
    """create_acc_buffer, cpu/ScatterGatherKernel.cpp: results in 16 bit are made in 32."""
    if not index.numel():
        return
    out = kernel.outputs[0]
    labels = []
    if index.dtype == torch.int32:
        labels.append("index in 64 bit")
        kernel.buffer(labels[-1], 8 * index.numel())
    if out.dtype in LOW:
        labels.append("results in 32 bit")
        kernel.buffer(labels[-1], 4 * out.numel())
    kernel.free(*labels)


def _of_rows(out: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor) -> bool:
    """can_use_expanded_index_path: an index that is the same for all numbers of a row."""
    if not (out.is_floating_point() and index.numel() and index.ndim and dim % index.ndim == 0):
        return False
    repeats = all(
        stride == 0 or (stride == 1 and size == 1)
        for size, stride in zip(index.shape[1:], index.stride()[1:], strict=True)
    )
    whole = source.shape[1:] == index.shape[1:]
    rows = index.stride(0) == 1 and repeats and whole
    return rows and source.is_contiguous() and out.is_contiguous()


@rule("cpu", aten.index.Tensor, aten._unsafe_index.Tensor)
@rule("cpu", aten.index_put.default, aten.index_put_.default)
@rule("cpu", aten._unsafe_index_put.default, aten._index_put_impl_.default)
def index(kernel: Kernel) -> None:
    """make_info."""
    if becomes_masked_fill(kernel):
        kernel.allocate_outputs()
        return
    for x in kernel.args[1]:
        if x is not None and x.dtype == torch.int32:
            kernel.buffer("index in 64 bit", 8 * x.numel())
    kernel.allocate_outputs()
    masks(kernel)


@rule("cpu", aten.index_select.default)
def index_select(kernel: Kernel) -> None:
    """``index_select_out_cpu_``: along the second dimension, what is not contiguous is copied."""
    x, dim, index = kernel.args
    kernel.allocate(0)
    kernel.contiguous(index)
    if x.ndim > 1 and dim % x.ndim == 1 and index.numel() and x.numel():
        kernel.contiguous(x)


@rule("cpu", aten.embedding.default)
def embedding(kernel: Kernel) -> None:
    """embedding_symint, Embedding.cpp: selects rows by indices in one row."""
    kernel.allocate(0)
    kernel.contiguous(kernel.args[1])


@rule("cpu", aten.embedding_dense_backward.default)
def embedding_backward(kernel: Kernel) -> None:
    """embedding_dense_backward_cpu, Embedding.cpp."""
    grad, indices = kernel.inputs[:2]
    kernel.contiguous(indices, grad)
    kernel.allocate(0)


@rule("cpu", aten.sort.default, aten.sort.stable)
def sort(kernel: Kernel) -> None:
    """_fill_indices, cpu/SortingKernel.cpp. What it sorts in is not the allocator's."""
    kernel.allocate_outputs()
    if kernel.inputs[0].ndim:
        kernel.buffer("indices", 8 * sorted_size(kernel))


@rule("cpu", aten.kthvalue.default)
def kthvalue(kernel: Kernel) -> None:
    """kthvalue_out_impl_cpu, Sorting.cpp: a copy of all numbers is sorted in part."""
    x = kernel.inputs[0]
    kernel.allocate_outputs()
    if x.ndim:
        kernel.buffer("values", x.numel() * x.itemsize)
        kernel.buffer("indices", 8 * x.numel())
