"""What a compiler and a CUDA graph do to the book's own function: recorded, not predicted."""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from attnmem.cures.cure import Cure, workloads
from attnmem.cures.kernels import fused, unfused
from attnmem.cures.training import layers_fused, layers_unfused
from attnmem.programs import Program, standard_attention
from attnmem.workload import Workload


class Compiled:
    """The book's function through ``torch.compile``, which finds attention in it and fuses it.

    S and P are not returned: what nobody sees need not be made.
    """

    def __init__(self, w: Workload) -> None:
        self.w = w

    @cached_property
    def program(self) -> Program:
        """The compiled function, made when it is first called: the compiler is slow to load."""
        torch.compiler.reset()  # after eight shapes of one function it would leave it as it is
        return torch.compile(lambda q, k, v: standard_attention(q, k, v)[0], dynamic=False)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """O of the compiled function."""
        return self.program(q, k, v)  # type: ignore[no-any-return]


class CompiledLayers(Compiled):
    """Four layers of attention through ``torch.compile``."""

    @cached_property
    def program(self) -> Program:
        """The compiled layers."""
        torch.compiler.reset()
        return torch.compile(layers_unfused, dynamic=False)


class GraphedLayers:
    """Four layers of attention as one CUDA graph: what launches them is a single call.

    A graph reads and writes the memory it was captured with, so inputs are copied into that.
    """

    def __init__(self, w: Workload) -> None:
        self.inputs = [torch.zeros(w.shape, dtype=w.dtype, device="cuda") for _ in range(3)]
        self.graph = torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.no_grad():
            with torch.cuda.stream(aside):
                layers_unfused(*self.inputs)  # warms up what can't be captured
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self.output = layers_unfused(*self.inputs)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The output, in the graph's own memory: the next call overwrites it."""
        torch._foreach_copy_(self.inputs, [q, k, v])
        self.graph.replay()
        return self.output


class Timed(NamedTuple):
    """A program that is timed: how it is made, and the workload."""

    version: type | Program
    workload: Workload


def timed() -> list[Timed]:
    """What is timed: one layer and four, as they stand, compiled and graphed, at many lengths."""
    lengths = 128, 512, 2048, 4096
    return [
        Timed(version, Workload(batch=1, heads=12, seq_len=n, head_dim=64, dtype=torch.float16))
        for version in (
            unfused,
            fused,
            Compiled,
            layers_unfused,
            layers_fused,
            CompiledLayers,
            GraphedLayers,
        )
        for n in lengths
    ]


CURES = (
    Cure(
        name="compile",
        symptom="The model's code can't be changed",
        cause="eager PyTorch runs each line as it stands",
        change="`torch.compile`",
        before=standard_attention,
        after=(Compiled,),
        workloads=(
            *workloads(),
            Workload(batch=2, heads=4, seq_len=512, head_dim=64, dtype=torch.float16),
        ),
        modes=(False, True),
        compiled=True,
    ),
)
