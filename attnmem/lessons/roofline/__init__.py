"""The roofline, measured: a module for each section of the page."""

from typing import Any

from attnmem.lessons.roofline import fused, limits, own, times, traffic
from attnmem.lessons.roofline.fused import table_of_layer, table_of_programs
from attnmem.lessons.roofline.limits import table_of_limits, table_of_products_in_32_bit
from attnmem.lessons.roofline.own import measured_here, table_of_own_steps
from attnmem.lessons.roofline.times import (
    table_of_ceilings,
    table_of_records,
    table_of_softmax_kernels,
    table_of_times,
)
from attnmem.lessons.roofline.traffic import (
    table_of_bytes,
    table_of_bytes_read,
    table_of_bytes_written,
    table_of_products,
)

__all__ = [
    "claims",
    "measured_here",
    "numbers",
    "table_of_bytes",
    "table_of_bytes_read",
    "table_of_bytes_written",
    "table_of_ceilings",
    "table_of_layer",
    "table_of_limits",
    "table_of_own_steps",
    "table_of_products",
    "table_of_products_in_32_bit",
    "table_of_programs",
    "table_of_records",
    "table_of_softmax_kernels",
    "table_of_times",
]


def numbers() -> dict[str, Any]:
    """What the text looks up; some of it is measured now, on this machine."""
    return times.numbers() | traffic.numbers() | limits.numbers() | fused.numbers() | own.numbers()


def claims() -> dict[str, bool]:
    """What the text says of these numbers: sentence -> whether it holds."""
    return traffic.claims() | times.claims() | limits.claims() | fused.claims()
