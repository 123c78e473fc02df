# SPDX-License-Identifier: MIT
"""Dropout: noise that keeps a network from relying on single values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from convnet._check import Array
from convnet.nn._arrays import as_floats, as_gradient
from convnet.nn.module import Module


class Dropout(Module):
    """Set values to zero at random: ``y = x * mask / (1 - p)`` in training, else `x`.

    Each element of `mask` is 0 with probability `p`, or 1, so `y` has the mean of `x`.

    Parameters
    ----------
    p : float, default 0.5
        From 0 to 1.
    rng : int or numpy.random.Generator, optional
        Source of the masks.

    Notes
    -----
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> layer = Dropout(0.25, rng=0)
    >>> sorted({float(y) for y in layer(np.ones((7, 11))).flat})
    [0.0, 1.3333333333333333]
    >>> bool((layer.eval()(np.ones((7, 11))) == 1).all())
    True
    """

    def __init__(
        self, p: float = 0.5, *, rng: int | np.random.Generator | None = None
    ) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be between 0 and 1, got {p}")
        self.p = float(p)
        self.rng = np.random.default_rng(rng)

    def forward(self, x: ArrayLike) -> Array:
        """Return `x` with a new mask in training, or `x` itself."""
        x = as_floats(x)
        factors = self._draw(x) if self.training and self.p else np.ones((), x.dtype)
        self._saved = factors, x.shape
        return x * factors if factors.ndim else x

    def backward(self, grad_y: ArrayLike) -> Array:
        """Return grad_x, through the mask of the last forward call."""
        factors, shape = self._recall()
        grad_x: Array = as_gradient(grad_y, shape) * factors
        return grad_x

    def infer(self, x: ArrayLike) -> Array:
        """Return `x`."""
        return as_floats(x)

    def _draw(self, x: Array) -> Array:
        """Return ``mask / (1 - p)`` in the shape and precision of `x`."""
        factors = (self.rng.random(x.shape, x.dtype) >= self.p).astype(x.dtype)
        # With p = 1 all factors are 0 as they are.
        factors /= (1 - self.p) or 1
        return factors

    def _describe(self) -> str:
        return f"{self.p}"
