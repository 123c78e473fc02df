# SPDX-License-Identifier: MIT
"""What the hardware can do: its FMA peak, its memory bandwidth, its description."""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Barrier
from time import perf_counter

import numpy as np

import convnet
from bench.worker import BUFFERS
from convnet import _kernels


def cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> dict[str, str | int]:
    """Return what a reader must know to compare with another machine."""
    return {
        "cpu": _cpu_name(),
        "cpus": cpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "convnet": convnet.__version__,
        "isa": convnet.get_isa(),
    }


def load() -> float:
    """Return how many processes wanted a CPU in the last minute, on average."""
    return os.getloadavg()[0]


def fma_peak(threads: int, seconds: float = 0.1) -> float:
    """Return GFLOP/s of FMAs in registers, on so many threads at once."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(_kernels.fma_peak, [seconds] * threads))


@lru_cache
def copy_bandwidth(size: int, threads: int, seconds: float = 0.03) -> float:
    """Return GB/s, read and written, of NumPy copies that move `size` bytes.

    They rotate over as many buffers as the libraries' inputs do, so that they meet the
    same caches; each thread copies a part of its own.
    """
    count = max(1, size // 8 // threads)
    barrier = Barrier(threads)

    def copy(_: int) -> float:
        source, target = np.ones((2, BUFFERS, count), np.float32)
        target[...] = source
        barrier.wait()
        start, calls = perf_counter(), 0
        while calls < BUFFERS or perf_counter() - start < seconds:
            np.copyto(target[calls % BUFFERS], source[calls % BUFFERS])
            calls += 1
        return 8 * count * calls / (perf_counter() - start) / 1e9

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(copy, range(threads)))


def _cpu_name() -> str:
    """Return the processor's name as the system knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
