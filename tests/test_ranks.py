"""Attention split over ranks: equal to one process, predicted, and never left hanging."""

import collections
import itertools
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist

from attnmem import Workload, trace
from attnmem.measurement.launch import RankError, on_ranks
from attnmem.measurement.ranks import PYTORCH, SPLITS, Cell, grid, load_ranks, record
from attnmem.prediction.allocator import CachingAllocator
from attnmem.prediction.ranks import as_rank
from attnmem.prediction.refusal import CannotFollow
from attnmem.programs import standard_attention
from attnmem.ranks import all_to_all_attention, gather_attention, ring_attention
from attnmem.ranks.splits import parts_of

W = Workload(batch=1, heads=8, seq_len=1024, head_dim=64, dtype=torch.float16)  # of a rank


def cut(x, rank, ranks, balanced):
    """What a rank holds of a whole sequence."""
    parts = x.chunk(2 * ranks if balanced else ranks, -2)
    return torch.cat([parts[part] for part in parts_of(rank, ranks, balanced)], -2)


def compare_with_one_process(tell):
    """On each rank: the largest difference to standard attention of the whole sequence."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    whole = [torch.randn(2, 6, 24 * ranks, 16, requires_grad=True) for _ in range(3)]
    do = torch.randn_like(whole[0])
    for causal in (False, True):
        o, _, _ = standard_attention(*whole, causal=causal)
        wanted = [o.detach(), *torch.autograd.grad(o, whole, do)]
        for split, flash, balanced in itertools.product(
            (ring_attention, gather_attention, all_to_all_attention), (False, True), (False, True)
        ):
            if split is all_to_all_attention and balanced:
                continue
            more: dict[str, Any] = {} if split is all_to_all_attention else {"balanced": balanced}
            own = [cut(x, rank, ranks, balanced).detach().requires_grad_() for x in whole]
            found = split(*own, causal=causal, flash=flash, **more)
            gradients = torch.autograd.grad(found, own, cut(do, rank, ranks, balanced))
            pairs = zip((found, *gradients), wanted, strict=True)
            far = max((a - cut(b, rank, ranks, balanced)).abs().max().item() for a, b in pairs)
            tell((split.__name__, causal, flash, balanced, far))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_split_equals_one_process_forward_and_backward(ranks):
    found = list(on_ranks(compare_with_one_process, ranks))
    assert len(found) == ranks * 2 * (4 + 4 + 2)
    # Sums in 32 bit, in another order: a few units in the last place of numbers of a few units.
    assert max(far for _, (*_, far) in found) < 1e-5


def say_then(act, tell):
    """Hand something on, and then let rank 1 do ``act`` while the others wait for it."""
    tell("alive")
    dist.barrier()
    if dist.get_rank() == 1:
        act()
    dist.barrier()
    tell("never said")


def kill_this_process():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise ArithmeticError("of rank 1")


def hang():
    time.sleep(60)


@pytest.mark.parametrize(
    ("act", "timeout_s", "message"),
    [
        (kill_this_process, 60, "rank 1 has died, with exit code -9"),
        (fail, 60, "(?s)rank 1 failed.*of rank 1"),
        (hang, 5, "no rank answered in 5 s; waiting for 0, 1"),
    ],
)
def test_a_rank_that_dies_fails_or_hangs_ends_the_run(act, timeout_s, message):
    heard: list[tuple[int, str]] = []
    with pytest.raises(RankError, match=message):
        heard.extend(on_ranks(partial(say_then, act), 2, timeout_s=timeout_s))
    assert sorted(heard) == [(0, "alive"), (1, "alive")]
    assert not multiprocessing.active_children()


def test_a_caller_who_stops_listening_leaves_no_process():
    for _ in on_ranks(partial(say_then, hang), 2):
        break
    assert not multiprocessing.active_children()


def peak(split, ranks, training, **options):
    """In X of what a rank holds."""
    with as_rank(0, ranks):
        return trace(partial(split, **options), W, training).peak_bytes / W.head_bytes


def test_gathered_keys_and_values_grow_with_the_ranks_and_a_ring_does_not():
    for training in (False, True):
        ring = [peak(ring_attention, ranks, training, flash=True) for ranks in (4, 16)]
        gather = [peak(gather_attention, ranks, training, flash=True) for ranks in (4, 8, 16)]
        assert ring[0] == ring[1]
        assert gather[2] - gather[1] == 2 * (gather[1] - gather[0]) > 0


def test_a_flash_block_holds_no_scores_and_a_standard_block_those_of_one_block():
    long = replace(W, seq_len=8 * W.seq_len)
    with as_rank(1, 4):
        of_flash = trace(partial(ring_attention, flash=True), long, training=True)
        of_standard = trace(ring_attention, long)
    assert of_flash.peak_bytes < long.score_bytes
    # The product, and the same in 32 bit.
    assert 3 * long.score_bytes < of_standard.peak_bytes < 3.6 * long.score_bytes


@pytest.mark.parametrize("split", [ring_attention, gather_attention, all_to_all_attention])
def test_a_rank_on_a_gpu_is_predicted_without_a_warning(split):
    with as_rank(0, 2):
        trace(split, W, training=True)


def test_a_balanced_rank_has_half_of_the_pairs_of_each_other_rank():
    """Without balance, the last rank computes with every block, and the first with its own."""

    def flops(rank, balanced):
        with as_rank(rank, 4):
            program = partial(ring_attention, causal=True, balanced=balanced, flash=True)
            return sum(step.flops for step in trace(program, W).steps)

    plain = [flops(rank, balanced=False) for rank in range(4)]
    assert plain == sorted(plain)
    assert plain[3] > 3 * plain[0]
    assert len({flops(rank, balanced=True) for rank in range(4)}) == 1


def test_what_does_not_fit_is_named():
    q = torch.ones(1, 6, 4, 8)
    with pytest.raises(ValueError, match="no process group: call init_process_group"):
        ring_attention(q, q, q)
    with as_rank(0, 4):
        with pytest.raises(ValueError, match=r"q must have a multiple of 4 heads.*got 6"):
            all_to_all_attention(q, q, q)
        with pytest.raises(ValueError, match=r"seq_len must be even on each rank.*got 3"):
            ring_attention(*(q[:, :, :3],) * 3, causal=True, balanced=True)
        with pytest.raises(ValueError, match="predict in a process without one"), as_rank(0, 2):
            pass
    with pytest.raises(ValueError, match="rank must be one of 0 … 3, got 4"), as_rank(4, 4):
        pass
    with pytest.raises(ValueError, match="ranks must be at least 1, got 0"):
        list(on_ranks(compare_with_one_process, 0))


def test_a_record_has_what_each_rank_saw_and_what_came_before_a_failure(tmp_path):
    small = Workload(batch=1, heads=2, seq_len=16, head_dim=8, dtype=torch.float32)
    cells = [Cell("ring", True, small, True, causal=True), Cell("all-to-all", False, small)]
    path = tmp_path / "record.json.gz"
    uneven = Cell("all-to-all", False, replace(small, heads=3))
    failures = record(path, [*cells, uneven], 2, "gloo")
    assert "multiple of 2 heads" in failures[0]
    made = load_ranks(path)
    assert [found.cell for found in made.cells] == cells
    assert all(len(found.ranks) == 2 for found in made.cells)
    assert not made.stale


@pytest.mark.filterwarnings("ignore:scaled_dot_product_attention takes cuDNN")  # it does there
def test_two_gpus_do_what_is_predicted_of_each():
    """All tensors, in order, and their peak; the allocator's blocks; what is reserved.

    After the last allocation the interpreter chooses the order of releases. What was there before
    are a few bytes of NCCL's barrier, and Q, K, V and dO of the cell before. On a ring, a block
    that was sent is free only when the stream that sends it is done, which no trace knows: the
    peak that the allocator counts is then higher than that of the tensors, and it may reserve more.
    """
    record = load_ranks()
    assert not record.stale
    assert not record.failures
    left, waited, seen = [4], 0, collections.Counter[str]()
    for made in record.cells:
        cell = made.cell
        if cell.split in PYTORCH:
            continue
        before = CachingAllocator()
        for size in left:
            before.allocate(size)
        left = [4, *[cell.workload.head_bytes] * 4]
        for rank, found in enumerate(made.ranks):
            with as_rank(rank, record.ranks):
                t = trace(cell.program, cell.workload, cell.training, "cuda")
            memory, sizes = found.memory, [event.bytes for event in t.timeline]
            count = max(i for i, size in enumerate(sizes) if size > 0) + 1
            measured = [event.bytes for event in memory.timeline]
            assert sizes[:count] == measured[:count]
            assert sorted(sizes) == sorted(measured)
            replayed = t.replay(before=before.left())
            assert replayed.peak_allocated == memory.peak_allocated_bytes
            if cell.split == "ring":
                assert memory.peak_bytes >= t.peak_bytes
                waited += memory.peak_bytes > t.peak_bytes
            else:
                assert memory.peak_bytes == t.peak_bytes
                assert replayed.peak_reserved == memory.peak_reserved_bytes
            seen[cell.split] += 1
    assert set(seen) == set(SPLITS)
    assert 0 < waited < seen["ring"]


@pytest.mark.filterwarnings("ignore:It seems like you did not set:UserWarning")  # of DeviceMesh
def test_pytorchs_own_split_is_measured_and_not_predicted():
    of_pytorch = [made for made in load_ranks().cells if made.cell.split in PYTORCH]
    assert {made.cell.split for made in of_pytorch} == set(PYTORCH)
    assert all(made.cell.causal and made.cell.balanced for made in of_pytorch)
    with as_rank(0, 2), pytest.raises(CannotFollow):
        trace(of_pytorch[0].cell.program, W)


def test_the_grid_has_every_split():
    assert {cell.split for cell in grid(2)} == {*SPLITS, *PYTORCH}
    assert {cell.workload.dtype for cell in grid(2)} == {torch.float16, torch.bfloat16}
