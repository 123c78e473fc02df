# SPDX-License-Identifier: MIT
"""What was measured, and the statistics of it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean
from typing import Any, NamedTuple

import numpy as np

from bench.cases import Case

# A difference smaller than this is none, whatever its sign.
MARGIN = 1.03

# What may become of a library on a case. Only the first counts.
STATUSES = {
    "ok": "right and timed",
    "slow": "not run: it would take too long",
    "unsupported": "the library cannot do this case",
    "wrong": "wrong result, not timed",
    "threads": "kept more CPUs busy than threads were set",
    "failed": "raised an error or died",
}


class Quartiles(NamedTuple):
    """The middle of a sample, and where its middle half lies."""

    low: float
    median: float
    high: float


@dataclass
class Result:
    """One library on one case; `seconds` has the median time of a call in each turn."""

    library: str
    status: str = "ok"
    note: str = ""
    error: float = math.nan  # the largest difference from float64
    tolerance: float = math.nan
    seconds: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        """Whether there is a time, and of a right result."""
        return self.status == "ok" and bool(self.seconds)


@dataclass
class Comparison:
    """All libraries on one case, convnet first; `limit` is the hardware's rate."""

    case: Case
    threads: int
    limit: float
    results: list[Result]

    @property
    def ours(self) -> Result:
        """What convnet did."""
        return self.results[0]

    @property
    def fastest(self) -> Result | None:
        """The peer with the smallest median time."""
        peers = [result for result in self.results[1:] if result.counts]
        return min(peers, key=lambda peer: np.median(peer.seconds), default=None)

    def rate(self, result: Result) -> Quartiles:
        """Return how much work was done in a second, in the case's unit."""
        return quartiles(self.case.work / self.case.scale / np.array(result.seconds))

    @property
    def ratio(self) -> Quartiles | None:
        """How many times as fast as the fastest peer convnet is, round by round."""
        peer = self.fastest
        if peer is None or not self.ours.counts:
            return None
        # A slow library leaves the race early.
        rounds = zip(peer.seconds, self.ours.seconds, strict=False)
        return quartiles(theirs / ours for theirs, ours in rounds)


@dataclass
class Record:
    """What has been measured so far."""

    comparisons: list[Comparison] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def all_right(self) -> bool:
        """Whether convnet gave every result, and none wrong."""
        return all(c.ours.counts for c in self.comparisons)


class Summary(NamedTuple):
    """A group of comparisons in a line: ratios to the fastest peer of each."""

    cases: int
    geometric_mean: float
    worst: float
    worst_case: str
    faster: int
    slower: int


def quartiles(sample: Iterable[float]) -> Quartiles:
    """Return the quartiles of a sample."""
    return Quartiles(*map(float, np.quantile(list(sample), (0.25, 0.5, 0.75))))


def summary(comparisons: Sequence[Comparison]) -> Summary | None:
    """Summarise the comparisons in which convnet and a peer have times."""
    ratios = {c.case.name: c.ratio for c in comparisons if c.ratio}
    if not ratios:
        return None
    medians = {name: ratio.median for name, ratio in ratios.items()}
    worst_case = min(medians, key=medians.__getitem__)
    return Summary(
        cases=len(ratios),
        geometric_mean=geometric_mean(medians.values()),
        worst=medians[worst_case],
        worst_case=worst_case,
        faster=sum(ratio.low > MARGIN for ratio in ratios.values()),
        slower=sum(ratio.high < 1 / MARGIN for ratio in ratios.values()),
    )
