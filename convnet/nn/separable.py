# SPDX-License-Identifier: MIT
"""The separable convolution: channel by channel, then across channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from convnet._geometry import IntOrPair, Padding
from convnet.nn.container import Sequential
from convnet.nn.conv import Conv2d


class SeparableConv2d(Sequential):
    """A filter for each channel alone, then a 1x1 convolution that mixes channels.

    The first convolution has ``groups=in_channels`` and no bias.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, bias
        As in `Conv2d`; an untied bias is not offered.
    layout, dtype, rng
        As in `Conv2d`.

    Examples
    --------
    >>> layer = SeparableConv2d(3, 5, (3, 2), padding=(1, 0), rng=0)
    >>> layer(np.ones((2, 3, 11, 7), np.float32)).shape
    (2, 5, 11, 6)
    >>> [p.value.shape for p in layer.parameters()]
    [(3, 1, 3, 2), (5, 3, 1, 1), (5,)]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: Padding = 0,
        dilation: IntOrPair = 1,
        bias: bool = True,
        *,
        layout: str = "NCHW",
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        rng = np.random.default_rng(rng)
        depthwise = Conv2d(
            in_channels,
            in_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups=in_channels,
            bias=False,
            layout=layout,
            dtype=dtype,
            rng=rng,
        )
        pointwise = Conv2d(
            in_channels,
            out_channels,
            1,
            bias=bias,
            layout=layout,
            dtype=dtype,
            rng=rng,
        )
        super().__init__(depthwise, pointwise)
