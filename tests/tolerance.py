# SPDX-License-Identifier: MIT
"""The one formula for how far two right answers may lie apart."""

import math

import numpy as np
import numpy.typing as npt

# Rounding errors behave like a random walk: a sum of `terms` products goes wrong by
# about sqrt(terms) * eps/2 times its largest partial sum (Higham and Mary, SIAM J. Sci.
# Comput. 41, 2019). Eight of those standard deviations lie beyond anything that the
# millions of values in a test run show; the judge rounds as well, which makes it 8 * 2
# halves of eps. Another factor 2 leaves room for any order of summation.
C = 16


def tolerance(dtype: npt.DTypeLike, terms: int, scale: float = 1.0) -> float:
    """Return the absolute tolerance for sums of `terms` products in `dtype`.

    ``C * eps(dtype) * sqrt(terms) * scale``

    Parameters
    ----------
    dtype : dtype
        The precision in which the sums are computed.
    terms : int
        Number of products in one sum, such as ``IC * KH * KW``.
    scale : float
        Size of the largest partial sum: about ``sqrt(terms)`` for standard normal
        data, or the largest magnitude in the expected result.
    """
    return C * float(np.finfo(dtype).eps) * math.sqrt(max(terms, 1)) * scale


# Largest relative L2 error and largest error over the result's rms, up to 512 channels:
# the table of docs/numerics.md.
BOUNDS = {
    "direct": (6e-7, 5e-6),
    "winograd2": (6e-7, 5e-6),
    "winograd4": (1.5e-6, 2e-5),
}


def errors(result, exact):
    """Return the relative L2 error, and the largest error over the rms."""
    difference = result - exact
    rms = np.sqrt((exact**2).mean())
    return np.sqrt((difference**2).mean()) / rms, abs(difference).max() / rms
