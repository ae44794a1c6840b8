"""Predict and measure the memory of attention: the instrument that the book is built on."""

from attnmem.attention import standard_attention
from attnmem.measure import Measurement, measure
from attnmem.trace import Trace, max_seq_len, trace
from attnmem.workload import Workload

__version__ = "0.1.0"
__all__ = [
    "Measurement",
    "Trace",
    "Workload",
    "max_seq_len",
    "measure",
    "standard_attention",
    "trace",
]
