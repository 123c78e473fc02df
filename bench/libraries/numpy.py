# SPDX-License-Identifier: MIT
"""The well-known NumPy way: sliding windows and one big product.

Its first dimension of cost is memory: the windows of a K x K kernel are K*K times as
large as the image.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from bench.cases import Array, Case, Conv, Pool
from bench.libraries import Library, Run


class Windows(Library):
    """`sliding_window_view` with `tensordot`, group by group."""

    version = np.__version__

    def estimate(self, case: Case) -> float:
        """Return the seconds for products at 5 GFLOP/s and pooling at 0.5 GB/s."""
        return case.work / (5e9 if isinstance(case, Conv) else 0.5e9)

    def fwd(self, case: Conv, weight: Array, bias: Array) -> Run:
        """Multiply the windows of x by the weight."""
        return lambda x: (
            _correlate(pad(x, case.P), weight, case.S, case.G) + bias[:, None, None]
        )

    def gx(self, case: Conv, weight: Array) -> Run:
        """Correlate the spread-out grad_y with the turned weight, roles swapped."""
        G, (OC, IC, K, _) = case.G, case.w_shape
        turned = weight.reshape(G, OC // G, IC, K, K)[..., ::-1, ::-1]
        turned = turned.swapaxes(1, 2).reshape(G * IC, OC // G, K, K)
        _, _, IH, IW = case.x_shape

        def run(grad_y: Array) -> Array:
            grad_x = np.zeros(pad_shape(case), grad_y.dtype)
            spread = pad(dilate(grad_y, case.S), K - 1)
            part = _correlate(spread, turned, 1, G)
            grad_x[:, :, : part.shape[2], : part.shape[3]] = part
            return grad_x[:, :, case.P : case.P + IH, case.P : case.P + IW]

        return run

    def gw(self, case: Conv) -> Run:
        """grad_w = grad_y times windows of x."""

        def run(grad_y: Array, x: Array) -> Array:
            windows = _windows(pad(x, case.P), case.K, case.S)
            pairs = zip(_split(grad_y, case.G), _split(windows, case.G), strict=True)
            axes = (0, 2, 3), (0, 2, 3)
            return np.concatenate([np.tensordot(gy, w, axes) for gy, w in pairs])

        return run

    def max(self, case: Pool) -> Run:
        """Largest of each window."""
        return lambda x: _windows(pad(x, case.P, -np.inf), case.K, case.S).max((4, 5))

    def avg(self, case: Pool) -> Run:
        """Mean of each window."""
        return lambda x: _windows(pad(x, case.P), case.K, case.S).mean((4, 5))


def pad(images: Array, P: int, value: float = 0) -> Array:
    """Return images with P pixels more on each side."""
    around = (0, 0), (0, 0), (P, P), (P, P)
    return np.pad(images, around, constant_values=value)


def pad_shape(case: Conv) -> tuple[int, ...]:
    """Return the shape of the padded input."""
    N, IC, IH, IW = case.x_shape
    return N, IC, IH + 2 * case.P, IW + 2 * case.P


def dilate(images: Array, S: int) -> Array:
    """Return images with S - 1 zeros between neighbouring pixels."""
    N, C, H, W = images.shape
    spread = np.zeros((N, C, (H - 1) * S + 1, (W - 1) * S + 1), images.dtype)
    spread[:, :, ::S, ::S] = images
    return spread


def _windows(images: Array, K: int, S: int) -> Array:
    """Return a view of all windows, of shape (N, C, OH, OW, K, K)."""
    return sliding_window_view(images, (K, K), axis=(2, 3))[:, :, ::S, ::S]


def _split(images: Array, G: int) -> list[Array]:
    return np.split(images, G, axis=1)


def _correlate(images: Array, weight: Array, S: int, G: int) -> Array:
    """Correlate padded images with the weight, and return them in NCHW."""
    windows = _split(_windows(images, weight.shape[2], S), G)
    axes = (1, 4, 5), (1, 2, 3)
    groups = zip(windows, np.split(weight, G), strict=True)
    y = np.concatenate([np.tensordot(v, w, axes) for v, w in groups], axis=3)
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))
