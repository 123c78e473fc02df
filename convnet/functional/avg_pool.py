# SPDX-License-Identifier: MIT
"""Average pooling, over windows or whole images, and its gradient.

Window (oh, ow) of a channel covers the pixels ``ih = oh*SH + kh - PT`` and
``iw = ow*SW + kw - PL``. What the sum over a window is divided by depends on how much
of the window counts: see `count_include_pad` and `divisor_override`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from convnet import _check as check
from convnet import _pool, _pool_whole
from convnet._check import Array
from convnet._geometry import IntOrPair, Padding
from convnet._pool_call import pool_call, pool_grad_call
from convnet._threads import resolve


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
    """Take the mean of the pixels of each window.

    ``y[n, c, oh, ow] = sum(x[n, c, oh*SH + kh - PT, ow*SW + kw - PL]) / divisor``

    Parameters
    ----------
    x : array_like of shape (N, C, IH, IW), or (C, IH, IW) for one image
        Images; with ``layout="NHWC"`` of shape (N, IH, IW, C) or (IH, IW, C).
        Any strides, without a copy.
    kernel_size : int or (int, int)
        Size of a window as (height, width), in pixels.
    stride : int or (int, int), optional
        Steps between windows in pixels; `kernel_size` by default.
    padding : int, (int, int), ((int, int), (int, int)) or str
        Zeros around the image, in the forms of `conv2d`; at most ``kernel_size - 1``
        on each side.
    ceil_mode : bool
        Round the output size up: a last window may hang over the padded image if it
        starts inside the image or its leading padding.
    count_include_pad : bool
        Whether the divisor counts the zeros of `padding`. What hangs over in ceil mode
        never counts.
    divisor_override : int, optional
        Divide by this number, at least 1, whatever the windows cover.
    layout : {"NCHW", "NHWC"}
        Order of the axes of `x` and of the result.
    out : ndarray, optional
        Array that takes the result: of its exact shape and dtype, writable, and without
        overlap with `x`.
    num_threads : int, optional
        Threads for this call; `convnet.get_num_threads` by default.

    Returns
    -------
    ndarray of shape (N, C, OH, OW), or (C, OH, OW) for one image
        float32 or float64, as ``np.result_type`` promotes `x` with float32;
        ``OH = (IH + PT + PB - KH) // SH + 1`` and `OW` alike.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `max_pool2d`.

    See Also
    --------
    avg_pool2d_grad, global_avg_pool2d, convnet.reference.avg_pool2d

    Examples
    --------
    >>> x = np.array([[[1.0, 5.0, 2.0, 0.0], [3.0, 7.0, 8.0, 6.0]]])
    >>> avg_pool2d(x, 2)
    array([[[4., 4.]]])
    >>> avg_pool2d(x, (2, 3), stride=2, padding=(0, 1), count_include_pad=False)
    array([[[4.        , 4.66666667]]])
    """
    given = (x,)
    windows = layout, kernel_size, stride, padding, 1, ceil_mode
    options = *windows, count_include_pad, divisor_override
    (x,), call = pool_call(given, options)
    y = result = check.result(out, call.y_shape, x.dtype, given)
    if not call.is_nchw:
        x, y = (check.as_nchw(array, call.channels_last) for array in (x, y))
    if call.is_empty:
        return result
    threads = resolve(num_threads)
    if _pool_whole.is_whole(x, call.steps):
        _pool_whole.average(x, y, call.divisor, threads)
    else:
        how = call.steps, call.count_include_pad, call.divisor
        _pool.avg_forward(x, y, *how, threads)
    return result


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
    """Compute the gradient of a loss for the input of `avg_pool2d`.

    ``grad_x[n, c, ih, iw] = sum(grad_y[n, c, oh, ow] / divisor)`` over the windows that
    cover the pixel, with the divisors of the forward call.

    Parameters
    ----------
    grad_y : array_like of shape (N, C, OH, OW), or (C, OH, OW) for one image
        Gradient of the loss for the result of `avg_pool2d`.
    x_shape : tuple of int
        Shape of the images of the forward call, in their layout.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, layout
        As in the forward call.
    out, num_threads
        As for `avg_pool2d`.

    Returns
    -------
    ndarray of shape `x_shape`
        float32 or float64, as `avg_pool2d` chooses them.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `max_pool2d`, and ValueError if `grad_y` has not the shape that the forward
        call returns.

    See Also
    --------
    avg_pool2d, convnet.reference.avg_pool2d_grad

    Examples
    --------
    >>> avg_pool2d_grad(np.array([[[4.0, 8.0]]]), (1, 2, 4), 2)
    array([[[1., 1., 2., 2.],
            [1., 1., 2., 2.]]])
    """
    given = (grad_y,)
    windows = layout, kernel_size, stride, padding, 1, ceil_mode
    options = x_shape, *windows, count_include_pad, divisor_override
    (grad_y,), call = pool_grad_call(given, options)
    grad_x = result = check.result(out, call.x_shape, grad_y.dtype, given)
    if not call.is_nchw:
        grad_y, grad_x = (
            check.as_nchw(array, call.channels_last) for array in (grad_y, result)
        )
    if call.is_empty:
        return result
    threads = resolve(num_threads)
    if _pool_whole.is_whole(grad_x, call.steps):
        _pool_whole.spread(grad_y, grad_x, call.divisor, threads)
    else:
        how = call.steps, call.count_include_pad, call.divisor
        _pool.avg_backward(grad_y, grad_x, *how, threads)
    return result


def global_avg_pool2d(
    x: ArrayLike,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Take the mean of all pixels of each channel.

    ``y[n, c, 0, 0] = sum(x[n, c]) / (IH * IW)``

    Parameters
    ----------
    x : array_like of shape (N, C, IH, IW), or (C, IH, IW) for one image
        Images; with ``layout="NHWC"`` of shape (N, IH, IW, C) or (IH, IW, C).
    layout, out, num_threads
        As for `avg_pool2d`.

    Returns
    -------
    ndarray of shape (N, C, 1, 1), or (C, 1, 1) for one image
        With ``layout="NHWC"`` of shape (N, 1, 1, C) or (1, 1, C). float32 or float64,
        as `avg_pool2d` chooses them.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `avg_pool2d`, and ValueError if the images have no pixel.

    See Also
    --------
    avg_pool2d, convnet.reference.global_avg_pool2d

    Notes
    -----
    Its gradient is that of an average pooling over windows as large as the image:
    ``avg_pool2d_grad(grad_y, x.shape, (IH, IW))``.

    Examples
    --------
    >>> global_avg_pool2d(np.array([[[1.0, 5.0, 3.0], [3.0, 4.0, 2.0]]]))
    array([[[3.]]])
    """
    shape = check.nchw_shape(np.shape(x), "x", check.options(layout))
    return avg_pool2d(x, shape[2:], layout=layout, out=out, num_threads=num_threads)
