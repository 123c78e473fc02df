# SPDX-License-Identifier: MIT
"""Convolution of images with filters.

    y[n, oc, oh, ow] = bias + sum of weight[oc, ic, kh, kw] * x[n, ic, ih, iw]
                       with ih = oh*SH + kh*DH - PT and iw = ow*SW + kw*DW - PL

Pixels outside the image count as zeros. In both layouts the drivers get views of shape
(N, C, H, W); a layout is no more than an order of strides to them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from convnet import _check as check
from convnet import _conv, _winograd
from convnet._algorithm import Product, choose
from convnet._check import Array
from convnet._geometry import IntOrPair, Padding, conv_window


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
        How to compute: by direct sums, or with Winograd's F(2, 3) or F(4, 3), for 3x3
        kernels with stride and dilation 1. ``"auto"`` takes the fastest that
        `precision` allows (see `explain`); float64 is always direct unless forced.
    precision : {None, "default", "strict"}
        ``"strict"`` allows direct sums and F(2, 3), which rounds as well as they do,
        and refuses ``algorithm="winograd4"``; ``"default"`` also allows F(4, 3), with
        three to five times their rounding errors. None is what
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
    return convolve(
        x,
        weight,
        bias,
        (stride, padding, dilation, groups),
        layout=layout,
        out=out,
        num_threads=num_threads,
        algorithm=algorithm,
        precision=precision,
    )


class Extras(NamedTuple):
    """What prepared layers and `convnet.signal` add to a convolution."""

    # Keeps packed weights for later calls; the weight must never change.
    packings: dict[Any, Any] | None = None
    residual: Array | None = None  # added to the result: an array of its shape
    clip: tuple[float, float] | None = None  # the result's smallest and largest value
    keep_denormals: bool = False  # in float32, which treats them as zero otherwise


def convolve(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    steps: tuple[IntOrPair, Padding, IntOrPair, int],
    extras: Extras | None = None,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
    num_threads: int | None = None,
    algorithm: str = "auto",
    precision: str | None = None,
) -> Array:
    """Compute `conv2d`, with what only prepared layers ask for.

    `steps` are stride, padding, dilation and groups; a residual and an untied bias
    exclude each other.
    """
    channels_last, threads = check.options(layout, num_threads, algorithm, precision)
    given = (x, weight) if bias is None else (x, weight, bias)
    x, weight, *biases = check.as_floats(("x", "weight", "bias"), given)
    images = check.as_nchw(x, "x", channels_last)
    N, IC, IH, IW = images.shape
    stride, padding, dilation, groups = steps
    groups = check.weight_fits(weight.shape, IC, groups)
    OC, _, KH, KW = weight.shape
    window = conv_window((IH, IW), (KH, KW), stride, padding, dilation)
    b = check.as_bias(biases[0], OC, window.output, channels_last) if biases else None
    shape = check.image_shape(N, OC, window.output, channels_last, x.ndim == 3)
    result = check.result(out, shape, weight.dtype, given)
    y = check.as_nchw(result, "out", channels_last)
    packings, residual, clip, keep_denormals = extras or Extras()
    if residual is not None:
        check.has_shape(residual, "residual", shape)
        residual = check.as_nchw(residual, "residual", channels_last)
        residual = residual.astype(y.dtype, copy=False)
    if not (x.size and weight.size):
        y[...] = 0 if residual is None else residual
        if b is not None:
            y += b if b.ndim == 3 else b[:, None, None]
        return np.clip(result, *clip, out=result) if clip else result
    weight = np.ascontiguousarray(weight)
    product = Product(groups, OC // groups, IC // groups, N, *window.output)
    prepared = packings is not None
    chosen = choose(product, window, weight.dtype, algorithm, precision, prepared)
    more: dict[str, Any] = {"packings": packings, "residual": residual, "clip": clip}
    if chosen == "direct":
        more["keep_denormals"] = keep_denormals
        _conv.forward(images, weight, b, y, *window.steps, groups, threads, **more)
    else:
        pads, m = window.pads[:2], int(chosen[-1])
        _winograd.forward(images, weight, b, y, pads, groups, threads, m, **more)
    return result
