"""What an out-of-memory message says, in bytes: PyTorch's forms, TensorFlow's and XLA's."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

from attnmem.prediction.allocator import BUFFER_LARGE, BUFFER_SMALL, LARGE, SMALL
from attnmem.workload import ceil_div, round_up

# All patterns are for a text with single spaces. The book's page reads messages with them, too:
# they must mean in JavaScript what they mean here, where \d, \w and \b are those of ASCII.
SIZE = r"(?<![\d.,])(\d[\d,]{0,24}(?:\.\d{1,9})?) ?(bytes|[KMGT]i?B)\b"

# A block of PyTorch 1.0 was rounded up to this, and its small segments were of 1 MiB. Source:
# c10/cuda/CUDACachingAllocator.cpp of that release (kRoundLarge, kSmallAlloc).
FIRST_ROUNDING = 128 * 2**10

# Metal rounds a buffer up (heapBufferSizeAndAlignWithLength, called by get_allocation_size in
# PyTorch's aten/src/ATen/mps/MPSAllocator.mm). By how much is not public: we take a page of Apple's
# processors, which at two decimals of a GiB is too little to matter.
METAL_ROUNDING = 16 * 2**10


@dataclass(frozen=True)
class Range:
    """Any number of bytes from ``low`` to ``high``, both included.

    >>> 2**30 in Range(2**30 - 1, 2**30)
    True
    """

    low: int
    high: int

    def __contains__(self, size: float) -> bool:
        return self.low <= size <= self.high

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    def __sub__(self, other: "Range") -> "Range":
        return Range(max(0, self.low - other.high), max(0, self.high - other.low))


@dataclass(frozen=True)
class Message:
    """An error message in bytes; ``None`` stands for what it does not say.

    ``backend`` is who ran out: ``"CUDA"``, ``"HIP"``, ``"XPU"``, ``"MPS"``, ``"CPU"``,
    ``"TensorFlow"``, ``"XLA"``, or ``"GPU"`` where the text doesn't tell. ``tried`` is the size as
    it is printed, ``tensor`` what a tensor can have that makes such a request: on CUDA, HIP and XPU
    a size from 10 MiB on is rounded up to 2 MiB. ``shared`` tells that the request was for a
    segment that several small tensors share: then ``tensor`` says next to nothing.

    ``reserved`` is what PyTorch has from the driver, ``allocated`` what its tensors have of that,
    ``unused`` the rest.
    """

    backend: str
    tried: Range
    tensor: Range
    shared: bool = False
    allocated: Range | None = None
    reserved: Range | None = None
    unused: Range | None = None
    free: Range | None = None
    capacity: Range | None = None


def size_range(number: str, unit: str) -> Range:
    """What a printed size stands for: half a unit of its last place to each side.

    KB, MB and GB are binary here, too: PyTorch's allocator for Metal printed them so.

    >>> size_range("2.00", "GiB")
    Range(low=2142114939, high=2152852357)
    >>> size_range("1,024", "bytes")
    Range(low=1024, high=1024)
    """
    whole, _, places = number.replace(",", "").partition(".")
    if unit.lower() == "bytes":
        return Range(int(whole), int(whole))
    scale = 2 ** (10 * (1 + "KMGT".index(unit[0].upper())))
    halves = 2 * 10 ** len(places)  # half units of the last place
    said = 2 * int(whole + places)
    return Range(max(0, ceil_div((said - 1) * scale, halves)), (said + 1) * scale // halves)


def _as_printed(tried: Range) -> tuple[Range, bool]:
    """Of a tensor whose own size is printed."""
    return tried, False


def _behind_segment(tried: Range) -> tuple[Range, bool]:
    """Of a tensor for which PyTorch's CUDA allocator asked the driver for a segment of this size.

    The inverse of :func:`attnmem.prediction.allocator.segment_size`, and whether the segment is one
    that small tensors share. A size that is no multiple of 2 MiB is one of PyTorch 1.0.
    """
    if BUFFER_SMALL in tried and tried.high < 2 * BUFFER_SMALL:
        return Range(1, SMALL), True
    if BUFFER_LARGE in tried and tried.high < BUFFER_LARGE + BUFFER_SMALL:
        return Range(SMALL + 1, BUFFER_LARGE), True
    first, last = _multiples(BUFFER_SMALL, tried)
    if LARGE <= first <= last:
        return Range(first - BUFFER_SMALL + 1, last), False
    return _behind_first_segment(tried)


def _behind_first_segment(tried: Range) -> tuple[Range, bool]:
    """The same in PyTorch 1.0. A size that is no multiple of 128 KiB is taken as it is."""
    first, last = _multiples(FIRST_ROUNDING, tried)
    if first > last:
        return tried, False
    small = last <= SMALL
    return Range(1 if small else first - FIRST_ROUNDING + 1, last), small


def _behind_either(tried: Range) -> tuple[Range, bool]:
    """Of a message that says what is "cached": PyTorch 1.0 to 1.3, of which 1.0 rounded less."""
    (later, shared), (first, small) = _behind_segment(tried), _behind_first_segment(tried)
    both = Range(min(later.low, first.low), max(later.high, first.high))
    return both, shared or small


def _multiples(step: int, tried: Range) -> tuple[int, int]:
    """The first and the last multiple of ``step`` in a range; the last is less if there is none."""
    return round_up(tried.low, step), tried.high // step * step


def _behind_metal(tried: Range) -> tuple[Range, bool]:
    return Range(max(1, tried.low - METAL_ROUNDING + 1), tried.high), False


Rule = Callable[[Range], tuple[Range, bool]]

#: How the size that was tried is said -> what it is. The first that is found counts.
TRIED: dict[str, Rule] = {
    rf"MPS backend out of memory .*?Tried to allocate {SIZE}": _behind_metal,
    rf"Invalid buffer size: {SIZE}": _as_printed,
    rf"would exceed allowed memory.*?Requested ?: {SIZE}": _as_printed,
    rf"(?:can't allocate|not enough) memory: you tried to allocate {SIZE}": _as_printed,
    rf"Tried to allocate {SIZE} \([^)]* cached\)": _behind_either,
    rf"Tried to allocate {SIZE}": _behind_segment,
    rf"while trying to allocate {SIZE}": _as_printed,
}
SHAPE = r"OOM when allocating tensor with shape ?\[([\d, ]{1,200})\] and type (\w+)"

#: How the rest is said, in any of PyTorch's forms.
STATE = {
    "allocated": (
        rf"{SIZE} already allocated",
        rf"{SIZE} is allocated by PyTorch",
        rf"MPS allocated: {SIZE}",
        rf"Currently allocated ?: {SIZE}",
    ),
    "reserved": (rf"{SIZE} reserved in total",),
    "unused": (rf"{SIZE} is reserved by PyTorch but unallocated", rf"{SIZE} cached"),
    "free": (rf"Free \(according to CUDA\): {SIZE}", rf"of which {SIZE} is free", rf"{SIZE} free"),
    "capacity": (
        rf"{SIZE} total capacity",
        rf"total capaci?ty of {SIZE}",
        rf"max allowed: {SIZE}",
        rf"Device limit ?: {SIZE}",
    ),
}
#: Who ran out; ``None``: as the text says.
BACKEND = {
    r"\b([A-Z]{3,4}) (?:backend )?out of memory": None,
    r"MPS|Invalid buffer size": "MPS",
    r"larger than 4GB": "XPU",
    r"would exceed allowed memory": "CUDA",
    r"DefaultCPUAllocator": "CPU",
    r"OOM when allocating": "TensorFlow",
    r"while trying to allocate": "XLA",
}

#: How a message says it, for a reader who has none of these.
EXAMPLES = (
    "'Tried to allocate 2.00 GiB' (PyTorch), 'you tried to allocate 123 bytes' (PyTorch on a CPU), "
    "'Invalid buffer size: 2.00 GiB' (Metal), 'Requested : 2.00 GiB' (cudaMallocAsync), 'OOM when "
    "allocating tensor with shape[…] and type float' (TensorFlow) or 'while trying to allocate 123 "
    "bytes' (XLA); 'Killed' alone means the computer's memory, not the GPU's"
)


def parse(text: str) -> Message:
    """The first out-of-memory message in ``text``, which may be a whole log.

    Known are PyTorch's forms since 1.0 for CUDA, ROCm ("HIP"), XPU, Metal ("MPS"), its
    ``cudaMallocAsync`` backend and CPUs, TensorFlow's and XLA's. In all forms for CUDA, HIP and
    XPU "tried to allocate" is what was asked of the driver (``alloc_size`` in malloc of PyTorch's
    c10/cuda/CUDACachingAllocator.cpp, 1.0 to 2.11, and c10/xpu/XPUCachingAllocator.cpp), not the
    size of a tensor; that of a CPU (c10/core/impl/alloc_cpu.cpp), of "Invalid buffer size" (Metal),
    and of "Requested" (c10/cuda/CUDAMallocAsyncAllocator.cpp) is a tensor's own.

    Raises ``ValueError`` for a text that has none, or no size in it.

    >>> message = parse("CUDA out of memory. Tried to allocate 786.00 MiB (GPU 0; 15.78 GiB …")
    >>> message.tensor.high / 2**20, message.tensor.high - message.tensor.low + 1
    (786.0, 2097152)
    """
    text = " ".join(text.split())
    tried, rule = _tried(text)
    if not tried.high:
        raise ValueError(f"message must have tried to allocate 1 byte or more, got {text[:80]!r}")
    tensor, shared = rule(tried)
    said = {name: _state(patterns, text) for name, patterns in STATE.items()}
    if said["allocated"] and said["unused"]:
        said["reserved"] = said["allocated"] + said["unused"]
    elif said["allocated"] and said["reserved"]:
        said["unused"] = said["reserved"] - said["allocated"]
    return Message(_backend(text), tried, tensor, shared, **said)


def _tried(text: str) -> tuple[Range, Rule]:
    """The size that was tried, as it is printed, and what that is."""
    if shape := _search(SHAPE, text):
        size = _bytes_of(shape[1], shape[2])
        return Range(size, size), _as_printed
    for pattern, rule in TRIED.items():
        if found := _search(pattern, text):
            return size_range(found[1], found[2]), rule
    raise ValueError(
        f"message must say how much it tried to allocate: {EXAMPLES}; got {text[:80]!r}"
    )


def _search(pattern: str, text: str) -> re.Match[str] | None:
    return re.search(pattern, text, re.IGNORECASE | re.ASCII)


def _state(patterns: tuple[str, ...], text: str) -> Range | None:
    found = next((hit for pattern in patterns if (hit := _search(pattern, text))), None)
    return found and size_range(found[1], found[2])


def _backend(text: str) -> str:
    for pattern, name in BACKEND.items():
        if found := re.search(pattern, text, re.ASCII):
            return name or found[1]
    return "GPU"


def _bytes_of(shape: str, dtype: str) -> int:
    """Of a tensor as TensorFlow names it. Raises ``ValueError`` for a type that is unknown."""
    found = getattr(torch, dtype, None)  # which has TensorFlow's names, too: float, half, int32
    if not isinstance(found, torch.dtype):
        raise ValueError(f"type must be one of TensorFlow's, such as float, got {dtype!r}")
    return math.prod(map(int, shape.replace(",", " ").split())) * found.itemsize
