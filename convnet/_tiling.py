# SPDX-License-Identifier: MIT
"""Winograd's tiles of a convolution: F(m x m, r x r), for phases and pieces of kernels.

Tiles have n points on each axis, n = m + r - 1. With stride, the taps of each phase
are a filter of their own; filters of more taps than tiles can take are cut into pieces
of r x r taps. Both are channels of their own, whose products are added up.
"""

from typing import NamedTuple

from convnet._geometry import Pair, Window

# Points on each axis, and how many taps tiles of so many may take: those of six points
# are F(5, 2), F(4, 3), F(3, 4) and F(2, 5).
POINTS = {"winograd2": 4, "winograd4": 6}
_TAPS = {4: (3,), 6: (5, 4, 3, 2)}

# Strides whose phases drivers can gather, or weave.
_STRIDES = {"forward": (1, 2, 4), "grad_input": (1, 2), "grad_weight": (1,)}

# What csrc has memory for: taps of all pieces and phases of a filter, with those that
# do not exist, and columns from the first piece to the last.
_MOST_TAPS, _MOST_REACH = 400, 16


class Tiling(NamedTuple):
    """The tiles of a pass, and the pieces of its kernels on both axes."""

    points: int  # n
    taps: int  # r
    pieces: Pair

    @property
    def size(self) -> int:
        """Return m, the results of a tile on each axis."""
        return self.points - self.taps + 1

    @property
    def products(self) -> float:
        """Return the products for each result, channel and phase."""
        return self.pieces[0] * self.pieces[1] * (self.points / self.size) ** 2


def find_tiling(algorithm: str, window: Window, kind: str) -> Tiling | None:
    """Return the tiles with the fewest products of a pass, or None if there are none.

    Kernels have two taps at least in each phase, on both axes. Gradients of weights
    would gain nothing from two taps.
    """
    (SH, SW), points = window.stride, POINTS[algorithm]
    usable = SH == SW and SH in _STRIDES[kind] and min(window.kernel) > SH
    # With dilation, pixels that meet each other are an image of their own.
    apart = window.dilation != (1, 1)
    if not usable or (apart and (SH > 1 or kind == "grad_weight")):
        return None
    KH, KW = (-(-size // SH) for size in window.kernel)
    fewest = 2 if kind != "grad_weight" else 3
    tilings = [
        Tiling(points, r, (-(-KH // r), -(-KW // r)))
        for r in _TAPS[points]
        if fewest <= r <= max(KH, KW)
    ]
    possible = (t for t in tilings if _fits_memory(t, SH))
    return min(possible, key=lambda t: t.products, default=None)


def _fits_memory(tiling: Tiling, step: int) -> bool:
    (rows, columns), r = tiling.pieces, tiling.taps * step
    return rows * columns * r**2 <= _MOST_TAPS and (columns - 1) * r <= _MOST_REACH
