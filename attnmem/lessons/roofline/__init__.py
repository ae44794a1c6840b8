"""The roofline, measured: a module for each part of the page, and of the page of all numbers."""

from typing import Any

from attnmem.lessons.roofline import fused, own, times, traffic


def recorded() -> dict[str, Any]:
    """What the text looks up of the records; enough for the page of all numbers."""
    return times.numbers() | traffic.numbers() | fused.numbers()


def numbers() -> dict[str, Any]:
    """What the text looks up; some of it is measured now, on this machine."""
    return recorded() | own.numbers()


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return times.claims() | traffic.claims() | fused.claims()
