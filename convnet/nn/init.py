# SPDX-License-Identifier: MIT
"""Random start values of weights, as torch draws them.

    weight, bias ~ uniform(-1/sqrt(fan_in), 1/sqrt(fan_in))

`fan_in` is the number of inputs that one output sums over. Values are drawn in float64
and rounded, so that one seed means the same network in both precisions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from convnet._check import Array
from convnet.nn._arrays import float_dtype


def kaiming_uniform(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    dtype: DTypeLike = np.float32,
    a: float = math.sqrt(5),
) -> Array:
    """Return weights with ``bound = sqrt(6 / ((1 + a**2) * fan_in))``.

    Parameters
    ----------
    shape : tuple of int
        (outputs, inputs, ...); `fan_in` is the product of all but the first.
    rng : numpy.random.Generator
    dtype : dtype, float32 or float64
    a : float, default sqrt(5)
        Slope for negative inputs of the activation that follows. torch's layers use
        ``sqrt(5)``, which makes the bound ``1 / sqrt(fan_in)``; for ReLU use 0.

    Notes
    -----
    K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers", ICCV 2015.

    Examples
    --------
    >>> w = kaiming_uniform((5, 3, 3, 2), np.random.default_rng(0))
    >>> w.shape, bool(abs(w).max() <= 18**-0.5)
    ((5, 3, 3, 2), True)
    """
    bound = math.sqrt(6 / ((1 + a * a) * fan_in(shape)))
    return uniform(shape, bound, rng, dtype)


def uniform(
    shape: tuple[int, ...],
    bound: float,
    rng: np.random.Generator,
    dtype: DTypeLike = np.float32,
) -> Array:
    """Return values drawn evenly from -`bound` to `bound`."""
    return rng.uniform(-bound, bound, shape).astype(float_dtype(dtype))


def fan_in(shape: tuple[int, ...]) -> int:
    """Return how many inputs one output of a weight of this shape sums over."""
    return math.prod(shape[1:])
