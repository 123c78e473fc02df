# SPDX-License-Identifier: MIT
"""What arrays have to be for layers to take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from convnet import _check
from convnet._check import Array


def as_floats(x: ArrayLike, name: str = "x") -> Array:
    """Return `x` as float32 or float64, by the rules of all functions."""
    return _check.as_floats((name,), (x,))[0]


def as_gradient(grad_y: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return `grad_y` as floats; its shape must be that of the output."""
    grad_y = as_floats(grad_y, "grad_y")
    if grad_y.shape != shape:
        raise ValueError(f"grad_y has shape {grad_y.shape}, but the output had {shape}")
    return grad_y


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return `dtype` if layers can hold their parameters in it."""
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    return dtype


def channels_last(layout: str) -> bool:
    """Return whether `layout`, NCHW or NHWC, puts the channels last."""
    return _check.choice(layout, "layout", ("NCHW", "NHWC")) == "NHWC"


def overwrite(array: Array, new: ArrayLike, name: str) -> None:
    """Copy `new` into `array`, which is what assigning to a parameter means."""
    if new is not array:
        array[...] = fitting(new, array, name)


def fitting(new: ArrayLike, like: Array, name: str) -> Array:
    """Return a copy of `new` in the precision of `like`, if it fits."""
    array = np.asarray(new)
    if array.shape != like.shape:
        raise ValueError(f"{name} has shape {array.shape}, but needs {like.shape}")
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must be floats, got {array.dtype}")
    return array.astype(like.dtype)


def in_memory(state: dict[str, Any]) -> dict[str, Any]:
    """Return attributes with copies in place of memory maps.

    As such, read-only, joblib hands large arrays to its workers.
    """
    return {
        name: np.array(item) if isinstance(item, np.memmap) else item
        for name, item in state.items()
    }
