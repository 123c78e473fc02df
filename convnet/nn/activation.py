# SPDX-License-Identifier: MIT
"""Activations: functions of each element, and softmax.

Each keeps its output y, not its input, because the derivative can be had from y: the
array is alive anyway as the next layer's input.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike

from convnet._check import Array
from convnet.functional.pointwise import relu, relu_grad
from convnet.nn._arrays import as_floats, as_gradient
from convnet.nn.module import Module


class Activation(Module):
    """Base class: `y` is a function of `x`, and grad_x one of `y` and grad_y."""

    def forward(self, x: ArrayLike) -> Array:
        """Return the activation of `x`, shaped as `x`."""
        self._saved = y = self._output(as_floats(x))
        return y

    def backward(self, grad_y: ArrayLike) -> Array:
        """Return grad_x, shaped as the last input."""
        y = self._recall()
        return self._grad_input(as_gradient(grad_y, y.shape), y)

    def infer(self, x: ArrayLike) -> Array:
        """Return the activation of `x`, and keep nothing."""
        return self._output(as_floats(x))

    @abstractmethod
    def _output(self, x: Array) -> Array:
        """Return the activation of each element."""

    @abstractmethod
    def _grad_input(self, grad_y: Array, y: Array) -> Array:
        """Return the gradient of the input from the output and its gradient."""


class ReLU(Activation):
    """Rectifier: ``y = max(x, 0)``; the derivative at 0 is 0, and NaN stays NaN.

    Examples
    --------
    >>> ReLU()(np.array([-1.5, 0.0, 2.5]))
    array([0. , 0. , 2.5])
    """

    def _output(self, x: Array) -> Array:
        return relu(x)

    def _grad_input(self, grad_y: Array, y: Array) -> Array:
        return relu_grad(grad_y, y)


class LeakyReLU(Activation):
    """Rectifier with a slope: ``y = x if x > 0 else negative_slope * x``.

    Parameters
    ----------
    negative_slope : float, default 0.01
        At least 0.

    Examples
    --------
    >>> LeakyReLU(0.1)(np.array([-5.0, 0.0, 2.5]))
    array([-0.5,  0. ,  2.5])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        if not negative_slope >= 0:
            raise ValueError(f"negative_slope must be at least 0, got {negative_slope}")
        self.negative_slope = float(negative_slope)

    def _output(self, x: Array) -> Array:
        y: Array = np.maximum(x, 0) + np.minimum(x, 0) * self.negative_slope
        return y

    def _grad_input(self, grad_y: Array, y: Array) -> Array:
        return np.where(y > 0, grad_y, grad_y * self.negative_slope)

    def _describe(self) -> str:
        return f"negative_slope={self.negative_slope}"


class Sigmoid(Activation):
    """Logistic function: ``y = 1 / (1 + exp(-x))``, ``dy/dx = y * (1 - y)``.

    Examples
    --------
    >>> Sigmoid()(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """

    def _output(self, x: Array) -> Array:
        return sigmoid(x)

    def _grad_input(self, grad_y: Array, y: Array) -> Array:
        grad_x: Array = grad_y * y * (1 - y)
        return grad_x


class Tanh(Activation):
    """Hyperbolic tangent: ``y = tanh(x)``, ``dy/dx = 1 - y**2``.

    Examples
    --------
    >>> Tanh()(np.array([-1000.0, 0.0, 1000.0]))
    array([-1.,  0.,  1.])
    """

    def _output(self, x: Array) -> Array:
        return np.tanh(x)

    def _grad_input(self, grad_y: Array, y: Array) -> Array:
        grad_x: Array = grad_y * (1 - y * y)
        return grad_x


class Softmax(Activation):
    """Probabilities: ``y[i] = exp(x[i]) / sum(exp(x[j]))`` along one axis.

    To train a classifier, use `CrossEntropyLoss` on the inputs of the softmax instead:
    it is exact where a softmax rounds to 0.

    Parameters
    ----------
    dim : int, default -1
        The axis whose elements will sum to 1.

    Examples
    --------
    >>> Softmax()(np.array([1000.0, 1000.0, 0.0]))
    array([0.5, 0.5, 0. ])
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def _output(self, x: Array) -> Array:
        y: Array = np.exp(x - x.max(axis=self.dim, keepdims=True))
        y /= y.sum(axis=self.dim, keepdims=True)
        return y

    def _grad_input(self, grad_y: Array, y: Array) -> Array:
        grad_x: Array = y * (grad_y - (grad_y * y).sum(axis=self.dim, keepdims=True))
        return grad_x

    def _describe(self) -> str:
        return f"dim={self.dim}"


def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(-x))``, of which no exponential overflows.

    Small results keep their relative precision, which ``(1 + tanh(x/2)) / 2`` loses.
    """
    y: Array = np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
    return y
