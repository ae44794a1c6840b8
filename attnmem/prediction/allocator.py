"""How PyTorch gives out a GPU's memory: blocks cut from segments, and cuBLAS's workspaces."""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from attnmem.workload import round_up


def cublas_workspace(capability: tuple[int, int], release: tuple[int, int] = (2, 13)) -> int:
    """The workspace in bytes that PyTorch has for each cuBLAS handle on each stream.

    32 MiB for compute capability 9.0 and, in the releases 2.12 and 2.13 of PyTorch, for 10 and 12;
    else 8,320 KiB. Source: parseChosenWorkspaceSize in PyTorch's
    aten/src/ATen/cuda/CublasHandlePool.cpp, without CUBLAS_WORKSPACE_CONFIG; its pull requests
    91564 (9.0) and 175344 (10 and 12, after the branch of 2.11 was cut). It is kept from its first
    use on; from 2.15 on only with TORCH_CUBLAS_WORKSPACE_CACHE=1 (pull request 194311).

    >>> cublas_workspace((9, 0)), cublas_workspace((8, 6))
    (33554432, 8519680)
    >>> cublas_workspace((10, 0)), cublas_workspace((10, 0), release=(2, 11))
    (33554432, 8519680)
    """
    large = capability[0] in (9, 10, 12) if release >= (2, 12) else capability == (9, 0)
    return 4096 * 8 * 2**10 if large else (4096 * 2 + 16 * 8) * 2**10


SMALL, BUFFER_SMALL, BUFFER_LARGE, LARGE = 2**20, 2**21, 20 * 2**20, 10 * 2**20
FAR = 2**50  # from a segment to the next: farther than any is long


def segment_size(size: int) -> int:
    """What is asked of the driver for a tensor of ``size`` bytes that no free block holds; bytes.

    This is what an error message says PyTorch "tried to allocate". Source: get_allocation_size in
    PyTorch's c10/cuda/CUDACachingAllocator.cpp.

    >>> segment_size(2**20), segment_size(2**20 + 1), segment_size(823_410_688) / 2**20
    (2097152, 20971520, 786.0)
    """
    if size <= SMALL:
        return BUFFER_SMALL
    return BUFFER_LARGE if round_up(size, 512) < LARGE else round_up(size, BUFFER_SMALL)


def printed_size(size: int) -> str:
    """A number of bytes as PyTorch prints it (format_size in the same file).

    >>> printed_size(512), printed_size(2**30), printed_size(2**30 + 1)
    ('512 bytes', '1024.00 MiB', '1.00 GiB')
    """
    if size <= 2**10:
        return f"{size} bytes"
    power = 1 if size <= 2**20 else 2 if size <= 2**30 else 3
    return f"{size / 2 ** (10 * power):.2f} {' KMG'[power]}iB"


@dataclass(eq=False)
class _Block:
    """A piece of a segment, with its neighbours in it."""

    address: int
    size: int
    small: bool
    before: "_Block | None" = None
    after: "_Block | None" = None
    free: bool = False


class CachingAllocator:
    """PyTorch's CUDA allocator, in the part of it that decides how much memory is taken.

    Sizes are rounded up to 512 B. Up to 1 MiB, a block is cut from a segment of 2 MiB; below
    10 MiB, from one of 20 MiB; else its segment is its size rounded up to 2 MiB. The smallest free
    block that is large enough is taken, and split if more than 1 MiB (of a small segment: 512 B)
    remains. A freed block joins its free neighbours. Source: PyTorch's
    c10/cuda/CUDACachingAllocator.cpp, default configuration, one stream.

    Of equally large free blocks the one with the lowest address is taken, and addresses are the
    driver's choice. ``segments`` tells it: the rank of each segment's address, in the order in
    which segments are made. Beyond its end, and without it, addresses rise. ``before``: segments
    that are there from the start, the first of ``segments``, each as the sizes of its blocks in
    their order, those of free ones negative; ``held`` are the others. Nothing of it is counted.

    >>> allocator = CachingAllocator()
    >>> block = allocator.allocate(1000)
    >>> allocator.allocated, allocator.reserved
    (1024, 2097152)
    """

    def __init__(self, segments: Sequence[int] = (), before: Sequence[Sequence[int]] = ()) -> None:
        self.allocated = self.peak_allocated = self.reserved = self.peak_reserved = 0
        self._ranks = itertools.chain(segments, itertools.count(len(segments)))
        self._free: dict[bool, list[tuple[int, int, _Block]]] = {True: [], False: []}
        self._firsts: dict[int, _Block] = {}  # rank of a segment -> its first block
        self.held: list[_Block] = []
        for sizes in before:
            self._place(sizes)

    def allocate(self, size: int) -> _Block:
        """A block for a tensor of ``size`` bytes."""
        size = max(512, round_up(size, 512))
        small = size <= SMALL
        free = self._free[small]
        place = bisect.bisect_left(free, (size, 0), key=lambda entry: entry[:2])
        block = free.pop(place)[2] if place < len(free) else self._segment(size, small)
        rest = block.size - size
        if rest >= 512 if small else rest > SMALL:
            remainder = _Block(block.address + size, rest, small, block, block.after)
            if block.after:
                block.after.before = remainder
            block.after, block.size = remainder, size
            self._keep(remainder)
        block.free = False
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def forget_peaks(self) -> None:
        """Count from here: what is allocated and reserved now is baseline."""
        self.allocated = self.peak_allocated = self.reserved = self.peak_reserved = 0

    def left(self) -> list[list[int]]:
        """What stays when the cache is emptied, as ``before`` takes it: segments in use."""
        found = []
        for block in self._firsts.values():
            sizes = []
            inner: _Block | None = block
            while inner:
                sizes.append(-inner.size if inner.free else inner.size)
                inner = inner.after
            if sizes != [-block.size]:
                found.append(sizes)
        return found

    def free(self, block: _Block) -> None:
        """Give a block back to the cache."""
        self.allocated -= block.size
        for other in (block.before, block.after):
            if other and other.free:
                self._free[other.small].remove((other.size, other.address, other))
                block.address = min(block.address, other.address)
                block.size += other.size
                if other is block.before:
                    block.before = other.before
                    if block.before:
                        block.before.after = block
                else:
                    block.after = other.after
                    if block.after:
                        block.after.before = block
        self._keep(block)

    def _segment(self, size: int, small: bool) -> _Block:
        segment = segment_size(size)
        block = _Block(next(self._ranks) * FAR, segment, small)
        self._firsts[block.address // FAR] = block
        self.reserved += segment
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return block

    def _place(self, sizes: Sequence[int]) -> None:
        """Make a segment of such blocks."""
        address = next(self._ranks) * FAR
        small = sum(map(abs, sizes)) == BUFFER_SMALL
        last = None
        for size in sizes:
            block = _Block(address, abs(size), small, before=last)
            if last:
                last.after = block
            else:
                self._firsts[block.address // FAR] = block
            if size < 0:
                self._keep(block)
            else:
                self.held.append(block)
            address, last = address + block.size, block

    def _keep(self, block: _Block) -> None:
        block.free = True
        if not block.before:
            self._firsts[block.address // FAR] = block
        bisect.insort(self._free[block.small], (block.size, block.address, block))
