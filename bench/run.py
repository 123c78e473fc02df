# SPDX-License-Identifier: MIT
"""The cases in order: each measured, printed and kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench import layers, machine
from bench.cases import Case, Pool
from bench.process import Process, started
from bench.report import Table
from bench.results import Comparison, Record
from bench.timing import Settings, measure
from bench.training import trainings

# A machine whose peak moves by more than this between two looks was not left alone.
DRIFT = 0.03


@dataclass(frozen=True)
class Plan:
    """What to measure; `setups` are pairs (images, threads) for convolutions."""

    peers: Sequence[str]
    layers: Sequence[str]
    passes: Sequence[str]
    setups: Sequence[tuple[int, int]]

    @property
    def threads(self) -> list[int]:
        """The different numbers of threads, in order."""
        return list(dict.fromkeys(threads for _, threads in self.setups))

    def groups(self, threads: int) -> Iterator[list[Case]]:
        """Yield the cases for so many threads, one table after the other."""
        for N in (N for N, its_threads in self.setups if its_threads == threads):
            for section, op in product(layers.SECTIONS, layers.CONV_PASSES):
                if op in self.passes:
                    yield list(layers.convolutions(self.layers, section, op, N))
        for section, op in product(layers.POOL_SECTIONS, layers.POOL_PASSES):
            if op in self.passes:
                yield list(layers.poolings(self.layers, section, op))
        if "step" in self.passes:
            yield list(trainings(self.layers))


def run(plan: Plan, settings: Settings, record: Record) -> None:
    """Measure the plan, print tables, and fill the record (also if interrupted)."""
    for threads in plan.threads:
        names = ["convnet", *plan.peers]
        with started(names, threads, settings.timeout, settings.memory) as (
            processes,
            failures,
        ):
            if "convnet" in failures:
                raise RuntimeError(f"convnet: {failures['convnet']}")
            for name, reason in failures.items():
                print(f"without {name}: {reason}")
            peak = machine.fma_peak(threads)
            about: dict[str, Any] = {
                "threads": threads,
                "libraries": {p.name: p.hello._asdict() for p in processes},
                "failures": failures,
                "fma_peak": [peak],
            }
            record.runs.append(about)
            for cases in filter(None, plan.groups(threads)):
                _run_group(cases, threads, peak, processes, settings, record)
            about["fma_peak"].append(machine.fma_peak(threads))
            print(_peak_line(threads, *about["fma_peak"]))


def _run_group(
    cases: list[Case],
    threads: int,
    peak: float,
    processes: list[Process],
    settings: Settings,
    record: Record,
) -> None:
    """Measure the cases of one table."""
    able = [process for process in processes if cases[0].op in process.hello.ops]
    table = Table(cases, threads, [process.name for process in able])
    print(table.header(), flush=True)
    comparisons: list[Comparison] = []
    for case in cases:
        if settings.late:
            break
        if isinstance(case, Pool):
            limit = machine.copy_bandwidth(case.work, threads)
        else:
            limit = peak * 1e9 / case.flops * case.work / case.scale
        results = measure(case, able, settings)
        comparisons.append(Comparison(case, threads, limit, results))
        record.comparisons.append(comparisons[-1])
        print(table.row(comparisons[-1]), flush=True)
    for line in table.footer(comparisons):
        print(line, flush=True)


def _peak_line(threads: int, before: float, after: float) -> str:
    line = (
        f"\nFMA peak, threads={threads}: {before:.0f} GFLOP/s, {after:.0f} at the end"
    )
    if abs(after / before - 1) > DRIFT:
        line += "; THE MACHINE CHANGED ITS SPEED: shares of the peak are doubtful"
    return line
