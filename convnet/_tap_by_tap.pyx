# SPDX-License-Identifier: MIT
"""Convolutions as a sum of products, tap by tap: see ``_tap_by_tap.pxd``."""

cimport numpy as cnp

import numpy as np

from convnet._estimates cimport tap_by_tap_share
from convnet._operands cimport (
    TAP_ARRAYS, Image, Steps, add_tap, end_seeing, first_seeing, place_tap_arrays,
)
from convnet._product cimport Product, run_product


# The pixels of y at which a tap reads x: so many from a first one on.
cdef struct Window:
    Py_ssize_t row, rows, col, cols


cdef bint is_better_tap_by_tap(
    const Product *p, Steps steps, bint gradient
) noexcept:
    cdef Image y = p.pixels.y
    return tap_by_tap_share(p.R, p.pixels.x.C, y.N, y.H, y.W, steps, gradient) < 1


cdef bint are_finite(cnp.ndarray array, dict packings):
    cdef dict known = {} if packings is None else packings
    if "finite" not in known:
        known["finite"] = bool(np.isfinite(array).all())
    return known["finite"]


cdef int multiply_taps(
    const Product *p, int num_threads, list plans, dict packings
) except -1:
    cdef Py_ssize_t t, last = 0
    cdef Window window
    for t in range(p.pixels.taps.n):
        if is_everywhere(p, find_window(p, t)):
            last = t
    for t in range(p.pixels.taps.n):
        window = find_window(p, t)
        if t != last and window.rows > 0 and window.cols > 0:
            multiply_tap(p, t, window, False, num_threads, plans, packings)
    window = find_window(p, last)
    return multiply_tap(p, last, window, True, num_threads, plans, packings)


cdef Window find_window(const Product *p, Py_ssize_t t) noexcept nogil:
    cdef Image x = p.pixels.x, y = p.pixels.y
    cdef Py_ssize_t dh = p.pixels.taps.dh[t], dw = p.pixels.taps.dw[t]
    cdef Window window
    window.row, window.col = first_seeing(dh), first_seeing(dw)
    window.rows = end_seeing(dh, x.H, y.H) - window.row
    window.cols = end_seeing(dw, x.W, y.W) - window.col
    return window


cdef inline bint is_everywhere(const Product *p, Window window) noexcept nogil:
    return window.rows == p.pixels.y.H and window.cols == p.pixels.y.W


cdef int multiply_tap(
    const Product *p, Py_ssize_t t, Window window, bint last, int num_threads,
    list plans, dict packings,
) except -1:
    """Add a tap's product: a 1x1 convolution of a part of x, whose results go to y."""
    cdef Product part = p[0]
    cdef Py_ssize_t memory[TAP_ARRAYS]
    cdef Py_ssize_t itemsize = p.pixels.kernels.itemsize
    cdef Py_ssize_t row = window.row + p.pixels.taps.dh[t]
    cdef Py_ssize_t col = window.col + p.pixels.taps.dw[t]
    cdef Image *x = &part.pixels.x
    cdef Image *y = &part.pixels.y
    x.data += (row * x.sh + col * x.sw) * itemsize
    y.data += (window.row * y.sh + window.col * y.sw) * itemsize
    x.H = y.H = window.rows
    x.W = y.W = part.pixels.x_row.IW = window.cols
    place_tap_arrays(&part.pixels.taps, memory, 1)
    add_tap(&part.pixels.taps, 0, 0, p.pixels.taps.w[t])
    if not last:
        part.finish.bias, part.finish.clip = NULL, False
    if packings is not None:
        packings = packings.setdefault(t, {})
    return run_product(&part, num_threads, plans, packings)
