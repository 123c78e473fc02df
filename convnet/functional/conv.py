# SPDX-License-Identifier: MIT
"""Convolution of images with filters.

    y[n, oc, oh, ow] = bias + sum of weight[oc, ic, kh, kw] * x[n, ic, ih, iw]
                       with ih = oh*SH + kh*DH - PT and iw = ow*SW + kw*DW - PL

Pixels outside the image count as zeros. In both layouts the drivers get views of shape
(N, C, H, W); a layout is no more than an order of strides to them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from convnet import _check as check
from convnet import _conv, _winograd
from convnet._algorithm import get_policy
from convnet._check import Array, Shape
from convnet._conv_call import ConvCall, WindowOptions, check_conv
from convnet._geometry import IntOrPair, Padding
from convnet._threads import resolve


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
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
    """Cross-correlate a batch of images with a bank of filters.

    ``y[n, oc, oh, ow] = bias[oc] + sum(weight[oc, ic, kh, kw] * x[n, ic, ih, iw])``
    with ``ih = oh*SH + kh*DH - PT`` and ``iw = ow*SW + kw*DW - PL``.

    Parameters
    ----------
    x : array_like of shape (N, IC, IH, IW), or (IC, IH, IW) for one image
        Images; with ``layout="NHWC"`` of shape (N, IH, IW, IC) or (IH, IW, IC).
        Any strides, without a copy.
    weight : array_like of shape (OC, IC // groups, KH, KW)
        Filters, in either layout. Not flipped: this is correlation, as in other
        deep-learning libraries.
    bias : array_like of shape (OC,) or (OC, OH, OW), optional
        One value per filter, or one per output position ("untied", which with
        ``layout="NHWC"`` has the shape (OH, OW, OC)).
    stride, dilation : int or (int, int)
        Steps between windows, and between the pixels of one window, in pixels.
        A pair is (height, width).
    padding : int, (int, int), ((int, int), (int, int)) or str
        Zeros around the image: on all sides, as (height, width), or as ((top, bottom),
        (left, right)), in pixels. ``"valid"`` is none; ``"same"`` is so much that
        ``OH = ceil(IH / SH)``, an odd pixel being added at the end, and at the start
        for ``"same_lower"``; ``"full"`` is ``DH * (KH - 1)`` on each side.
    groups : int
        Input and output channels are split into this many groups in order; each group
        of outputs sees its own group of inputs.
    layout : {"NCHW", "NHWC"}
        Order of the axes of `x`, of the result and of an untied bias.
    out : ndarray, optional
        Array that takes the result: of its exact shape and dtype, writable, and
        without overlap with an input.
    num_threads : int, optional
        Threads for this call; `convnet.get_num_threads` by default.
    algorithm : {"auto", "direct", "winograd2", "winograd4"}
        How to compute: by direct sums, or with Winograd's tiles of 4 or 6 points on
        each axis: F(2, 3) and F(4, 3) for 3x3 kernels. Six points are also for kernels
        from 2x2 to about 20x20, cut into pieces of 2 to 5 taps on both axes, and with a
        stride of 2 or 4 on both (gradient of the input: 2; of the weight: none, and no
        2x2) for their phases; dilated ones at stride 1 (gradient of the weight: none);
        four points for pieces of 3x3. ``"auto"`` takes the
        fastest that `precision` allows (see `explain`); float64 is always direct unless
        forced.
    precision : {None, "default", "strict"}
        ``"strict"`` allows direct sums and four points, which round as well as they do,
        and refuses ``algorithm="winograd4"``; ``"default"`` also allows six points,
        with three to five times their rounding errors. None is what
        `convnet.set_precision` has chosen, ``"default"`` at first.

    Returns
    -------
    ndarray of shape (N, OC, OH, OW), or (OC, OH, OW) for one image
        float32 or float64, as ``np.result_type`` promotes the inputs with float32;
        ``OH = (IH + PT + PB - DH*(KH - 1) - 1) // SH + 1`` and `OW` alike.

    Raises
    ------
    TypeError
        If a dtype has no place in float32 or float64 (complex, object, float16), or an
        argument is of the wrong type.
    ValueError
        If shapes disagree or the output would be empty; the message has the values.
    MemoryError
        If the result does not fit into memory.

    See Also
    --------
    conv2d_grad_input, conv2d_grad_weight, conv2d_grad_bias
    convnet.reference.conv2d : The same in plain NumPy.
    convnet.signal.convolve2d : True convolution of two matrices, as in SciPy.

    Notes
    -----
    Sums run in the dtype of the result, and come out the same to the bit for any
    number of threads. A batch of no images gives an empty result; images without
    channels give the bias alone. Winograd's algorithms may spread an infinity or a NaN
    over the tile of 2x2 or 4x4 results that it belongs to.

    Examples
    --------
    >>> x = np.arange(12.0).reshape(1, 3, 4)
    >>> left_to_right = np.array([[[[-1.0, 1.0]]]])
    >>> conv2d(x, left_to_right, stride=(2, 1))
    array([[[1., 1., 1.],
            [1., 1., 1.]]])
    >>> x = np.ones((1, 2, 5, 7), dtype=np.float32)
    >>> conv2d(x, np.ones((3, 2, 3, 1), dtype=np.float32)).shape
    (1, 3, 3, 7)
    """
    steps = stride, padding, dilation, groups
    return convolve(
        x, weight, bias, steps, layout, out, num_threads, algorithm, precision
    )


class Extras(NamedTuple):
    """What prepared layers and `convnet.signal` add to a convolution."""

    # Keeps packed weights for later calls; the weight must never change.
    packings: dict[Any, Any] | None = None
    residual: Array | None = None  # added to the result: an array of its shape
    clip: tuple[float, float] | None = None  # the result's smallest and largest value
    keep_denormals: bool = False  # in float32, which treats them as zero otherwise


NO_EXTRAS, RECTIFIED = Extras(), Extras(clip=(0.0, math.inf))


@check.remembered("x", "weight", "bias")
def _checked(
    shapes: tuple[Shape, ...], dtype: np.dtype[Any], *options: Any
) -> ConvCall:
    """Return the call of a forward pass, with a bias or without."""
    x, weight, *biases = shapes
    call = check_conv("forward", x, weight, dtype, *options)
    for bias in biases:
        check.bias_fits(bias, call.OC, call.window.output, call.channels_last)
    return call


def convolve(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    steps: WindowOptions,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
    algorithm: str = "auto",
    precision: str | None = None,
    extras: Extras = NO_EXTRAS,
) -> Array:
    """Compute `conv2d`, with what only prepared layers and `convnet.signal` ask for.

    `steps` are stride, padding, dilation and groups; a residual and an untied bias
    exclude each other.
    """
    given = (x, weight) if bias is None else (x, weight, bias)
    packings, residual, clip, keep_denormals = extras
    options = steps, layout, algorithm, precision, get_policy(), packings is not None
    (x, weight, *biases), call = _checked(given, options)
    y = result = check.result(out, call.y_shape, call.dtype, given)
    if not call.is_nchw:
        x, y = (check.as_nchw(array, call.channels_last) for array in (x, y))
    bias = check.as_bias(biases[0], call.channels_last) if biases else None
    if residual is not None:
        check.has_shape(residual.shape, "residual", call.y_shape)
        residual = check.as_nchw(residual, call.channels_last)
        residual = residual.astype(call.dtype, copy=False)
    if call.is_empty:
        _without_products(y, bias, residual, clip)
        return result
    how = call.steps, call.groups, resolve(num_threads), packings, residual, clip
    weight = np.ascontiguousarray(weight)
    if call.tiling:
        _winograd.forward(x, weight, bias, y, call.tiling, *how)
    else:
        _conv.forward(x, weight, bias, y, *how, keep_denormals)
    return result


def _without_products(
    y: Array,
    bias: Array | None,
    residual: Array | None,
    clip: tuple[float, float] | None,
) -> None:
    """Write what is left of a convolution over no channels, or of no images."""
    y[...] = 0 if residual is None else residual
    if bias is not None:
        y += bias if bias.ndim == 3 else bias[:, None, None]
    if clip is not None:
        np.clip(y, *clip, out=y)
