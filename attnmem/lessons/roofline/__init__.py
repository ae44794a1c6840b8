"""The roofline, measured: a module for each section of the page."""

from typing import Any

from attnmem.lessons.roofline import fused, limits, own, times, traffic


def numbers() -> dict[str, Any]:
    """What the text looks up; some of it is measured now, on this machine."""
    return times.numbers() | traffic.numbers() | limits.numbers() | fused.numbers() | own.numbers()


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return traffic.claims() | times.claims() | limits.claims() | fused.claims()
