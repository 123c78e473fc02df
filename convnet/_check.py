# SPDX-License-Identifier: MIT
"""Every error about an array argument, and the views that the drivers work on.

Drivers trust what they get: arrays of one call have the same dtype (float32 or
float64), are aligned and in native byte order, and stand as (N, C, H, W) with any
strides. The functions here turn what users may pass into that, without a copy where
possible, or raise an error that shows the values. Calls on small images are common, so
the usual case, plain float arrays, has to pass in well under a microsecond.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convnet import _results
from convnet._algorithm import ALGORITHMS, ALLOWED
from convnet._calls import Remembered, are_floats
from convnet._geometry import Pair, as_int, shown

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]

_FLOAT32 = np.dtype(np.float32)
# Type codes that NumPy promotes with float32 to float32 or float64. float16 is left out
# although it would be promoted too: who passes it expects it back.
_REAL = frozenset("?bBhHiIlLqQfd")
# Steps after which the exact search for shared memory gives up, in about 0.2 ms.
_OVERLAP_WORK = 10_000


def as_floats(
    names: tuple[str, ...], values: tuple[ArrayLike, ...]
) -> tuple[Array, ...]:
    """Return all arrays in their common dtype, float32 or float64.

    The dtype is that of ``np.result_type`` with float32. Arrays in that dtype, aligned
    and in native byte order, come back as they are; others are copied.
    """
    if are_floats(values):
        return values  # type: ignore[return-value]
    arrays = [np.asarray(value) for value in values]
    for name, array in zip(names, arrays, strict=False):
        if array.dtype.char not in _REAL:
            raise TypeError(
                f"{name} must hold float32, float64 or integers, "
                f"but its dtype is {array.dtype}"
            )
    dtype = np.result_type(_FLOAT32, *(array.dtype for array in arrays))
    return tuple(np.require(array, dtype, "A") for array in arrays)


def remembered(*names: str) -> Callable[[Callable[..., Any]], Remembered]:
    """Decorate a check of the shapes of arrays with these names, and of options.

    What it returns is kept: see `_calls.Remembered`.
    """
    return partial(Remembered, partial(as_floats, names))


def as_nchw(array: Array, channels_last: bool) -> Array:
    """Return a (N, C, H, W) view of a batch or of one image."""
    if array.ndim == 3:
        array = array[None]
    return array.transpose(0, 3, 1, 2) if channels_last else array


def nchw_shape(
    shape: Shape, name: str, channels_last: bool
) -> tuple[int, int, int, int]:
    """Return the shape of a batch or of one image as (N, C, H, W)."""
    if len(shape) not in (3, 4):
        raise ValueError(
            f"{name} must be a batch of images with 4 axes or one image with 3, "
            f"but its shape is {shown(shape)}"
        )
    if channels_last:
        *N, H, W, C = shape
    else:
        *N, C, H, W = shape
    return N[0] if N else 1, C, H, W


def as_shape(shape: Sequence[int], name: str) -> Shape:
    """Return a shape as a tuple of Python integers."""
    try:
        if getattr(shape, "ndim", 1) != 1:  # the images instead of their shape
            raise TypeError
        sizes = tuple(shape)
    except TypeError:
        raise TypeError(
            f"{name} must be a tuple of integers, got {shown(shape)}"
        ) from None
    return tuple(as_int(size, name, 0) for size in sizes)


def as_image_shape(shape: Sequence[int], name: str) -> Shape:
    """Return the shape of a batch of images, or of one."""
    sizes = as_shape(shape, name)
    if len(sizes) not in (3, 4):
        raise ValueError(
            f"{name} must have 4 numbers, or 3 for one image, got {shown(sizes)}"
        )
    return sizes


def image_shape(
    N: int, C: int, image: Pair, channels_last: bool, single: bool
) -> Shape:
    """Return the shape that results have to users: `as_nchw` undone."""
    shape = (N, *image, C) if channels_last else (N, C, *image)
    return shape[1:] if single else shape


def options(
    layout: str,
    algorithm: str = "auto",
    precision: str | None = None,
    algorithms: tuple[str, ...] = ALGORITHMS,
) -> bool:
    """Check what functions have in common; return whether channels come last."""
    choice(algorithm, "algorithm", ("auto", *algorithms))
    if precision is not None:
        choice(precision, "precision", tuple(ALLOWED))
        if algorithm not in ("auto", *ALLOWED[precision]):
            raise ValueError(
                f"precision {precision!r} does not allow algorithm {algorithm!r}; "
                f"it allows {ALLOWED[precision]}"
            )
    return choice(layout, "layout", ("NCHW", "NHWC")) == "NHWC"


def choice(value: str, name: str, allowed: tuple[str, ...]) -> str:
    """Return `value`, a string that must be one of those allowed."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {allowed}, got {value!r}")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    return value


def flag(value: bool, name: str) -> bool:
    """Return `value`, which must be True or False."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {value!r}")


def weight_fits(shape: Shape, IC: int, groups: int) -> int:
    """Return `groups` as int after checking a weight (OC, IC/G, KH, KW) against it."""
    groups = as_int(groups, "groups")
    if len(shape) != 4:
        raise ValueError(
            f"weight must have the shape (OC, IC / groups, KH, KW), got {shown(shape)}"
        )
    if shape[1] * groups != IC:
        raise ValueError(
            f"weight expects {shape[1] * groups} input channels (weight.shape[1] * "
            f"groups = {shape[1]} * {groups}), but x has {IC}"
        )
    if shape[0] % groups:
        raise ValueError(
            f"the {shape[0]} output channels of weight do not divide into {groups} "
            f"groups"
        )
    return groups


def bias_fits(shape: Shape, OC: int, output: Pair, channels_last: bool) -> None:
    """Raise unless a bias has one value per filter, or one per output position."""
    untied = image_shape(1, OC, output, channels_last, single=True)
    if shape not in ((OC,), untied):
        raise ValueError(
            f"bias must have the shape {(OC,)}, or {untied} with one value per output "
            f"position, but has {shape}"
        )


def as_bias(bias: Array, channels_last: bool) -> Array:
    """Return a bias as (OC,), contiguous, or (OC, OH, OW): one value per position."""
    if bias.ndim == 1:
        return np.ascontiguousarray(bias)
    return bias.transpose(2, 0, 1) if channels_last else bias


def has_shape(found: Shape, name: str, shape: Shape) -> None:
    """Raise unless an array has the shape that the other arguments ask for."""
    if found != shape:
        raise ValueError(
            f"{name} must have the shape {shape} that follows from the other "
            f"arguments, but has {found}"
        )


def as_indices(indices: ArrayLike, shape: Shape) -> NDArray[np.int64]:
    """Return the positions of maxima, int64 and in the same shape as `grad_y`."""
    array = np.asarray(indices)
    if array.dtype.kind != "i" or array.dtype.itemsize != 8:
        raise ValueError(f"indices must be int64, but their dtype is {array.dtype}")
    has_shape(array.shape, "indices", shape)
    return np.require(array, np.int64, "A")


def result(
    out: Array | None, shape: Shape, dtype: np.dtype[Any], inputs: tuple[ArrayLike, ...]
) -> Array:
    """Return `out` if it can take a result of this shape and dtype, or a new array."""
    if out is not None:
        _accepts(out, shape, dtype, inputs)
        return out
    try:
        return _results.empty(shape, dtype)
    except (MemoryError, ValueError, OverflowError):
        raise MemoryError(
            f"the result of shape {shape} and dtype {dtype} does not fit into memory"
        ) from None


def _accepts(
    out: Array, shape: Shape, dtype: np.dtype[Any], inputs: tuple[ArrayLike, ...]
) -> None:
    """Raise unless a driver can write the result into `out`."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an ndarray, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(
            f"out must have the shape {shape} and dtype {dtype}, "
            f"but has {out.shape} and {out.dtype}"
        )
    if not (out.flags.writeable and out.flags.aligned):
        raise ValueError("out must be writable and aligned")
    if any(_overlap(out, value) for value in inputs):
        raise ValueError("out must not share memory with an input")


def _overlap(out: Array, value: ArrayLike) -> bool:
    """Tell whether two arrays share an element, or may do so if that is hard to say."""
    try:
        return np.shares_memory(out, value, max_work=_OVERLAP_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
