"""Predict and measure the memory of attention: the instrument that the book is built on."""

from attnmem.attention import standard_attention
from attnmem.measure import Measurement, measure
from attnmem.workload import Workload

__version__ = "0.1.0"
__all__ = ["Measurement", "Workload", "measure", "standard_attention"]
