# SPDX-License-Identifier: MIT
"""Depthwise operands by vectors of channels: see ``_turned_planes.pxd``.

In a turned slab every tap of every pixel is an aligned vector: no lane is empty in
narrow planes, and strides and dilations need no shuffles. Planes whose rows follow each
other are turned as one long row.
"""

from libc.string cimport memset

from convnet._blocks cimport padded
from convnet._kernels cimport CN_NO_ROW, cn_slab_t
from convnet._operands cimport Image, Steps, is_flat
from convnet._planes cimport add_phases, add_windows, fits_planes
from convnet._turning cimport find_plane

# Bytes of a block's slabs, unless a row of pixels needs more.
cdef Py_ssize_t BLOCK_BYTES = 256 * 1024


# Rows up to which a block of one row has no large slab; widths up to which planes of
# some kinds are better turned; the share of lanes that channels must fill.
cdef Py_ssize_t WIDEST = 4096, VERY_NARROW = 8, NARROW = 40, DILATED = 80
cdef double FILLED = 0.7
# Operations that take as long as to turn a pixel.
cdef double PIXEL_WORK = 50


cdef bint are_better_turned(
    const cn_kernels_t *kernels, const Image *x, const Image *y, Py_ssize_t G,
    Steps steps, bint gradient, double least,
) noexcept:
    cdef bint strided = steps.SH != 1 or steps.SW != 1
    cdef bint dilated = steps.DH != 1 or steps.DW != 1
    cdef double filled = G / <double> padded(kernels, G)
    if G < kernels.lanes or max(x.W, y.W) > WIDEST or not fits_planes(1, y.W, steps):
        return False
    if x.sc == 1 and y.sc == 1 and filled >= FILLED:
        return True                     # side by side already
    if gradient and strided or max(steps.SH, steps.SW) > 2:
        return y.W <= NARROW or filled >= FILLED
    if dilated:
        return y.W <= DILATED and filled >= FILLED
    return y.W <= VERY_NARROW or (
        y.W <= NARROW and padded(kernels, y.W) * filled >= least * y.W
    )


cdef Py_ssize_t pad_page(Py_ssize_t n) noexcept nogil:
    return (n + 4095) // 4096 * 4096


cdef void add_taps(TurnedPlanes *p, Steps steps, bint gradient) noexcept nogil:
    p.SH = p.SW = 1
    p.step_h, p.step_w = steps.SH, steps.SW
    if gradient:
        p.SH, p.SW, p.step_h, p.step_w = steps.SH, steps.SW, 1, 1
        add_phases(&p.rows, steps.KH, p.SH, steps.DH, steps.PT)
        add_phases(&p.cols, steps.KW, p.SW, steps.DW, steps.PL)
    else:
        add_windows(&p.rows, steps.KH, steps.DH, steps.PT)
        add_windows(&p.cols, steps.KW, steps.DW, steps.PL)


cdef void plan_blocks(TurnedPlanes *p) noexcept nogil:
    cdef const Image *x = &p.x.image
    cdef const Image *y = &p.y.image
    cdef Py_ssize_t vector
    p.lanes = p.kernels.lanes
    vector = p.lanes * p.kernels.itemsize
    p.n_groups = (x.C + p.lanes - 1) // p.lanes
    p.n_rows = (y.H + p.SH - 1) // p.SH
    p.n_cols = (y.W + p.SW - 1) // p.SW
    p.pitch = max((p.n_cols - 1) * p.step_w + p.cols.span, x.W - p.cols.low)
    p.flat = is_flat(x)
    p.y_in_place = y.sc == 1
    p.n_blocks = 1
    while True:
        p.block_rows = (p.n_rows + p.n_blocks - 1) // p.n_blocks
        p.slab_rows = (p.block_rows - 1) * p.step_h + p.rows.span
        p.x_bytes = p.slab_rows * p.pitch * vector
        p.y_bytes = p.block_rows * p.SH * y.W * vector
        if p.x_bytes + p.y_bytes <= BLOCK_BYTES or p.block_rows == 1:
            break
        p.n_blocks += 1
    p.n_blocks = (p.n_rows + p.block_rows - 1) // p.block_rows


cdef double count_work(const TurnedPlanes *p, Py_ssize_t T) noexcept nogil:
    cdef double sums = <double> p.n_rows * p.n_cols
    cdef double turned = <double> p.x.image.H * p.x.image.W
    turned += <double> p.y.image.H * p.y.image.W
    return p.x.image.N * p.x.image.C * (4 * T * sums + PIXEL_WORK * turned)


cdef Py_ssize_t count_places(const TurnedPlanes *p) noexcept nogil:
    return p.slab_rows * p.x.image.W if p.flat else 0


cdef void place_pixels(TurnedPlanes *p, Py_ssize_t *memory) noexcept nogil:
    cdef Py_ssize_t i
    p.place = memory
    for i in range(count_places(p)):
        memory[i] = (i // p.x.image.W * p.pitch + i % p.x.image.W) * p.lanes


cdef void clear_slab(const TurnedPlanes *p, char *slab, bint again) noexcept nogil:
    """Whole planes have the same borders, which are zeroed once."""
    if p.flat and (p.n_blocks > 1 or not again):
        memset(slab, 0, p.x_bytes)


cdef void load_slab(
    const TurnedPlanes *p, Py_ssize_t n, Py_ssize_t c, Py_ssize_t count,
    Py_ssize_t first, char *slab, Py_ssize_t *row,
) noexcept nogil:
    """Turn the rows that a block's taps read; what lies beside the image is zero."""
    cdef cn_slab_t s
    cdef const Image *x = &p.x.image
    cdef Py_ssize_t top = first * p.step_h + p.rows.low, r, zero = 0
    cdef Py_ssize_t begin = min(max(top, 0), x.H), end = min(top + p.slab_rows, x.H)
    memset(&s, 0, sizeof(s))
    s.n_channels, s.x_channel_stride, s.x = count, x.sc, p.x.row
    s.n_phases, s.step, s.pixel_stride, s.phase = 1, 1, p.lanes, &zero
    if p.flat and (end - begin) * x.W >= p.lanes:
        slab += ((begin - top) * p.pitch - p.cols.low) * p.lanes * p.kernels.itemsize
        p.kernels.turn_plane(
            slab,
            find_plane(&p.x, n, c) + begin * x.sh * p.kernels.itemsize,
            (end - begin) * x.W,
            p.place,
            &s,
        )
        return
    s.n_rows, s.row, s.first_col, s.n_cols = p.slab_rows, row, p.cols.low, p.pitch
    for r in range(p.slab_rows):
        row[r] = (top + r) * x.sh if 0 <= top + r < x.H else CN_NO_ROW
    p.kernels.turn_slab(slab, find_plane(&p.x, n, c), &s)
