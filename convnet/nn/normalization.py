# SPDX-License-Identifier: MIT
"""Batch normalization: shift and scale each channel to mean 0 and variance 1."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from convnet._check import Array
from convnet._geometry import as_int
from convnet.functional.norm import (
    mean_and_variance,
    normalize,
    normalize_grad,
    sums,
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
        x = self._images(x)
        if self.training:
            mean, var = self._observe(x)
        else:
            mean, var = self.running_mean, self.running_var
        scale = 1 / np.sqrt(var + self.eps)
        norm = mean, self.weight.value * scale, self.bias.value.copy()
        self._saved = x, norm, scale, self.training
        return normalize(x, norm, self._channels_last, clip)

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

    def _grad_input(self, grad_y: ArrayLike, clip: bool) -> Array:
        x, norm, scale, training = self._recall()
        grad_y = as_gradient(grad_y, x.shape).astype(x.dtype, copy=False)
        mean, factor, _ = norm
        how = np.stack([np.zeros_like(mean), mean]), self._channels_last
        grad_b, grad_w = sums(grad_y, x, *how, norm if clip else None)
        grad_w = grad_w * scale
        self.weight.grad += grad_w
        self.bias.grad += grad_b
        share = factor / (x.size // self.num_features) if training else 0 * factor
        norm = *norm, -share * scale * grad_w, -share * grad_b
        return normalize_grad(grad_y, x, norm, self._channels_last, clip)

    def infer(self, x: ArrayLike) -> Array:
        """Return `x` normalized by the running averages, and keep nothing."""
        scale = self.weight.value / np.sqrt(self.running_var + self.eps)
        norm = self.running_mean, scale, self.bias.value
        return normalize(self._images(x), norm, self._channels_last)

    def affine(self) -> tuple[Array, Array]:
        """Return what eval mode does as ``y = scale * x + shift``, each of (C,)."""
        scale = self.weight.value / np.sqrt(self.running_var + self.eps)
        return scale, self.bias.value - self.running_mean * scale

    def _observe(self, x: Array) -> tuple[Array, Array]:
        """Return the mean and variance of a batch and add them to the averages."""
        count = x.size // self.num_features
        if count < 2:
            raise ValueError(
                f"training needs more than one value per channel, but x has shape "
                f"{x.shape}"
            )
        mean, var = mean_and_variance(x, self._channels_last)
        self.running_mean += self.momentum * (mean - self.running_mean)
        unbiased = var * (count / (count - 1))
        self.running_var += self.momentum * (unbiased - self.running_var)
        return mean, var

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
