# SPDX-License-Identifier: MIT
"""Pooling layers, which call `convnet.functional`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from convnet._check import Array
from convnet._geometry import IntOrPair, Padding
from convnet.functional import (
    avg_pool2d,
    avg_pool2d_grad,
    global_avg_pool2d,
    max_pool2d,
    max_pool2d_grad,
)
from convnet.functional.pointwise import relu_grad
from convnet.nn._arrays import as_gradient, channels_last
from convnet.nn.module import Module, unusual


class MaxPool2d(Module):
    """Keep the largest pixel of each window; see `convnet.max_pool2d` for the maths.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode
        As in `convnet.max_pool2d`; `stride` None means `kernel_size`.
    layout : {"NCHW", "NHWC"}

    Examples
    --------
    >>> MaxPool2d((3, 2))(np.ones((2, 5, 11, 7), np.float32)).shape
    (2, 5, 3, 3)
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: Padding = 0,
        dilation: IntOrPair = 1,
        ceil_mode: bool = False,
        *,
        layout: str = "NCHW",
    ) -> None:
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode
        self.layout = layout

    def forward(self, x: ArrayLike) -> Array:
        """Return the maxima of `x`, one image or a batch."""
        y, indices = max_pool2d(
            x, *self._window, return_indices=True, layout=self.layout
        )
        self._saved = y, indices, np.shape(x)
        return y

    def backward(self, grad_y: ArrayLike) -> Array:
        """Return grad_x: each window sends its gradient to its largest pixel."""
        _, indices, x_shape = self._recall()
        return max_pool2d_grad(
            grad_y, indices, x_shape, *self._window, layout=self.layout
        )

    def backward_rectified(self, grad_y: ArrayLike) -> Array:
        """Return what `backward` gives before the backward pass of a ReLU.

        Where the maximum is above 0, so is the pixel that it comes from.
        """
        y, _, _ = self._recall()
        return self.backward(relu_grad(as_gradient(grad_y, y.shape), y))

    def infer(self, x: ArrayLike) -> Array:
        """Return the maxima of `x`, and keep nothing."""
        return max_pool2d(x, *self._window, layout=self.layout)

    @property
    def _window(self) -> tuple[IntOrPair, IntOrPair | None, Padding, IntOrPair, bool]:
        """Return the arguments that all calls share, in their order."""
        return (
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
        )

    def _describe(self) -> str:
        return f"{self.kernel_size}" + unusual(
            stride=(self.stride, None),
            padding=(self.padding, 0),
            dilation=(self.dilation, 1),
            ceil_mode=(self.ceil_mode, False),
            layout=(self.layout, "NCHW"),
        )


class AvgPool2d(Module):
    """Average the pixels of each window; see `convnet.avg_pool2d` for the maths.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As in `convnet.avg_pool2d`; `stride` None means `kernel_size`.
    layout : {"NCHW", "NHWC"}

    Examples
    --------
    >>> AvgPool2d((3, 2))(np.ones((2, 5, 11, 7), np.float32)).shape
    (2, 5, 3, 3)
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        layout: str = "NCHW",
    ) -> None:
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override
        self.layout = layout

    def forward(self, x: ArrayLike) -> Array:
        """Return the averages of `x`, one image or a batch."""
        y = AvgPool2d.infer(self, x)
        self._saved = (np.shape(x),)
        return y

    def backward(self, grad_y: ArrayLike) -> Array:
        """Return grad_x: each window spreads its gradient evenly over its pixels."""
        (x_shape,) = self._recall()
        return avg_pool2d_grad(grad_y, x_shape, *self._window, layout=self.layout)

    def infer(self, x: ArrayLike) -> Array:
        """Return the averages of `x`, and keep nothing."""
        return avg_pool2d(x, *self._window, layout=self.layout)

    @property
    def _window(
        self,
    ) -> tuple[IntOrPair, IntOrPair | None, Padding, bool, bool, int | None]:
        """Return the arguments that all calls share, in their order."""
        return (
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def _describe(self) -> str:
        return f"{self.kernel_size}" + unusual(
            stride=(self.stride, None),
            padding=(self.padding, 0),
            ceil_mode=(self.ceil_mode, False),
            count_include_pad=(self.count_include_pad, True),
            divisor_override=(self.divisor_override, None),
            layout=(self.layout, "NCHW"),
        )


class GlobalAvgPool2d(Module):
    """Average each channel over the whole image: ``(N, C, H, W)`` to ``(N, C, 1, 1)``.

    Follow it with `Flatten` to get ``(N, C)``.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}

    Examples
    --------
    >>> GlobalAvgPool2d()(np.ones((2, 5, 11, 7), np.float32)).shape
    (2, 5, 1, 1)
    """

    def __init__(self, *, layout: str = "NCHW") -> None:
        self.layout = layout

    def forward(self, x: ArrayLike) -> Array:
        """Return the averages of `x`, one image or a batch."""
        y = GlobalAvgPool2d.infer(self, x)
        self._saved = (np.shape(x),)
        return y

    def backward(self, grad_y: ArrayLike) -> Array:
        """Return grad_x: each channel spreads its gradient evenly over its pixels."""
        (x_shape,) = self._recall()
        image = x_shape[-3:-1] if channels_last(self.layout) else x_shape[-2:]
        return avg_pool2d_grad(grad_y, x_shape, image, layout=self.layout)

    def infer(self, x: ArrayLike) -> Array:
        """Return the averages of `x`, and keep nothing."""
        return global_avg_pool2d(x, layout=self.layout)
