# SPDX-License-Identifier: MIT
"""The fully connected layer, on the convolution engine.

N rows of features are one NHWC image of 1 x N pixels, and the weight is a 1x1 kernel.
NumPy's `@` would bring in BLAS, whose threads ignore `set_num_threads` and whose bits
may change with their number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from convnet._check import Array
from convnet._geometry import as_int
from convnet.functional import (
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
)
from convnet.functional.conv import NO_EXTRAS, RECTIFIED, Extras, convolve
from convnet.nn import init
from convnet.nn._arrays import as_gradient
from convnet.nn.module import Module, Parameter, unusual


class Linear(Module):
    """Fully connected layer: ``y[..., o] = bias[o] + sum of weight[o, i] * x[..., i]``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool, default True
    dtype : dtype, float32 or float64
        Of the parameters.
    rng : int or numpy.random.Generator, optional
        Source of the start values, drawn as torch does:
        ``uniform(-1/sqrt(in_features), 1/sqrt(in_features))``.

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
    bias : Parameter of shape (out_features,), or None

    Examples
    --------
    >>> layer = Linear(5, 3, rng=0)
    >>> layer(np.ones((2, 5), np.float32)).shape
    (2, 3)
    >>> layer.backward(np.ones((2, 3), np.float32)).shape
    (2, 5)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self.in_features = as_int(in_features, "in_features")
        self.out_features = as_int(out_features, "out_features")
        rng = np.random.default_rng(rng)
        shape = (self.out_features, self.in_features)
        self.weight = Parameter(init.kaiming_uniform(shape, rng, dtype), "weight")
        self.bias: Parameter | None = None
        if bias:
            bound = self.in_features**-0.5
            self.bias = Parameter(init.uniform(shape[:1], bound, rng, dtype), "bias")

    def forward(self, x: ArrayLike) -> Array:
        """Return the outputs for features in the last axis; other axes stay."""
        x = np.asarray(x)
        y = Linear.infer(self, x)
        self._saved = x
        return y

    def rectified(self, x: ArrayLike) -> Array:
        """Return ``max(forward(x), 0)``."""
        x = np.asarray(x)
        y = self._multiply(x, RECTIFIED)
        self._saved = x
        return y

    def backward(self, grad_y: ArrayLike) -> Array:
        """Return grad_x; add to the gradients of weight and bias."""
        x = self._recall()
        pixels = self._output_pixels(grad_y)
        grad_x = conv2d_grad_input(
            pixels, self._kernel(), _as_pixels(x).shape, layout="NHWC"
        )
        Linear.accumulate(self, grad_y)
        return grad_x.reshape(x.shape)

    def accumulate(self, grad_y: ArrayLike) -> None:
        """Add to the gradients of weight and bias alone."""
        x, kernel = _as_pixels(self._recall()), self._kernel()
        pixels = self._output_pixels(grad_y)
        grad_w = conv2d_grad_weight(pixels, x, kernel.shape, layout="NHWC")
        self.weight.grad += grad_w.reshape(self.weight.grad.shape)
        if self.bias is not None:
            self.bias.grad += conv2d_grad_bias(pixels, layout="NHWC")

    def infer(self, x: ArrayLike) -> Array:
        """Return the outputs, and keep nothing."""
        return self._multiply(x, NO_EXTRAS)

    def _multiply(self, x: ArrayLike, extras: Extras) -> Array:
        x = np.asarray(x)
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"the last axis of x must have in_features = {self.in_features}, "
                f"but x has shape {x.shape}"
            )
        bias = None if self.bias is None else self.bias.value
        pixels, kernel, steps = _as_pixels(x), self._kernel(), (1, 0, 1, 1)
        y = convolve(pixels, kernel, bias, steps, "NHWC", extras=extras)
        return y.reshape(*x.shape[:-1], self.out_features)

    def _kernel(self) -> Array:
        """Return the weight as filters of one pixel."""
        return self.weight.value[:, :, None, None]

    def _output_pixels(self, grad_y: ArrayLike) -> Array:
        """Return the output's gradient as pixels, if it has the output's shape."""
        shape = (*self._recall().shape[:-1], self.out_features)
        return _as_pixels(as_gradient(grad_y, shape))

    def _describe(self) -> str:
        sizes = f"{self.in_features}, {self.out_features}"
        return sizes + unusual(bias=(self.bias is not None, True))


def _as_pixels(x: Array) -> Array:
    """Return rows of features as the pixels of one NHWC image, or of no image."""
    rows = x.size // x.shape[-1]
    return x.reshape(min(rows, 1), 1, max(rows, 1), x.shape[-1])
