# SPDX-License-Identifier: MIT
"""One case: every library judged against float64, then timed in turns.

A round gives each library one turn of many calls. The order rotates and turns around
from round to round, so that whatever slows the machine down for a while hits all alike,
and ratios are taken within a round.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np

from bench.cases import Array, Case, Operands
from bench.libraries.convnet import Reference
from bench.process import LibraryError, Process
from bench.results import Result

# A library leaves the race when it has used this many times the time that it is given,
# and does not start when a single call would.
SLOW = 12
# A process may seem to keep so many CPUs busy beyond its threads: the system's account
# of short turns is not exact. One thread too many would show as 1.
SLACK = 0.5

Entrant = TypeVar("Entrant")


@dataclass(frozen=True)
class Settings:
    """How long to measure; `seconds` is for one library on one case, over all rounds.

    `memory` is one of `worker.MEMORY`. Nothing starts after `deadline`, a value of
    `time.monotonic`.
    """

    rounds: int
    seconds: float
    seed: int
    memory: str = "rotating"
    deadline: float = math.inf

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() > self.deadline

    @property
    def timeout(self) -> float:
        """The longest that a library may take to answer."""
        return min(600.0, max(5.0, self.deadline - time.monotonic()))


@dataclass
class Runner:
    """A library in the race, its result so far and the seconds it has used."""

    process: Process
    result: Result
    used: float = 0.0


def measure(
    case: Case, processes: Sequence[Process], settings: Settings
) -> list[Result]:
    """Return what each library makes of the case."""
    operands = case.operands(np.random.default_rng(settings.seed))
    right = right_result(case, operands)
    racing, results = [], []
    for process in processes:
        result = Result(process.name)
        results.append(result)
        try:
            _try(process, case, operands, right, result, settings)
        except LibraryError as error:
            result.status, result.note = "failed", str(error)
        if result.status == "ok" and not result.seconds:
            racing.append(Runner(process, result))
    _race(racing, settings)
    return results


def right_result(case: Case, operands: Operands) -> Array:
    """Return what the plain reference computes in float64."""
    fixed, rotating = (
        [
            array.astype(np.float64) if array.dtype == np.float32 else array
            for array in a
        ]
        for a in operands
    )
    right: Array = getattr(Reference(1), case.op)(case, *fixed)(*rotating)
    return right


def judge(found: Array, right: Array, case: Case, result: Result) -> None:
    """Set the error, and the status if what was found is wrong."""
    result.tolerance = case.tolerance(right)
    if found.shape != right.shape:
        result.status = "wrong"
        result.note = f"shape {found.shape}, expected {right.shape}"
        return
    result.error = float(np.max(np.abs(found - right)))
    # Not `error > tolerance`: a NaN is wrong as well.
    if not result.error <= result.tolerance:
        result.status = "wrong"
        result.note = f"error {result.error:.2g}, tolerance {result.tolerance:.2g}"


def _try(
    process: Process,
    case: Case,
    operands: Operands,
    right: Array,
    result: Result,
    settings: Settings,
) -> None:
    """Run the case once and set the result's status."""
    estimate = process.ask(settings.timeout, "estimate", case)
    if estimate is None:
        result.status = "unsupported"
        return
    if estimate > SLOW * settings.seconds:
        result.status, result.note = "slow", f"a call takes about {estimate:.1f} s"
        return
    first = process.ask(settings.timeout, "prepare", case, operands)
    judge(first.result, right, case, result)
    if result.status == "ok" and first.seconds > SLOW * settings.seconds / 2:
        result.seconds = [first.seconds]


def _race(runners: list[Runner], settings: Settings) -> None:
    """Give each library a turn in each round; the slow ones have fewer."""
    for round_ in range(settings.rounds):
        for runner in order(runners, round_):
            if runner.used < SLOW * settings.seconds:
                _take_turn(runner, settings)
        if settings.late:
            break
    for runner in runners:
        _check_cpus(runner)


def order(runners: list[Entrant], round_: int) -> list[Entrant]:
    """Return who is next: rotated by one each round, every other round backwards."""
    first = round_ % max(1, len(runners))
    rotated = runners[first:] + runners[:first]
    return rotated[::-1] if round_ % 2 else rotated


def _take_turn(runner: Runner, settings: Settings) -> None:
    """Time a library's calls for its share of a round."""
    result, start = runner.result, time.monotonic()
    try:
        share = settings.seconds / settings.rounds
        turn = runner.process.ask(settings.timeout, "turn", share)
    except LibraryError as error:
        result.status, result.note = "failed", str(error)
        runner.used = math.inf
        return
    result.seconds.append(turn.seconds)
    result.cpus.append(turn.cpus)
    runner.used += time.monotonic() - start


def _check_cpus(runner: Runner) -> None:
    """Refuse times that were bought with more CPUs than the threads that were set."""
    result, threads = runner.result, runner.process.threads
    if result.counts and median(result.cpus) > threads + SLACK:
        result.status = "threads"
        result.note = f"kept {median(result.cpus):.1f} CPUs busy with {threads} threads"
