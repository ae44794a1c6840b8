"""What softmax needs to know of a row, block by block: maximum, sum and output, and their merge.

Of a block of scores in a row, three things are kept: its maximum m, the sum ℓ = Σ exp(s − m), and
the output o = Σ exp(s − m)·v, not yet divided by ℓ. Two blocks of one row become one: the
smaller of their maxima is replaced, which multiplies its ℓ and o by exp(m − m').
Source: Milakov and Gimelshein 2018, arXiv 1805.02867; with the output, Rabe and Staats 2021,
arXiv 2112.05682.
"""

from typing import NamedTuple

import torch


class Rows(NamedTuple):
    """Rows of a block: ``maximum`` and ``total`` are ``[..., n, 1]``, ``output`` ``[..., n, d_v]``.

    A row without any key has the lowest finite number as its maximum, and 0 elsewhere: merged with
    another row, it changes nothing.
    """

    maximum: torch.Tensor
    total: torch.Tensor
    output: torch.Tensor


def attend(s: torch.Tensor, v: torch.Tensor) -> Rows:
    """The rows of one block: scores ``s``, ``[..., n, b]``, and values ``v``, ``[..., b, d_v]``.

    Both are in the dtype that is computed in; scores may be −∞. The memory of ``s`` is used again.

    >>> rows = attend(torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0], [5.0]]))
    >>> [x.item() for x in rows]
    [1.0, 2.0, 8.0]
    """
    lowest = torch.finfo(s.dtype).min  # −∞ − (−∞) is no number
    maximum = s.amax(-1, keepdim=True).clamp_(min=lowest)
    p = s.sub_(maximum).exp_()
    return Rows(maximum, p.sum(-1, keepdim=True), p @ v)


def merge(a: Rows, b: Rows) -> Rows:
    """The rows of two blocks together. In any order, and grouped in any way: it is associative.

    >>> left = attend(torch.tensor([[0.0]]), torch.tensor([[3.0]]))
    >>> right = attend(torch.tensor([[0.0]]), torch.tensor([[5.0]]))
    >>> finish(merge(left, right))[0].item()
    4.0
    """
    maximum = torch.maximum(a.maximum, b.maximum)
    of_a, of_b = (a.maximum - maximum).exp_(), (b.maximum - maximum).exp_()
    total = (a.total * of_a).add_(b.total * of_b)
    return Rows(maximum, total, (a.output * of_a).add_(b.output * of_b))


def finish(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """O, and the logarithm of Σ exp(s) of each row: ``[..., n, d_v]`` and ``[..., n, 1]``.

    A row without any key has no softmax: its O is not a number.
    """
    return rows.output / rows.total, rows.maximum + rows.total.log()
