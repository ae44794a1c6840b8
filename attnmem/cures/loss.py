"""When the loss breaks, and not attention: logits are as wide as the vocabulary."""
# mypy: disable-error-code="no-any-return,no-untyped-call"

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attnmem.cures.cure import Cure
from attnmem.workload import Workload

VOCABULARY = 50_257  # GPT-2's


class WholeLogits(nn.Module):
    """A language model's head and loss as most write it: logits for all tokens, in 32 bit."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        width = w.heads * w.head_dim
        self.head = nn.Linear(width, VOCABULARY, bias=False, dtype=w.dtype)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """The sum over tokens: hidden states ``[tokens, width]``, labels ``[tokens]``."""
        return F.cross_entropy(self.head(x).float(), labels, reduction="sum")

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The mean loss of hidden states in Q's memory; K and V are not used."""
        x = q.view(-1, self.head.in_features)
        labels = torch.arange(len(x), device=x.device) % VOCABULARY
        return self.total(x, labels) / len(x)

    def total(self, x: Tensor, labels: Tensor) -> Tensor:
        """The loss of all tokens at once."""
        return self.loss(x, labels)


class ChunkedLogits(WholeLogits):
    """Logits for 512 tokens at a time, computed again in backward."""

    def total(self, x: Tensor, labels: Tensor) -> Tensor:
        """The loss of one chunk after the other, each in a checkpoint."""
        parts = zip(x.split(512), labels.split(512), strict=True)
        losses = [checkpoint(self.loss, *part, use_reentrant=False) for part in parts]
        return torch.stack(losses).sum()


CURES = (
    Cure(
        name="loss",
        symptom="Out of memory at the loss, whatever the attention",
        cause="logits, B·N·vocabulary, in 32 bit, and their gradient",
        change="a chunk of tokens at a time, in a checkpoint",
        before=WholeLogits,
        after=(ChunkedLogits,),
        modes=(True,),
    ),
)
