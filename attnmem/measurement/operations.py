"""Which operations of PyTorch allocate more than their outputs: each tried on a real device.

The samples are PyTorch's own, ``op_db`` of ``torch.testing``, on which its tests run: forward and
backward, contiguous and not, and into results that are given.
"""

import contextlib
import itertools
import json
import os
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from attnmem.measurement.device import provenance

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.bool)
MARK = "attnmem mark"


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each call: the operation, whether all it is given is contiguous, its outputs' bytes.

    Marks where it begins and ends. A call that fails has no name.
    """

    def __init__(self, mark: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mark = mark
        self.calls: list[tuple[str, bool, int]] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _tensors((args, kwargs))
        known = {_storage(x) for x in given}
        contiguous = all(x.is_contiguous() for x in given)
        self.calls.append(("", contiguous, 0))
        self.mark()
        try:
            result = op(*args, **(kwargs or {}))
        finally:
            self.mark()
        made = {_storage(x): x.untyped_storage().nbytes() for x in _tensors(result)}
        outputs = sum(size for key, size in made.items() if key not in known)
        self.calls[-1] = str(op), contiguous, outputs
        return result


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storage(x: torch.Tensor) -> int:
    return int(x.untyped_storage()._cdata)


@contextlib.contextmanager
def _marks(device: torch.device) -> Iterator[tuple[Callable[[], None], list[int]]]:
    """A function that sets a mark, and a list: at the end, the bytes allocated until each mark."""
    found: list[int] = []
    if device.type == "cuda":
        name = "requested_bytes.all.allocated"
        yield lambda: found.append(torch.cuda.memory_stats(device)[name]), found
        return

    def mark() -> None:
        with record_function(MARK):
            pass

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler greets on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        yield mark, found
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        seen.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    allocated = 0
    for event in sorted(events, key=lambda event: event.get("ts", 0)):
        if event["name"] == MARK and event["ph"] == "X":
            found.append(allocated)
        elif event["name"] == "[memory]" and event["args"]["Device Type"] == 0:  # CPU
            allocated += max(0, event["args"]["Bytes"])


def samples() -> list[Any]:
    """PyTorch's own list of operations, each with samples of its arguments."""
    from torch.testing._internal.common_methods_invocations import op_db  # takes seconds

    return list(op_db)


def try_operations(
    device: torch.device, infos: Iterable[Any], samples_each: int = 12
) -> dict[str, tuple[int, int]]:
    """Operation -> the most bytes beside its outputs that a call allocated on ``device``.

    First where all that it was given was contiguous, then where not; twice the same where only one
    of them was seen.
    """
    most: dict[tuple[str, bool], int] = {}
    for info in infos:
        with warnings.catch_warnings(), _marks(device) as (mark, marks):
            warnings.simplefilter("ignore")
            noted = _Calls(mark)
            for dtype in DTYPES:
                if dtype in info.supported_dtypes(device.type):
                    _try(noted, info, device, dtype, samples_each)
        for call, before, after in zip(noted.calls, marks[::2], marks[1::2], strict=True):
            name, straight, outputs = call
            most[name, straight] = max(most.get((name, straight), 0), after - before - outputs)
    names = sorted({name for name, _ in most if name})

    def bytes_of(name: str, contiguous: bool) -> int:
        return most.get((name, contiguous), most.get((name, not contiguous), 0))

    return {name: (bytes_of(name, True), bytes_of(name, False)) for name in names}


def _try(
    noted: _Calls, info: Any, device: torch.device, dtype: torch.dtype, samples_each: int
) -> None:
    gradient = dtype.is_floating_point and info.supports_autograd
    with contextlib.suppress(Exception):  # a sample that can't be made
        made = info.sample_inputs(device, dtype, requires_grad=gradient)
        few = list(itertools.islice(made, 5 * samples_each))  # some make thousands, for minutes
        full = [x for x in few if all(y.numel() for y in _tensors((x.input, x.args, x.kwargs)))]
        for sample in full[:: max(1, len(full) // samples_each)]:  # the first are often alike
            _run(noted, info, sample, gradient)
            with contextlib.suppress(Exception):
                _run(noted, info, sample.noncontiguous(), gradient, apart=2)


def _run(noted: _Calls, info: Any, sample: Any, gradient: bool, apart: int = 1) -> None:
    """Run a sample. The numbers of its gradients are so far ``apart``."""

    def of_like(x: torch.Tensor) -> torch.Tensor:
        return torch.ones(*x.shape, apart, dtype=x.dtype, device=x.device)[..., 0]

    arguments = (sample.input, *sample.args)
    result: Any = None
    with contextlib.suppress(Exception), noted:
        result = info.op(*arguments, **sample.kwargs)
        if gradient:
            outputs = [x for x in _tensors(result) if x.requires_grad]
            torch.autograd.backward(outputs, [of_like(x) for x in outputs])
    if info.supports_out and result is not None:
        given = tree_map_only(torch.Tensor, lambda x: torch.empty_like(x.detach()), result)
        with contextlib.suppress(Exception), torch.no_grad(), noted:
            info.op(*arguments, **sample.kwargs, out=given)


def as_text(most: Mapping[str, tuple[int, int]], device: torch.device) -> str:
    """What was found as a file of lines: the name of an operation, and its bytes if it has some."""
    header = (
        "What kernels of operations allocate beside their outputs, as attnmem measure operations "
        f"saw it in PyTorch's own samples (op_db, small sizes): {provenance(device)}"
        f"{f', {torch.get_num_threads()} threads' if device.type == 'cpu' else ''}. A name alone: "
        "nothing more than outputs, in any call. With two numbers: the most bytes more where all "
        "that it is given is contiguous, and where not."
    )
    comment = textwrap.fill(header, 99, initial_indent="# ", subsequent_indent="# ")
    lines = [f"{name} {a} {b}" if a or b else name for name, (a, b) in most.items()]
    return "\n".join([comment, "", *lines, ""])
