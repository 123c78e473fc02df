# SPDX-License-Identifier: MIT
"""Layers that move no number: Flatten and Reshape.

Arrays of 1 dimension (features) or 3 (an image) are one sample, as everywhere in this
package; all others are batches, whose first axis stays.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

from numpy.typing import ArrayLike

from convnet._check import Array, Shape
from convnet._geometry import as_int
from convnet.nn._arrays import as_floats, as_gradient
from convnet.nn.module import Module


class Reordering(Module):
    """Base class: a reshape, and in `backward` the reshape back."""

    def forward(self, x: ArrayLike) -> Array:
        """Return `x` in its new shape."""
        x = as_floats(x)
        y_shape = self._output_shape(x.shape)
        self._saved = x.shape, y_shape
        return x.reshape(y_shape)

    def backward(self, grad_y: ArrayLike) -> Array:
        """Return `grad_y` in the shape of the last input."""
        x_shape, y_shape = self._recall()
        return as_gradient(grad_y, y_shape).reshape(x_shape)

    def infer(self, x: ArrayLike) -> Array:
        """Return `x` in its new shape, and keep nothing."""
        x = as_floats(x)
        return x.reshape(self._output_shape(x.shape))

    @abstractmethod
    def _output_shape(self, x_shape: Shape) -> Shape:
        """Return the new shape."""


class Flatten(Reordering):
    """Make every sample one row of features: ``(N, C, H, W)`` to ``(N, C*H*W)``.

    Examples
    --------
    >>> import numpy as np
    >>> Flatten()(np.ones((7, 2, 3, 5))).shape
    (7, 30)
    >>> Flatten()(np.ones((2, 3, 5))).shape
    (30,)
    """

    def _output_shape(self, x_shape: Shape) -> Shape:
        batch, sample = _split(x_shape)
        return *batch, math.prod(sample)


class Reshape(Reordering):
    """Give every sample another shape: ``(N, ...)`` to ``(N, *shape)``.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample.

    Examples
    --------
    >>> import numpy as np
    >>> Reshape((2, 3, 5))(np.ones((7, 30))).shape
    (7, 2, 3, 5)
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(as_int(size, "shape") for size in shape)

    def _output_shape(self, x_shape: Shape) -> Shape:
        batch, sample = _split(x_shape)
        if math.prod(sample) != math.prod(self.shape):
            raise ValueError(f"samples of shape {sample} do not fit {self.shape}")
        return batch + self.shape

    def _describe(self) -> str:
        return f"{self.shape}"


def _split(shape: Shape) -> tuple[Shape, Shape]:
    """Return the batch's part of a shape, if any, and the sample's."""
    samples = 0 if len(shape) in (1, 3) else 1
    return shape[:samples], shape[samples:]
