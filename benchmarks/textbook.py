"""The textbook's formula for what training keeps, beside what a GPU kept in the recorded steps.

A transformer layer keeps 34·s·b·h + 5·a·s²·b bytes for its backward pass: s tokens in each of b
sequences, width h, a heads. It assumes 16-bit activations, dropout, an MLP of width 4h with GELU,
and attention that keeps N×N tensors; a kernel that keeps none leaves 34·s·b·h. Checkpoints of whole
layers leave their inputs, 2·s·b·h. Korthikanti et al. 2022, Reducing Activation Recomputation in
Large Transformer Models, arXiv 2205.05198.

The formula is of layers alone. So it also stands beside the difference that checkpoints of whole
layers make, where embeddings and logits cancel.
"""

import itertools
from dataclasses import replace

import torch

from attnmem.corpus.steps import ATTENTIONS, MODELS, PRECISIONS, Recipe
from attnmem.lessons.table import Table
from attnmem.measurement.calls import STEPS_RECORD, load_calls


def textbook(recipe: Recipe) -> int:
    """What the layers keep, in bytes, by the formula."""
    b, s = 2, 512  # those of every recipe
    with torch.device("meta"):
        model = MODELS[recipe.model](recipe.attention)
    layers, h = len(model.blocks), model.head.in_features
    if recipe.checkpoint == "block":
        return layers * 2 * s * b * h
    a = h // 64
    return layers * (34 * s * b * h + (5 * a * s**2 * b if recipe.attention == "standard" else 0))


def row(recipe: Recipe) -> tuple[str | float, ...]:
    """What the first step keeps, and how much of it checkpoints save: measured, and predicted."""
    record = load_calls(STEPS_RECORD).calls
    other = replace(recipe, checkpoint="block")
    kept, less = (record[f"{x.name}: first step"].saved_bytes for x in (recipe, other))
    layers, left = textbook(recipe), textbook(other)
    pairs = (kept, layers), (kept - less, layers - left)
    numbers = (x for a, b in pairs for x in (a / 1e6, b / 1e6, b / a))
    return recipe.model, recipe.precision, recipe.attention, *numbers


if __name__ == "__main__":
    columns = dict.fromkeys(("model", "precision", "attention"), "")
    for what in ("kept", "checkpoints save"):
        columns |= {f"{what}: MB": ",.1f", f"{what}: formula": ",.1f", f"{what}: ratio": ".2f"}
    print(f"kept for the backward pass of a step on {load_calls(STEPS_RECORD).provenance}")
    print("formula: 34·s·b·h + 5·a·s²·b bytes a layer, in 16 bit (arXiv 2205.05198)")
    choices = itertools.product(MODELS, PRECISIONS, ATTENTIONS)
    print(Table(columns, (row(Recipe(*choice, "none", "SGD")) for choice in choices)))
