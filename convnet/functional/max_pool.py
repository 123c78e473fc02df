# SPDX-License-Identifier: MIT
"""Max pooling and its gradient.

Window (oh, ow) of a channel covers the pixels ``ih = oh*SH + kh*DH - PT`` and
``iw = ow*SW + kw*DW - PL``, as in a convolution, but padding is never a maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convnet import _check as check
from convnet import _pool, _pool_whole
from convnet._check import Array
from convnet._geometry import IntOrPair, Padding
from convnet._pool_call import pool_call, pool_grad_call
from convnet._threads import resolve

_INT64 = np.dtype(np.int64)


@overload
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = ...,
    padding: Padding = ...,
    dilation: IntOrPair = ...,
    ceil_mode: bool = ...,
    return_indices: Literal[False] = ...,
    *,
    layout: str = ...,
    out: Array | None = ...,
    num_threads: int | None = ...,
) -> Array: ...


@overload
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = ...,
    padding: Padding = ...,
    dilation: IntOrPair = ...,
    ceil_mode: bool = ...,
    *,
    return_indices: Literal[True],
    layout: str = ...,
    out: Array | None = ...,
    num_threads: int | None = ...,
) -> tuple[Array, NDArray[np.int64]]: ...


@overload
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = ...,
    padding: Padding = ...,
    dilation: IntOrPair = ...,
    ceil_mode: bool = ...,
    return_indices: bool = ...,
    *,
    layout: str = ...,
    out: Array | None = ...,
    num_threads: int | None = ...,
) -> Array | tuple[Array, NDArray[np.int64]]: ...


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
    """Take the largest pixel of each window.

    ``y[n, c, oh, ow] = max(x[n, c, ih, iw])`` over the taps (kh, kw) of the kernel with
    ``ih = oh*SH + kh*DH - PT`` and ``iw = ow*SW + kw*DW - PL`` inside the image.

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
        Pixels around the image, which never win, in the forms of `conv2d`; at most
        ``dilation * (kernel_size - 1)`` on each side.
    dilation : int or (int, int)
        Steps between the pixels of one window.
    ceil_mode : bool
        Round the output size up: a last window may hang over the padded image if it
        starts inside the image or its leading padding.
    return_indices : bool
        Also return where each maximum is.
    layout : {"NCHW", "NHWC"}
        Order of the axes of `x` and of the results.
    out : ndarray, optional
        Array that takes the maxima: of the exact shape and dtype, writable, and without
        overlap with `x`.
    num_threads : int, optional
        Threads for this call; `convnet.get_num_threads` by default.

    Returns
    -------
    y : ndarray of shape (N, C, OH, OW), or (C, OH, OW) for one image
        float32 or float64, as ``np.result_type`` promotes `x` with float32;
        ``OH = (IH + PT + PB - DH*(KH - 1) - 1) // SH + 1`` and `OW` alike.
    indices : ndarray of int64, shaped as `y`; only if `return_indices`
        Positions ``ih * IW + iw`` in the channel of the image.

    Raises
    ------
    TypeError
        If a dtype has no place in float32 or float64 (complex, object, float16), or an
        argument is of the wrong type.
    ValueError
        If the output would be empty, a window would lie wholly in padding, or an
        argument is out of range; the message has the values.

    See Also
    --------
    max_pool2d_grad, convnet.reference.max_pool2d

    Notes
    -----
    The first of equal pixels in row order wins. NaN wins over everything, the last NaN
    over others. Window by window this is what PyTorch does.

    Examples
    --------
    >>> x = np.array([[[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 9.0, 9.0]]])
    >>> y, indices = max_pool2d(x, 2, return_indices=True)
    >>> y, indices
    (array([[[5., 9.]]]), array([[[1, 6]]]))
    """
    given = (x,)
    options = layout, kernel_size, stride, padding, dilation, ceil_mode
    (x,), call = pool_call(given, options)
    y = result = check.result(out, call.y_shape, x.dtype, given)
    index = indices = None
    if check.flag(return_indices, "return_indices"):
        index = indices = check.result(None, call.y_shape, _INT64, ())
    if not call.is_nchw:
        x, y = (check.as_nchw(array, call.channels_last) for array in (x, y))
        if indices is not None:
            index = check.as_nchw(indices, call.channels_last)
    if call.is_empty:
        return result if indices is None else (result, indices)
    threads = resolve(num_threads)
    if index is None and _pool_whole.is_whole(x, call.steps):
        _pool_whole.maximum(x, y, threads)
    else:
        _pool.max_forward(x, y, index, call.steps, threads)
    return result if indices is None else (result, indices)


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
    """Compute the gradient of a loss for the input of `max_pool2d`.

    ``grad_x[n, c].flat[indices[n, c, oh, ow]] += grad_y[n, c, oh, ow]``: every window
    sends its gradient to its one maximum, and overlapping windows add up.

    Parameters
    ----------
    grad_y : array_like of shape (N, C, OH, OW), or (C, OH, OW) for one image
        Gradient of the loss for the result of `max_pool2d`.
    indices : array_like of int64, shaped as `grad_y`
        What `max_pool2d` returned with ``return_indices=True``.
    x_shape : tuple of int
        Shape of the images of the forward call, in their layout.
    kernel_size, stride, padding, dilation, ceil_mode, layout
        As in the forward call.
    out, num_threads
        As for `max_pool2d`.

    Returns
    -------
    ndarray of shape `x_shape`
        float32 or float64, as `max_pool2d` chooses them.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `max_pool2d`, and ValueError if `grad_y` or `indices` do not belong to such a
        forward call: by their shapes, a dtype other than int64, or an index that lies
        outside its window.

    See Also
    --------
    max_pool2d, convnet.reference.max_pool2d_grad

    Examples
    --------
    >>> grad_y, indices = np.array([[[1.0, 2.0]]]), np.array([[[1, 6]]])
    >>> max_pool2d_grad(grad_y, indices, (1, 2, 4), 2)
    array([[[0., 1., 0., 0.],
            [0., 0., 2., 0.]]])
    """
    given = grad_y, indices
    options = x_shape, layout, kernel_size, stride, padding, dilation, ceil_mode
    (grad_y,), call = pool_grad_call(given[:1], options)
    index = check.as_indices(indices, call.y_shape)
    result = check.result(out, call.x_shape, grad_y.dtype, given)
    if call.is_empty:
        return result
    # Only at the end is it known that all indices are right; until then `out` stays.
    grad_x = own = result
    if out is not None:
        grad_x = own = check.result(None, call.x_shape, grad_y.dtype, ())
    if not call.is_nchw:
        grad_y, index, grad_x = (
            check.as_nchw(array, call.channels_last) for array in (grad_y, index, own)
        )
    threads = resolve(num_threads)
    if not _pool.max_backward(grad_y, index, grad_x, call.steps, threads):
        raise ValueError(
            f"indices must lie in their windows, as max_pool2d returns them for "
            f"x_shape {call.x_shape} and these windows: {call.window}"
        )
    if own is not result:
        result[...] = own
    return result
