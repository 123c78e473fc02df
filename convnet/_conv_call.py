# SPDX-License-Identifier: MIT
"""A convolution that has been checked: its sizes, its windows and its algorithm.

Shapes and options decide all of it, so `convnet.functional` keeps the last few hundred
calls: see `_calls.Remembered`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from convnet import _check as check
from convnet._algorithm import Product, choose
from convnet._check import Shape
from convnet._geometry import IntOrPair, Padding, Pair, Window, conv_window
from convnet._operands import Steps
from convnet._tiling import Tiling, find_tiling

WindowOptions = tuple[IntOrPair, Padding, IntOrPair, int]


@dataclass(frozen=True)
class ConvCall:
    """One of the three passes of a convolution, all of whose sizes fit together."""

    kind: str  # "forward", "grad_input" or "grad_weight"
    dtype: np.dtype[Any]
    channels_last: bool
    single: bool  # one image, without an axis for the batch
    N: int
    IC: int
    OC: int
    groups: int
    image: Pair
    window: Window
    algorithm: str = "direct"

    @cached_property
    def x_shape(self) -> Shape:
        """Shape of the input, as users see it."""
        return self._as_seen(self.IC, self.image)

    @cached_property
    def y_shape(self) -> Shape:
        """Shape of the output, as users see it."""
        return self._as_seen(self.OC, self.window.output)

    @cached_property
    def w_shape(self) -> Shape:
        """Shape of the weight."""
        return self.OC, self.IC // self.groups, *self.window.kernel

    def _as_seen(self, C: int, image: Pair) -> Shape:
        return check.image_shape(self.N, C, image, self.channels_last, self.single)

    @cached_property
    def flops(self) -> int:
        """Operations of the definition: the same for all passes and algorithms."""
        (KH, KW), (OH, OW) = self.window.kernel, self.window.output
        return 2 * self.N * self.OC * self.IC // self.groups * KH * KW * OH * OW

    @cached_property
    def is_empty(self) -> bool:
        """Whether there is nothing to multiply."""
        return 0 in (self.N, self.IC, self.OC, *self.image)

    @cached_property
    def product(self) -> Product:
        """The blocked product that the pass is; its rows go to the result."""
        OC, IC, size = self.OC, self.IC, self.window.output
        if self.kind == "grad_input":
            # With stride, the products of all phases together.
            OC, IC = IC, OC
            size = self.image if self.window.stride == (1, 1) else size
        return Product(self.groups, OC // self.groups, IC // self.groups, self.N, *size)

    @cached_property
    def steps(self) -> Steps:
        """The windows, as drivers take them."""
        return Steps(*self.window[:4])

    @cached_property
    def tiling(self) -> Tiling | None:
        """Winograd's tiles; None for direct sums."""
        if self.algorithm == "direct":
            return None
        return find_tiling(self.algorithm, self.window, self.kind)

    @cached_property
    def is_nchw(self) -> bool:
        """Whether arrays stand as drivers take them."""
        return not (self.single or self.channels_last)


def check_conv(
    kind: str,
    x_shape: Shape,
    weight_shape: Shape,
    dtype: np.dtype[Any],
    steps: WindowOptions,
    layout: str,
    algorithm: str = "auto",
    precision: str | None = None,
    policy: str = "default",
    prepared: bool = False,
) -> ConvCall:
    """Return the call of a pass for an input and a weight of these shapes.

    `policy` is what `precision` None means; `prepared` weights are packed already.
    """
    channels_last = check.options(layout, algorithm, precision)
    N, IC, IH, IW = check.nchw_shape(x_shape, "x", channels_last)
    stride, padding, dilation, groups = steps
    groups = check.weight_fits(weight_shape, IC, groups)
    OC, _, KH, KW = weight_shape
    window = conv_window((IH, IW), (KH, KW), stride, padding, dilation)
    single = len(x_shape) == 3
    call = ConvCall(
        kind, dtype, channels_last, single, N, IC, OC, groups, (IH, IW), window
    )
    if call.is_empty:
        return call
    how = algorithm, precision or policy, prepared, kind
    return replace(call, algorithm=choose(call.product, window, dtype, *how))
