# SPDX-License-Identifier: MIT
"""Batch normalization of channels, for `nn.BatchNorm2d`.

    y = (x - mean) * scale + shift                          for each channel
    grad_x = grad_y * scale + (x - mean) * slope + offset

Sums over pixels run in double, and come out the same for any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnet import _check as check
from convnet import _norm
from convnet._check import Array
from convnet._threads import get_num_threads

Doubles = NDArray[np.float64]

# Channels that are enough tasks for threads.
_MANY_CHANNELS = 16


def normalize_batch(
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    channels_last: bool,
    clip: bool = False,
) -> tuple[Array, Doubles, Doubles]:
    """Return y with a batch's own mean and variance, and those.

    ``scale = weight / sqrt(variance + eps)`` and ``shift = bias``, which are of shape
    (C,) as all others; `clip` keeps y from below 0.
    """
    if not _go_by_channels(x, channels_last):
        mean, variance = mean_and_variance(x, channels_last)
        norm = mean, weight * (1 / np.sqrt(variance + eps)), bias
        return normalize(x, norm, channels_last, clip), mean, variance
    x = np.ascontiguousarray(x)
    y = check.result(None, x.shape, x.dtype, ())
    affine = np.stack([weight, bias]).astype(np.float64)
    moments = np.empty_like(affine)
    sizes = _sizes(x, channels_last)
    _norm.normalize_batch(x, y, *sizes, affine, eps, moments, clip, get_num_threads())
    return y, moments[0], moments[1]


def normalize_batch_grad(
    grad_y: Array,
    x: Array,
    norm: tuple[Array, ...],
    scale: Doubles,
    channels_last: bool,
    clip: bool = False,
) -> tuple[Array, Doubles, Doubles]:
    """Return grad_x, grad_weight and grad_bias of `normalize_batch`.

    `norm` are mean, ``weight * scale`` and bias, with ``scale = 1 / sqrt(variance +
    eps)``; with `clip`, grad_y counts as 0 where y is not above 0.
    """
    count = x.size // scale.size
    if not _go_by_channels(x, channels_last):
        grad_w, grad_b = weight_grads(grad_y, x, norm, scale, channels_last, clip)
        share = norm[1] / count
        norm = *norm, -share * scale * grad_w, -share * grad_b
        return normalize_grad(grad_y, x, norm, channels_last, clip), grad_w, grad_b
    grad_y, x = np.ascontiguousarray(grad_y), np.ascontiguousarray(x)
    grad_x = check.result(None, x.shape, x.dtype, ())
    affine = np.stack([norm[0], scale]).astype(np.float64)
    total = np.empty_like(affine)
    sizes = _sizes(x, channels_last)
    table = _table(norm, x.dtype, sizes[1])
    _norm.normalize_batch_grad(
        grad_y, x, grad_x, *sizes, table, affine, total, clip, get_num_threads()
    )
    return grad_x, total[1], total[0]


def weight_grads(
    grad_y: Array,
    x: Array,
    norm: tuple[Array, ...],
    scale: Array,
    channels_last: bool,
    clip: bool = False,
) -> tuple[Doubles, Doubles]:
    """Return grad_weight and grad_bias; takes what `normalize_batch_grad` takes."""
    centers = np.stack([np.zeros_like(norm[0]), norm[0]])
    how = channels_last, norm if clip else None
    grad_b, grad_w = sums(grad_y, x, centers, *how)
    return grad_w * scale, grad_b


def mean_and_variance(x: Array, channels_last: bool) -> tuple[Doubles, Doubles]:
    """Return the mean of each channel, and the mean squared distance from it."""
    # About one of the pixels, sums of squares lose less than about zero.
    pixel = (x[..., 0, 0, :] if channels_last else x[..., 0, 0]).reshape(-1)
    C, _ = _sizes(x, channels_last)
    center = np.array([pixel[:C]] * 2, np.float64)
    distance, square = sums(x, x, center, channels_last) / (x.size / C)
    return center[0] + distance, np.maximum(square - distance**2, 0)


def sums(
    a: Array,
    b: Array,
    centers: Array,
    channels_last: bool,
    rectified: tuple[Array, ...] | None = None,
) -> Doubles:
    """Return two sums over all pixels of each channel.

    Parameters
    ----------
    a, b : ndarray of shape (N, C, H, W), or (N, H, W, C), or without N
        Of one dtype.
    centers : ndarray of shape (2, C)
    rectified : three ndarrays of shape (C,), optional
        Mean, scale and shift; `a` counts as 0 where `b`, normalized, is not above 0.

    Returns
    -------
    ndarray of shape (2, C)
        Of ``g = a - centers[0]``, and of ``g * (b - centers[1])``.
    """
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    centers = np.ascontiguousarray(centers, np.float64)
    total = np.empty_like(centers)
    C, pixels = _sizes(a, channels_last)
    norm = None if rectified is None else _table(rectified, a.dtype, pixels)
    _norm.sums(a, b, C, pixels, centers, total, norm, get_num_threads())
    return total


def normalize(
    x: Array, norm: tuple[Array, ...], channels_last: bool, clip: bool = False
) -> Array:
    """Return ``(x - mean) * scale + shift``, which `clip` keeps from below 0.

    `norm` are mean, scale and shift, of shape (C,) each.
    """
    x = np.ascontiguousarray(x)
    y = check.result(None, x.shape, x.dtype, ())
    C, pixels = _sizes(x, channels_last)
    table = _table(norm, x.dtype, pixels)
    _norm.normalize(x, y, C, pixels, table, clip, get_num_threads())
    return y


def normalize_grad(
    grad_y: Array,
    x: Array,
    norm: tuple[Array, ...],
    channels_last: bool,
    clip: bool = False,
) -> Array:
    """Return ``grad_y * scale + (x - mean) * slope + offset``.

    `norm` are mean, scale, shift, slope and offset, of shape (C,) each; with `clip`,
    grad_y counts as 0 where x, normalized, is not above 0.
    """
    grad_y, x = np.ascontiguousarray(grad_y), np.ascontiguousarray(x)
    grad_x = check.result(None, x.shape, x.dtype, ())
    C, pixels = _sizes(x, channels_last)
    table = _table(norm, x.dtype, pixels)
    _norm.normalize_grad(grad_y, x, grad_x, C, pixels, table, clip, get_num_threads())
    return grad_x


def _go_by_channels(x: Array, channels_last: bool) -> bool:
    """Whether a channel's pixels lie together, and channels are many."""
    C, pixels = _sizes(x, channels_last)
    return pixels > 1 and C >= _MANY_CHANNELS


def _sizes(x: Array, channels_last: bool) -> tuple[int, int]:
    """Return the channels, and the pixels of each that lie together."""
    if channels_last:
        return x.shape[-1], 1
    return x.shape[-3], x.shape[-2] * x.shape[-1]


def _table(norm: tuple[Array, ...], dtype: np.dtype[Any], pixels: int) -> Array:
    """Return a channel's coefficients side by side, or those of all channels."""
    return np.stack(norm, axis=-1 if pixels > 1 else 0).astype(dtype)
