# SPDX-License-Identifier: MIT
"""A pooling that has been checked: its shapes and windows; see `_calls.Remembered`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from convnet import _check as check
from convnet._check import Shape
from convnet._geometry import IntOrPair, Padding, Pair, Window, as_int, pool_window
from convnet._operands import Steps


@dataclass(frozen=True)
class PoolCall:
    """A pooling of images, or its gradient."""

    channels_last: bool
    single: bool  # one image, without an axis for the batch
    N: int
    C: int
    image: Pair
    window: Window
    count_include_pad: bool = True
    divisor: int = 0  # of averages; 0 is the number of pixels that count

    @cached_property
    def x_shape(self) -> Shape:
        """Shape of the input, as users see it."""
        return self._as_seen(self.image)

    @cached_property
    def y_shape(self) -> Shape:
        """Shape of the output, as users see it."""
        return self._as_seen(self.window.output)

    def _as_seen(self, image: Pair) -> Shape:
        return check.image_shape(self.N, self.C, image, self.channels_last, self.single)

    @cached_property
    def is_nchw(self) -> bool:
        """Whether arrays stand as drivers take them."""
        return not (self.single or self.channels_last)

    @cached_property
    def is_empty(self) -> bool:
        """Whether there is no pixel; every image has one, or no window fits."""
        return not self.N * self.C

    @cached_property
    def steps(self) -> Steps:
        """The windows, as drivers take them."""
        return Steps(*self.window[:4])


@check.remembered("x")
def pool_call(shapes: tuple[Shape], dtype: np.dtype[Any], *options: Any) -> PoolCall:
    """Return the call of a pooling; the options are those of `check_pool`."""
    return check_pool(*shapes, *options)


@check.remembered("grad_y")
def pool_grad_call(
    shapes: tuple[Shape],
    dtype: np.dtype[Any],
    x_shape: Sequence[int],
    *options: Any,
) -> PoolCall:
    """Return the call of a pooling's gradient."""
    (grad_y,) = shapes
    call = check_pool(check.as_image_shape(x_shape, "x_shape"), *options)
    check.has_shape(grad_y, "grad_y", call.y_shape)
    return call


def check_pool(
    x_shape: Shape,
    layout: str,
    kernel_size: IntOrPair,
    stride: IntOrPair | None,
    padding: Padding,
    dilation: IntOrPair,
    ceil_mode: bool,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> PoolCall:
    """Return the call for images of this shape."""
    channels_last = check.options(layout)
    N, C, IH, IW = check.nchw_shape(x_shape, "x", channels_last)
    ceil_mode = check.flag(ceil_mode, "ceil_mode")
    window = pool_window((IH, IW), kernel_size, stride, padding, dilation, ceil_mode)
    count_include_pad = check.flag(count_include_pad, "count_include_pad")
    divisor = 0
    if divisor_override is not None:
        divisor = as_int(divisor_override, "divisor_override")
    single = len(x_shape) == 3
    return PoolCall(
        channels_last, single, N, C, (IH, IW), window, count_include_pad, divisor
    )
