# SPDX-License-Identifier: MIT
"""Does convnet choose well? Random shapes, each algorithm forced, and `auto`.

The tables have layers that whoever fits a cost model looks at; here nobody has chosen
them. What `explain` lists for a shape is timed against `auto` as libraries are: judged
first, then in turns. All run in this process, for they are one library.
"""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np

import convnet
from bench import layers, machine
from bench.cases import TITLES, Conv, Pair
from bench.libraries.convnet import Functions
from bench.report import notes, number
from bench.results import Comparison, Record, Result, summary
from bench.run import Plan
from bench.timing import Settings, judge, order, right_result
from bench.worker import Stand

KINDS = {"fwd": "forward", "gx": "grad_input", "gw": "grad_weight"}

# Drawn from with equal chances: mostly what networks are mostly made of.
KERNELS: list[Pair] = [*[(3, 3)] * 8, (1, 1), (5, 5), (7, 7), (1, 7)]
STRIDES = [1, 1, 1, 1, 2]
BATCHES, CHANNELS, PLANES, ASPECTS = (1, 8), (3, 640), (5, 128), (0.5, 2)
# Calls of about 10 microseconds to 10 milliseconds, and images that leave room for the
# buffers of all algorithms at once.
WORK, PIXELS = (1e6, 1e9), 2**22

# A choice is good if it reaches this share of the best one's speed.
CLOSE = 0.9


class Forced(Functions):
    """convnet's functions with one algorithm, and weights that are not prepared."""

    def __init__(self, threads: int, algorithm: str) -> None:
        super().__init__(threads)
        names = "conv2d", "conv2d_grad_input", "conv2d_grad_weight"
        self.functions = SimpleNamespace(
            **{n: partial(getattr(convnet, n), algorithm=algorithm) for n in names}
        )


def run(count: int, plan: Plan, settings: Settings, record: Record) -> None:
    """Measure the plan's passes of so many shapes, print them, and fill the record."""
    shapes = draw(count, settings.seed)
    for threads in plan.threads:
        peak = machine.fma_peak(threads)
        record.runs.append({"threads": threads, "fma_peak": [peak]})
        for op in (op for op in layers.CONV_PASSES if op in plan.passes):
            print(f"\nchoice of the algorithm, {TITLES[op]}, {threads=}")
            print("chosen, speed of auto over that of the best (*), GFLOP/s of each")
            found: list[Comparison] = []
            for shape in shapes:
                if settings.late:
                    break
                found.append(compare(replace(shape, op=op), threads, peak, settings))
                record.comparisons.append(found[-1])
                print(_row(found[-1]), flush=True)
            print("\n".join(_footer(found, count)), flush=True)


def draw(count: int, seed: int) -> list[Conv]:
    """Return random dense convolutions: sizes evenly spread on a logarithmic scale."""
    rng = np.random.default_rng(seed)

    def spread(least: float, most: float) -> float:
        return float(least * (most / least) ** rng.random())

    drawn: list[Conv] = []
    while len(drawn) < count:
        N, IC, OC, IH = (
            round(spread(*ends)) for ends in (BATCHES, CHANNELS, CHANNELS, PLANES)
        )
        IW = round(IH * spread(*ASPECTS))
        KH, KW = KERNELS[rng.integers(len(KERNELS))]
        S = STRIDES[rng.integers(len(STRIDES))]
        P = (KH // 2, KW // 2) if rng.random() < 0.8 else (0, 0)
        name = f"random.{len(drawn) + 1}"
        case = Conv(name, "fwd", N, IC, IH, IW, OC, (KH, KW), S, P, section="random")
        pixels = max(np.prod(case.x_shape), np.prod(case.y_shape))
        possible = min(case.y_shape) > 0 and pixels <= PIXELS
        if possible and WORK[0] <= case.work <= WORK[1]:
            drawn.append(case)
    return drawn


def compare(case: Conv, threads: int, peak: float, settings: Settings) -> Comparison:
    """Time `auto` and all candidates; the note of `auto` names the chosen one."""
    kind = KINDS[case.op]
    plan = convnet.explain(case.x_shape, case.w_shape, *case.window, kind=kind)
    results = [Result("auto", note=plan.algorithm)]
    results += [Result(candidate.algorithm) for candidate in plan.candidates]
    operands = case.operands(np.random.default_rng(settings.seed))
    right = right_result(case, operands)
    racing = []
    for result in results:
        stand = Stand(Forced(threads, result.library), settings.memory)
        judge(stand.prepare(case, operands).result, right, case, result)
        if result.status == "ok":
            racing.append((stand, result))
    for round_ in range(settings.rounds):
        for stand, result in order(racing, round_):
            turn = stand.turn(settings.seconds / settings.rounds)
            result.seconds.append(turn.seconds)
            result.cpus.append(turn.cpus)
    return Comparison(case, threads, peak, results)


def _row(comparison: Comparison) -> str:
    """Return a shape, the choice, its speed over the best one's (*), and all rates."""
    case, ratio, best = comparison.case, comparison.ratio, comparison.fastest
    cells = [f"{case.name:<10} N={case.N} {case!s:<42}", f"{comparison.ours.note:<9}"]
    cells.append(f"{ratio.median:.2f}x " if ratio else "WRONG ")
    for result in comparison.results:
        if result.counts:
            rate = number(comparison.rate(result).median)
            cells.append(f"{result.library} {rate}{'*' if result is best else ''}")
    return " ".join(cells)


def _footer(comparisons: list[Comparison], count: int) -> list[str]:
    """Return what is wrong or missing, the worst choice and the share of good ones."""
    lines = notes(comparisons)
    missing = count - len(comparisons)
    if missing:
        lines.append(f"{missing} of {count} shapes not run: out of time")
    found = summary(comparisons)
    if found:
        lines.append(
            f"speed of auto over the best: geometric mean {found.geometric_mean:.2f}x, "
            f"worst {found.worst:.2f}x ({found.worst_case})"
        )
    # Shapes with a single candidate only show the noise.
    choices = [c for c in comparisons if len(c.results) > 2]
    lines.append(
        f"within 10 % of the best: {_share(comparisons)} shapes; "
        f"where there is a choice: {_share(choices)}"
    )
    return lines


def _share(comparisons: list[Comparison]) -> str:
    good = sum(c.ratio is not None and c.ratio.median >= CLOSE for c in comparisons)
    percent = f" ({good / len(comparisons):.0%})" if comparisons else ""
    return f"{good} of {len(comparisons)}{percent}"
