"""The book's pictures of attention: its tensors to scale, and a sentence carried through them."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from attnmem.figures.style import BLUE, GREY, ORANGE, STYLE, Picture
from attnmem.workload import Workload


@rc_context(STYLE)
def shapes(w: Workload) -> Picture:
    """The tensors of one head, to scale: tall Q times wide Kᵀ is a square S, P times V is O.

    Q, V and O are N tall and d wide, Kᵀ is d tall and N wide, S and P are N by N.
    """
    n, d = w.seq_len, w.head_dim
    figure = Picture(figsize=(6.0, 4.6))
    axes = figure.subplots()
    for name, left, top, tall, wide in (  # the middle of its left edge, in units of N
        ("Q", 0.0, 0.5, n, d),
        ("Kᵀ", 0.5, 0.5, d, n),
        ("S", 2.0, 0.5, n, n),
        ("P", 0.0, 2.0, n, n),
        ("V", 1.9, 2.0, n, d),
        ("O", 2.7, 2.0, n, d),
    ):
        x, y = left * n, top * n - tall / 2
        colour = ORANGE if tall == wide else BLUE
        axes.add_patch(Rectangle((x, y), wide, tall, color=colour, linewidth=0))
        title, place = f"{name}\n{tall} × {wide}", (x + wide / 2, y)
        axes.annotate(title, place, (0, 3), textcoords="offset points", ha="center", va="bottom")
    for sign, x, y in (("×", 0.25, 0.5), ("=", 1.75, 0.5), ("×", 1.5, 2.0), ("=", 2.3, 2.0)):
        axes.text(x * n, y * n, sign, ha="center", va="center", fontsize=13)
    axes.annotate(
        "softmax",
        (1.05 * n, 1.5 * n),
        (1.95 * n, 1.05 * n),
        arrowprops={"arrowstyle": "->", "color": GREY},
        ha="right",
        va="top",
    )
    axes.set(xlim=(-0.35 * n, 3.05 * n), ylim=(2.55 * n, -0.3 * n), aspect="equal")
    axes.axis("off")
    return figure


@rc_context(STYLE)
def matrices(
    panels: Mapping[str, tuple[torch.Tensor, Sequence[str]]], rows: Sequence[str]
) -> Picture:
    """Small matrices side by side, each entry a coloured cell with its number in it.

    ``panels``: title -> the matrix, ``[rows, columns]``, and what its columns are called. Square
    ones are orange, others blue; the darkest cell of a panel is its largest number.
    """
    widths = [matrix.shape[1] for matrix, _ in panels.values()]
    figure = Picture(figsize=(0.9 + 0.32 * sum(widths), 1.0 + 0.32 * len(rows)))
    across = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, (title, (matrix, columns)) in zip(across, panels.items(), strict=True):
        colour = ORANGE if matrix.shape[0] == matrix.shape[1] else BLUE
        shades = LinearSegmentedColormap.from_list(title, ["white", colour])
        largest = matrix.max().item()
        axes.imshow(matrix.numpy(), cmap=shades, vmin=0, vmax=largest)
        for i, row in enumerate(matrix.tolist()):
            for j, value in enumerate(row):
                ink = "white" if value > 0.7 * largest else "black"
                axes.text(j, i, _short(value), ha="center", va="center", color=ink, fontsize=9)
        axes.set_title(title)
        axes.set_xticks(
            range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return figure


def _short(value: float) -> str:
    """A number as short as a small cell needs it: 4, .83."""
    return f"{value:g}" if value == round(value) else f"{value:.2f}".lstrip("0")
