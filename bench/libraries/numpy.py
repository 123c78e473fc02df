# SPDX-License-Identifier: MIT
"""The well-known NumPy way: sliding windows and one big product.

Its first dimension of cost is memory: the windows of a KH x KW kernel are KH * KW times
as large as the image.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from bench.cases import Array, Case, Conv, Pair, Pool, Shape
from bench.libraries import Library, Run


class Windows(Library):
    """`sliding_window_view` with `tensordot`, group by group."""

    version = np.__version__

    def estimate(self, case: Case) -> float:
        """Return the seconds for products at 5 GFLOP/s and pooling at 0.5 GB/s."""
        if not isinstance(case, Conv):
            return case.work / 0.5e9
        # The spread-out grad_y is mostly zeros, and they are multiplied as well.
        return case.work * (case.S**2 if case.op == "gx" else 1) / 5e9

    def fwd(self, case: Conv, weight: Array, bias: Array) -> Run:
        """Multiply the windows of x by the weight."""
        steps = case.S, case.D, case.G
        return lambda x: (
            _correlate(pad(x, case.P), weight, *steps) + bias[:, None, None]
        )

    def gx(self, case: Conv, weight: Array) -> Run:
        """Correlate the spread-out grad_y with the turned weight, roles swapped."""
        G, (OC, IC, KH, KW), (PH, PW) = case.G, case.w_shape, case.P
        turned = weight.reshape(G, OC // G, IC, KH, KW)[..., ::-1, ::-1]
        turned = turned.swapaxes(1, 2).reshape(G * IC, OC // G, KH, KW)
        _, _, IH, IW = case.x_shape
        border = (KH - 1) * case.D, (KW - 1) * case.D

        def run(grad_y: Array) -> Array:
            grad_x = np.zeros(pad_shape(case), grad_y.dtype)
            spread = pad(dilate(grad_y, case.S), border)
            part = _correlate(spread, turned, 1, case.D, G)
            grad_x[:, :, : part.shape[2], : part.shape[3]] = part
            return grad_x[:, :, PH : PH + IH, PW : PW + IW]

        return run

    def gw(self, case: Conv) -> Run:
        """grad_w = grad_y times windows of x."""

        def run(grad_y: Array, x: Array) -> Array:
            windows = _windows(pad(x, case.P), case.K, case.S, case.D)
            pairs = zip(_split(grad_y, case.G), _split(windows, case.G), strict=True)
            axes = (0, 2, 3), (0, 2, 3)
            return np.concatenate([np.tensordot(gy, w, axes) for gy, w in pairs])

        return run

    def max(self, case: Pool) -> Run:
        """Largest of each window."""
        K, P = (case.K, case.K), (case.P, case.P)
        return lambda x: _windows(pad(x, P, -np.inf), K, case.S).max((4, 5))

    def avg(self, case: Pool) -> Run:
        """Mean of each window."""
        K, P = (case.K, case.K), (case.P, case.P)
        return lambda x: _windows(pad(x, P), K, case.S).mean((4, 5))


def pad(images: Array, P: Pair, value: float = 0) -> Array:
    """Return images with P[0] rows and P[1] columns more on each side."""
    around = (0, 0), (0, 0), *((width, width) for width in P)
    return np.pad(images, around, constant_values=value)


def pad_shape(case: Conv) -> Shape:
    """Return the shape of the padded input."""
    (N, IC, IH, IW), (PH, PW) = case.x_shape, case.P
    return N, IC, IH + 2 * PH, IW + 2 * PW


def dilate(images: Array, S: int) -> Array:
    """Return images with S - 1 zeros between neighbouring pixels."""
    N, C, H, W = images.shape
    spread = np.zeros((N, C, (H - 1) * S + 1, (W - 1) * S + 1), images.dtype)
    spread[:, :, ::S, ::S] = images
    return spread


def _windows(images: Array, K: Pair, S: int, D: int = 1) -> Array:
    """Return a view of all windows, of shape (N, C, OH, OW, KH, KW)."""
    extent = tuple((size - 1) * D + 1 for size in K)
    windows = sliding_window_view(images, extent, axis=(2, 3))
    return windows[:, :, ::S, ::S, ::D, ::D]


def _split(images: Array, G: int) -> list[Array]:
    return np.split(images, G, axis=1)


def _correlate(images: Array, weight: Array, S: int, D: int, G: int) -> Array:
    """Correlate padded images with the weight, and return them in NCHW."""
    windows = _split(_windows(images, weight.shape[2:], S, D), G)
    axes = (1, 4, 5), (1, 2, 3)
    groups = zip(windows, np.split(weight, G), strict=True)
    y = np.concatenate([np.tensordot(v, w, axes) for v, w in groups], axis=3)
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))
