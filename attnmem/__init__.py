"""Predict and measure the memory of attention: the instrument that the book is built on."""

from attnmem.measurement.memory import Measurement, measure
from attnmem.prediction.choice import which_kernel
from attnmem.prediction.trace import Trace, max_seq_len, trace
from attnmem.programs import standard_attention
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
    "which_kernel",
]
