"""Predict and measure the memory of attention: the instrument that the book is built on."""

from attnmem.cache import max_cached_tokens
from attnmem.measurement.memory import MeasuredCall, Measurement, measure, measure_call
from attnmem.prediction.call import trace_call
from attnmem.prediction.choice import which_kernel
from attnmem.prediction.trace import Trace, max_seq_len, trace
from attnmem.programs import standard_attention
from attnmem.workload import Workload

__version__ = "0.1.0"
__all__ = [
    "MeasuredCall",
    "Measurement",
    "Trace",
    "Workload",
    "max_cached_tokens",
    "max_seq_len",
    "measure",
    "measure_call",
    "standard_attention",
    "trace",
    "trace_call",
    "which_kernel",
]
