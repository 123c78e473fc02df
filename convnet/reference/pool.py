# SPDX-License-Identifier: MIT
"""Max and average pooling and their gradients in plain NumPy."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convnet._geometry import IntOrPair, Padding, Pair, Window, pool_window
from convnet.reference._arrays import (
    Array,
    as_floats,
    crop,
    deliver,
    ieee,
    nchw_shape,
    pad,
    require_shape,
    taps,
    to_nchw,
)


@ieee
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array | tuple[Array, NDArray[np.int64]]:
    """Take the largest pixel of each window; see `convnet.max_pool2d`.

    The first of equal pixels wins, the last NaN wins over all, padding never wins.
    """
    (x,) = as_floats(x)
    images = to_nchw(x, layout)
    N, C, IH, IW = images.shape
    window = pool_window((IH, IW), kernel_size, stride, padding, dilation, ceil_mode)
    y = np.empty((N, C, *window.output), x.dtype)
    indices = np.full(y.shape, -1)
    if y.size:  # else a window may be too large to pad for
        padded = pad(images, window)
        where = pad(np.arange(IH * IW).reshape(1, 1, IH, IW), window, -1)
    for _, _, grid in taps(window) if y.size else ():
        pixel, index = padded[grid], where[grid]
        wins = (index >= 0) & ((indices < 0) | (pixel > y) | np.isnan(pixel))
        np.copyto(y, pixel, where=wins)
        np.copyto(indices, index, where=wins)
    y = deliver(y, x.ndim == 3, layout, out)
    return (y, deliver(indices, x.ndim == 3, layout)) if return_indices else y


@ieee
def max_pool2d_grad(
    grad_y: ArrayLike,
    indices: ArrayLike,
    x_shape: Sequence[int],
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Send each window's gradient to its largest pixel; see `convnet.max_pool2d_grad`.

    ``grad_x[n, c].flat[indices[n, c, oh, ow]] += grad_y[n, c, oh, ow]``
    """
    (grad_y,) = as_floats(grad_y)
    gy, index = to_nchw(grad_y, layout), to_nchw(np.asarray(indices), layout)
    N, C, IH, IW = nchw_shape(x_shape, layout)
    window = pool_window((IH, IW), kernel_size, stride, padding, dilation, ceil_mode)
    require_shape(gy, (N, C, *window.output))
    require_shape(index, gy.shape)
    _require_inside(index, window, (IH, IW))
    grad_x = np.zeros((N, C, IH * IW), gy.dtype)
    n, c = np.ogrid[:N, :C]
    np.add.at(grad_x, (n[..., None, None], c[..., None, None], index), gy)
    return deliver(grad_x.reshape(N, C, IH, IW), grad_y.ndim == 3, layout, out)


@ieee
def avg_pool2d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Take the mean over each window; see `convnet.avg_pool2d`.

    Sums run in float64 whatever the dtype: a window may be a whole image.
    """
    (x,) = as_floats(x)
    images = to_nchw(x, layout)
    image = images.shape[2:]
    window = pool_window(image, kernel_size, stride, padding, 1, ceil_mode)
    total = np.zeros((*images.shape[:2], *window.output))
    if not images.size:  # a window may be too large to pad for
        return deliver(total.astype(x.dtype), x.ndim == 3, layout, out)
    padded = pad(images, window)
    for _, _, grid in taps(window):
        total += padded[grid]
    divisor = divisor_override or _divisors(image, window, count_include_pad)
    return deliver((total / divisor).astype(x.dtype), x.ndim == 3, layout, out)


@ieee
def avg_pool2d_grad(
    grad_y: ArrayLike,
    x_shape: Sequence[int],
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Share each output's gradient among its window; see `convnet.avg_pool2d_grad`.

    ``grad_x[n, c, ih, iw] += grad_y[n, c, oh, ow] / divisor[oh, ow]``
    """
    (grad_y,) = as_floats(grad_y)
    gy = to_nchw(grad_y, layout)
    N, C, IH, IW = nchw_shape(x_shape, layout)
    window = pool_window((IH, IW), kernel_size, stride, padding, 1, ceil_mode)
    require_shape(gy, (N, C, *window.output))
    divisor = divisor_override or _divisors((IH, IW), window, count_include_pad)
    share = (gy / divisor).astype(gy.dtype)
    padded = pad(np.zeros((N, C, IH, IW), gy.dtype), window)
    for _, _, grid in taps(window):
        padded[grid] += share
    grad_x = crop(padded, window, (IH, IW))
    return deliver(grad_x, grad_y.ndim == 3, layout, out)


def global_avg_pool2d(
    x: ArrayLike,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Take the mean over each whole image; see `convnet.global_avg_pool2d`."""
    image = to_nchw(np.asarray(x), layout).shape[2:]
    return avg_pool2d(x, image, layout=layout, out=out)


def _divisors(image: Pair, window: Window, count_include_pad: bool) -> Array:
    """Return how many pixels each average divides by, of shape (OH, OW).

    Explicit padding counts if `count_include_pad`; what ceil mode adds never does.
    """
    counts = []
    for axis in 0, 1:
        before, after = window.pads[axis], window.pads[axis + 2]
        first = np.arange(window.output[axis]) * window.stride[axis] - before
        last = first + window.kernel[axis]
        low, high = (-before, after) if count_include_pad else (0, 0)
        counts.append(np.minimum(last, image[axis] + high) - np.maximum(first, low))
    divisors: Array = counts[0][:, None] * counts[1]
    return divisors


def _require_inside(index: Array, window: Window, image: Pair) -> None:
    """Raise unless each index is a pixel that its own window sees."""
    steps = zip(np.divmod(index, image[1]), window.output, strict=True)
    inside = (index >= 0) & (index < image[0] * image[1])
    for axis, (position, count) in enumerate(steps):
        first = np.arange(count) * window.stride[axis] - window.pads[axis]
        tap = position - (first[:, None] if axis == 0 else first)
        inside &= (tap >= 0) & (tap % window.dilation[axis] == 0)
        inside &= tap < window.kernel[axis] * window.dilation[axis]
    if index.dtype != np.int64 or not inside.all():
        raise ValueError("indices must be int64 and point into their windows")
