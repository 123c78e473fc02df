# SPDX-License-Identifier: MIT
"""Convolution and its three gradients in plain NumPy.

    y[n, oc, oh, ow] = bias + sum of w[oc, ic, kh, kw] * x[n, ic, ih, iw]
                       with ih = oh*SH + kh*DH - PT and iw = ow*SW + kw*DW - PL

With groups, channels are split as (G, C/G) and the sum runs inside each group.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from convnet._geometry import IntOrPair, Padding, as_int, conv_window
from convnet.reference._arrays import (
    Array,
    as_floats,
    crop,
    deliver,
    ieee,
    nchw_shape,
    pad,
    require_shape,
    store,
    taps,
    to_nchw,
)


@ieee
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
    """Cross-correlate images with filters; see `convnet.conv2d`."""
    arrays = (x, weight) if bias is None else (x, weight, bias)
    x, weight, *biases = as_floats(*arrays)
    images = to_nchw(x, layout)
    w = _grouped_weight(weight, groups, images.shape[1])
    window = conv_window(images.shape[2:], weight.shape[2:], stride, padding, dilation)
    padded = _grouped(pad(images, window), groups)
    y = np.zeros((len(images), *w.shape[:2], *window.output), x.dtype)
    for kh, kw, grid in taps(window):
        y += np.einsum("ngchw,goc->ngohw", padded[grid], w[..., kh, kw])
    y = _ungrouped(y)
    for b in biases:
        y += b[:, None, None] if b.ndim == 1 else to_nchw(b, layout)[0]
    return deliver(y, x.ndim == 3, layout, out)


@ieee
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
    """Send each output's gradient back to its pixels; see `convnet.conv2d_grad_input`.

    ``grad_x[n, ic, ih, iw] += grad_y[n, oc, oh, ow] * w[oc, ic, kh, kw]``
    """
    grad_y, weight = as_floats(grad_y, weight)
    gy = to_nchw(grad_y, layout)
    N, C, IH, IW = nchw_shape(x_shape, layout)
    w = _grouped_weight(weight, groups, C)
    window = conv_window((IH, IW), weight.shape[2:], stride, padding, dilation)
    require_shape(gy, (N, len(weight), *window.output))
    padded = _grouped(pad(np.zeros((N, C, IH, IW), gy.dtype), window), groups)
    gy = _grouped(gy, groups)
    for kh, kw, grid in taps(window):
        padded[grid] += np.einsum("ngohw,goc->ngchw", gy, w[..., kh, kw])
    grad_x = crop(_ungrouped(padded), window, (IH, IW))
    return deliver(grad_x, grad_y.ndim == 3, layout, out)


@ieee
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
    """Correlate inputs with output gradients; see `convnet.conv2d_grad_weight`.

    ``grad_w[oc, ic, kh, kw] = sum of grad_y[n, oc, oh, ow] * x[n, ic, ih, iw]``
    """
    grad_y, x = as_floats(grad_y, x)
    gy, images = to_nchw(grad_y, layout), to_nchw(x, layout)
    grad_w = np.zeros(weight_shape, x.dtype)
    gw = _grouped_weight(grad_w, groups, images.shape[1])
    window = conv_window(images.shape[2:], gw.shape[3:], stride, padding, dilation)
    require_shape(gy, (len(images), len(grad_w), *window.output))
    gy, padded = _grouped(gy, groups), _grouped(pad(images, window), groups)
    for kh, kw, grid in taps(window):
        gw[..., kh, kw] = np.einsum("ngohw,ngchw->goc", gy, padded[grid])
    return store(grad_w, out)


@ieee
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
    """Sum over the batch and, unless untied, over pixels; see the fast twin.

    ``grad_b[oc] = sum of grad_y[n, oc, oh, ow]`` over n, oh, ow; untied over n alone.
    """
    (grad_y,) = as_floats(grad_y)
    gy = to_nchw(grad_y, layout)
    if not untied:
        return store(gy.sum(axis=(0, 2, 3)), out)
    return deliver(gy.sum(axis=0, keepdims=True), True, layout, out)


def _grouped(images: Array, groups: int) -> Array:
    """Return images (N, C, H, W) as (N, G, C/G, H, W)."""
    N, C, H, W = images.shape
    return images.reshape(N, groups, C // groups, H, W)


def _ungrouped(images: Array) -> Array:
    """Undo `_grouped`."""
    N, G, C, H, W = images.shape
    return images.reshape(N, G * C, H, W)


def _grouped_weight(weight: Array, groups: int, channels: int) -> Array:
    """Return a weight (OC, IC/G, KH, KW) as (G, OC/G, IC/G, KH, KW)."""
    OC, C, KH, KW = weight.shape
    groups = as_int(groups, "groups")
    if C * groups != channels:
        raise ValueError(
            f"a weight of shape {weight.shape} in {groups} groups does not fit "
            f"{channels} input channels"
        )
    return weight.reshape(groups, OC // groups, C, KH, KW)
