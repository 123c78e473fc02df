# SPDX-License-Identifier: MIT
"""Correlation and convolution of two matrices, as in `scipy.signal`, on our kernels.

    correlate2d: y[oh, ow] = sum of in1[oh + kh - PT, ow + kw - PL] * conj(in2[kh, kw])
    convolve2d:  y[oh, ow] = sum of in1[oh + PT' - kh, ow + PL' - kw] * in2[kh, kw]

Both become a `conv2d` of one image with one filter, which is rotated by 180 degrees for
a convolution. A complex matrix is an image with two channels, and integers are computed
as floats as long as all their sums are exact. SciPy itself is not needed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convnet.functional.conv import Extras, convolve

Array: TypeAlias = NDArray[Any]
Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]

_MODES = frozenset(("full", "same", "valid"))
# The names of boundaries, each with that of np.pad.
_BOUNDARIES = {
    "fill": "constant",
    "pad": "constant",
    "wrap": "wrap",
    "circular": "wrap",
    "symm": "symmetric",
    "symmetric": "symmetric",
}
# Type codes of results; SciPy has neither bool nor float16.
_TYPES = frozenset("bBhHiIlLqQfdgFDG")


def convolve2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: Any = 0,
) -> Array:
    """Convolve two matrices, as `scipy.signal.convolve2d` does.

    ``y[i, j] = sum(in1[i - k, j - l] * in2[k, l])``: the kernel `in2` is rotated by 180
    degrees, unlike in `convnet.conv2d`.

    Parameters
    ----------
    in1 : array_like of shape (H, W)
        Matrix of integers, floats or complex numbers.
    in2 : array_like of shape (K, L)
        Kernel.
    mode : {"full", "same", "valid"}
        Which part to return: every sum, of shape (H + K - 1, W + L - 1); the sums
        centred on `in1`, of shape (H, W); or the sums that need no padding, of shape
        (H - K + 1, W - L + 1). In valid mode one matrix must be at least as large as
        the other in both dimensions, in whichever order.
    boundary : {"fill", "wrap", "symm"}
        What lies around `in1`: `fillvalue`, its repetition, or its mirror images.
    fillvalue : scalar
        Number around `in1` with ``boundary="fill"``.

    Returns
    -------
    ndarray
        Of the dtype to which NumPy promotes both inputs. Integers wrap around.

    Raises
    ------
    ValueError
        If an input is not a matrix of numbers, one contains the other in no order in
        valid mode, or `mode`, `boundary` or `fillvalue` has no meaning.
    TypeError
        If `mode`, `boundary` or `fillvalue` is of an impossible type.

    See Also
    --------
    correlate2d
    convnet.conv2d : Batches, channels, strides, groups and dilation.

    Notes
    -----
    float32 and complex64 sums run in single precision, all others in double; integers
    whose sums could pass 2**52, and long double, take a slower path in NumPy.

    Examples
    --------
    >>> convolve2d([[1, 2, 3], [4, 5, 6]], [[1, -1]])
    array([[ 1,  1,  1, -3],
           [ 4,  1,  1, -6]])
    >>> convolve2d([[1, 2, 3], [4, 5, 6]], [[1, -1]], mode="same", boundary="wrap")
    array([[-2,  1,  1],
           [-2,  1,  1]])
    """
    image, kernel, _ = _matrices(in1, in2, mode, "convolve2d")
    pads = _pads(mode, kernel.shape, centre=[K // 2 for K in kernel.shape])
    return _slide(image, kernel[::-1, ::-1], pads, boundary, fillvalue)


def correlate2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: Any = 0,
) -> Array:
    """Cross-correlate two matrices, as `scipy.signal.correlate2d` does.

    ``y[i, j] = sum(in1[i + k, j + l] * conj(in2[k, l]))``

    Parameters
    ----------
    in1 : array_like of shape (H, W)
        Matrix of integers, floats or complex numbers.
    in2 : array_like of shape (K, L)
        Kernel.
    mode, boundary, fillvalue
        As for `convolve2d`.

    Returns
    -------
    ndarray
        Of the shape and dtype that `convolve2d` returns.

    Raises
    ------
    ValueError, TypeError
        As `convolve2d`.

    See Also
    --------
    convolve2d
    convnet.conv2d : Batches, channels, strides, groups and dilation.

    Examples
    --------
    >>> correlate2d([[1, 2, 3], [4, 5, 6]], [[1, -1]], mode="valid")
    array([[-1, -1],
           [-1, -1]])
    """
    image, kernel, swapped = _matrices(in1, in2, mode, "correlate2d")
    pads = _pads(mode, kernel.shape, centre=[(K - 1) // 2 for K in kernel.shape])
    y = _slide(image, kernel.conj(), pads, boundary, fillvalue)
    return y[::-1, ::-1] if swapped else y


def _matrices(
    in1: ArrayLike, in2: ArrayLike, mode: str, name: str
) -> tuple[Array, Array, bool]:
    """Return image and kernel as arrays, and whether they have changed places."""
    image, kernel = np.asarray(in1), np.asarray(in2)
    if not image.ndim == kernel.ndim == 2:
        raise ValueError(
            f"{name} needs two matrices, got the shapes {image.shape}, {kernel.shape}"
        )
    if mode not in _MODES:
        raise ValueError(f"mode must be 'full', 'same' or 'valid', got {mode!r}")
    (H, W), (K, L) = image.shape, kernel.shape
    if mode != "valid" or (H >= K and W >= L):
        return image, kernel, False
    if H > K or W > L:
        raise ValueError(
            f"in 'valid' mode one matrix must be at least as large as the other in "
            f"both dimensions, got the shapes {image.shape}, {kernel.shape}"
        )
    return kernel, image, True


def _pads(mode: str, shape: tuple[int, ...], centre: list[int]) -> Pads:
    """Return the pixels before and after each axis of the image."""
    if mode == "valid":
        return (0, 0), (0, 0)
    K, L = shape
    top, left = (K - 1, L - 1) if mode == "full" else centre
    if mode == "full":
        return (top, top), (left, left)
    return (top, K - 1 - top), (left, L - 1 - left)


def _slide(
    image: Array, kernel: Array, pads: Pads, boundary: str, fillvalue: Any
) -> Array:
    """Correlate the image, extended by `pads` pixels of its boundary, with a kernel."""
    if boundary not in _BOUNDARIES:
        raise ValueError(f"boundary must be 'fill', 'wrap' or 'symm', got {boundary!r}")
    dtype = _result_type(image.dtype, kernel.dtype)
    padding = _BOUNDARIES[boundary]
    fill = _fill(fillvalue, dtype) if padding == "constant" else 0
    (H, W), (K, L), ((top, bottom), (left, right)) = image.shape, kernel.shape, pads
    shape = H + top + bottom - K + 1, W + left + right - L + 1
    if kernel.size == 0 or 0 in shape:
        return np.zeros(shape, dtype)
    image, kernel = image.astype(dtype, copy=False), kernel.astype(dtype, copy=False)
    if padding != "constant":
        image, pads = np.pad(image, pads, padding), ((0, 0), (0, 0))  # type: ignore[call-overload]
    elif fill != 0 or image.size == 0:
        image = np.pad(image, pads, constant_values=fill)
        pads = (0, 0), (0, 0)
    return _correlate(image, kernel, pads)


@lru_cache
def _result_type(first: np.dtype[Any], second: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the result, in which all sums run."""
    if first.kind in "biufc" and second.kind in "biufc":
        dtype = np.result_type(first, second)
        if dtype.char in _TYPES:
            return dtype
    raise ValueError(f"no correlation or convolution of {first} with {second}")


def _fill(fillvalue: Any, dtype: np.dtype[Any]) -> Array | int:
    """Return `fillvalue` as a 0-d array; scalars are cast, arrays only safely."""
    if type(fillvalue) is int and fillvalue == 0:  # the usual case
        return 0
    given = np.asarray(fillvalue)
    if given.size != 1:
        raise ValueError(
            f"`fillvalue` must be scalar or an array with one element, "
            f"got {fillvalue!r}"
        )
    try:
        if given is fillvalue and not np.can_cast(given.dtype, dtype):
            raise TypeError
        return np.array(fillvalue, dtype).reshape(())
    except (TypeError, ValueError, OverflowError):
        given.astype(complex)  # What is no number at all keeps its own error.
        raise ValueError(
            f"could not cast `fillvalue` directly to the output type {dtype}: "
            f"{fillvalue!r}"
        ) from None


def _correlate(image: Array, kernel: Array, pads: Pads) -> Array:
    """Correlate an image, with zeros around it, with a kernel of the same dtype."""
    dtype = image.dtype
    if dtype.char in "fd":
        return _correlate_floats(image, kernel, pads)
    if dtype.char in "FD":
        return _correlate_complex(image, kernel, pads)
    if dtype.kind in "iu":
        # No sum of products, nor any part of it, is larger than this.
        largest = max(abs(float(image.min())), abs(float(image.max())))
        bound = largest * np.abs(kernel.astype(np.float64)).sum()
        for exact in np.float32, np.float64:
            if bound < 2.0 ** np.finfo(exact).nmant:
                floats = image.astype(exact), kernel.astype(exact)
                return _correlate_floats(*floats, pads).astype(np.int64).astype(dtype)
    return _correlate_in_numpy(image, kernel, pads)


def _correlate_floats(image: Array, kernel: Array, pads: Pads) -> Array:
    """Correlate by direct sums, so that integers stay exact."""
    y: Array = _convolve(image[None], kernel[None, None], pads)[0]
    return y


def _convolve(x: Array, weight: Array, pads: Pads, layout: str = "NCHW") -> Array:
    """Convolve as SciPy does: by direct sums, of denormals as well."""
    steps, extras = (1, pads, 1, 1), Extras(keep_denormals=True)
    return convolve(x, weight, None, steps, layout, algorithm="direct", extras=extras)


def _correlate_complex(image: Array, kernel: Array, pads: Pads) -> Array:
    """Correlate images of two channels, real and imaginary.

    ``(a + bi) * (c + di) = (a*c - b*d) + (a*d + b*c)i``
    """
    real = kernel.real.dtype
    channels = np.ascontiguousarray(image)[..., None].view(real)
    c, d = kernel.real, kernel.imag
    weight = np.array([[c, -d], [d, c]])
    y = _convolve(channels, weight, pads, layout="NHWC")
    numbers: Array = y.view(image.dtype)[..., 0]
    return numbers


def _correlate_in_numpy(image: Array, kernel: Array, pads: Pads) -> Array:
    """Correlate in the dtype itself: integers wrap around, long doubles stay long."""
    image = np.pad(image, pads)
    (H, W), (K, L) = image.shape, kernel.shape
    OH, OW = H - K + 1, W - L + 1
    y = np.zeros((OH, OW), image.dtype)
    with np.errstate(all="ignore"):
        for (kh, kw), weight in np.ndenumerate(kernel):
            y += weight * image[kh : kh + OH, kw : kw + OW]
    return y
