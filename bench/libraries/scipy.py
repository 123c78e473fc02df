# SPDX-License-Identifier: MIT
"""The loop of a first program: `scipy.signal` on each pair of channels."""

from collections.abc import Iterator

import numpy as np
import scipy
from scipy.signal import convolve2d, correlate2d

from bench.cases import Array, Case, Conv
from bench.libraries import Library, Run
from bench.libraries.numpy import dilate, pad, pad_shape


class Loop(Library):
    """Forward and both gradients as their textbook formulas."""

    version = scipy.__version__

    def estimate(self, case: Case) -> float:
        """Return the seconds at 1 GFLOP/s, and 10 microseconds for each small call."""
        _, _, OH, OW = case.y_shape
        calls = case.work / (2 * int(np.prod(case.K)) * OH * OW)
        return case.work / 1e9 + 1e-5 * calls

    def fwd(self, case: Conv, weight: Array, bias: Array) -> Run:
        """y[oc] = bias[oc] + sum of x[ic] * w[oc, ic]."""
        weight = dilate(weight, case.D)

        def run(x: Array) -> Array:
            x = pad(x, case.P)
            y = np.zeros(case.y_shape, x.dtype) + bias[:, None, None]
            for n, oc, ic, k in _pairs(case):
                full = correlate2d(x[n, ic], weight[oc, k], "valid")
                y[n, oc] += full[:: case.S, :: case.S]
            return y

        return run

    def gx(self, case: Conv, weight: Array) -> Run:
        """grad_x[ic] = sum of the full convolution of grad_y[oc] with w[oc, ic]."""
        (_, _, IH, IW), (PH, PW) = case.x_shape, case.P
        weight = dilate(weight, case.D)

        def run(grad_y: Array) -> Array:
            grad_y = dilate(grad_y, case.S)
            grad_x = np.zeros(pad_shape(case), grad_y.dtype)
            for n, oc, ic, k in _pairs(case):
                full = convolve2d(grad_y[n, oc], weight[oc, k], "full")
                grad_x[n, ic, : full.shape[0], : full.shape[1]] += full
            return grad_x[:, :, PH : PH + IH, PW : PW + IW]

        return run

    def gw(self, case: Conv) -> Run:
        """grad_w[oc, ic] = sum of x[ic] * grad_y[oc]."""
        taps = tuple(slice(0, size * case.D, case.D) for size in case.K)

        def run(grad_y: Array, x: Array) -> Array:
            grad_y, x = dilate(grad_y, case.S), pad(x, case.P)
            grad_w = np.zeros(case.w_shape, x.dtype)
            for n, oc, ic, k in _pairs(case):
                full = correlate2d(x[n, ic], grad_y[n, oc], "valid")
                grad_w[oc, k] += full[taps]
            return grad_w

        return run


def _pairs(case: Conv) -> Iterator[tuple[int, int, int, int]]:
    """Yield image, output channel, input channel, and the latter within its group."""
    per_group = case.OC // case.G
    for n in range(case.N):
        for oc in range(case.OC):
            first = oc // per_group * case.w_shape[1]
            for k in range(case.w_shape[1]):
                yield n, oc, first + k, k
