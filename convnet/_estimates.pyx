# SPDX-License-Identifier: MIT
"""Estimates of direct convolutions of few channels: see ``_estimates.pxd``."""

from convnet._blocks cimport KC
from convnet._kernels cimport CN_FEW_TILES
from convnet._operands cimport Steps, end_seeing, first_seeing
from convnet._pixel_runs cimport best_run, run_pixels
from convnet._planes cimport fits_planes

# Plane by plane: for each row of the product and tap, and to copy a vector to the slab.
cdef double SUMMING = 1.0, COPYING = 4.0
# Packed: for each row that panels have and tap, and to pack the vector (a single tap is
# packed by the tile, for nearly nothing).
cdef double MULTIPLYING = 0.68, PACKING = 5.0, PACKING_ONE = 1.0
# In place, for each row of a tile, and for a vector.
cdef double READING = 0.75, STEPPING = 1.0
# By runs, a vector of rows: for each pixel, to begin a tap, and to store the sums of a
# vector of pixels. ISAs with so tall panels have registers enough, and more vectors of
# rows make up for packing.
cdef double RUN_SUMMING = 0.7, BEGINNING = 5.0, STORING = 150.0
cdef enum:
    MANY_ROWS = 8
    MOST_VECTORS = 2
    # Products of so few rows, and with so many channels, read pixels in place.
    UNPACKED_ROWS = 16
    UNPACKED_CHANNELS = 3
# Tap by tap: how much longer a pair of a pixel and a tap takes, and as many pixels take
# as long as a tap itself; rows and channels from which on nothing else would be better.
cdef double TAP_WORK = 1.12, TAP_PIXELS = 100
cdef Py_ssize_t TAP_ROWS = 32, TAP_CHANNELS = 64
# By windows of input gradients: to add a vector of a tap's and to write one of pixels;
# a vector of weights, for each pixel, and at least; what packing a weight takes
# instead, and more where there are phases.
cdef double ADDING = 18, WEAVING = 20, USING = 0.6, LOADING = 9
cdef double WEIGHT = 2.2, PHASE_WEIGHT = 6
cdef Py_ssize_t WINDOW_PIXELS = 256
# Gradients of weights, for a vector of grad_y: for each tap and row, less where taps
# are many; to copy x, for each channel; and how much longer that takes for each
# channel, with a stride, and where rows are a single vector.
cdef double WEIGHT_SUMMING = 0.85, FEW_TAPS = 1.2, WEIGHT_COPYING = 5.0
cdef double CROWDING = 0.02, STRIDED = 0.3, STRIDED_CROWDING = 0.06, SHORT = 1.3
# Of a packed product, for each column: a row that panels have, and packing; how much
# longer a single vector of columns takes; and for each vector of x, to copy it to the
# slab. Where taps are joined, to turn a pixel.
cdef double WEIGHT_MULTIPLYING = 0.6, WEIGHT_PACKING = 4.2, ONE_VECTOR = 1.75
cdef double FILLING = 16, TURNING = 11
# Of a product of planes: vectors in whose time lanes are added up, and lanes of short
# ones.
cdef Py_ssize_t JOINING = 3, SHORT_VECTOR = 4


cpdef bint fits(Py_ssize_t C, Py_ssize_t W, Steps steps) noexcept:
    """Whether C channels at rows of W pixels can go plane by plane."""
    return fits_planes(C, W, steps)


cpdef double planar_cycles(
    Py_ssize_t R, Py_ssize_t W, Py_ssize_t taps, Py_ssize_t lanes
):
    """Cycles plane by plane; rows have W pixels."""
    return full_vectors(W, lanes) * (R * SUMMING + COPYING / taps)


cpdef double packed_cycles(Py_ssize_t R, Py_ssize_t taps, Py_ssize_t mr):
    """Cycles of a packed product."""
    cdef double packing = PACKING if taps > 1 else PACKING_ONE
    return (R + mr - 1) // mr * mr * MULTIPLYING + packing


cpdef double unpacked_cycles(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t W, Py_ssize_t taps, Py_ssize_t lanes
):
    """Cycles of few rows by pixels where they lie; infinite where they are packed.

    What is read in place ends with a row of the image, where a vector may be empty, and
    comes tap by tap: a run of a few channels costs as much as many.
    """
    cdef Py_ssize_t most = UNPACKED_ROWS, rows = 1
    if W <= 2 * lanes:
        most //= 2                  # tiles of fewer vectors keep few sums
    if R > most or C < UNPACKED_CHANNELS or not 2 < taps <= KC:
        return float("inf")
    if W == 0 or 5 * full_vectors(W, lanes) > 6:
        return float("inf")
    while rows < R:
        rows *= 2
    return rows * READING + STEPPING


cpdef double run_cycles(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t W, Py_ssize_t taps, Py_ssize_t lanes,
    Py_ssize_t mr,
):
    """Cycles by runs of pixels; infinite where there is no such product."""
    cdef Py_ssize_t vectors = (R + lanes - 1) // lanes
    cdef double pixels
    if mr < MANY_ROWS or C * W == 0 or not 2 < taps <= KC:
        return float("inf")
    if R <= mr or vectors > MOST_VECTORS:
        return float("inf")
    pixels = lanes * run_pixels(W, best_run(W)) / <double> W
    return vectors * (pixels * RUN_SUMMING + BEGINNING / C + STORING / (C * taps))


cpdef double tap_by_tap_share(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t N, Py_ssize_t H, Py_ssize_t W, Steps steps,
    bint gradient,
):
    """Part of a product's time that its taps take one by one; 1 if that is no less.

    Pairs of a pixel and a tap that reads the image, of all pairs; and each tap reads
    and writes the result, and has its weights packed, for few pixels or many. At least
    one tap reads the image for all of the H x W pixels of a result.
    """
    cdef double share
    if steps.SH * steps.SW > 1 or R < TAP_ROWS or C < TAP_CHANNELS:
        return 1
    share = axis_share(H, steps.KH, steps.DH, steps.PT, steps.PB, gradient)
    share *= axis_share(W, steps.KW, steps.DW, steps.PL, steps.PR, gradient)
    if share == 0:
        return 1
    return min(1, share * TAP_WORK + TAP_PIXELS / (<double> N * H * W))


cdef double axis_share(
    Py_ssize_t n, Py_ssize_t K, Py_ssize_t dilation, Py_ssize_t low, Py_ssize_t high,
    bint gradient,
) noexcept:
    """Pairs of pixels and taps that read something, of all; 0 if no tap always does."""
    cdef Py_ssize_t k, d, n_in, n_pairs = 0, n_valid, most = 0
    if gradient:                        # taps turned round
        low, high = (K - 1) * dilation - low, (K - 1) * dilation - high
    n_in = n + (K - 1) * dilation - low - high
    for k in range(K):
        d = k * dilation - low
        n_valid = end_seeing(d, n_in, n) - first_seeing(d)
        n_pairs += n_valid
        most = max(most, n_valid)
    return n_pairs / <double> (K * n) if 0 < n == most else 0


cpdef double window_cycles(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t N, Py_ssize_t H, Py_ssize_t W, Steps steps,
    Py_ssize_t lanes,
):
    """Cycles of an input gradient from H x W windows; infinite where packing pays."""
    cdef Py_ssize_t taps = steps.KH * steps.KW, pixels = N * H * W
    cdef double vectors = full_vectors(W, lanes) * N * H * W / lanes
    cdef double adding = vectors * (taps * ADDING + steps.SH * steps.SW * WEAVING)
    cdef double packing = PHASE_WEIGHT if steps.SH * steps.SW > 1 else WEIGHT
    if pixels > WINDOW_PIXELS or adding >= packing * C * taps:
        return float("inf")
    return R * (C * taps * max(pixels * USING, LOADING) / lanes + adding)


cpdef bint are_few(
    Py_ssize_t n_tiles, int points, Py_ssize_t KH, Py_ssize_t KW, int step, int mr
) noexcept nogil:
    """Whether Winograd's filters are transformed while they are multiplied.

    3x3 ones without a stride by few tiles, where there are registers enough.
    """
    return (
        n_tiles <= CN_FEW_TILES
        and points == 6
        and KH == KW == 3
        and step == 1
        and mr == MANY_ROWS
    )


cpdef double planar_weight_cycles(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t W, Steps steps, Py_ssize_t lanes
):
    """Cycles of the gradient of R x C weights, plane by plane; rows have W pixels."""
    cdef Py_ssize_t taps = steps.KH * steps.KW
    cdef double cycles = R * (WEIGHT_SUMMING * taps + FEW_TAPS * taps ** 0.5)
    cycles = full_vectors(W, lanes) * C * (cycles + WEIGHT_COPYING)
    if W <= lanes:
        cycles *= SHORT
    if steps.SW > 1:
        return cycles * (1 + STRIDED + STRIDED_CROWDING * C)
    return cycles * (1 + CROWDING * C)


cpdef double joined_weight_cycles(
    Py_ssize_t R, Py_ssize_t C, Steps steps, Py_ssize_t lanes, Py_ssize_t mr
):
    """Cycles of a product whose columns are rows of taps; infinite if there is none.

    A single vector of columns is better gathered.
    """
    cdef Py_ssize_t rows = (R + mr - 1) // mr * mr, columns = steps.KW * C
    if steps.DW != 1 or steps.KH * steps.KW > KC or not C <= lanes < columns:
        return float("inf")
    columns = steps.KH * ((columns + lanes - 1) // lanes * lanes)
    return columns * rows * WEIGHT_MULTIPLYING + (
        TURNING * lanes * steps.SH * steps.SW
    )


cdef double packed_weight_cycles(
    Py_ssize_t R, Py_ssize_t C, Steps steps, Py_ssize_t lanes, Py_ssize_t mr
):
    """Cycles of a product whose columns are taps of channels."""
    cdef Py_ssize_t rows = (R + mr - 1) // mr * mr
    cdef Py_ssize_t vectors = (C * steps.KH * steps.KW + lanes - 1) // lanes
    cdef double cycles = rows * WEIGHT_MULTIPLYING + WEIGHT_PACKING
    cycles *= vectors * lanes * (ONE_VECTOR if vectors == 1 else 1)
    return cycles + C * steps.SH * steps.SW * FILLING


cdef bint suits_dots(Py_ssize_t few, Py_ssize_t size, Py_ssize_t lanes) noexcept:
    """Whether planes of `size` pixels, few of the one side, are better not turned.

    The columns of a product are whole vectors, of which two full ones are better, but
    where they are short its tiles are small.
    """
    cdef Py_ssize_t vectors = (size + lanes - 1) // lanes, most = max(2 * lanes, 16)
    cdef double columns = (few + lanes - 1) // lanes * lanes
    if columns == lanes or lanes <= SHORT_VECTOR:
        columns *= ONE_VECTOR
    return 0 < few < most and few * (vectors + JOINING) * lanes < columns * size


cdef inline double full_vectors(Py_ssize_t W, Py_ssize_t lanes) noexcept nogil:
    """Lanes that rows of W pixels take, for each pixel."""
    return (W + lanes - 1) // lanes * lanes / <double> W
