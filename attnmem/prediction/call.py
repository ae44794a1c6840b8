"""Following any call on shapes alone, such as a training step of a model."""

import gc
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import _disable_current_modes

from attnmem.prediction.dispatch import Dispatch
from attnmem.prediction.modules import as_moved
from attnmem.prediction.recorder import Recorder
from attnmem.prediction.refusal import CannotFollow
from attnmem.prediction.trace import Trace
from attnmem.timeline import before_backward


def trace_call(
    step: Callable[[], object], device: str = "cuda", *, capability: tuple[int, int] = (9, 0)
) -> Trace:
    """Predict what ``step()`` does to the memory of ``device``: a training step, say.

    ``device`` and ``capability`` are those of :func:`attnmem.prediction.trace.trace`, and so are
    the limits. What ``step`` uses and does not make itself, a model and its data, is made on the
    device ``meta`` before, and is baseline: its bytes are ``parameter_bytes``, not in the peak. The
    call really happens, on tensors without data: gradients and the state of an optimizer are there
    afterwards. So the trace of the second step is that of a second call.

    Requested bytes are exact for any baseline. *Allocated* bytes depend on the holes between the
    tensors of the baseline, and so on what came before: see
    :attr:`attnmem.prediction.trace.Trace.peak_allocated_bytes`. Where that is traced as well, the
    holes are known, and only the addresses of segments are not: a second step has
    ``second.replay(before=first.replay().left()).peak_allocated``. A ``step`` that makes its model
    itself has no baseline.

    Raises ``ValueError`` for another device,
    :class:`attnmem.prediction.refusal.CannotFollow` if nothing happens on ``device``, and whatever
    ``step`` raises.

    >>> import torch
    >>> with torch.device("meta"):
    ...     model, x = torch.nn.Linear(512, 512), torch.randn(256, 512)
    >>> t = trace_call(lambda: model(x).sum().backward())
    >>> t.parameter_bytes == 4 * (512 * 512 + 512 + 256 * 512)
    True
    >>> sorted({event.label for event in t.timeline if event.label.endswith(".grad")})
    ['Linear.bias.grad', 'Linear.weight.grad']
    """
    if device not in ("cuda", "cpu"):
        raise ValueError(f"device must be 'cuda' or 'cpu', got {device!r}")
    recorder = Recorder(device)
    recorder.ended = "inputs"
    saved: list[int] = []
    gc.collect()
    place = "meta" if device == "cuda" else "cpu"
    recorder.expect(x.untyped_storage() for x in _tensors_on(place))
    with (
        _disable_current_modes(),
        before_backward(lambda: saved.append(recorder.live)),
        Dispatch(device, capability, recorder.has_values, valued=device == "cpu"),
        recorder,
    ):
        step()
        recorder.modules.name_gradients()
    if not recorder.events:
        raise CannotFollow(
            f"nothing that step does is on {device}: make its model and its data on the device "
            "'meta', which stands for it: with torch.device('meta'): ..."
        )
    return Trace.of(recorder, None, bool(saved), saved[-1] if saved else 0)


def _tensors_on(device: str) -> list[torch.Tensor]:
    """The tensors on ``device`` that Python knows now, and their gradients; modules' come first."""
    known = gc.get_objects()
    modules = [x for x in known if issubclass(type(x), torch.nn.Module)]
    inner = {id(child) for module in modules for child in module.children()}
    found = list(as_moved(module for module in modules if id(module) not in inner))
    found += [x for x in known if issubclass(type(x), torch.Tensor)]
    found += [x.grad for x in found if x.is_leaf and x.grad is not None]
    return [x for x in found if x.device.type == device and x.layout == torch.strided]
