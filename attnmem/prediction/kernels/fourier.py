"""What Fourier transforms on CUDA allocate beside their outputs: native/cuda/SpectralOps.cpp."""

from collections.abc import Sequence

import torch

from attnmem.prediction.kernels.rules import Kernel, rule, size_of

aten = torch.ops.aten
WORKSPACE = "a workspace of cuFFT's, which no source tells"


def _is_copied(x: torch.Tensor, dims: Sequence[int]) -> bool:
    """Whether ``x`` is copied where its other dimensions become one: _exec_fft."""
    moved = sorted(dim % x.ndim for dim in dims)
    strides = x.stride()
    batch = sorted(set(range(x.ndim)) - set(moved), key=lambda d: (-strides[d], d))
    one = x.permute(*batch, *moved).reshape(-1, *(x.shape[dim] for dim in moved))
    return bool(one.untyped_storage()._cdata != x.untyped_storage()._cdata)


@rule("cuda", aten._fft_r2c.default, aten._fft_c2c.default)
def forward(kernel: Kernel) -> None:
    """_fft_r2c_cufft and _fft_c2c_cufft."""
    x, dims = kernel.inputs[0], kernel.args[1]
    kernel.allocate(0)
    if len(dims) == 1 and x.numel() and _is_copied(x, dims):
        kernel.buffer("copy inside the transform", size_of(x))
    kernel.unknown(WORKSPACE)


@rule("cuda", aten._fft_c2r.default)
def inverse(kernel: Kernel) -> None:
    """_fft_c2r_cufft: cuFFT overwrites its input."""
    x = kernel.inputs[0]
    kernel.allocate(0)
    if len(kernel.args[1]) == 1:
        kernel.buffer("copy inside the transform", size_of(x))
    kernel.unknown(WORKSPACE)
