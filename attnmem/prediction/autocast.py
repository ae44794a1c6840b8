"""Which operations autocast casts on a device, and to what."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

from attnmem.prediction.refusal import warn

# The lists are those of aten/src/ATen/autocast_mode.h and .cpp.
# Cast to the dtype of autocast: AT_FORALL_LOWER_PRECISION_FP.
LOWER = """
    conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution
    prelu addmm addmv addr matmul einsum mm mv linalg_vecdot linear addbmm baddbmm bmm
    chain_matmul linalg_multi_dot scaled_dot_product_attention __matmul__ __rmatmul__
"""
# Cast to 32 bit: AT_FORALL_FP32, and those that take a dtype, AT_FORALL_FP32_SET_OPT_DTYPE.
FLOAT32 = """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow softplus
    layer_norm native_layer_norm group_norm frobenius_norm nuclear_norm cosine_similarity
    poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss
    smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss
    soft_margin_loss triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist
    pdist cdist renorm logsumexp __pow__ __rpow__ nll_loss_nd
"""
WITH_DTYPE = "prod softmax log_softmax cumprod cumsum linalg_vector_norm linalg_matrix_norm sum"
# Cast to the widest of their arguments: AT_FORALL_PROMOTE.
PROMOTE = """
    addcdiv addcmul atan2 bilinear cross dot grid_sample index_put tensordot scatter_add cat stack
"""
# Losses call such operations in C++, where a function mode does not see them.
INSIDE = "autocast casts inside {}; the trace does not"
# On a CPU: AT_FORALL_LOWER_PRECISION_FP's part of the CPU.
CPU_LOWER = """
    conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d prelu bmm mm
    linalg_vecdot baddbmm addmm addbmm linear matmul einsum scaled_dot_product_attention
    __matmul__ __rmatmul__ linalg_multi_dot
"""


@functools.cache
def _named(names: str) -> frozenset[Any]:
    owners = (torch, torch.Tensor, F, torch._C._nn, torch._C._VariableFunctions, torch.linalg)
    return frozenset(
        getattr(owner, name) for name in names.split() for owner in owners if hasattr(owner, name)
    )


Call = tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]


class Autocast:
    """Casts arguments as autocast does. ``cache`` holds casts of weights, while it is on."""

    def __init__(self, device: str) -> None:
        cuda = device == "cuda"
        self.device = device
        self.lower = _named(LOWER if cuda else CPU_LOWER)
        self.float32 = _named(FLOAT32 if cuda else "")
        self.with_dtype = _named(WITH_DTYPE if cuda else "")
        self.promote = _named(PROMOTE if cuda else "")
        self.cache: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def cast(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Call | None:
        """The call as autocast makes it; ``None`` where autocast leaves it alone."""
        if function is torch._C._nn.cross_entropy_loss:
            return self._cross_entropy, args, kwargs
        if function is torch.ctc_loss:
            warn(INSIDE.format("ctc_loss"))
        to: torch.dtype | None
        if function in self.lower:
            to = torch.get_autocast_dtype(self.device)
        elif function in self.float32:
            to = torch.float32
        elif function in self.promote:
            dtypes = {x.dtype for x in tree_leaves((args, kwargs)) if _is_eligible(self.device, x)}
            to = torch.float32 if torch.float32 in dtypes else None
        elif function in self.with_dtype:
            x = args[0] if args else kwargs.get("input")
            lower = isinstance(x, torch.Tensor) and x.dtype in (torch.float16, torch.bfloat16)
            if not lower or kwargs.get("dtype") or any(isinstance(a, torch.dtype) for a in args):
                return None
            return function, args, kwargs | {"dtype": torch.float32}
        else:
            return None
        if to is None:
            return None
        # C++ casts the last argument first: compilers evaluate arguments from right to left.
        backwards = kwargs, tuple(reversed(args))
        kwargs, casts = tree_map_only(torch.Tensor, lambda x: self._as(x, to), backwards)
        return function, tuple(reversed(casts)), kwargs

    def _cross_entropy(
        self,
        input: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None = None,
        reduction: Any = 1,
        ignore_index: Any = -100,
        label_smoothing: float = 0.0,
    ) -> Any:
        """cross_entropy_loss in native/LossNLL.cpp: log_softmax as it is, then a loss in 32 bit."""
        if self.device == "cpu" or input.shape == target.shape or label_smoothing:
            warn(INSIDE.format("cross_entropy_loss"))
            options: Any = (weight, reduction, ignore_index, label_smoothing)
            return torch._C._nn.cross_entropy_loss(input, target, *options)
        logs = torch.log_softmax(input, min(input.dim() - 1, 1), dtype=input.dtype)
        logs = self._as(logs, torch.float32)
        if weight is not None:
            weight = self._as(weight, torch.float32)
        return torch._C._nn.nll_loss_nd(logs, target, weight, reduction, ignore_index)

    def _as(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """``cached_cast`` of autocast_mode.cpp: casts of leaves that need gradients are kept."""
        if not _is_eligible(self.device, x) or x.dtype == dtype:
            return x
        keeps = (
            torch.is_autocast_cache_enabled()
            and x.dtype == torch.float32
            and dtype != torch.float32
            and x.requires_grad
            and x.is_leaf
            and not x._is_view()
        )
        if not keeps:
            return x.to(dtype)
        if id(x) not in self.cache:
            self.cache[id(x)] = x, x.to(dtype)
        return self.cache[id(x)][1]


def _is_eligible(device: str, x: Any) -> bool:
    here = isinstance(x, torch.Tensor) and (x.is_meta or device == "cpu")
    return here and x.is_floating_point() and x.dtype != torch.float64
