# SPDX-License-Identifier: MIT
"""What all reference functions do to arrays: dtypes, layouts, padding, taps."""

from collections.abc import Iterator, Sequence
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convnet._geometry import Pair, Window

Array: TypeAlias = NDArray[Any]
Grid: TypeAlias = tuple[EllipsisType, slice, slice]

# What IEEE arithmetic makes of inf and NaN is the right answer here, not an accident.
ieee = np.errstate(all="ignore")


def as_floats(*arrays: ArrayLike) -> list[Array]:
    """Return all arrays in float64, or in float32 where that loses nothing."""
    converted = [np.asarray(array) for array in arrays]
    dtypes = [array.dtype for array in converted]
    if any(dtype.char not in "?bBhHiIlLqQfd" for dtype in dtypes):
        raise TypeError(f"cannot compute with {dtypes}")
    dtype = np.result_type(np.float32, *dtypes)
    return [array.astype(dtype) for array in converted]


def to_nchw(x: Array, layout: str) -> Array:
    """Return a (N, C, H, W) view of a batch or of one image in either layout."""
    batch = x[None] if x.ndim == 3 else x
    if batch.ndim != 4 or layout not in ("NCHW", "NHWC"):
        raise ValueError(f"expected images in {layout}, got the shape {x.shape}")
    return batch if layout == "NCHW" else batch.transpose(0, 3, 1, 2)


def nchw_shape(shape: Sequence[int], layout: str) -> tuple[int, int, int, int]:
    """Return (N, C, H, W) of a batch or of one image in either layout."""
    return to_nchw(np.broadcast_to(np.empty(()), shape), layout).shape


def deliver(
    images: Array, single: bool, layout: str, out: Array | None = None
) -> Array:
    """Undo `to_nchw`."""
    y = images if layout == "NCHW" else images.transpose(0, 2, 3, 1)
    return store(y[0] if single else y, out)


def store(result: Array, out: Array | None) -> Array:
    """Return the result as a new C-contiguous array, or in `out`."""
    if out is None:
        return np.ascontiguousarray(result)
    out[...] = result
    return out


def taps(window: Window) -> Iterator[tuple[int, int, Grid]]:
    """Yield each tap with the pixels of padded images that all windows see under it."""
    (KH, KW), (SH, SW), _, (DH, DW), (OH, OW) = window
    for kh in range(KH):
        rows = slice(kh * DH, kh * DH + (OH - 1) * SH + 1, SH)
        for kw in range(KW):
            columns = slice(kw * DW, kw * DW + (OW - 1) * SW + 1, SW)
            yield kh, kw, (..., rows, columns)


def pad(images: Array, window: Window, value: int = 0) -> Array:
    """Return a copy with everything around the images that a window can touch."""
    (KH, KW), (SH, SW), (PT, PL, PB, PR), (DH, DW), (OH, OW) = window
    N, C, IH, IW = images.shape
    # In ceil mode the last window may hang over the trailing padding.
    PB = max(PB, (OH - 1) * SH + DH * (KH - 1) + 1 - IH - PT)
    PR = max(PR, (OW - 1) * SW + DW * (KW - 1) + 1 - IW - PL)
    shape = N, C, PT + IH + PB, PL + IW + PR
    try:
        padded = np.full(shape, value, images.dtype)
    except ValueError:  # what NumPy says of bytes beyond 64 bits
        raise MemoryError(f"no memory for a padded copy of shape {shape}") from None
    padded[:, :, PT : PT + IH, PL : PL + IW] = images
    return padded


def crop(padded: Array, window: Window, image: Pair) -> Array:
    """Undo `pad`."""
    (PT, PL, _, _), (IH, IW) = window.pads, image
    return padded[:, :, PT : PT + IH, PL : PL + IW]


def require_shape(array: Array, shape: tuple[int, ...]) -> None:
    """Raise unless the array has this shape."""
    if array.shape != shape:
        raise ValueError(f"expected the shape {shape} in NCHW, got {array.shape}")
