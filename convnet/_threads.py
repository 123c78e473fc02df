# SPDX-License-Identifier: MIT
"""How many threads a call may use: one place that defines every meaning of the number.

In order: the argument ``num_threads=`` of the call, :func:`set_num_threads`, the
environment variable ``CONVNET_NUM_THREADS``, and else what the operating system grants:
the CPUs of the affinity mask, or the cgroup's CPU quota where that is smaller.
"""

from __future__ import annotations

import math
import operator
import os
from pathlib import Path

MOST = 256  # larger numbers count as this
_chosen: int | None = None


def set_num_threads(n: int) -> None:
    """Set the number of threads of calls that do not say ``num_threads=``.

    Parameters
    ----------
    n : int
        At least 1; above 256 counts as 256. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or is below 1.
    """
    global _chosen
    _chosen = _checked(n, "n")


def get_num_threads() -> int:
    """Return the number of threads of calls that do not say ``num_threads=``."""
    global _chosen
    if _chosen is None:
        _chosen = _default()
    return _chosen


def resolve(num_threads: int | None) -> int:
    """Return the number of threads of one call, from its ``num_threads=`` argument."""
    if num_threads is None:
        return _chosen or get_num_threads()
    return _checked(num_threads, "num_threads")


def _checked(n: int, name: str) -> int:
    if isinstance(n, bool):
        raise TypeError(f"{name} must be an integer, not {n!r}")
    try:
        value = operator.index(n)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {n!r}") from None
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return min(value, MOST)


def _default() -> int:
    text = os.environ.get("CONVNET_NUM_THREADS", "").strip()
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(
                f"CONVNET_NUM_THREADS must be an integer of at least 1, not {text!r}"
            )
        return min(int(text), MOST)
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:  # macOS
        cpus = os.cpu_count() or 1
    return max(1, min(cpus, _cgroup_quota(), MOST))


def _cgroup_quota(
    root: Path = Path("/sys/fs/cgroup"), proc: str = "/proc/self/cgroup"
) -> int:
    """Return the CPUs that the control groups grant, rounded up; a huge number if all.

    A group inherits the limits of its parents, so each level up to the root counts.
    """
    limits = [math.inf]
    try:
        memberships = Path(proc).read_text().splitlines()
    except OSError:
        return 1 << 30
    for line in memberships:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        group = base / path.lstrip("/")
        limits += [_group_limit(level) for level in (group, *group.parents)]
    smallest = min(limits)
    return 1 << 30 if smallest == math.inf else max(1, math.ceil(smallest))


def _group_limit(group: Path) -> float:
    """Return quota / period of one control group, version 2 or 1; infinity if none."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((group / name).read_text() for name in names).split()
            quota, period = (float(word) for word in words)
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf
