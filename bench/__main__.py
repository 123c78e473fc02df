# SPDX-License-Identifier: MIT
"""The command line: ``python -m bench``."""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import layers, machine, report, selection
from bench.libraries import LIBRARIES, installed
from bench.results import Record
from bench.run import Plan, run
from bench.timing import Settings
from bench.worker import MEMORY

EPILOG = """
Each library runs in a process of its own and is judged against float64 before it is
timed. Any other library can be compared too: --peers module:Class names a class with
the interface that bench/libraries/__init__.py describes.
"""

# A load average above this, before the bench has begun, is probably somebody else's.
BUSY = 0.7


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; return 1 if convnet gave a wrong result or none, else 0."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        plan, settings = _plan(options), _settings(options)
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        _print_cases(plan)
        return 0
    if options.plot or options.roofline:
        try:  # now, and not at the end, say what is missing
            from bench.plot import write_plot, write_roofline
        except ImportError as error:
            parser.error(str(error))
    about = machine.describe()
    print("; ".join(f"{key} {value}" for key, value in about.items()))
    if machine.load() > BUSY:
        print(
            f"LOAD AVERAGE {machine.load():.1f}: do other programs run? Rates suffer."
        )
    record, interrupted = Record(), False
    try:
        if options.random:
            selection.run(options.random, plan, settings, record)
        else:
            run(plan, settings, record)
    except KeyboardInterrupt:
        interrupted = True  # what has been measured is worth keeping
        print("\ninterrupted", file=sys.stderr)
    if not options.random:
        print("\n".join(report.scaling(record.comparisons)))
        print(report.LEGEND)
    if options.json:
        report.write_json(options.json, about, settings, record)
    if options.plot and record.comparisons:
        write_plot(options.plot, record.comparisons)
    if options.roofline and record.comparisons:
        write_roofline(options.roofline, record.comparisons)
    return 130 if interrupted else int(not record.all_right)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bench",
        description="Compare convnet with other libraries.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a few layers, in less than a minute")
    add("--list", action="store_true", help="print the cases and end")
    what = "names or shell patterns of layers, poolings and trainings"
    add("--layers", nargs="+", action="extend", metavar="PATTERN", help=what)
    what = "poolings: the same as --layers 'pool.*'"
    add("--pool", action="append_const", dest="layers", const="pool.*", help=what)
    what = "trainings of small networks: the same as --layers 'train.*'"
    add("--train", action="append_const", dest="layers", const="train.*", help=what)
    what = f"any of {','.join(layers.PASSES)} (default: all)"
    add("--passes", type=_words, default=layers.PASSES, metavar="LIST", help=what)
    what = "images at a time in convolutions (default: 1,8; quick: 1)"
    add("--batch", type=_numbers, metavar="LIST", help=what)
    what = "threads for each of --batch, or one for all (default: 1,2; quick: 1)"
    add("--threads", type=_numbers, metavar="LIST", help=what)
    what = f"of {','.join(LIBRARIES)} (default: those installed; '' for none)"
    add("--peers", type=_words, metavar="LIST", help=what)
    what = "for each library and case (default: 0.4; quick: 0.06)"
    add("--seconds-per-case", type=float, metavar="SECONDS", help=what)
    what = "turns of each library on each case (default: 15; quick: 5)"
    add("--rounds", type=int, help=what)
    what = "leave out what has not begun by then (default: none; quick: 45)"
    add("--time-limit", type=float, metavar="SECONDS", help=what)
    what = "instead of the tables, so many random shapes: is the best algorithm chosen?"
    add("--random", type=int, default=0, metavar="N", help=what)
    what = "of the operands and of --random (default: 0)"
    add("--seed", type=int, default=0, help=what)
    what = "; ".join(f"{name}: {meaning}" for name, meaning in MEMORY.items())
    add("--memory", choices=MEMORY, default="rotating", help=what)
    add("--json", type=Path, metavar="FILE", help="write everything measured")
    add("--plot", type=Path, metavar="FILE", help="draw a bar chart (.png, .svg, .pdf)")
    what = "draw the rates over the FLOPs per byte, below what the hardware can do"
    add("--roofline", type=Path, metavar="FILE", help=what)
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    """Return what to measure; raise ValueError if the options make no sense."""
    if options.random and (options.list or options.plot or options.roofline):
        raise ValueError("--list and pictures are for the tables, not for --random")
    if options.random < 0:
        raise ValueError("--random must be positive")
    unknown = set(options.passes) - set(layers.PASSES)
    if unknown:
        raise ValueError(f"no such passes: {', '.join(sorted(unknown))}")
    peers = installed() if options.peers is None else options.peers
    for peer in peers:
        if peer not in LIBRARIES and ":" not in peer:
            raise ValueError(f"no such library: {peer!r}")
    patterns = options.layers or (layers.QUICK if options.quick else ())
    return Plan(
        peers=[peer for peer in peers if peer != "convnet"],
        layers=layers.matching(patterns),
        passes=options.passes,
        setups=_setups(options),
    )


def _setups(options: argparse.Namespace) -> list[tuple[int, int]]:
    """Return pairs (images, threads)."""
    batch = options.batch or ([1] if options.quick else [1, 8])
    threads = options.threads or [min(N, 2, machine.cpus()) for N in batch]
    if min(batch + threads) < 1:
        raise ValueError("--batch and --threads must be positive")
    if len(threads) == 1:
        threads *= len(batch)
    if len(batch) == 1:
        batch *= len(threads)
    if len(batch) != len(threads):
        raise ValueError(f"{len(batch)} of --batch, but {len(threads)} of --threads")
    return list(zip(batch, threads, strict=True))


def _settings(options: argparse.Namespace) -> Settings:
    """Return how long to measure; raise ValueError if that is no time."""
    limit, seconds, rounds = (45.0, 0.06, 5) if options.quick else (math.inf, 0.4, 15)
    limit = limit if options.time_limit is None else options.time_limit
    seconds = options.seconds_per_case or seconds
    rounds = options.rounds or rounds
    if min(limit, seconds, rounds) <= 0:
        raise ValueError("times and rounds must be positive")
    deadline = time.monotonic() + limit
    return Settings(rounds, seconds, options.seed, options.memory, deadline)


def _print_cases(plan: Plan) -> None:
    for threads in plan.threads:
        for case in (case for group in plan.groups(threads) for case in group):
            print(
                f"{case.name:<26} {case.op:<4} N={case.N:<2} threads={threads}  {case}"
            )


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in _words(text)]


if __name__ == "__main__":
    sys.exit(main())
