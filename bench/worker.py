# SPDX-License-Identifier: MIT
"""A library's process, from the inside: answer the bench's requests until it hangs up.

Nothing here imports convnet, so that each library is alone in its process.
"""

import gc
import math
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable
from itertools import cycle
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any, NamedTuple

import numpy as np

from bench.cases import TITLES, Array, Case, Operands
from bench.libraries import ALIVE, Library, load_class

# Inputs rotate over several buffers, so that a call does not find its input where the
# last call left it; fewer of them when they are large beside every cache anyway.
BUFFERS = 4
BUFFER_BYTES = 2**28

# Where a call finds its operands, and what its result is written to.
MEMORY = {
    "rotating": "inputs take turns in several buffers, results take old ones' memory",
    "hot": "inputs lie where the last call left them",
    "cold": "all caches are swept before a call",
    "fresh": "as rotating, but results of a turn live on: each takes new memory",
}
# What sweeps the caches, and the most that the results of a turn may take.
SWEEP_BYTES, FRESH_BYTES = 2**27, 2**29

# A first call longer than this many seconds is not repeated to see a settled one.
PATIENCE = 1.0


class Hello(NamedTuple):
    """What a library says of itself."""

    version: str
    threads: int
    ops: tuple[str, ...]


class First(NamedTuple):
    """The result of a case, to be judged, and about how long a call takes."""

    result: Array
    seconds: float


class Turn(NamedTuple):
    """The median time of the calls in a turn, and how many CPUs they kept busy."""

    seconds: float
    cpus: float


class Stand:
    """One library with the case that it is working on."""

    def __init__(self, library: Library, memory: str) -> None:
        self.library = library
        self.fresh, self.hot = memory == "fresh", memory == "hot"
        self.sweep = np.zeros(SWEEP_BYTES if memory == "cold" else 0, np.uint8)
        self.most_calls = math.inf  # of a turn
        self.run: Any = None
        self.arrays: Any = None
        self.inputs: Any = None
        self.alive: Any = None
        self.seconds = 0.0  # of a call, as last seen

    def estimate(self, case: Case) -> float | None:
        """Return about how long a call will take, or None if there can be none."""
        return self.library.estimate(case) if self.library.supports(case) else None

    def prepare(self, case: Case, operands: Operands) -> First:
        """Drop the last case, make this one ready and run it."""
        self.run = self.inputs = self.alive = self.arrays = None
        gc.collect()
        self.run = getattr(self.library, case.op)(case, *operands.fixed)
        # The loaded ones may only refer to these.
        self.arrays = _copies(operands.rotating, 1 if self.hot else BUFFERS)
        load = self.library.load
        self.inputs = cycle([tuple(map(load, arrays)) for arrays in self.arrays])
        self.alive = deque(maxlen=ALIVE)
        self.seconds = self._call()
        result = self.library.store(self.alive[-1])
        if self.fresh:
            self.most_calls = max(2, FRESH_BYTES // result.nbytes)
            self.alive = deque(self.alive)  # of any length
        if self.seconds < PATIENCE:
            self.seconds = self._call()
        _settle()
        return First(result, self.seconds)

    def turn(self, seconds: float) -> Turn:
        """Call for about so many seconds, at least once; short calls warm up before."""
        if self.fresh:
            self.alive.clear()
        elif self.seconds < seconds:
            self._call()
        times: list[float] = []
        cpu, start = process_time(), perf_counter()
        while not times or (
            perf_counter() - start < seconds and len(times) < self.most_calls
        ):
            times.append(self._call())
        cpus = (process_time() - cpu) / (perf_counter() - start)
        _settle()
        self.seconds = median(times)
        return Turn(self.seconds, cpus)

    def _call(self) -> float:
        """Time one call; to let the oldest of the living results go is part of it."""
        run, alive, inputs = self.run, self.alive, next(self.inputs)
        self.sweep += 1
        start = perf_counter()
        alive.append(run(*inputs))
        return perf_counter() - start


def serve(connection: Connection, name: str, threads: int, memory: str) -> None:
    """Load a library and answer requests (verb, *arguments) with (done, answer)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the bench decides when to stop
    os.dup2(2, 1)  # the terminal's table is the bench's alone
    gc.disable()
    loaded, answer = _attempt(_load, name, threads, memory)
    if loaded:
        stand, answer = answer
    connection.send((loaded, answer))
    while loaded:
        try:
            verb, *arguments = connection.recv()
            connection.send(_attempt(getattr(stand, verb), *arguments))
        except (EOFError, OSError):
            return


def _load(name: str, threads: int, memory: str) -> tuple[Stand, Hello]:
    library = load_class(name)(threads)
    ops = tuple(op for op in TITLES if hasattr(library, op))
    return Stand(library, memory), Hello(library.version, library.threads, ops)


def _attempt(function: Callable[..., Any], *arguments: Any) -> tuple[bool, Any]:
    """Return (True, result) or, whatever goes wrong in a library, (False, message)."""
    try:
        return True, function(*arguments)
    except Exception as error:
        return False, traceback.format_exception_only(error)[-1].strip()


def _copies(arrays: tuple[Array, ...], most: int) -> list[tuple[Array, ...]]:
    size = sum(array.nbytes for array in arrays)
    count = min(most, max(2, BUFFER_BYTES // size))
    return [tuple(array.copy() for array in arrays) for _ in range(count)]


def _settle(limit: float = 0.5) -> None:
    """Wait until the library's own threads spin no more: the next turn is another's.

    A look takes longer than a tick of the scheduler (10 ms at most): only then does a
    thread that spins on another CPU show in the process's time.
    """
    end = perf_counter() + limit
    while perf_counter() < end:
        before = process_time()
        sleep(0.012)
        if process_time() - before < 0.001:
            return
