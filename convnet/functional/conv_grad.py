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

import numpy as np
from numpy.typing import ArrayLike

from convnet import _check as check
from convnet import _conv, _conv_bias, _conv_weight, _winograd, _winograd_weight
from convnet._algorithm import Product, choose
from convnet._check import Array
from convnet._geometry import IntOrPair, Padding, conv_window


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
    channels_last, threads = check.options(layout, num_threads, algorithm, precision)
    given = (grad_y, weight)
    grad_y, weight = check.as_floats(("grad_y", "weight"), given)
    shape, (N, IC, IH, IW) = check.as_image_shape(x_shape, "x_shape", channels_last)
    groups = check.weight_fits(weight.shape, IC, groups)
    OC, _, KH, KW = weight.shape
    window = conv_window((IH, IW), (KH, KW), stride, padding, dilation)
    y_shape = check.image_shape(N, OC, window.output, channels_last, len(shape) == 3)
    check.has_shape(grad_y, "grad_y", y_shape)
    result = check.result(out, shape, weight.dtype, given)
    if grad_y.size and result.size:
        gy = check.as_nchw(grad_y, "grad_y", channels_last)
        gx = check.as_nchw(result, "out", channels_last)
        weight = np.ascontiguousarray(weight)
        product = Product(groups, IC // groups, OC // groups, N, IH, IW)
        chosen = choose(product, window, weight.dtype, algorithm, precision)
        if chosen == "direct":
            _conv.grad_input(gy, weight, gx, *window.steps, groups, threads)
        else:
            m = int(chosen[-1])
            _winograd.grad_input(gy, weight, gx, window.pads[:2], groups, threads, m)
    else:
        result[...] = 0
    return result


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
    channels_last, threads = check.options(layout, num_threads, algorithm, precision)
    given = (grad_y, x)
    grad_y, x = check.as_floats(("grad_y", "x"), given)
    images = check.as_nchw(x, "x", channels_last)
    N, IC, IH, IW = images.shape
    shape = check.as_shape(weight_shape, "weight_shape")
    groups = check.weight_fits(shape, IC, groups)
    OC, _, KH, KW = shape
    window = conv_window((IH, IW), (KH, KW), stride, padding, dilation)
    y_shape = check.image_shape(N, OC, window.output, channels_last, x.ndim == 3)
    check.has_shape(grad_y, "grad_y", y_shape)
    result = check.result(out, shape, x.dtype, given)
    if not (grad_y.size and x.size):
        result[...] = 0
        return result
    gy = check.as_nchw(grad_y, "grad_y", channels_last)
    gw = np.ascontiguousarray(result)
    product = Product(groups, OC // groups, IC // groups, N, *window.output)
    chosen = choose(product, window, gw.dtype, algorithm, precision, gradient=True)
    if chosen == "direct":
        _conv_weight.grad_weight(gy, images, gw, *window.steps, groups, threads)
    else:
        pads, m = window.pads[:2], int(chosen[-1])
        _winograd_weight.grad_weight(gy, images, gw, pads, groups, threads, m)
    if gw is not result:
        result[...] = gw
    return result


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
    channels_last, threads = check.options(
        layout, num_threads, algorithm, precision, ("direct",)
    )
    given = (grad_y,)
    (grad_y,) = check.as_floats(("grad_y",), given)
    gy = check.as_nchw(grad_y, "grad_y", channels_last)
    untied = check.flag(untied, "untied")
    shape = grad_y.shape[-3:] if untied else gy.shape[1:2]
    result = check.result(out, shape, grad_y.dtype, given)
    if not grad_y.size:
        result[...] = 0
    elif untied and channels_last:
        _conv_bias.grad_bias(gy, result.transpose(2, 0, 1), threads)
    else:
        _conv_bias.grad_bias(gy, result, threads)
    return result
