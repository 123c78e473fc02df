# SPDX-License-Identifier: MIT
"""Tables for the terminal, JSON for a file."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.cases import Case, title
from bench.results import (
    STATUSES,
    Comparison,
    Quartiles,
    Record,
    Result,
    Summary,
    quartiles,
    summary,
)
from bench.timing import Settings

LEGEND = """
Rates are medians, with quartiles in brackets; higher is better. Useful FLOPs count each
multiplication and addition of the definition, whatever the algorithm; bytes count each
array once. `of peak` is the share of the FMA peak, or of a NumPy copy of as many bytes,
both measured in this run. `ratio` is convnet's speed over that of the fastest peer (*),
round by round: above 1 convnet is faster.
~ timed once or twice, being slow; `slow` not run; - not possible; WRONG a wrong result,
not timed; CPUS more of them busy than threads were set; FAIL an error: these count not.
"""

# With fewer turns than this, quartiles mean nothing.
SELDOM = 3

CELLS = {
    "slow": "slow",
    "unsupported": "-",
    "wrong": "WRONG",
    "threads": "CPUS",
    "failed": "FAIL",
}


class Table:
    """The comparisons of one group, printed row by row as they come."""

    def __init__(self, cases: Sequence[Case], threads: int, names: Sequence[str]):
        self.cases, self.threads, self.peers = cases, threads, names[1:]
        self.label = max(len(case.name) for case in cases)

    def header(self) -> str:
        """Return the title and the names of the columns."""
        cells = [f"{peer:>{_width(peer)}}" for peer in self.peers]
        columns = f"{'convnet':>7} {'':<13} {'of peak':>7} {' '.join(cells)}"
        heading = title(self.cases[0], self.threads)
        return f"\n{heading}\n{'':<{self.label}} {columns} {'ratio':>6}"

    def row(self, comparison: Comparison) -> str:
        """Return the line of one case."""
        ours = comparison.ours
        cells = [
            f"{comparison.case.name:<{self.label}}",
            f"{_cell(comparison, ours):>7}",
        ]
        if ours.counts:
            rate = comparison.rate(ours)
            share = 100 * rate.median / comparison.limit
            cells += [f"{_spread(rate, ours):<13}", f"{share:>6.0f}%"]
        else:
            cells += [" " * 13, " " * 7]
        for result in comparison.results[1:]:
            text = _cell(comparison, result)
            cells.append(f"{text:>{_width(result.library)}}")
        ratio, fastest = comparison.ratio, comparison.fastest
        if ratio and fastest:
            spread = _spread(ratio, ours, fastest)
            cells.append(f"{number(ratio.median):>5}x {spread}")
        return " ".join(cells).rstrip()

    def footer(self, comparisons: Sequence[Comparison]) -> list[str]:
        """Return the group's summary, and a line about whatever does not count."""
        found = summary(comparisons)
        lines = [_summary_line(found)] if found else []
        missing = len(self.cases) - len(comparisons)
        if missing:
            lines.append(f"{missing} of {len(self.cases)} cases not run: out of time")
        lines += notes(comparisons)
        return lines


def scaling(comparisons: Sequence[Comparison]) -> list[str]:
    """Return how much faster each library is on several threads than on the fewest."""
    lines: list[str] = []
    cases = dict.fromkeys(c.case for c in comparisons)
    for case in cases:
        least, *others = [c for c in comparisons if c.case == case]
        for more in others:
            cells = [
                f"{few.library} {np.median(few.seconds) / np.median(many.seconds):.2f}x"
                for few, many in zip(least.results, more.results, strict=False)
                if few.counts and many.counts and few.library == many.library
            ]
            threads = f"{least.threads} -> {more.threads}"
            lines.append(f"{case.name:<16} {case.op:<4} N={case.N:<3} {threads}")
            lines[-1] += "  " + "  ".join(cells)
    return ["", "speed on more threads", *lines] if lines else []


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a line for each result that is wrong or failed."""
    return [
        f"{result.status.upper()}: {result.library} on {c.case.name}: {result.note}"
        for c in comparisons
        for result in c.results
        if result.status in ("wrong", "threads", "failed")
    ]


def number(value: float) -> str:
    """Return about three digits, never in exponential form."""
    decimals = max(0, 2 - math.floor(math.log10(value))) if value >= 0.01 else 3
    return f"{value:.{min(decimals, 2)}f}"


def write_json(
    path: Path, machine: dict[str, Any], settings: Settings, record: Record
) -> None:
    """Write everything that was measured; NaN and infinities become null."""
    content = {
        "machine": machine,
        "seed": settings.seed,
        "rounds": settings.rounds,
        "seconds_per_case": settings.seconds,
        "memory": settings.memory,
        "runs": record.runs,
        "statuses": STATUSES,
        "cases": [_case_document(c) for c in record.comparisons],
    }
    path.write_text(json.dumps(_finite(content), indent=1) + "\n")


def _case_document(comparison: Comparison) -> dict[str, Any]:
    case, fastest, ratio = comparison.case, comparison.fastest, comparison.ratio
    return {
        "kind": type(case).__name__,
        **asdict(case),
        "threads": comparison.threads,
        "unit": case.unit,
        "work": case.work,
        "limit": comparison.limit,
        "fastest": fastest.library if fastest else None,
        "ratio": ratio._asdict() if ratio else None,
        "results": [_result_document(comparison, r) for r in comparison.results],
    }


def _result_document(comparison: Comparison, result: Result) -> dict[str, Any]:
    content = asdict(result)
    if result.counts:
        content["time"] = quartiles(result.seconds)._asdict()
        content["rate"] = comparison.rate(result)._asdict()
    return content


def _summary_line(found: Summary) -> str:
    even = found.cases - found.faster - found.slower
    return (
        f"geometric mean {found.geometric_mean:.2f}x, "
        f"worst {found.worst:.2f}x ({found.worst_case}); faster in {found.faster}, "
        f"even in {even}, slower in {found.slower} of {found.cases}"
    )


def _cell(comparison: Comparison, result: Result) -> str:
    """Return a library's rate, or why there is none."""
    if not result.counts:
        return CELLS[result.status]
    mark = "*" if result is comparison.fastest else ""
    seldom = "~" if len(result.seconds) < SELDOM else ""
    return number(comparison.rate(result).median) + seldom + mark


def _width(name: str) -> int:
    return max(6, len(name))


def _spread(sample: Quartiles, *results: Result) -> str:
    """Return where the middle half lies, or nothing after too few turns."""
    if any(len(result.seconds) < SELDOM for result in results):
        return ""
    return f"[{number(sample.low)} {number(sample.high)}]"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
