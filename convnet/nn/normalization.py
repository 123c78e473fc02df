# SPDX-License-Identifier: MIT
"""Batch normalization: shift and scale each channel to mean 0 and variance 1."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from convnet._check import Array
from convnet._geometry import as_int
from convnet.functional.norm import (
    normalize,
    normalize_batch,
    normalize_batch_grad,
    normalize_grad,
    weight_grads,
)
from convnet.nn._arrays import as_floats, as_gradient, channels_last, float_dtype
from convnet.nn.module import Module, Parameter


class BatchNorm2d(Module):
    """Normalize each channel: ``y = weight * (x - mean) / sqrt(var + eps) + bias``.

    In training `mean` and `var` are those of the batch, over N, H and W. In eval mode
    they are running averages over the batches seen:
    ``running_mean += momentum * (mean - running_mean)``, and `running_var` alike with
    the unbiased variance.

    Parameters
    ----------
    num_features : int
        Number of channels.
    eps : float, default 1e-5
    momentum : float, default 0.1
    layout : {"NCHW", "NHWC"}
    dtype : dtype, float32 or float64
        Of the parameters and averages.

    Attributes
    ----------
    weight, bias : Parameter of shape (C,)
        1 and 0 at first.
    running_mean, running_var : ndarray of shape (C,)
        0 and 1 at first. Part of the `state_dict`.

    Notes
    -----
    S. Ioffe and C. Szegedy, "Batch normalization", ICML 2015.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(7, 3, (2, 5, 11, 3)).astype(np.float32)
    >>> y = BatchNorm2d(5)(x)
    >>> bool(abs(y.mean(axis=(0, 2, 3))).max() < 1e-5)
    True
    """

    _buffers: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        *,
        layout: str = "NCHW",
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_features = as_int(num_features, "num_features")
        self.eps = float(eps)
        self.momentum = float(momentum)
        self.layout = layout
        self._channels_last = channels_last(layout)
        dtype = float_dtype(dtype)
        self.weight = Parameter(np.ones(num_features, dtype), "weight")
        self.bias = Parameter(np.zeros(num_features, dtype), "bias")
        self.running_mean = np.zeros(num_features, dtype)
        self.running_var = np.ones(num_features, dtype)

    def forward(self, x: ArrayLike) -> Array:
        """Return `x`, one image or a batch, normalized."""
        return self._normalize(x, clip=False)

    def rectified(self, x: ArrayLike) -> Array:
        """Return ``max(forward(x), 0)``."""
        return self._normalize(x, clip=True)

    def _normalize(self, x: ArrayLike, clip: bool) -> Array:
        x, weight, bias = self._images(x), self.weight.value, self.bias.value.copy()
        if self.training:
            self._require_two(x)
            how = self.eps, self._channels_last, clip
            y, mean, var = normalize_batch(x, weight, bias, *how)
            self._observe(mean, var, x.size // self.num_features)
        else:
            mean, var = self.running_mean, self.running_var
        scale = 1 / np.sqrt(var + self.eps)
        norm = mean, weight * scale, bias
        self._saved = x, norm, scale, self.training
        return y if self.training else normalize(x, norm, self._channels_last, clip)

    def backward(self, grad_y: ArrayLike) -> Array:
        """Return grad_x; add to the gradients of weight and bias.

        In training the batch's mean and variance depend on `x` as well, so that with
        ``normal = (x - mean) * scale``

            grad_x = weight * scale
                     * (grad_y - mean(grad_y) - normal * mean(grad_y * normal))
        """
        return self._grad_input(grad_y, clip=False)

    def backward_rectified(self, grad_y: ArrayLike) -> Array:
        """Return what `backward` gives behind the backward pass of a ReLU."""
        return self._grad_input(grad_y, clip=True)

    def centers(self, layout: str) -> bool:
        """Whether the last forward call took each channel's mean from the batch.

        Then what `backward` returns sums to 0 in each channel of `layout`.
        """
        training: bool = self._recall()[3]
        return training and self._channels_last == channels_last(layout)

    def _grad_input(self, grad_y: ArrayLike, clip: bool) -> Array:
        x, norm, scale, training = self._recall()
        grad_y = as_gradient(grad_y, x.shape).astype(x.dtype, copy=False)
        how = norm, scale, self._channels_last, clip
        if training:
            grad_x, grad_w, grad_b = normalize_batch_grad(grad_y, x, *how)
        else:
            grad_w, grad_b = weight_grads(grad_y, x, *how)
            norm = *norm, 0 * scale, 0 * scale
            grad_x = normalize_grad(grad_y, x, norm, *how[2:])
        self.weight.grad += grad_w
        self.bias.grad += grad_b
        return grad_x

    def infer(self, x: ArrayLike) -> Array:
        """Return `x` normalized by the running averages, and keep nothing."""
        scale = self.weight.value / np.sqrt(self.running_var + self.eps)
        norm = self.running_mean, scale, self.bias.value
        return normalize(self._images(x), norm, self._channels_last)

    def affine(self) -> tuple[Array, Array]:
        """Return what eval mode does as ``y = scale * x + shift``, each of (C,)."""
        scale = self.weight.value / np.sqrt(self.running_var + self.eps)
        return scale, self.bias.value - self.running_mean * scale

    def _require_two(self, x: Array) -> None:
        if x.size // self.num_features < 2:
            raise ValueError(
                f"training needs more than one value per channel, but x has shape "
                f"{x.shape}"
            )

    def _observe(self, mean: Array, var: Array, count: int) -> None:
        """Add the mean and variance of a batch to the averages."""
        self.running_mean += self.momentum * (mean - self.running_mean)
        unbiased = var * (count / (count - 1))
        self.running_var += self.momentum * (unbiased - self.running_var)

    def _images(self, x: ArrayLike) -> Array:
        """Return `x` as floats, if it is images with the right channels."""
        x = as_floats(x)
        axis = -1 if self._channels_last else -3
        if x.ndim not in (3, 4) or x.shape[axis] != self.num_features:
            raise ValueError(
                f"x must be {self.layout} with {self.num_features} channels, but has "
                f"shape {x.shape}"
            )
        return x

    def _describe(self) -> str:
        return f"{self.num_features}"
