# SPDX-License-Identifier: MIT
"""Convolutional layers, which hold parameters and call `convnet.functional`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from convnet._check import Array
from convnet._geometry import (
    LARGEST,
    IntOrPair,
    Padding,
    Pair,
    as_int,
    as_pair,
    conv_window,
)
from convnet.functional import (
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
)
from convnet.functional.conv import NO_EXTRAS, RECTIFIED, Extras, convolve
from convnet.nn import init
from convnet.nn._arrays import channels_last
from convnet.nn.module import Module, Parameter, unusual


class Conv2d(Module):
    """Cross-correlate images with learned filters; see `convnet.conv2d` for the maths.

    Parameters
    ----------
    in_channels, out_channels : int
        IC and OC, multiples of `groups`.
    kernel_size : int or (int, int)
        KH and KW, in pixels.
    stride, padding, dilation, groups
        As in `convnet.conv2d`.
    bias : True, False or "untied"
        One value per filter, none, or one per output position.
    input_size : (int, int), optional
        (IH, IW), which an untied bias needs to know the output's size.
    layout : {"NCHW", "NHWC"}
        Of inputs, outputs and an untied bias; `weight` is the same in both.
    dtype : dtype, float32 or float64
        Of the parameters.
    rng : int or numpy.random.Generator, optional
        Source of the start values, drawn as torch does:
        ``uniform(-1/sqrt(fan_in), 1/sqrt(fan_in))``, ``fan_in = IC/groups * KH * KW``.

    Attributes
    ----------
    weight : Parameter of shape (OC, IC / groups, KH, KW)
    bias : Parameter of shape (OC,), or (OC, OH, OW) or in NHWC (OH, OW, OC); or None

    Examples
    --------
    >>> layer = Conv2d(3, 5, (3, 2), padding="same", rng=0)
    >>> x = np.ones((2, 3, 11, 7), np.float32)
    >>> layer(x).shape
    (2, 5, 11, 7)
    >>> layer.backward(np.ones((2, 5, 11, 7), np.float32)).shape
    (2, 3, 11, 7)
    >>> layer.weight.grad.shape
    (5, 3, 3, 2)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: Padding = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool | str = True,
        *,
        input_size: Pair | None = None,
        layout: str = "NCHW",
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self.in_channels = as_int(in_channels, "in_channels")
        self.out_channels = as_int(out_channels, "out_channels")
        self.kernel_size = as_pair(kernel_size, "kernel_size")
        self.stride = as_pair(stride, "stride")
        self.padding = padding
        self.dilation = as_pair(dilation, "dilation")
        self.groups = as_int(groups, "groups")
        self.layout = layout
        channels_last(layout)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"in_channels {in_channels} and out_channels {out_channels} must be "
                f"multiples of groups {groups}"
            )
        rng = np.random.default_rng(rng)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(init.kaiming_uniform(shape, rng, dtype), "weight")
        self.bias: Parameter | None = None
        bias_shape = self._bias_shape(bias, input_size)
        if bias_shape is not None:
            bound = init.fan_in(shape) ** -0.5
            self.bias = Parameter(init.uniform(bias_shape, bound, rng, dtype), "bias")

    def forward(self, x: ArrayLike) -> Array:
        """Return the convolution of `x`, one image or a batch."""
        x = np.asarray(x)
        y = Conv2d.infer(self, x)
        self._saved = x
        return y

    def rectified(self, x: ArrayLike) -> Array:
        """Return ``max(forward(x), 0)``."""
        x = np.asarray(x)
        y = self._multiply(x, RECTIFIED)
        self._saved = x
        return y

    def backward(self, grad_y: ArrayLike, centered: bool = False) -> Array:
        """Return grad_x; add to the gradients of weight and bias.

        `centered` tells that each channel of grad_y sums to 0, as it does behind a
        batch normalization in training: what a bias adds is subtracted there again. So
        the gradient of a bias for each channel is 0, and is not computed.
        """
        x = self._recall()
        grad_x = conv2d_grad_input(
            grad_y, self.weight.value, x.shape, *self._window, layout=self.layout
        )
        Conv2d.accumulate(self, grad_y, centered)
        return grad_x

    def accumulate(self, grad_y: ArrayLike, centered: bool = False) -> None:
        """Add to the gradients of weight and bias alone; see `backward`."""
        x, shape = self._recall(), self.weight.value.shape
        self.weight.grad += conv2d_grad_weight(
            grad_y, x, shape, *self._window, layout=self.layout
        )
        if self.bias is None:
            return
        untied = self.bias.value.ndim == 3
        if untied or not centered:
            self.bias.grad += conv2d_grad_bias(
                grad_y, untied=untied, layout=self.layout
            )

    def infer(self, x: ArrayLike) -> Array:
        """Return the convolution of `x`, and keep nothing."""
        return self._multiply(x, NO_EXTRAS)

    def _multiply(self, x: ArrayLike, extras: Extras) -> Array:
        bias = None if self.bias is None else self.bias.value
        weight, window = self.weight.value, self._window
        return convolve(x, weight, bias, window, self.layout, extras=extras)

    @property
    def _window(self) -> tuple[Pair, Padding, Pair, int]:
        """Return the arguments that all calls share, in their order."""
        return self.stride, self.padding, self.dilation, self.groups

    def _bias_shape(
        self, bias: bool | str, input_size: Pair | None
    ) -> tuple[int, ...] | None:
        """Return the shape of the bias; refuse a padding that no image could have."""
        if bias not in (True, False, "untied"):
            raise ValueError(f"bias must be True, False or 'untied', got {bias!r}")
        if bias == "untied" and input_size is None:
            raise ValueError("an untied bias needs input_size=(IH, IW)")
        image = as_pair(input_size or LARGEST, "input_size")
        OH, OW = conv_window(
            image, self.kernel_size, self.stride, self.padding, self.dilation
        ).output
        if bias == "untied":
            OC = self.out_channels
            return (OH, OW, OC) if channels_last(self.layout) else (OC, OH, OW)
        return (self.out_channels,) if bias else None

    def _describe(self) -> str:
        kind = {None: False, 1: True, 3: "untied"}
        bias = kind[None if self.bias is None else self.bias.value.ndim]
        sizes = f"{self.in_channels}, {self.out_channels}, {self.kernel_size}"
        return sizes + unusual(
            stride=(self.stride, (1, 1)),
            padding=(self.padding, 0),
            dilation=(self.dilation, (1, 1)),
            groups=(self.groups, 1),
            bias=(bias, True),
            layout=(self.layout, "NCHW"),
        )
