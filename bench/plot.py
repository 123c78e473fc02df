# SPDX-License-Identifier: MIT
"""The bar chart: convnet's rates as bars, the peers' as marks on the same line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cases import title
from bench.results import Comparison

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('--plot needs the extra: pip install -e ".[bench]"') from error

MARKS = "sD^v<>pX*"
ROW_INCHES, PANEL_INCHES, WIDTH_INCHES = 0.24, 0.9, 9.0


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
