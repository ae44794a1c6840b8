"""Which operations of PyTorch allocate more than their outputs: each tried on a real device.

The samples are PyTorch's own, ``op_db`` of ``torch.testing``, on which its tests run.
"""

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.bool)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes for each operation the calls seen, and the calls that allocated more than outputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[str, int] = defaultdict(int)
        self.more: dict[str, list[int]] = defaultdict(list)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {_storage(x) for x in _tensors((args, kwargs))}
        before = _allocated()
        result = op(*args, **(kwargs or {}))
        spent = _allocated() - before
        made = {_storage(x): x for x in _tensors(result) if x.is_cuda}
        outputs = sum(x.untyped_storage().nbytes() for key, x in made.items() if key not in known)
        self.calls[str(op)] += 1
        if spent != outputs:
            self.more[str(op)].append(spent - outputs)
        return result


def _allocated() -> int:
    return int(torch.cuda.memory_stats()["requested_bytes.all.allocated"])


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storage(x: torch.Tensor) -> int:
    return int(x.untyped_storage()._cdata)


def try_operations(samples_each: int = 12) -> dict[str, dict[str, Any]]:
    """Run PyTorch's samples of every operation on the GPU, forward and backward.

    Returns operation -> ``{"calls": n, "more": [extra bytes of the calls that had some]}``.
    """
    from torch.testing._internal.common_methods_invocations import op_db

    counting = _Counting()
    warnings.simplefilter("ignore")
    for info in op_db:
        for dtype in DTYPES:
            if dtype not in info.supported_dtypes("cuda"):  # type: ignore[no-untyped-call]
                continue
            gradient = dtype.is_floating_point and info.supports_autograd
            with contextlib.suppress(Exception):
                samples: Iterable[Any] = info.sample_inputs(  # type: ignore[no-untyped-call]
                    "cuda", dtype, requires_grad=gradient
                )
                for number, sample in enumerate(samples):
                    if number >= samples_each:
                        break
                    _run(counting, info, sample, gradient)
    return {
        op: {"calls": count, "more": sorted(set(counting.more.get(op, [])))[:8]}
        for op, count in sorted(counting.calls.items())
    }


def _run(counting: _Counting, info: Any, sample: Any, gradient: bool) -> None:
    with contextlib.suppress(Exception), counting:
        result = info.op(sample.input, *sample.args, **sample.kwargs)
        if gradient:
            outputs = [x for x in _tensors(result) if x.requires_grad]
            torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])
