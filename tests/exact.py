# SPDX-License-Identifier: MIT
"""What lets tests compare exactly: whole numbers, and derivatives that do not err.

Both derivatives need no derivation at all. Each is exact up to rounding for its kind of
function, so that tests need no tolerance for the method itself.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def whole(rng: np.random.Generator, *shape: int) -> Array:
    """Return whole numbers, none of them 0; sums of their products are exact."""
    return rng.integers(1, 6, shape) * rng.choice([-1.0, 1.0], shape)


def central_difference(f: Callable[[Array], float], x: Array, step: float = 1) -> Array:
    """Return the gradient of `f` at `x` as ``(f(x + step) - f(x - step)) / (2 step)``.

    Exact for polynomials of degree 2 with any step, and thus for whatever is linear in
    `x`, such as a convolution. For max pooling, take a step that changes no winner.
    """
    grad = np.zeros_like(x)
    for entry in np.ndindex(x.shape):
        move = np.zeros_like(x)
        move[entry] = step
        grad[entry] = (f(x + move) - f(x - move)) / (2 * step)
    return grad


def complex_step(f: Callable[[npt.NDArray[np.complex128]], complex], x: Array) -> Array:
    """Return the gradient of `f` at `x` as ``Im f(x + ih) / h``.

    `f` must be analytic: exponentials, logarithms, quotients. With h = 1e-100 the error
    of the method, of order h**2, is zero (Squire and Trapp, SIAM Review 40, 1998).
    """
    grad = np.zeros_like(x)
    for entry in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[entry] += 1e-100j
        grad[entry] = np.imag(f(moved)) / 1e-100
    return grad
