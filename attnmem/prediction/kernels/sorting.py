"""What operations on CUDA allocate that sort, scan or index: a rule each.

Places in PyTorch are below aten/src/ATen/native/cuda, where nothing else is said; those in CUB are
below cub/device/dispatch of CUDA's toolkit, with its tuning for an H100 and an H200.
"""

import math
from collections.abc import Sequence

import torch

from attnmem.prediction.kernels.fused import MULTIPROCESSORS
from attnmem.prediction.kernels.reductions import LOW, reduce
from attnmem.prediction.kernels.rules import Kernel, rule, size_of
from attnmem.timeline import in_backward
from attnmem.workload import ceil_div, round_up

aten = torch.ops.aten

SINGLE_TILE = 256 * 9  # pairs of 8 bytes: SingleTilePolicy, tuning/tuning_radix_sort.cuh
ONESWEEP_TILE = 384 * 12  # of the same: OnesweepPolicyKey64
UNIQUE_TILE = 640 * 7  # keys of 8 bytes, places of 4: sm90_tuning, tuning/tuning_unique_by_key.cuh
SCAN_TILE = {4: 128 * 24, 8: 224 * 24}  # by bytes: sm90_tuning, tuning/tuning_scan.cuh
ATOMIC_BLOCKS = 4  # MAX_ATOMIC_ACCUM_BLOCKS_PER_SM, EmbeddingBackwardKernel.cu
SMALL_SORT = 4096  # should_use_small_sort, Sort.h


def _together(*sizes: int) -> int:
    """AliasTemporaries, cub/util_temporary_storage.cuh."""
    return sum(round_up(size, 256) for size in sizes) + 255


def radix_sort(n: int, bits: int = 64) -> int:
    """Bytes that sorting ``n`` pairs of 8 bytes takes: InvokeOnesweep, dispatch_radix_sort.cuh."""
    if n <= SINGLE_TILE:
        return 1
    passes = ceil_div(bits, 8)
    pairs = 8 * n if passes > 1 else 0
    lookback = 1024 * ceil_div(n, ONESWEEP_TILE)
    return _together(2048 * passes, lookback, pairs, pairs, 4 * passes)


def scan(n: int, tile: int, state: int, partial: int = 0) -> int:
    """Bytes of the states of tiles: tile_state_allocation_size, single_pass_scan_operators.cuh."""
    tiles = ceil_div(n, tile) + 32
    return _together(_together(state * tiles, partial * tiles, partial * tiles))


def _scan_of(n: int, dtype: torch.dtype) -> int:
    """DispatchScan: what CUB takes for no number has its state apart from its value."""
    if dtype in LOW:
        return scan(n, 128 * 15, 4, 2)
    size = max(4, dtype.itemsize)
    return scan(n, SCAN_TILE.get(size, 128 * 15), 2 * size)


@rule("cuda", aten.cumsum.default, aten.cumprod.default)
def scans(kernel: Kernel) -> None:
    """scan_dim, ScanUtils.cuh: along the only dimension CUB scans, else a kernel without buffers.

    What is not summed in its own dtype is cast first: impl_func_cum_ops, ../ReduceOps.cpp.
    """
    x, out = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate(0)
    if not x.numel() or not x.ndim:
        return
    if x.dtype != out.dtype:
        kernel.buffer("cast operand", size_of(out))
    else:
        kernel.contiguous(x)
    if x.numel() == x.shape[kernel.args[1]]:
        kernel.buffer("states of the scan", _scan_of(x.numel(), out.dtype))


def sorted_size(kernel: Kernel) -> int:
    """How many numbers a call of sort sorts at a time."""
    named = [x for x in kernel.args[1:] if x is not None and not isinstance(x, bool)]
    dim = named[0] if named else kernel.kwargs.get("dim", -1)
    return kernel.inputs[0].shape[dim] if kernel.inputs[0].ndim else 1


@rule("cuda", aten.sort.default, aten.sort.stable)
def sort(kernel: Kernel) -> None:
    """sort_cuda_kernel, Sort.cpp: fillSliceWithIndex. Above 4,096 CUB sorts segments: no rule."""
    x = kernel.inputs[0]
    size = sorted_size(kernel)
    kernel.allocate_outputs()
    if size > SMALL_SORT:
        kernel.unknown("buffers for sorting more than 4,096 numbers")
    elif x.numel():
        kernel.buffer("indices", 8 * size)


# should_use_multiblock, TensorTopK.cu: up to so many slices share blocks from such a size on.
SHARED = ((20, 20000), (40, 10000), (80, 8000), (199, 5000), (799, 3000), (4000, 800))
SHARED_BEYOND = 400


@rule("cuda", aten.topk.default)
def topk(kernel: Kernel) -> None:
    """topk_out_cuda, TensorTopK.cpp: up to 4,096 results are sorted in place."""
    x, out = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate_outputs()
    dim = kernel.args[2] if len(kernel.args) > 2 else -1
    if not x.ndim or not out.numel():
        return
    kernel.contiguous(x)
    size = x.shape[dim]
    slices = x.numel() // size
    if size >= next((least for most, least in SHARED if slices <= most), SHARED_BEYOND):
        _shared_topk(kernel, slices, size, x.element_size())
    if out.shape[dim] > SMALL_SORT:
        kernel.unknown("buffers for sorting more than 4,096 numbers")


def _shared_topk(kernel: Kernel, slices: int, size: int, itemsize: int) -> None:
    """mbtopk::launch and get_items_per_thread, TensorTopK.cu: 256 threads, 6 blocks at a time."""
    of_a_thread = ceil_div(size * slices, MULTIPROCESSORS * 6 * 256)
    blocks = slices * ceil_div(size, 256 * max(4, min(of_a_thread, 64)))
    kernel.buffer("values that end the results", slices * itemsize)
    kernel.buffer("ranks to find", 2 * slices * 4)
    kernel.buffer("desired bits", 2 * slices * max(4, itemsize))
    kernel.buffer("counts of digits", blocks * 256 * 2)
    kernel.buffer("sums of counts", slices * 256 * 4)
    for label in ("results of blocks", "ties of blocks"):
        kernel.buffer(label, blocks * 4)
    for _ in range(2):  # inclusive_sum_by_key, dispatch_scan_by_key.cuh
        tiles = ceil_div(blocks, 288 * 14)
        kernel.buffer("states of the scan", _together(_together(8 * (tiles + 32)), 4 * (tiles + 1)))
        kernel.free("states of the scan")


def masks(kernel: Kernel) -> bool:
    """Whether some indices are masks: expandTensors, ../IndexingUtils.h, finds what is true."""
    found = [x for x in kernel.args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
    if found:
        most = sum(8 * x.ndim * x.numel() for x in found)
        kernel.unknown(
            f"the indices of a mask's true values, up to {most:,} B, and what finds them"
        )
    return bool(found)


def becomes_masked_fill(kernel: Kernel) -> bool:
    """canDispatchToMaskedFill, ../TensorAdvancedIndexing.h: one number of the CPU, by one mask."""
    given = [x for x in kernel.args[1] if x is not None]
    value = kernel.args[2] if len(kernel.args) > 2 else None
    added = len(kernel.args) > 3 and kernel.args[3]
    one = value is not None and value.numel() == 1 and not added and len(given) == 1
    return one and given[0].dtype in (torch.bool, torch.uint8)


def _indices(kernel: Kernel) -> list[torch.Tensor]:
    """None where there are masks: how many they give is not known."""
    return [] if masks(kernel) else [index for index in kernel.args[1] if index is not None]


def _same_strides(kernel: Kernel, given: Sequence[torch.Tensor]) -> None:
    """AdvancedIndex, ../TensorAdvancedIndexing.cpp: several indices have the same strides."""
    copies = {}
    for at, index in enumerate(given):
        if index.device != kernel.args[0].device:
            copies[at] = f"copy of index {at}"
            kernel.buffer(copies[at], size_of(index))
    indices = list(torch.broadcast_tensors(*given)) if given else []  # type: ignore[no-untyped-call]
    for at, index in enumerate(indices):
        if index.dtype == torch.int32:
            kernel.buffer("index in 64 bit", 8 * index.numel())
            indices[at] = index.contiguous()
    if len({index.stride() for index in indices}) > 1:
        replaced = [at for at, index in enumerate(indices) if not index.is_contiguous()]
        for at in replaced:
            kernel.buffer("contiguous index", 8 * indices[at].numel())
        kernel.free(*(copies[at] for at in replaced if at in copies))


@rule("cuda", aten.index.Tensor)
def index(kernel: Kernel) -> None:
    """make_info, ../TensorAdvancedIndexing.cpp."""
    _same_strides(kernel, _indices(kernel))
    kernel.allocate_outputs()


@rule("cuda", aten.index_put.default, aten.index_put_.default, aten._unsafe_index_put.default)
@rule("cuda", aten._index_put_impl_.default)
def index_put(kernel: Kernel) -> None:
    """_index_put_impl_, ../TensorAdvancedIndexing.cpp; index_put_with_sort_kernel, Indexing.cu."""
    kernel.allocate_outputs()
    x, values = kernel.args[0], kernel.args[2]
    if not values.is_meta and becomes_masked_fill(kernel):
        return
    added = len(kernel.args) > 3 and kernel.args[3]
    given = _indices(kernel)
    if not given or not x.numel() or not all(index.numel() for index in given):
        return
    if values.device != x.device:
        kernel.buffer("value on the GPU", size_of(values))
    if not added:
        _same_strides(kernel, given)
        return
    n = torch.broadcast_tensors(*given)[0].numel()  # type: ignore[no-untyped-call]
    linear = 8 * n
    # What autograd calls, index_backward in FunctionsManual.cpp, does not check its indices.
    by_autograd = in_backward() and not torch.is_grad_enabled()
    unsafe = by_autograd or (len(kernel.args) > 4 and kernel.args[4])
    for place, index in enumerate(given):  # computeLinearIndex, and wrapIndexOnce
        here = index.device == x.device  # else all this is done on the CPU
        if here and not unsafe:
            _check_range(kernel, index)
        if here:
            kernel.buffer("index from 0", linear)
        kernel.buffer("index times stride" if place else "linear index", linear)
        if here:
            kernel.free("index from 0")
        if place:
            kernel.free("index times stride")
    indexed = [size for size, i in zip(x.shape, kernel.args[1], strict=False) if i is not None]
    written = x.numel() // math.prod(indexed) * n
    if values.numel() != written or not values.is_contiguous():
        kernel.buffer("values", written * values.element_size())
    kernel.buffer("sorted indices", linear)
    kernel.buffer("order of the indices", linear)
    kernel.buffer("range", linear)
    bits = max(1, ((x.numel() - 1) // _slice(x, kernel.args[1])).bit_length())
    kernel.buffer("buffers for sorting", radix_sort(n, bits))
    kernel.free("buffers for sorting")
    kernel.free("range", "order of the indices", "sorted indices")


def _check_range(kernel: Kernel, index: torch.Tensor) -> None:
    """_assert_async(index.max() >= -size), and likewise < size: wrapIndexOnce, Indexing.cu."""
    for _ in range(2):
        kernel.buffer("largest index", 8)
        largest = index.new_empty(())
        reduce(kernel, index, largest, range(index.ndim), accumulator=index.element_size())
        kernel.buffer("whether it fits", 1)
        kernel.free("whether it fits", "largest index")


def _slice(x: torch.Tensor, indices: Sequence[torch.Tensor | None]) -> int:
    """Numbers that one index stands for: sizes after the last dimension that is indexed."""
    last = max(place for place, index in enumerate(indices) if index is not None)
    return math.prod(x.shape[last + 1 :])


@rule("cuda", aten.scatter_reduce.two, aten.scatter_reduce_.two)
def scatter_reduce(kernel: Kernel) -> None:
    """scatter_reduce_two, ../TensorAdvancedIndexing.cpp: for a mean, how many there are of each."""
    x, _, index, src, reduction = kernel.args[:5]
    kernel.allocate_outputs()
    if reduction == "mean" and index.numel():
        kernel.buffer("ones", size_of(src))
        kernel.buffer("counts", size_of(x))
        kernel.buffer("where none is", x.numel())


@rule("cuda", aten.embedding.default)
def embedding(kernel: Kernel) -> None:
    """embedding_symint, ../Embedding.cpp: indices in one row, copied where that takes a copy."""
    indices = kernel.args[1]
    if indices.reshape(-1).untyped_storage()._cdata != indices.untyped_storage()._cdata:
        kernel.buffer("indices in a row", size_of(indices))
    kernel.allocate_outputs()


@rule("cuda", aten._embedding_bag.default, aten._embedding_bag_forward_only.default)
def embedding_bag(kernel: Kernel) -> None:
    """_embedding_bag_cuda, EmbeddingBag.cu: sizes and places of the bags come first."""
    out, of_places, sizes, maxima = range(4)
    kernel.allocate(sizes, of_places, out, maxima)


@rule("cuda", aten.embedding_dense_backward.default)
def embedding_backward(kernel: Kernel) -> None:
    """embedding_dense_backward_cuda, Embedding.cu.

    Many indices are sorted, and rows summed in parts of 10: embedding_backward_cuda_kernel,
    EmbeddingBackwardKernel.cu.
    """
    grad, indices = kernel.inputs[:2]
    by_frequency = len(kernel.args) > 4 and kernel.args[4]
    n, size, vocabulary = indices.numel(), indices.element_size(), kernel.args[2]
    kernel.contiguous(indices, grad)
    if n <= 3072 and not by_frequency:
        kernel.allocate(0)
        return
    kernel.buffer("sorted indices", size * n)
    kernel.buffer("order of the indices", size * n)
    kernel.buffer("range", size * n)
    if size != 8 or by_frequency:
        kernel.unknown("buffers for sorting indices")
    kernel.buffer("buffers for sorting", radix_sort(n))
    kernel.free("buffers for sorting", "range")
    kernel.allocate(0)
    kernel.buffer("starts of segments", size * n)
    kernel.buffer("number of segments", 8)
    kernel.buffer("unique indices", size * n)
    kernel.buffer("states of the scan", scan(n, UNIQUE_TILE, 16))
    kernel.free("states of the scan", "unique indices")
    segments = min(n, vocabulary)
    kernel.buffer("parts of segments", size * segments)
    kernel.buffer("starts of parts of segments", size * segments)
    kernel.buffer("states of the scan", _scan_of(segments, torch.int64))
    kernel.free("states of the scan")
    kernel.buffer("number of parts", 8)
    parts = n // 10 + segments
    kernel.buffer("starts of parts", size * parts)
    width = grad.shape[-1]
    warps = round_up(width, 32)
    grid = ceil_div(segments * warps, min(warps, 1024))
    wide = 4 if grad.dtype in LOW else grad.element_size()
    deterministic = torch.are_deterministic_algorithms_enabled()
    if grid < ATOMIC_BLOCKS * MULTIPROCESSORS and parts > 4 * grid and not deterministic:
        kernel.buffer("segments of parts", size * parts)
        if grad.dtype in LOW:
            kernel.buffer("sums in 32 bit", wide * vocabulary * width)
    else:
        kernel.buffer("sums of parts", wide * parts * width)
