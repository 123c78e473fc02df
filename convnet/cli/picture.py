# SPDX-License-Identifier: MIT
"""The picture of a training: its course, its hardest digits, its filters.

Needs matplotlib. Draws on a figure of its own: neither a display nor pyplot matters.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec, SubplotSpec
from matplotlib.ticker import MaxNLocator, NullLocator

from convnet._check import Array
from convnet.cli.tasks import Outcome, Task

__all__ = ["draw"]

INK, GREY, LIGHT = "#1b1f24", "#737b85", "#d5d9de"
TRAIN, TEST = "#2166ac", "#d6604d"
HEADING: dict[str, Any] = {"loc": "left", "size": 12, "weight": "bold", "color": INK}
LEFT, RIGHT = 0.05, 0.975  # margins, as shares of the width
HARDEST = 3, 5  # rows and columns of digits
MOST_FILTERS = 16


def draw(task: Task, outcome: Outcome) -> Figure:
    """Return the picture of a finished training, 12 by 7.5 inches.

    Parameters
    ----------
    task : Task
    outcome : Outcome

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure((12, 7.5), dpi=150, facecolor="white")
    _write_title(figure, outcome)
    margins = {"left": LEFT, "right": RIGHT, "bottom": 0.04, "top": 0.83}
    rows = figure.add_gridspec(2, 1, height_ratios=(5, 1.6), hspace=0.3, **margins)
    halves = GridSpecFromSubplotSpec(1, 2, rows[0], wspace=0.1, width_ratios=(6, 5))
    _draw_course(figure, halves[0], outcome)
    _draw_hardest(figure, halves[1], outcome)
    _draw_filters(figure, rows[1], task, outcome)
    return figure


def _write_title(figure: Figure, outcome: Outcome) -> None:
    size = sum(parameter.value.size for parameter in outcome.model.parameters())
    epochs = len(outcome.history)
    title = f"{100 * outcome.accuracy:.2f} % of {len(outcome.labels)} digits read right"
    facts = (
        "handwritten digits that were held back from the training",
        f"{size:,} parameters",
        f"{epochs} epoch{'s' * (epochs > 1)}",
        f"{outcome.seconds:.1f} s",
    )
    figure.text(LEFT, 0.935, title, size=20, weight="bold", color=INK)
    figure.text(LEFT, 0.898, "   ·   ".join(facts), size=11, color=GREY)


def _draw_course(figure: Figure, place: SubplotSpec, outcome: Outcome) -> None:
    """Draw loss and accuracy after each epoch, one above the other."""
    history = outcome.history
    halves = GridSpecFromSubplotSpec(2, 1, place, hspace=0.28)
    loss, accuracy = (figure.add_subplot(half) for half in (halves[0], halves[1]))
    loss.set_title("Loss", **HEADING)
    loss.set_yscale("log")
    _draw_curves(loss, history.loss, history.val_loss)
    loss.tick_params(labelbottom=False)
    loss.legend(frameon=False, fontsize=10, labelcolor="linecolor", ncols=2)
    accuracy.set_title("Accuracy in %", **HEADING)
    accuracy.set_xlabel("epoch", color=GREY)
    percent = ([100 * a for a in v] for v in (history.accuracy, history.val_accuracy))
    _draw_curves(accuracy, *percent)


def _draw_curves(axes: Axes, train: list[float], test: list[float]) -> None:
    epochs = range(1, len(train) + 1)
    for values, label, color in ((train, "training", TRAIN), (test, "test", TEST)):
        axes.plot(epochs, values, "o-", label=label, color=color, markersize=4)
    axes.set_xlim(0.5, len(train) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    axes.tick_params(colors=GREY, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(LIGHT)


def _draw_hardest(figure: Figure, place: SubplotSpec, outcome: Outcome) -> None:
    """Draw the misread test images, then the least certain of the others."""
    wrong = outcome.read != outcome.labels
    hardest = np.lexsort((outcome.certainty, ~wrong))[: HARDEST[0] * HARDEST[1]]
    heading = f"{wrong.sum() or 'None'} of {len(wrong)} misread"
    if not wrong[hardest].all():
        heading += ", then the least certain" if wrong.any() else "; the least certain"
    _write_heading(figure, place, heading)
    tiles = GridSpecFromSubplotSpec(*HARDEST, place, hspace=0.4, wspace=0.1)
    for k, i in enumerate(hardest):
        axes = figure.add_subplot(tiles[k // HARDEST[1], k % HARDEST[1]])
        _draw_pixels(axes, outcome.images[i, 0], "Greys", 0, 1)
        change = f"{outcome.labels[i]} → " if wrong[i] else ""
        text = f"{change}{outcome.read[i]}  {100 * outcome.certainty[i]:.0f} %"
        axes.set_xlabel(text, size=10, color=TEST if wrong[i] else GREY, labelpad=4)


def _draw_filters(
    figure: Figure, place: SubplotSpec, task: Task, outcome: Outcome
) -> None:
    """Draw a digit, the filters of the first layer, and their answers to the digit."""
    image = outcome.images[:1]
    filters = outcome.model.state_dict()["0.weight"][:MOST_FILTERS, 0]
    maps = outcome.model[: task.feature_layers].infer(image)[0, :MOST_FILTERS]
    heading = "A digit, the filters of the first layer, and where each of them responds"
    _write_heading(figure, place, heading)
    parts = GridSpecFromSubplotSpec(1, 2, place, width_ratios=(2, 17), wspace=0.04)
    _draw_pixels(figure.add_subplot(parts[0]), image[0, 0], "Greys", 0, 1)
    tiles = GridSpecFromSubplotSpec(2, MOST_FILTERS, parts[1], hspace=0.08, wspace=0.08)
    limit = np.abs(filters).max()
    for column, (weights, found) in enumerate(zip(filters, maps, strict=True)):
        upper, lower = (figure.add_subplot(tiles[row, column]) for row in (0, 1))
        _draw_pixels(upper, weights, "RdBu_r", -limit, limit)
        _draw_pixels(lower, found, "Purples", found.min(), found.max())


def _write_heading(figure: Figure, place: SubplotSpec, text: str) -> None:
    frame = figure.add_subplot(place)
    frame.axis("off")
    frame.set_title(text, **HEADING)


def _draw_pixels(
    axes: Axes, image: Array, colors: str, low: float, high: float
) -> None:
    axes.imshow(image, cmap=colors, vmin=low, vmax=high)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(LIGHT)
