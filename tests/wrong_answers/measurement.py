"""Wrong answers that readers typically give, and what the check must say to them."""

from itertools import accumulate

from attnmem.prediction.allocator import CachingAllocator

MIB = 2**20
RIGHT = {
    "A": "requested",
    "B": "allocated",
    "C": "reserved",
    "D": "reserved",
    "E": "allocated",
    "F": "requested",
}


class NeverJoins(CachingAllocator):
    def free(self, block):
        self.allocated -= block.size
        self._keep(block)


class OnePool(CachingAllocator):
    def __init__(self):
        super().__init__()
        self._free[True] = self._free[False]


class NeverReuses(CachingAllocator):
    def free(self, block):
        self.allocated -= block.size


def replay(allocator):
    def allocated(events):
        made, blocks = allocator(), {}
        for tensor, size in events:
            if size > 0:
                blocks[tensor] = made.allocate(size)
            else:
                made.free(blocks[tensor])
        return made.peak_allocated

    return allocated


def segment_of_raw_size(size):
    if size <= MIB:
        return 2 * MIB
    return 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB


def segment_rounded_down(size):
    if size <= MIB:
        return 2 * MIB
    return 20 * MIB if size <= 10 * MIB - 512 else size // (2 * MIB) * 2 * MIB


def peak_of_rounded_sizes(events):
    blocks = (-(-abs(size) // 512) * 512 for _, size in events)
    signs = (1 if size > 0 else -1 for _, size in events)
    return max(accumulate(block * sign for block, sign in zip(blocks, signs, strict=True)))


WRONG = [
    ("measurement-1", RIGHT | {"C": "allocated"}, "right for: C.*the driver sees segments"),
    ("measurement-1", RIGHT | {"A": "allocated", "D": "allocated"}, "A, D.*A: .*D: a freed block"),
    ("measurement-1", "reserved", "expected a dict"),
    ("measurement-2", lambda sizes: sum(s for s in sizes if s > 0), "ever allocated"),
    ("measurement-2", sum, "alive at the end"),
    ("measurement-2", max, "the largest tensor"),
    ("measurement-2", lambda sizes: max(accumulate(map(abs, sizes))), "negative already"),
    ("measurement-2", lambda sizes: list(accumulate(sizes)), "must return a number"),
    ("measurement-3", lambda w: 2 * w.score_bytes + 4 * w.head_bytes, "that is the first pass"),
    ("measurement-3", lambda w: 4 * w.score_bytes + 4 * w.head_bytes, "o holds one more"),
    ("measurement-3", lambda w: 4 * w.score_bytes + 8 * w.head_bytes, "the same in every pass"),
    ("measurement-3", lambda w: 10 * w.score_bytes + 8 * w.head_bytes, "not all passes"),
    ("measurement-4", 6_291_456, "what the peak should be"),
    ("measurement-4", 2**25, "from Hopper on"),
    ("measurement-4", 20_971_520 - 14_811_136, "rows with each other"),
    ("measurement-4", 14_811_136 - 2 * 2**21 - 2**19, "Q, K and V are alive"),
    ("measurement-4", 8 * MIB, "a little more"),
    ("measurement-4", 8.51968, "two steps of k, M, G"),
    ("measurement-5", lambda size: -(-size // 512) * 512, "that is the block"),
    ("measurement-5", lambda size: -(-size // (2 * MIB)) * 2 * MIB, "between 1 and 10 MiB"),
    ("measurement-5", segment_of_raw_size, "round to 512 B first"),
    ("measurement-5", segment_rounded_down, "for 10 MiB less 1 B: too small"),
    ("measurement-6", lambda events: max(accumulate(size for _, size in events)), "requested"),
    ("measurement-6", peak_of_rounded_sizes, "keep an unused rest"),
    ("measurement-6", replay(NeverJoins), "for free neighbours that join: too large"),
    ("measurement-6", replay(OnePool), "for a small block, which must not come"),
    ("measurement-6", replay(NeverReuses), "for a freed block that is used again: too large"),
    ("measurement-6", lambda events: [], r"must return a number, and returned list"),
]
