"""PyTorch's own context parallelism, as a program of one rank, to hold the others against."""

from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.distributed.tensor.experimental._attention import set_rotate_method
from torch.nn.attention import SDPBackend, sdpa_kernel


def context_parallel_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    rotate: Literal["allgather", "alltoall"] = "allgather",
) -> torch.Tensor:
    """O of this rank's queries, causal and balanced, by ``torch.distributed.tensor``'s prototype.

    Shapes as of :func:`attnmem.ranks.splits.ring_attention`. ``rotate``: gather K and V, which is
    PyTorch's default, or pass blocks on. Each block is the flash kernel.

    Raises ``NotImplementedError`` on a CPU, whose flash kernel PyTorch 2.13 does not split.
    """
    mesh = init_device_mesh(q.device.type, (dist.get_world_size(),))
    set_rotate_method(rotate)
    # It wants one tensor of the whole sequence to cut: two elements of each rank will do.
    cut = torch.zeros(2 * mesh.size(), dtype=torch.uint8, device=q.device)
    with (
        sdpa_kernel(SDPBackend.FLASH_ATTENTION),
        context_parallel(mesh, buffers=[cut], buffer_seq_dims=[0]),
    ):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
