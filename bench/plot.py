# SPDX-License-Identifier: MIT
"""Charts: rates as bars and marks, and rates below the roof of the hardware."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.cases import Conv, title
from bench.results import Comparison, Result

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('pictures need the extra: pip install -e ".[bench]"') from error

MARKS = "sD^v<>pX*"
ROW_INCHES, PANEL_INCHES, WIDTH_INCHES, ROOF_INCHES = 0.24, 0.9, 9.0, 6.0
# What a copy moves that no cache holds: the slope of the roof.
ROOF_BYTES = 2**27


def write_plot(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Draw each table as a panel: a row of panels per operation."""
    rows = _panels(comparisons)
    heights = [PANEL_INCHES + ROW_INCHES * max(map(len, row)) for row in rows]
    columns = max(map(len, rows))
    figure = Figure((WIDTH_INCHES * columns, sum(heights)), layout="constrained")
    axes = figure.subplots(
        len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axis in axes.flat:
        axis.set_visible(False)
    for row, panels in enumerate(rows):
        for axis, panel in zip(axes[row], panels, strict=False):
            axis.set_visible(True)
            _draw(axis, panel, _marks(comparisons))
    figure.savefig(path, dpi=110)


def write_roofline(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Draw rates over FLOPs per byte: a panel for each number of threads."""
    convolutions = [c for c in comparisons if isinstance(c.case, Conv)]
    panels: dict[int, list[Comparison]] = {}
    for comparison in convolutions:
        panels.setdefault(comparison.threads, []).append(comparison)
    columns = max(1, len(panels))
    figure = Figure((WIDTH_INCHES * columns, ROOF_INCHES), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis, (threads, panel) in zip(axes, panels.items(), strict=False):
        _draw_roof(axis, panel, machine.copy_bandwidth(ROOF_BYTES, threads))
        _draw_rates(axis, "convnet", "o", [(c, c.ours) for c in panel])
        _draw_rates(axis, "fastest peer", "x", [(c, c.fastest) for c in panel])
        axis.set(xscale="log", yscale="log", title=f"threads={threads}")
        axis.set(xlabel="FLOPs per byte", ylabel=Conv.unit)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _draw_roof(axis: Any, panel: list[Comparison], bandwidth: float) -> None:
    """Draw the FMA peak and, to its left, what memory leaves to one pass over it.

    Winograd's algorithm may stand above the peak: FLOPs are useful ones.
    """
    peak, places = panel[0].limit, [c.case.intensity for c in panel]
    edge = peak / bandwidth
    line = [min(*places, edge) / 2, edge, 2 * max(*places, edge)]
    label = f"{peak:.0f} GFLOP/s, {bandwidth:.0f} GB/s"
    axis.plot(line, [line[0] * bandwidth, peak, peak], "k:", label=label)


def _draw_rates(
    axis: Any, label: str, mark: str, found: list[tuple[Comparison, Result | None]]
) -> None:
    counted = [(c, result) for c, result in found if result and result.counts]
    places = [c.case.intensity for c, _ in counted]
    rates = [c.rate(result).median for c, result in counted]
    axis.plot(places, rates, mark, ms=5, label=label)


def _panels(comparisons: Sequence[Comparison]) -> list[list[list[Comparison]]]:
    """Return the comparisons by operation and, within it, by table."""
    operations: dict[str, dict[str, list[Comparison]]] = {}
    for comparison in comparisons:
        tables = operations.setdefault(comparison.case.op, {})
        name = title(comparison.case, comparison.threads)
        tables.setdefault(name, []).append(comparison)
    return [list(tables.values()) for tables in operations.values()]


def _marks(comparisons: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    """Return how each peer is drawn, the same way in all panels."""
    names = dict.fromkeys(r.library for c in comparisons for r in c.results[1:])
    return {
        name: {"marker": MARKS[i % len(MARKS)], "color": f"C{i}", "ms": 5, "ls": ""}
        for i, name in enumerate(names)
    }


def _draw(axis: Any, panel: list[Comparison], marks: dict[str, dict[str, Any]]) -> None:
    """Draw a line per case, with a bar for convnet and a mark for each peer."""
    for index, result in enumerate(panel[0].results):
        found = [
            (line, comparison.rate(comparison.results[index]).median)
            for line, comparison in enumerate(panel)
            if comparison.results[index].counts
        ]
        lines, rates = [line for line, _ in found], [rate for _, rate in found]
        if index == 0:
            axis.barh(lines, rates, color="#9ecae1", label=result.library)
        else:
            axis.plot(rates, lines, label=result.library, **marks[result.library])
    # The bandwidth of a copy differs from case to case; the FMA peak is one line.
    if panel[0].case.unit == "GFLOP/s":
        axis.axvline(panel[0].limit, color="gray", ls=":", label="FMA peak")
    axis.set(title=title(panel[0].case, panel[0].threads), xlim=(0, None))
    axis.set_yticks(range(len(panel)), [c.case.name for c in panel], fontsize=8)
    axis.set_ylim(len(panel) - 0.5, -0.5)
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0)
