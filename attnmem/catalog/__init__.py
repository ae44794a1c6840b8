"""Accelerators and models that readers know: data files with their sources, and their look-up."""

from attnmem.catalog.accelerators import ACCELERATORS, Accelerator, accelerator, recognise
from attnmem.catalog.models import MODELS, Model, model

__all__ = [
    "ACCELERATORS",
    "MODELS",
    "Accelerator",
    "Model",
    "accelerator",
    "model",
    "recognise",
]
