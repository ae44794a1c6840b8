"""Numbers that others printed, each beside what recomputes it: :data:`CLAIMS`."""

from attnmem.published.claim import Claim
from attnmem.published.claims import CLAIMS

__all__ = ["CLAIMS", "Claim"]
