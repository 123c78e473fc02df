# SPDX-License-Identifier: MIT
"""Checks of gradients, for the package's own layers and for yours.

`gradcheck` compares `backward` with finite differences: slow, but it needs nothing
except `forward`. `adjoint_check` is for linear maps, exact up to rounding, and cheap at
any size.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from convnet._check import Array
from convnet.nn import Module

Map: TypeAlias = Callable[[Array], Any]


@dataclass(frozen=True)
class Entry:
    """One derivative: where, what backward says, and what differences say.

    `kink` has the slopes below and above where these differ, and backward says neither
    more nor less: there is no derivative to compare with.
    """

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float
    kink: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Return all of it in one line."""
        place = ", ".join(map(str, self.index))
        line = (
            f"{self.name}[{place}]: analytic {self.analytic:.9g}, "
            f"numeric {self.numeric:.9g}, error {self.error:.3g}"
        )
        if self.kink is None:
            return line
        below, above = self.kink
        return f"{line}; a kink, with slope {below:.3g} below and {above:.3g} above"


@dataclass(frozen=True)
class GradcheckReport:
    """The result of `gradcheck`; true in a condition if all gradients agree.

    Attributes
    ----------
    worst : list of Entry
        For the input "x" and each parameter, the derivative with the largest error,
        ``abs(analytic - numeric) / max(1, abs(analytic), abs(numeric))``; the largest
        of all comes first.
    tolerance : float
        What errors may reach.
    count : int
        How many derivatives were compared.
    """

    worst: list[Entry]
    tolerance: float
    count: int

    @property
    def ok(self) -> bool:
        """Whether every error is within the tolerance."""
        return all(entry.error <= self.tolerance for entry in self.worst)

    def __bool__(self) -> bool:
        """Return `ok`, so that ``assert gradcheck(...)`` asserts something."""
        return self.ok

    def __str__(self) -> str:
        """Return the verdict and the worst derivatives, one in a line."""
        verdict = "passed" if self.ok else "FAILED"
        lines = [
            f"gradcheck {verdict}: {self.count} derivatives, "
            f"tolerance {self.tolerance:.3g}; the worst:"
        ]
        lines += map(str, self.worst)
        if not self.ok and any(entry.kink for entry in self.worst):
            lines.append(
                "at a kink, such as 0 for ReLU or a tie for max pooling, differences "
                "prove nothing: try another x"
            )
        return "\n  ".join(lines)


@dataclass(frozen=True)
class AdjointReport:
    """The result of `adjoint_check`; true in a condition if both sides agree.

    Attributes
    ----------
    left, right : float
        ``<forward(x), y>`` and ``<x, backward(y)>``.
    error : float
        Their distance, relative to the sum of the magnitudes of all products.
    tolerance : float
    """

    left: float
    right: float
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance

    def __bool__(self) -> bool:
        """Return `ok`, so that ``assert adjoint_check(...)`` asserts something."""
        return self.ok


def gradcheck(
    module_or_function: Module | Map,
    x: ArrayLike,
    backward: Map | None = None,
    *,
    step: float = 1e-6,
    tolerance: float = 1e-6,
    rng: int | np.random.Generator | None = 0,
) -> GradcheckReport:
    """Compare gradients with central differences, in float64.

    With a random weight for each output, ``f(x) = sum(grad_y * forward(x))``, and the
    derivative for one input is ``(f(x + step) - f(x - step)) / (2 * step)``. This is
    done for every element of `x` and of every parameter, so keep them small.

    Parameters
    ----------
    module_or_function : Module, or callable
        A module stays as it is: the check works on copies of it in float64. Each of
        them begins with the same random generators, so that dropout can be checked.
        Or a function of an array.
    x : array_like
        Where to take the derivatives. Stay away from kinks, such as 0 for ReLU or ties
        for max pooling; the report names those that it meets.
    backward : callable, for a function only
        ``backward(grad_y)`` returns grad_x for the last call of the function.
    step : float, default 1e-6
    tolerance : float, default 1e-6
        For errors relative to derivatives above 1, absolute below.
    rng : int or numpy.random.Generator, default 0
        Source of grad_y.

    Returns
    -------
    GradcheckReport
        ``report.ok``, and ``print(report)`` with the worst derivatives.

    Raises
    ------
    ValueError
        If a gradient has not the shape of what it belongs to.

    Examples
    --------
    >>> from convnet.nn import Conv2d
    >>> x = np.random.default_rng(0).standard_normal((2, 3, 5, 4))
    >>> gradcheck(Conv2d(3, 2, (3, 2), stride=(2, 1)), x).ok
    True
    >>> wrong = gradcheck(np.sin, [0.0, 0.1, 0.2], lambda grad_y: grad_y)
    >>> print(wrong)  # doctest: +ELLIPSIS
    gradcheck FAILED: 3 derivatives, tolerance 1e-06; the worst:
      x[2]: analytic ..., numeric ..., error ...
    """
    x = np.array(x, np.float64)
    if not isinstance(module_or_function, Module):
        module_or_function = _Function(module_or_function, backward)
    module = _in_float64(module_or_function)
    grad_y = np.random.default_rng(rng).standard_normal(_output(module, x).shape)
    arrays = {"x": x} | {k: p.value for k, p in module.named_parameters().items()}
    gradients = _gradients(module, x, grad_y)
    worst = [
        _worst(
            name,
            array,
            gradients[name],
            lambda: float((grad_y * _output(module, x)).sum()),
            step,
        )
        for name, array in arrays.items()
        if array.size
    ]
    worst.sort(key=lambda entry: entry.error, reverse=True)
    return GradcheckReport(worst, tolerance, sum(a.size for a in arrays.values()))


def adjoint_check(
    forward: Map,
    backward: Map,
    x: ArrayLike,
    *,
    rng: int | np.random.Generator | None = 0,
) -> AdjointReport:
    """Check that a linear map and its gradient belong together.

    ``<forward(x), y> == <x, backward(y)>`` for a random `y`, up to rounding.

    Parameters
    ----------
    forward : callable
        A linear map of an array; a convolution without bias, for instance.
    backward : callable
        ``backward(grad_y)`` returns grad_x.
    x : array_like, float32 or float64
        Random numbers are best.
    rng : int or numpy.random.Generator, default 0
        Source of `y`, which gets the dtype of ``forward(x)``.

    Returns
    -------
    AdjointReport
        ``report.ok``, and the figures.

    Raises
    ------
    ValueError
        If ``backward(y)`` has not the shape of `x`.

    Examples
    --------
    >>> from convnet import conv2d, conv2d_grad_input
    >>> rng = np.random.default_rng(0)
    >>> x, w = rng.standard_normal((2, 3, 11, 7)), rng.standard_normal((5, 3, 3, 2))
    >>> adjoint_check(
    ...     lambda x: conv2d(x, w), lambda y: conv2d_grad_input(y, w, x.shape), x
    ... ).ok
    True
    """
    x = np.asarray(x)
    out = np.asarray(forward(x))
    y = np.random.default_rng(rng).standard_normal(out.shape).astype(out.dtype)
    left = np.multiply(out, y, dtype=np.float64)
    right = np.multiply(x, _shaped(backward(y), x, "x"), dtype=np.float64)
    scale = max(np.abs(left).sum(), np.abs(right).sum(), np.finfo(np.float64).tiny)
    # Of K products in one element the rounding errors are about eps * sqrt(K) of it,
    # and average out over n elements; K is at most the other side's number of elements.
    ratio = max(x.size, 1) / max(y.size, 1)
    eps = float(np.finfo(out.dtype).eps)
    return AdjointReport(
        left=float(left.sum()),
        right=float(right.sum()),
        error=float(abs(left.sum() - right.sum()) / scale),
        tolerance=16 * eps * math.sqrt(max(ratio, 1 / ratio)),
    )


class _Function(Module):
    """A function and its gradient as a module without parameters."""

    def __init__(self, function: Map, gradient: Map | None) -> None:
        if gradient is None:
            raise TypeError("to check a function, give its backward as well")
        self.function, self.gradient = function, gradient

    def forward(self, x: ArrayLike) -> Array:
        return np.asarray(self.function(np.asarray(x)))

    def backward(self, grad_y: ArrayLike) -> Array:
        return np.asarray(self.gradient(np.asarray(grad_y)))


def _in_float64(module: Module) -> Module:
    """Return a copy of a module whose arrays are float64, with gradients of zero."""
    arrays = module._state().values()
    replaced = {id(array): array.astype(np.float64) for array in arrays}
    for p in module.parameters():
        replaced[id(p.grad)] = np.zeros(p.grad.shape)
    return copy.deepcopy(module, replaced)


def _output(module: Module, x: Array) -> Array:
    """Return the output for `x` of a fresh copy: same random numbers, same averages."""
    return np.asarray(copy.deepcopy(module).forward(x))


def _gradients(module: Module, x: Array, grad_y: Array) -> dict[str, Array]:
    """Return what `backward` says, for the input and for each parameter."""
    module = copy.deepcopy(module)
    module.forward(x)
    grad_x = _shaped(module.backward(grad_y), x, "x")
    return {"x": grad_x} | {k: p.grad for k, p in module.named_parameters().items()}


def _shaped(gradient: ArrayLike, like: Array, name: str) -> Array:
    gradient = np.asarray(gradient)
    if gradient.shape != like.shape:
        raise ValueError(
            f"the gradient of {name} has shape {gradient.shape}, but {name} has "
            f"{like.shape}"
        )
    return gradient


def _worst(
    name: str, array: Array, gradient: Array, f: Callable[[], float], step: float
) -> Entry:
    """Compare all derivatives of `f` for one array; return the one farthest off."""
    entries = []
    f_here = f()
    for index in np.ndindex(array.shape):
        here = array[index]
        array[index] = here + step
        above, f_above = array[index], f()
        array[index] = here - step
        below, f_below = array[index], f()
        array[index] = here
        numeric = float((f_above - f_below) / (above - below))
        slopes = (
            float((f_here - f_below) / (here - below)),
            float((f_above - f_here) / (above - here)),
        )
        analytic = float(gradient[index])
        kink = slopes if _is_kink(slopes, analytic, step) else None
        error = abs(analytic - numeric) / max(1, abs(analytic), abs(numeric))
        # NaN compares as neither larger nor smaller; here it is as wrong as can be.
        error = math.inf if math.isnan(error) else error
        entries.append(Entry(name, index, analytic, numeric, error, kink))
    return max(entries, key=lambda entry: entry.error)


def _is_kink(slopes: tuple[float, float], analytic: float, step: float) -> bool:
    """Tell whether two slopes differ by more than curvature, and one may be right.

    Where f is smooth they differ by about `step` times its second derivative.
    """
    low, high = sorted(slopes)
    slack = math.sqrt(step) * max(1, abs(low), abs(high))
    return high - low > slack and low - slack <= analytic <= high + slack
