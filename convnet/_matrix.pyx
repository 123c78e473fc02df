# SPDX-License-Identifier: MIT
"""Products with weights where they lie: see ``_matrix.pxd``.

Their sides are exchanged: pixels of grad_y are the rows, and the columns what a row of
weights has, channels by taps. Of a 1x1 kernel without stride these sums are the
gradient; others add up windows of it, pixel by pixel.
"""

from convnet._blocks cimport Gather, odd_lines, padded
from convnet._estimates cimport window_cycles
from convnet._kernels cimport (
    cn_kernels_t, cn_seen_t, cn_windows_t, give_back, run_tasks, take_scratch,
)
from convnet._operands cimport (
    TAP_ARRAYS, Image, Steps, add_tap, end_seeing, first_seeing, place_tap_arrays,
)
from convnet._product cimport Product, run_product

# Pixels up to which weights are better not packed.
cdef Py_ssize_t MATRIX_PIXELS = 256
# Rows and bytes of weights from which they are read in order, in short chunks.
cdef Py_ssize_t STREAMED_ROWS = 512
cdef Py_ssize_t STREAMED_BYTES = 512 * 1024


# Windows that are added up: taps of a channel of all images, side by side; and a row of
# pixels for each thread.
cdef struct Windows:
    const cn_kernels_t *kernels
    cn_windows_t each
    Image y
    const char *sums
    char *lines
    Py_ssize_t line_bytes, n_windows    # of an image


cdef bint is_matrix(const Product *p) noexcept nogil:
    """Whether a 1x1 gradient has so few pixels that weights are better not packed."""
    cdef Image x = p.pixels.x
    return (
        x.N == 1
        and x.H * x.W <= MATRIX_PIXELS
        and x.sh == x.W * x.sw
        and p.pixels.y.H == x.H
        and p.pixels.y.W == x.W
        and p.pixels.y.sh == p.pixels.y.W * p.pixels.y.sw
    )


cdef int multiply_matrix(Product *p, int num_threads, list plans) except -1:
    """The product with its sides exchanged: pixels are the rows, channels the columns.

    A row of weights is an image of channels; nothing in it has to be transposed.
    """
    cdef Py_ssize_t memory[TAP_ARRAYS]
    cdef Image y = p.pixels.y, x = p.pixels.x
    cdef Py_ssize_t n_channels = p.R, sums_bytes
    cdef Gather *g = &p.pixels
    g.x.data, g.x.H, g.x.W, g.x.sn = <char *> p.weight, 1, p.R, 0
    g.x.sc, g.x.sh, g.x.sw = p.channel_stride, p.R, 1
    g.x_row.IW, g.x_row.col_stride = p.R, 1
    g.x_row.begin, g.x_row.end = p.weight, p.weight + g.x.C * p.R * g.kernels.itemsize
    g.y.H, g.y.W, g.y.sc, g.y.sh, g.y.sw = 1, p.R, y.sw, 0, y.sc
    p.weight, p.row_stride, p.channel_stride = x.data, x.sw, x.sc
    p.R = x.H * x.W
    place_tap_arrays(&g.taps, memory, 1)
    add_tap(&g.taps, 0, 0, 0)
    p.streamed = (
        g.x.C >= STREAMED_ROWS
        and g.x.C * n_channels * g.kernels.itemsize >= STREAMED_BYTES
        and n_channels >= 2 * p.R
    )
    if not p.streamed or y.sw != 1 or y.sc != p.R:
        return run_product(p, num_threads, plans, None)
    # Chunk by chunk, sums are added where channels are neighbours, and turned at last.
    g.y.sc, g.y.sw, p.turned = odd_lines(n_channels), 1, y.data
    sums_bytes = p.R * g.y.sc * g.kernels.itemsize + 64
    g.y.data = <char *> take_scratch(sums_bytes)
    try:
        run_product(p, num_threads, plans, None)
    finally:
        give_back(g.y.data)
    if plans is not None:
        plans[0]["scratch_bytes"] += sums_bytes
    return 0


cdef bint are_few_windows(const Product *p, Steps steps) noexcept:
    cdef Image x = p.pixels.x
    cdef Py_ssize_t lanes = p.pixels.kernels.lanes
    cdef double cycles = window_cycles(p.R, x.C, x.N, x.H, x.W, steps, lanes)
    return p.G == 1 and cycles < float("inf")


cdef int multiply_windows(
    Product *p, char *pixels, Steps steps, int num_threads, list plans
) except -1:
    cdef Image x = p.pixels.x
    cdef Py_ssize_t sums_bytes, lines_bytes, seen_bytes
    cdef char *scratch
    cdef Windows w
    describe_windows(&w, p, steps)
    x.data, x.N, x.H, x.W = pixels, 1, 1, w.each.tap_stride
    x.sc, x.sh, x.sw = x.W, x.W, 1
    p.R, p.row_stride = p.R * steps.KH * steps.KW, 1
    p.pixels.x = p.pixels.y = x
    p.pixels.y.C = p.R
    sums_bytes = (p.R * w.each.tap_stride * w.kernels.itemsize + 63) // 64 * 64
    lines_bytes = num_threads * w.line_bytes
    seen_bytes = (steps.KH + steps.KW) * sizeof(cn_seen_t)
    scratch = <char *> take_scratch(sums_bytes + lines_bytes + seen_bytes)
    try:
        p.pixels.y.data, w.sums, w.lines = scratch, scratch, scratch + sums_bytes
        multiply_matrix(p, num_threads, plans)
        if plans is None:
            find_seen(&w, steps, <cn_seen_t *> (w.lines + lines_bytes))
            run_tasks(
                add_task, &w, w.y.N * w.y.C, num_threads, 4.0 * p.R * w.each.tap_stride
            )
    finally:
        give_back(scratch)
    if plans is not None:
        plans[0]["scratch_bytes"] += sums_bytes + lines_bytes + seen_bytes
    return 0


cdef void describe_windows(Windows *w, const Product *p, Steps steps) noexcept:
    cdef Image x = p.pixels.x, y = p.pixels.y
    w.kernels, w.y = p.pixels.kernels, y
    w.y.C, w.n_windows = p.R, x.H * x.W
    w.each.OW, w.each.tap_stride = x.W, x.N * w.n_windows
    w.each.KH, w.each.KW, w.each.SH, w.each.SW = steps.KH, steps.KW, steps.SH, steps.SW
    w.each.H, w.each.W, w.each.sh, w.each.sw = y.H, y.W, y.sh, y.sw
    w.each.line_pitch = padded(w.kernels, (y.W + steps.SW - 1) // steps.SW)
    w.line_bytes = odd_lines(steps.SW * w.each.line_pitch) * w.kernels.itemsize


cdef void find_seen(Windows *w, Steps steps, cn_seen_t *seen) noexcept:
    """Find which windows of each tap lie inside the image."""
    cdef Py_ssize_t k, rows = w.n_windows // w.each.OW
    w.each.rows, w.each.cols = seen, seen + steps.KH
    for k in range(steps.KH):
        seen[k] = see(k * steps.DH - steps.PT, steps.SH, rows, w.each.H)
    for k in range(steps.KW):
        seen[steps.KH + k] = see(k * steps.DW - steps.PL, steps.SW, w.each.OW, w.each.W)


cdef cn_seen_t see(
    Py_ssize_t d, Py_ssize_t step, Py_ssize_t n_windows, Py_ssize_t n_pixels
) noexcept nogil:
    """Return what a tap d pixels from where its windows begin sees."""
    cdef cn_seen_t seen
    seen.phase = (d % step + step) % step
    seen.first = (d - seen.phase) // step
    n_pixels = (n_pixels - seen.phase + step - 1) // step
    seen.begin = first_seeing(seen.first)
    seen.end = end_seeing(seen.first, n_pixels, n_windows)
    return seen


cdef void add_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Write a channel of an image."""
    cdef Windows *w = <Windows *> ctx
    cdef Py_ssize_t n = i % w.y.N, c = i // w.y.N, itemsize = w.kernels.itemsize
    cdef Py_ssize_t taps = c * w.each.KH * w.each.KW * w.each.tap_stride
    w.kernels.add_windows(
        w.y.data + (n * w.y.sn + c * w.y.sc) * itemsize,
        w.lines + worker * w.line_bytes,
        w.sums + (taps + n * w.n_windows) * itemsize,
        &w.each,
    )
