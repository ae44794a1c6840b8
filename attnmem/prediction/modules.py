"""Which module runs now: in the forward pass, in backward, and in an optimizer's step."""

import bisect
import contextlib
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.weak import WeakTensorKeyDictionary

from attnmem.timeline import in_backward

OUTSIDE = "no module"


def as_moved(modules: Iterable[torch.nn.Module]) -> Iterator[torch.Tensor]:
    """The parameters and buffers of ``modules``, in the order in which ``.to("cuda")`` moves them.

    Those of inner modules come first.
    """
    for module in modules:
        yield from as_moved(module.children())
        for x in (*module._parameters.values(), *module._buffers.values()):
            if x is not None:
                yield x


class Modules(contextlib.ExitStack):
    """Follows modules and optimizers as they are called.

    In backward, the module is that of the forward pass which made autograd's node: nodes are
    numbered as they are made, and these numbers are noted whenever another module begins to run.
    ``name`` is told the labels of the gradients and states that an optimizer uses.
    """

    def __init__(self, name: Callable[[str, torch.Tensor], None]) -> None:
        super().__init__()
        self.name = name
        self.updating = False
        self.running: list[str] = []  # the innermost is the last
        self.names: MutableMapping[torch.nn.Module, str] = WeakKeyDictionary()
        self.parameters: MutableMapping[torch.Tensor, str] = WeakTensorKeyDictionary()
        self.firsts: list[int] = []  # from this node on ...
        self.owners: list[str] = []  # ... they were made by this module

    def __enter__(self) -> "Modules":
        for handle in (
            register_module_forward_pre_hook(self._begin),
            register_module_forward_hook(self._end, always_call=True),
            register_optimizer_step_pre_hook(self._begin_update),
            register_optimizer_step_post_hook(self._end_update),
        ):
            self.callback(handle.remove)
        return super().__enter__()

    def here(self) -> str:
        """The module that runs now, such as ``GPT.blocks.0.attention``."""
        if self.running:
            return self.running[-1]
        if self.firsts and in_backward() and (node := torch._C._current_autograd_node()):
            if hasattr(node, "variable"):
                return self.parameters.get(node.variable, OUTSIDE).rpartition(".")[0] or OUTSIDE
            place = bisect.bisect_right(self.firsts, node._sequence_nr()) - 1
            return self.owners[place] if place >= 0 else OUTSIDE
        return OUTSIDE

    def name_gradients(self) -> None:
        """Tell the labels of the gradients that parameters have now."""
        for parameter, label in self.parameters.items():
            if parameter.grad is not None:
                self.name(f"{label}.grad", parameter.grad)

    def _begin(self, module: torch.nn.Module, _: Any) -> None:
        if module not in self.names:
            kind = type(module).__name__
            for name, child in module.named_modules():
                self.names.setdefault(child, f"{kind}.{name}" if name else kind)
            for name, parameter in module.named_parameters():
                self.parameters.setdefault(parameter, f"{kind}.{name}")
        self.running.append(self.names[module])
        self._note()

    def _end(self, *_: Any) -> None:
        self.running.pop()
        self._note()

    def _note(self) -> None:
        self.firsts.append(torch._C._autograd._get_sequence_nr())
        self.owners.append(self.running[-1] if self.running else OUTSIDE)

    def _begin_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.name_gradients()
        self.updating = True
        self.running.append(type(optimizer).__name__)

    def _end_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for parameter, state in optimizer.state.items():
            label = self.parameters.get(parameter, "parameter")
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    self.name(f"{label}.{key}", value)
        self.running.pop()
        self.updating = False
