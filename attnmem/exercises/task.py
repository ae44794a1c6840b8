"""The exercises that ask for a program: what it gives, what it needs, what it moves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from attnmem.exercises.judgement import NO_ANSWER, Judgement, kind_of
from attnmem.exercises.language import _
from attnmem.prediction.trace import trace
from attnmem.programs import Program
from attnmem.workload import Workload, shape_text

# Answers that are functions are tried on these: no two sizes are equal, and e is 2, 4 and 8.
WORKLOADS = tuple(
    Workload(batch=b, heads=h, seq_len=n, head_dim=d, dtype=dtype)
    for b, h, n, d, dtype in (
        (1, 12, 4096, 64, torch.float16),
        (3, 5, 777, 40, torch.bfloat16),
        (2, 7, 320, 96, torch.float32),
        (5, 3, 101, 48, torch.float64),
    )
)

# Outputs are compared on this.
SMALL = Workload(batch=2, heads=3, seq_len=24, head_dim=8, dtype=torch.float64)


def row_bytes(w: Workload) -> int:
    """The bytes of one number for each row of scores."""
    return w.batch * w.heads * w.seq_len * w.element_bytes


@dataclass(frozen=True)
class Task:
    """A program ``fn(q, k, v)`` is asked for: what it gives, what it needs, what it moves.

    ``output`` is what O must be, by default attention's. ``peak`` and ``moved`` are what the
    reference needs, in bytes; an answer passes with a peak of at most ``limit`` of the reference's.
    ``mistakes``: what to say to a program with the output of this one. ``at`` is where memory and
    traffic are predicted, on CUDA; outputs are compared on ``small``, on the CPU in 64 bit. With
    ``training``, so are the gradients of Q, K and V for some dO, and mistakes are known by both.
    ``by_hand``: PyTorch's own attention is no answer.
    """

    peak: Callable[[Workload], int]
    moved: Callable[[Workload], int]
    output: Program | None = None
    mistakes: Mapping[str, Program] = field(default_factory=dict)
    training: bool = False
    limit: float = 1.0
    advice: str = "look at trace(fn, w).at_peak"
    at: Workload = WORKLOADS[0]
    small: Workload = SMALL
    by_hand: bool = True

    def judge(self, answer: Any) -> Judgement:
        """Compare the output, then peak and traffic with the reference's."""
        if not callable(answer):
            expected = _("expected a function of q, k, v, got {0}").format(kind_of(answer))
            return Judgement(False, expected)
        complaint = self._about_output(answer)
        return Judgement(False, complaint) if complaint else self._about_memory(answer)

    def _about_output(self, answer: Program) -> str:
        """What is wrong with O and with the gradients, or nothing."""
        generator = torch.Generator().manual_seed(0)
        q, k, v = (
            torch.randn(shape, dtype=torch.float64, generator=generator)
            for shape in self.small.shapes
        )
        for x in (q, k, v):
            x.requires_grad_(self.training)
        wanted = (self.output or F.scaled_dot_product_attention)(q, k, v)
        given = _output(answer(q, k, v))
        if given is ...:
            return NO_ANSWER
        if not isinstance(given, torch.Tensor):
            return _("it must return O, a tensor, and returned {0}").format(kind_of(given))
        if given.shape != wanted.shape:
            shapes = [list(o.shape) for o in (given, wanted)]
            return _("O has the shape {0} instead of {1}").format(*shapes)
        if self.training and not given.requires_grad:
            return "autograd can't go back from O: nothing of it needs a gradient"

        do = torch.randn(wanted.shape, dtype=wanted.dtype, generator=generator)

        def all_of(o: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"O": o} | (_gradients(o, (q, k, v), do) if self.training else {})

        mine, right = all_of(given), all_of(wanted)
        wrong = [name for name in right if not _close(mine[name], right[name])]
        if not wrong:
            return ""
        for message, program in self.mistakes.items():
            same = all_of(_output(program(q, k, v)))
            if all(_close(mine[name], same[name]) for name in mine):
                return message
        off = (mine[wrong[0]] - right[wrong[0]]).abs().max().item()
        what = _("O is not right")
        if "O" not in wrong:
            what = _("O is right, but {0} not").format(", ".join(wrong))
        return _("{0}: some entry is off by {1:.2g}").format(what, off)

    def _about_memory(self, answer: Program) -> Judgement:
        """Compare peak and traffic with the reference's, where O is right."""
        t = trace(answer, self.at, self.training)
        if self.by_hand and any(s.name.startswith("scaled_dot_product") for s in t.steps):
            return Judgement(False, "that is PyTorch's own attention: here you write it yourself")
        made = ("randn", "randn_like")
        moved = sum(step.bytes_moved for step in t.steps if step.name not in made)
        inputs = (torch.empty(x, dtype=self.at.dtype, device="meta") for x in self.at.shapes)
        sizes = ", ".join(dict.fromkeys(map(shape_text, inputs)))
        score = [
            _("inputs {0}: peak {1:,} B (reference {2:,} B)").format(
                sizes, t.peak_bytes, self.peak(self.at)
            ),
            _("moved {0:,} B (reference {1:,} B)").format(moved, self.moved(self.at)),
        ]
        if t.peak_bytes > self.limit * self.peak(self.at):
            said = _("O is right, but {0}. Alive at your peak: {1}; {2}")
            alive = ", ".join(t.at_peak)
            return Judgement(False, said.format(", ".join(score), alive, _(self.advice)))
        return Judgement(True, "\n".join([_("O is right"), *score]))


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    # In 64 bit, two ways to compute attention on a few small numbers differ by some 1e-15.
    # A mistake that gives nan is known by where it does.
    return a.shape == b.shape and torch.allclose(
        a.double(), b.double(), rtol=1e-9, atol=1e-9, equal_nan=True
    )


def _gradients(
    o: torch.Tensor, inputs: Sequence[torch.Tensor], do: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The gradients of Q, K and V; zeros where O does not depend on an input."""
    found = torch.autograd.grad(o, inputs, do, materialize_grads=True)
    return dict(zip(("dQ", "dK", "dV"), found, strict=True))


def _output(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) and result else result
