# SPDX-License-Identifier: MIT
"""The gradients of a convolution for its input, its weight and its bias.

With ``y = conv2d(x, weight, bias)`` and the gradient grad_y of a loss for y, each sum
runs over the products of the forward call that its result took part in:

    grad_x[n, ic, ih, iw]   = sum of weight[oc, ic, kh, kw] * grad_y[n, oc, oh, ow]
    grad_w[oc, ic, kh, kw]  = sum of x[n, ic, ih, iw] * grad_y[n, oc, oh, ow]
    grad_b[oc]              = sum of grad_y[n, oc, oh, ow]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convnet import _check as check
from convnet import _conv, _conv_bias, _conv_weight, _winograd, _winograd_weight
from convnet._algorithm import get_policy
from convnet._check import Array, Shape
from convnet._conv_call import ConvCall, check_conv
from convnet._geometry import IntOrPair, Padding
from convnet._threads import resolve


def conv2d_grad_input(
    grad_y: ArrayLike,
    weight: ArrayLike,
    x_shape: Sequence[int],
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
    algorithm: str = "auto",
    precision: str | None = None,
) -> Array:
    """Compute the gradient of a loss for the input of `conv2d`.

    ``grad_x[n, ic, ih, iw] = sum(weight[oc, ic, kh, kw] * grad_y[n, oc, oh, ow])``
    over all taps with ``ih = oh*SH + kh*DH - PT`` and ``iw = ow*SW + kw*DW - PL``.

    Parameters
    ----------
    grad_y : array_like of shape (N, OC, OH, OW), or (OC, OH, OW) for one image
        Gradient of the loss for the result of `conv2d`.
    weight : array_like of shape (OC, IC // groups, KH, KW)
        Filters of the forward call.
    x_shape : tuple of int
        Shape of the images of the forward call, in their layout.
    stride, padding, dilation, groups, layout
        As in the forward call.
    out, num_threads, algorithm, precision
        As for `conv2d`.

    Returns
    -------
    ndarray of shape `x_shape`
        float32 or float64, as `conv2d` chooses them.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`, and ValueError if `grad_y` has not the shape that the forward call
        returns.

    See Also
    --------
    conv2d, conv2d_grad_weight, convnet.reference.conv2d_grad_input

    Notes
    -----
    This is the adjoint of `conv2d` without bias:
    ``(conv2d(x, w) * g).sum() == (x * conv2d_grad_input(g, w, x.shape)).sum()``
    up to rounding. The same to the bit for any number of threads.

    Examples
    --------
    >>> grad_y = np.array([[[1.0, 10.0, 100.0]]])
    >>> conv2d_grad_input(grad_y, np.array([[[[-1.0, 1.0]]]]), (1, 1, 4))
    array([[[ -1.,  -9., -90., 100.]]])
    """
    given = grad_y, weight
    steps = stride, padding, dilation, groups
    options = x_shape, steps, layout, algorithm, precision, get_policy()
    (grad_y, weight), call = _grad_input_call(given, options)
    grad_x = result = check.result(out, call.x_shape, call.dtype, given)
    if call.is_empty:
        result[...] = 0
        return result
    if not call.is_nchw:
        grad_y = check.as_nchw(grad_y, call.channels_last)
        grad_x = check.as_nchw(result, call.channels_last)
    weight = np.ascontiguousarray(weight)
    how = call.steps, call.groups, resolve(num_threads)
    if call.tiling:
        _winograd.grad_input(grad_y, weight, grad_x, call.tiling, *how)
    else:
        _conv.grad_input(grad_y, weight, grad_x, *how)
    return result


@check.remembered("grad_y", "weight")
def _grad_input_call(
    shapes: tuple[Shape, Shape],
    dtype: np.dtype[Any],
    x_shape: Sequence[int],
    *options: Any,
) -> ConvCall:
    """Return the call of a gradient for the input."""
    grad_y, weight = shapes
    x = check.as_image_shape(x_shape, "x_shape")
    call = check_conv("grad_input", x, weight, dtype, *options)
    check.has_shape(grad_y, "grad_y", call.y_shape)
    return call


def conv2d_grad_weight(
    grad_y: ArrayLike,
    x: ArrayLike,
    weight_shape: Sequence[int],
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
    algorithm: str = "auto",
    precision: str | None = None,
) -> Array:
    """Compute the gradient of a loss for the weight of `conv2d`.

    ``grad_w[oc, ic, kh, kw] = sum(grad_y[n, oc, oh, ow] * x[n, ic, ih, iw])`` over
    images and windows; ``ih = oh*SH + kh*DH - PT`` and ``iw = ow*SW + kw*DW - PL``.

    Parameters
    ----------
    grad_y : array_like of shape (N, OC, OH, OW), or (OC, OH, OW) for one image
        Gradient of the loss for the result of `conv2d`.
    x : array_like of shape (N, IC, IH, IW), or (IC, IH, IW) for one image
        Images of the forward call.
    weight_shape : tuple of int
        Shape of the filters, (OC, IC // groups, KH, KW) in either layout.
    stride, padding, dilation, groups, layout
        As in the forward call.
    out, num_threads, algorithm, precision
        As for `conv2d`.

    Returns
    -------
    ndarray of shape `weight_shape`
        float32 or float64, as `conv2d` chooses them.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`, and ValueError if `grad_y` has not the shape that the forward call
        returns.

    See Also
    --------
    conv2d, conv2d_grad_input, convnet.reference.conv2d_grad_weight

    Notes
    -----
    The sum over images is split by the shapes alone, so that the result is the same to
    the bit for any number of threads.

    Examples
    --------
    >>> x = np.array([[[1.0, 2.0, 4.0, 8.0]]])
    >>> grad_y = np.array([[[1.0, 10.0, 100.0]]])
    >>> conv2d_grad_weight(grad_y, x, (1, 1, 1, 2))
    array([[[[421., 842.]]]])
    """
    given = grad_y, x
    steps = stride, padding, dilation, groups
    options = weight_shape, steps, layout, algorithm, precision, get_policy()
    (grad_y, x), call = _grad_weight_call(given, options)
    result = check.result(out, call.w_shape, call.dtype, given)
    if call.is_empty:
        result[...] = 0
        return result
    if not call.is_nchw:
        grad_y, x = (check.as_nchw(a, call.channels_last) for a in (grad_y, x))
    grad_w = np.ascontiguousarray(result)
    how = call.steps, call.groups, resolve(num_threads)
    if call.tiling:
        _winograd_weight.grad_weight(grad_y, x, grad_w, call.tiling, *how)
    else:
        _conv_weight.grad_weight(grad_y, x, grad_w, *how)
    if grad_w is not result:
        result[...] = grad_w
    return result


@check.remembered("grad_y", "x")
def _grad_weight_call(
    shapes: tuple[Shape, Shape],
    dtype: np.dtype[Any],
    weight_shape: Sequence[int],
    *options: Any,
) -> ConvCall:
    """Return the call of a gradient for the weight."""
    grad_y, x = shapes
    weight = check.as_shape(weight_shape, "weight_shape")
    call = check_conv("grad_weight", x, weight, dtype, *options)
    check.has_shape(grad_y, "grad_y", call.y_shape)
    return call


def conv2d_grad_bias(
    grad_y: ArrayLike,
    *,
    untied: bool = False,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
    algorithm: str = "auto",
    precision: str | None = None,
) -> Array:
    """Compute the gradient of a loss for the bias of `conv2d`.

    ``grad_b[oc] = sum(grad_y[n, oc, oh, ow])`` over images and pixels; an untied bias
    has ``grad_b[oc, oh, ow] = sum(grad_y[n, oc, oh, ow])`` over images alone.

    Parameters
    ----------
    grad_y : array_like of shape (N, OC, OH, OW), or (OC, OH, OW) for one image
        Gradient of the loss for the result of `conv2d`.
    untied : bool
        Whether the bias has one value per output position.
    layout, out, num_threads, algorithm, precision
        As for `conv2d`.

    Returns
    -------
    ndarray of shape (OC,), or untied (OC, OH, OW) and in NHWC (OH, OW, OC)
        float32 or float64, as `conv2d` chooses them.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or shape.

    See Also
    --------
    conv2d, convnet.reference.conv2d_grad_bias

    Examples
    --------
    >>> grad_y = np.ones((2, 3, 5, 7), dtype=np.float32)
    >>> conv2d_grad_bias(grad_y)
    array([70., 70., 70.], dtype=float32)
    >>> conv2d_grad_bias(grad_y, untied=True).shape
    (3, 5, 7)
    """
    given = (grad_y,)
    options = untied, layout, algorithm, precision
    (grad_y,), (shape, channels_last) = _grad_bias_call(given, options)
    grad_b = result = check.result(out, shape, grad_y.dtype, given)
    threads = resolve(num_threads)
    if not grad_y.size:
        result[...] = 0
        return result
    if untied and channels_last:
        grad_b = result.transpose(2, 0, 1)
    _conv_bias.grad_bias(check.as_nchw(grad_y, channels_last), grad_b, threads)
    return result


@check.remembered("grad_y")
def _grad_bias_call(
    shapes: tuple[Shape],
    dtype: np.dtype[Any],
    untied: bool,
    layout: str,
    algorithm: str,
    precision: str | None,
) -> tuple[Shape, bool]:
    """Return the bias's shape, and whether channels come last."""
    channels_last = check.options(layout, algorithm, precision, ("direct",))
    _, OC, OH, OW = check.nchw_shape(shapes[0], "grad_y", channels_last)
    if not check.flag(untied, "untied"):
        return (OC,), channels_last
    return check.image_shape(1, OC, (OH, OW), channels_last, True), channels_last
