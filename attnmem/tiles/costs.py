"""What attention in tiles costs, in closed form: peak, fast memory, traffic, and the bound on it.

X is one of Q, K, V, O (``w.head_bytes``), which must have equal sizes: each function raises
``ValueError`` for a workload with other sizes of K, V or O. ``block`` is (queries, keys) of a tile,
``None`` for all, as :func:`attnmem.tiles.attention.tiled_attention` takes it.
"""

from attnmem.workload import Workload, ceil_div, equal_sizes

Block = tuple[int | None, int | None]


def peak_bytes(w: Workload, block: Block, *, training: bool = False) -> int:
    """The peak of a run of ``tiled_attention`` on CUDA, in bytes, inputs included; no causal mask.

    4X and one number a row, and some tiles; when training 8X (10X in 16 bit: dQ is added up in 32,
    and cast at the end) and two numbers a row, and two tiles. What is added to X and L does not
    grow with N, unless ``block`` says all.

    >>> w = Workload(batch=1, heads=12, seq_len=131072, head_dim=64, dtype="float16")
    >>> f"{peak_bytes(w, (128, 128)) / w.head_bytes:.3f} X"
    '4.043 X'
    """
    equal_sizes(w, "the costs of tiles")
    forward = _forward_peak(w, block)
    return max(forward, _backward_peak(w, block)) if training else forward


def _forward_peak(w: Workload, block: Block) -> int:
    t = _Tile(w, block)
    kept = 4 * w.head_bytes + t.row(w.seq_len)
    rows = 2 * t.row(t.queries) + t.part(t.queries)  # maximum, sum and output
    moments = [
        rows + t.scores(t.keys) + t.cast(t.keys),  # P·V of the first keys
        rows + 2 * t.row(t.queries) + t.part(t.queries),  # O and its logarithms, at the end
    ]
    if t.keys < w.seq_len:
        second = min(t.keys, w.seq_len - t.keys)
        moments += [
            2 * rows + t.scores(second) + t.cast(second),  # P·V, beside the rows so far
            2 * rows + 4 * t.row(t.queries) + 2 * t.part(t.queries),  # both are merged
        ]
    return kept + t.cast(t.queries) + max(moments)


def _backward_peak(w: Workload, block: Block) -> int:
    t = _Tile(w, block)
    of_q, of_k = t.part(t.queries), t.part(t.keys)
    kept = 7 * w.head_bytes + t.part(w.seq_len) + 2 * t.row(w.seq_len)  # dQ is in 32 bit
    products = 2 * of_k + 2 * t.cast(t.keys)  # dK and dV, and K and V where these are cast
    last = w.seq_len - (ceil_div(w.seq_len, t.keys) - 1) * t.keys
    moments = [
        t.cast(t.queries) + of_q + t.row(t.queries),  # dO·O of rows
        # P, dS, and what is added to dQ or dK.
        products + 2 * t.cast(t.queries) + 2 * t.scores(t.keys) + max(of_q, of_k),
    ]
    if w.element_bytes < t.wide:  # dQ, cast at the end
        moments.append(w.head_bytes + 2 * t.part(last) + 2 * t.cast(last))
    if t.keys < w.seq_len:  # the second block of keys, beside the first
        second = min(t.keys, w.seq_len - t.keys)
        moments.append(products + 2 * max(t.cast(second), t.part(second)))
    return kept + max(moments)


class _Tile:
    """The bytes of the pieces of a tile over all heads, in the dtype that tiles are computed in."""

    def __init__(self, w: Workload, block: Block) -> None:
        self.queries, self.keys = (min(size or w.seq_len, w.seq_len) for size in block)
        self.wide = max(4, w.element_bytes)
        self._heads, self._dim = w.batch * w.heads, w.head_dim
        self._casts = w.element_bytes < self.wide

    def row(self, rows: int) -> int:
        """A number for each of so many rows."""
        return self._heads * rows * self.wide

    def part(self, rows: int) -> int:
        """So many rows of Q, K, V or O."""
        return self.row(rows) * self._dim

    def cast(self, rows: int) -> int:
        """A copy of so many rows in 32 bit, where they are in 16."""
        return self.part(rows) if self._casts else 0

    def scores(self, keys: int) -> int:
        """A tile over so many keys."""
        return self.row(self.queries) * keys


def fast_bytes(w: Workload, block: Block) -> int:
    """What a program for one block of queries of one head keeps in fast memory, in bytes.

    Q, K and V of its blocks in their dtype; S, and the rows so far, in 32 bit.

    >>> w = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype="float16")
    >>> fast_bytes(w, (128, 64)) / 1024
    97.0
    """
    equal_sizes(w, "the costs of tiles")
    queries, keys = (min(size or w.seq_len, w.seq_len) for size in block)
    loaded = (queries + 2 * keys) * w.head_dim * w.element_bytes
    return loaded + 4 * queries * (keys + w.head_dim + 2)


def received(w: Workload, queries: int, *, causal: bool = False, keys: int = 1) -> int:
    """The bytes that the loads of our kernel ask for: forward, ``queries`` rows at a time.

    Q once, K and V once for each block of queries: X + 2X·⌈N/queries⌉. With ``causal``, a block of
    queries reads the keys up to its last query, whole blocks of ``keys``. Caches may have them.

    >>> w = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype="float16")
    >>> [received(w, b) // w.head_bytes for b in (64, 128, 8192)]
    [257, 129, 3]
    """
    equal_sizes(w, "the costs of tiles")
    n = w.seq_len
    ends = [min(start + queries, n) for start in range(0, n, queries)]
    read = sum(min(ceil_div(end, keys) * keys, n) for end in ends) if causal else n * len(ends)
    return w.head_bytes + 2 * read * _row(w)


def traffic(w: Workload, queries: int, *, causal: bool = False, keys: int = 1) -> int:
    """The same with what its stores write: O, and a number a row in 32 bit.

    >>> w = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype="float16")
    >>> [round(traffic(w, b) / w.head_bytes, 1) for b in (64, 128, 8192)]
    [258.0, 130.0, 4.0]
    """
    return received(w, queries, causal=causal, keys=keys) + w.head_bytes + _numbers(w)


def backward_received(
    w: Workload, of_q: tuple[int, int], of_kv: tuple[int, int], *, causal: bool = False
) -> int:
    """The bytes that the loads of our two backward kernels ask for.

    ``of_q`` and ``of_kv`` are the (queries, keys) of their blocks. ``backward_q`` reads Q, dO, O
    and a number a row once, K and V once for each block of queries. ``backward_kv`` reads K and V
    once, and Q, dO and two numbers a row once for each block of keys.
    """
    equal_sizes(w, "the costs of tiles")
    n = w.seq_len
    of_queries = 2 * w.head_bytes + _numbers(w) + received(w, of_q[0], causal=causal, keys=of_q[1])
    begins = [start // of_kv[0] * of_kv[0] * causal for start in range(0, n, of_kv[1])]
    rows = sum(n - begin for begin in begins)
    of_keys = 2 * w.head_bytes + rows * (2 * _row(w) + 2 * _numbers(w) // n)
    return of_queries + of_keys


def _row(w: Workload) -> int:
    """The bytes of a row of Q, K, V or O, over all heads."""
    return w.head_bytes // w.seq_len


def _numbers(w: Workload) -> int:
    """The bytes of a number a row in 32 bit, over all heads."""
    return 4 * w.batch * w.heads * w.seq_len


def keys_first_traffic(w: Workload, keys: int) -> int:
    """The same with the keys cut only, ``keys`` at a time: K and V once, Q and O for each of them.

    O is read and written, in 32 bit, with two numbers a row: between two blocks of keys all rows
    leave fast memory. This is cutting that saves memory and adds traffic.
    """
    equal_sizes(w, "the costs of tiles")
    times = ceil_div(w.seq_len, keys)
    rows = w.batch * w.heads * w.seq_len * 4 * (w.head_dim + 2)
    return (2 + times) * w.head_bytes + (2 * times - 1) * rows


def bound(w: Workload, fast_memory_bytes: int) -> float:
    """N²d²/M, in bytes: no exact algorithm moves less, up to a factor free of all sizes.

    M is the fast memory, in elements. For M between d and N·d. Source: Dao et al. 2022, arXiv
    2205.14135, theorem 2 and proposition 3: FlashAttention moves Θ(N²d²/M), and none can
    move asymptotically less for all M.

    >>> w = Workload(batch=1, heads=1, seq_len=8192, head_dim=64, dtype="float16")
    >>> bound(w, 2**17) / w.head_bytes  # 128 KiB: N·d/M times X
    8.0
    """
    equal_sizes(w, "the costs of tiles")
    return w.head_bytes * w.seq_len * w.head_dim * w.element_bytes / fast_memory_bytes
