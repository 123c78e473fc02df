# SPDX-License-Identifier: MIT
"""Rectifiers and steps of optimizers, for layers and optimizers: element by element."""

from __future__ import annotations

import numpy as np

from convnet import _check as check
from convnet import _pointwise
from convnet._check import Array
from convnet._threads import get_num_threads


def relu(x: Array, out: Array | None = None) -> Array:
    """Return ``max(x, 0)``; NaN stays NaN. `x` may be `out`, if it has no gaps."""
    x = np.ascontiguousarray(x)
    y = check.result(None, x.shape, x.dtype, ()) if out is None else out
    _pointwise.rectify(x, y, get_num_threads())
    return y


def relu_grad(grad_y: Array, y: Array) -> Array:
    """Return ``grad_y`` where ``y > 0``, and 0 elsewhere."""
    grad_y, y = np.ascontiguousarray(grad_y), np.ascontiguousarray(y)
    grad_y = grad_y.astype(y.dtype, copy=False)
    grad_x = check.result(None, y.shape, y.dtype, ())
    _pointwise.rectify_grad(grad_y, y, grad_x, get_num_threads())
    return grad_x


def sgd_step(
    value: Array,
    grad: Array,
    velocity: Array | None,
    lr: float,
    momentum: float,
    decay: float,
    nesterov: bool,
) -> None:
    """Take the step of `convnet.optim.SGD`, in place."""
    how = lr, momentum, decay, nesterov
    _pointwise.sgd_step(value, grad, velocity, *how, get_num_threads())


def adam_step(
    value: Array, grad: Array, mean: Array, square: Array, factors: dict[str, float]
) -> None:
    """Take the step of `convnet.optim.Adam`, in place.

    ``value = keep * value - lr * mean / (sqrt(square) * unbias + eps)``, after both
    averages have taken in ``grad + decay * value`` by `beta1` and `beta2`.
    """
    _pointwise.adam_step(value, grad, mean, square, factors, get_num_threads())
