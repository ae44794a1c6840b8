"""What reductions on CUDA allocate: the results of blocks that share an output, and counters.

Places in PyTorch are below aten/src/ATen/native/cuda, where nothing else is said.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from attnmem.prediction.kernels.fused import MULTIPROCESSORS
from attnmem.prediction.kernels.rules import Kernel, rule
from attnmem.workload import ceil_div

aten = torch.ops.aten

THREADS = 2048  # of a multiprocessor: maxThreadsPerMultiProcessor
LOW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Loops:
    """A TensorIterator: a size for each loop, the fastest first, and the strides in bytes."""

    sizes: tuple[int, ...]
    output: tuple[int, ...]
    input: tuple[int, ...]
    offset: int = 0  # of the input, in elements

    @property
    def reduced(self) -> int:
        """num_reduce_dims: these loops come first."""
        return sum(stride == 0 for stride in self.output)

    @property
    def outputs(self) -> int:
        """num_output_elements."""
        pairs = zip(self.sizes, self.output, strict=True)
        return math.prod(size for size, stride in pairs if stride)

    def fits_32_bit(self) -> bool:
        """can_use_32bit_indexing, aten/src/ATen/TensorIterator.cpp."""
        ends = [
            1 + sum((size - 1) * stride for size, stride in zip(self.sizes, strides, strict=True))
            for strides in (self.output, self.input)
        ]
        return max(math.prod(self.sizes), *ends) <= 2**31 - 1

    def halves(self) -> tuple["Loops", "Loops"]:
        """get_dim_to_split and split, aten/src/ATen/TensorIterator.cpp."""
        extents = [
            (size - 1) * max(a, b)
            for size, a, b in zip(self.sizes, self.output, self.input, strict=True)
        ]
        at = max(range(len(extents)), key=lambda dim: (extents[dim], dim))
        first = self.sizes[at] // 2

        def narrow(size: int) -> Loops:
            return replace(self, sizes=(*self.sizes[:at], size, *self.sizes[at + 1 :]))

        return narrow(first), narrow(self.sizes[at] - first)


def loops(x: torch.Tensor, out: torch.Tensor, dims: Sequence[int]) -> Loops:
    """A reduction's iterator, after reorder_dimensions and coalesce_dimensions.

    make_reduction, ../ReduceOpsUtils.h; TensorIterator.cpp.
    """
    kept = [dim for dim in range(x.ndim) if dim not in dims]
    of_kept = kept if out.ndim == len(kept) else range(x.ndim)
    strides = dict(zip(of_kept, out.stride(), strict=True))
    writes = [
        0 if dim in dims and (x.shape[dim] != 1 or dim not in strides) else strides[dim]
        for dim in range(x.ndim)
    ]
    writes = [stride * out.element_size() for stride in writes]
    reads = [stride * x.element_size() for stride in x.stride()]
    order = _ordered(x.shape, writes, reads)
    rows: list[list[int]] = []
    for row in ([x.shape[dim], writes[dim], reads[dim]] for dim in order):
        last = rows[-1] if rows else None
        if last and last[0] == 1:
            rows[-1] = row
        elif last and (row[0] == 1 or all(last[0] * last[i] == row[i] for i in (1, 2))):
            last[0] *= row[0]
        else:
            rows.append(row)
    sizes, output, input = zip(*rows, strict=True) if rows else ((), (), ())
    return Loops(tuple(sizes), tuple(output), tuple(input), int(x.storage_offset()))


def _ordered(shape: Sequence[int], writes: Sequence[int], reads: Sequence[int]) -> list[int]:
    """Insertion sort of reorder_dimensions, where some pairs have no order."""

    def after(a: int, b: int) -> int:
        if (writes[a] == 0) != (writes[b] == 0):
            return 1 if writes[b] == 0 else -1
        for strides in (writes, reads):
            if strides[a] and strides[b]:
                if strides[a] != strides[b]:
                    return 1 if strides[a] > strides[b] else -1
                if shape[a] > shape[b]:
                    return 1
        return 0

    order = list(reversed(range(len(shape))))
    for i in range(1, len(order)):
        place = i
        for before in reversed(range(i)):
            comparison = after(order[before], order[place])
            if comparison > 0:
                order[before], order[place] = order[place], order[before]
                place = before
            elif comparison < 0:
                break
    return order


def _last_power(n: int) -> int:
    return 1 << (max(1, n).bit_length() - 1)


def blocks(it: Loops, itemsize: int, accumulator: int, vector: int) -> tuple[int, int]:
    """setReduceConfig, Reduce.cuh: global_memory_size and semaphore_size, in bytes.

    ``accumulator``: the bytes of its arg_t; ``vector``: its input_vec_size.
    """
    outputs = it.outputs
    inputs = math.prod(it.sizes) // outputs
    reduced = it.reduced
    by_input = reduced == len(it.sizes) or it.input[0] < it.input[reduced]
    across, down = (inputs, outputs) if by_input else (outputs, inputs)
    packed = 1  # output_vec_size
    if it.sizes and it.input[0 if by_input else reduced] == itemsize:
        if by_input and across >= 128 and reduced == 1:
            across //= vector
        elif not by_input:
            others = [stride // itemsize for i, stride in enumerate(it.input) if i != reduced]
            packed = math.gcd(4, it.offset, it.sizes[reduced], *others)
            across //= packed
    most = 512 // packed
    width, height = _last_power(min(across, most)), _last_power(min(down, most))
    block_width = min(width, 32)
    block_height = min(height, most // block_width)
    block_width = min(width, most // block_height)
    step_input, step_output = (block_width, 1) if by_input else (1, block_width)
    if not ceil_div(inputs, step_input) >= min(block_height * 16, 256):
        return 0, 0
    step_input *= block_height
    values = ceil_div(inputs, step_input)
    grid = ceil_div(outputs // packed, step_output)
    target = MULTIPROCESSORS * (THREADS // (block_width * block_height))
    if values < 256 or grid > target:
        return 0, 0
    parts = max(min(ceil_div(target, grid), ceil_div(values, 16)), ceil_div(values, 256))
    if parts <= 1:
        return 0, 0
    size = accumulator * outputs * parts
    return size * (1 if by_input else block_width * packed), 4 * grid


def reduce(
    kernel: Kernel,
    x: torch.Tensor,
    out: torch.Tensor,
    dims: Sequence[int],
    *,
    accumulator: int,
    vector: int = 4,
) -> None:
    """gpu_reduce_kernel, Reduce.cuh: what does not fit into 32-bit indices is cut in parts."""
    if not x.numel():
        return
    it = loops(x, out, dims)
    waiting = [it]
    low = x.dtype == out.dtype and x.dtype in LOW
    if not it.fits_32_bit() and accumulator > out.element_size() and (low or accumulator > 8):
        kernel.buffer("sums of the parts", out.numel() * accumulator)
    while waiting:
        part = waiting.pop()
        if not part.fits_32_bit():
            first, second = part.halves()
            waiting += [second, first]
            continue
        size, counters = blocks(part, x.element_size(), accumulator, vector)
        if size:
            kernel.buffer("results of blocks", size)
            kernel.buffer("counters of blocks", counters)
            kernel.free("counters of blocks", "results of blocks")


def dims_of(kernel: Kernel, place: int) -> list[int]:
    """The dimensions that are reduced: all, where none is given."""
    x = kernel.inputs[0]
    given = kernel.args[place] if len(kernel.args) > place else None
    if isinstance(given, int):
        given = [given]
    return sorted({dim % max(1, x.ndim) for dim in given}) if given else list(range(x.ndim))


def _wide(dtype: torch.dtype) -> int:
    """Bytes of acc_type: 16-bit numbers are added up in 32 bit."""
    return 4 if dtype in LOW else dtype.itemsize


@rule("cuda", aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim)
def sums(kernel: Kernel) -> None:
    """sum_functor, ReduceSumProdKernel.cu; mean_kernel_impl, ReduceMomentKernel.cu.

    What is not summed in its own dtype is cast first, but not 16-bit numbers that are summed in 32
    bit: make_reduction, ../ReduceOpsUtils.h.
    """
    vector = 8 if _cast(kernel).element_size() == 2 else 4
    _reduce_cast(kernel, dims_of(kernel, 1), vector)


@rule("cuda", aten.prod.default, aten.prod.dim_int)
def products(kernel: Kernel) -> None:
    """prod_functor, ReduceSumProdKernel.cu."""
    _reduce_cast(kernel, dims_of(kernel, 1), 4)


def _cast(kernel: Kernel) -> torch.Tensor:
    x, out = kernel.inputs[0], kernel.outputs[0]
    if x.dtype == out.dtype or (x.dtype in LOW and out.dtype == torch.float32):
        return x
    return torch.empty_like(x, dtype=out.dtype, device="meta")


def _reduce_cast(kernel: Kernel, dims: Sequence[int], vector: int) -> None:
    x, out = _cast(kernel), kernel.outputs[0]
    kernel.allocate(0)
    if x.dtype != kernel.inputs[0].dtype:
        kernel.buffer("cast operand", x.numel() * x.element_size())
    reduce(kernel, x, out, dims, accumulator=_wide(x.dtype), vector=vector)


@rule("cuda", aten.amax.default, aten.amin.default, aten.max.default, aten.min.default)
def extrema(kernel: Kernel) -> None:
    """max_values_kernel_cuda_impl, ReduceMaxValuesKernel.cu: in the dtype of the operand."""
    x, out = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate(0)
    dims = dims_of(kernel, 1)
    if len(kernel.args) == 1 and len(dims) == x.ndim and not x.is_contiguous():
        kernel.contiguous(x)
        x = torch.empty_like(x, device="meta", memory_format=torch.contiguous_format)
    reduce(kernel, x, out, dims, accumulator=x.element_size())


ANY_AND_ALL = [
    getattr(getattr(aten, name), overload)
    for name in ("any", "all")
    for overload in ("default", "dim", "dims")
]


@rule("cuda", *ANY_AND_ALL)
def truths(kernel: Kernel) -> None:
    """allany_impl, ../ReduceOps.cpp, and or_kernel_cuda, ReduceLogicKernel.cu."""
    x, out = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate(0)
    if x.numel() == 1 and x.dtype != torch.bool:
        kernel.buffer("cast operand", 1)
    elif x.numel() > 1:
        reduce(kernel, x, out, dims_of(kernel, 1), accumulator=x.element_size())


@rule("cuda", aten.max.dim, aten.min.dim, aten.argmax.default, aten.argmin.default)
def places(kernel: Kernel) -> None:
    """MaxOps, ReduceMaxValuesKernel.cu; ArgMaxOps, ReduceArgMaxKernel.cu: pairs with an index."""
    x, out = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate_outputs()
    reduce(kernel, x, out, dims_of(kernel, 1), accumulator=16)


@rule("cuda", aten.linalg_vector_norm.default)
def norms(kernel: Kernel) -> None:
    """norm_launch_kernel, ReduceNormKernel.cu."""
    _reduce_cast(kernel, dims_of(kernel, 2), 4)


@rule("cuda", aten.var.correction, aten.std.correction)
@rule("cuda", aten.var_mean.correction, aten.std_mean.correction)
def moments(kernel: Kernel) -> None:
    """std_var_kernel_impl, ReduceMomentKernel.cu: WelfordData is four numbers."""
    x, out = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate_outputs()
    wide = 4 * _wide(x.dtype)
    reduce(kernel, x, out, dims_of(kernel, 1), accumulator=wide, vector=2)
