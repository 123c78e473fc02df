# SPDX-License-Identifier: MIT
"""A block's products for the weight gradient: see ``_weight_columns.pxd``."""

from convnet._blocks cimport Chunk, Gather, padded
from convnet._kernels cimport cn_kernels_t, cn_panel_t, cn_segment_t, cn_tile_t

# Panels of columns that are gathered before they are used: half an L2 of 512 KB.
cdef Py_ssize_t GATHERED_BYTES = 256 * 1024
cdef enum:
    MAX_COLUMNS = 16

# Some panels of columns: where they begin, and where their sums go.
cdef struct Columns:
    Py_ssize_t n
    cn_segment_t run[MAX_COLUMNS]
    cn_panel_t panel[MAX_COLUMNS]


cdef inline Py_ssize_t panel_size(const Gather *g) noexcept nogil:
    """Elements of a gathered panel, with the spill space that packing wants."""
    return (g.rows * g.cols + g.kernels.lanes) * g.kernels.nr


cdef inline Py_ssize_t panels_together(const Gather *g) noexcept nogil:
    cdef Py_ssize_t n = GATHERED_BYTES // (panel_size(g) * g.kernels.itemsize)
    return max(1, min(n, MAX_COLUMNS))


cdef Py_ssize_t gathered_bytes(const Gather *g) noexcept nogil:
    cdef Py_ssize_t n = panels_together(g) * panel_size(g) * g.kernels.itemsize
    n += g.kernels.nr * sizeof(Py_ssize_t) + steps_bytes(g)
    return 0 if g.turned else (n + 63) // 64 * 64


cdef inline Py_ssize_t steps_bytes(const Gather *g) noexcept nogil:
    """Whole lines, for gathered panels come behind."""
    return (g.rows * sizeof(cn_segment_t) + 63) // 64 * 64


cdef void multiply_turned(
    const Gather *g, cn_tile_t *rows, Chunk chunk, const char *source,
    const cn_panel_t *pixels, Py_ssize_t tap_size,
) noexcept nogil:
    """Add a block's products to the sums: tap by tap, channels side by side.

    Taps that are joined count as one, of more channels.
    """
    cdef Py_ssize_t t = chunk.t, c, n, n_columns = g.joined * chunk.n_channels
    cdef Columns columns
    rows.steps, rows.n_steps, rows.b_stride = (
        pixels.segment, pixels.n_segments, pixels.step
    )
    rows.b = source
    while t < chunk.t + chunk.n_taps:
        columns.n = c = 0
        while c < n_columns:
            if columns.n == MAX_COLUMNS:
                multiply_columns(g.kernels, rows, &columns, t == chunk.t)
                columns.n = 0
            n = next_columns(g, rows, n_columns - c)
            add_columns(
                &columns,
                g.taps.place[t] * g.pixel_stride + c,
                t // g.joined * tap_size + chunk.c + c,
                n,
            )
            c += n
        multiply_columns(g.kernels, rows, &columns, t == chunk.t)
        t += g.joined


cdef void multiply_gathered(
    const Gather *g, cn_tile_t *rows, Chunk chunk, const char *source,
    const cn_panel_t *pixels, char *memory,
) noexcept nogil:
    """Add a block's products to the sums: columns of all taps, gathered."""
    cdef Py_ssize_t NR = g.kernels.nr, k = 0, n, width, place
    cdef cn_segment_t *steps = <cn_segment_t *> memory
    cdef Py_ssize_t *offset = <Py_ssize_t *> (memory + steps_bytes(g))
    cdef char *gathered = <char *> (offset + NR)
    cdef Py_ssize_t size = panel_size(g), together = panels_together(g)
    cdef Columns columns
    rows.steps, rows.b = steps, gathered
    place_steps(rows, steps, pixels, NR)
    columns.n = 0
    while k < chunk.depth:
        n = next_columns(g, rows, chunk.depth - k)
        width = padded(g.kernels, n)
        if columns.n == together or width != rows.b_stride:
            multiply_columns(g.kernels, rows, &columns, k == columns.n * NR)
            columns.n = 0
            place_steps(rows, steps, pixels, width)
        place = columns.n * size
        place_columns(g, chunk, k, n, offset)
        g.kernels.pack_taps(
            gathered + place * g.kernels.itemsize, source, offset, n, pixels
        )
        add_columns(&columns, place, chunk.k + k, n)
        k += n
    multiply_columns(g.kernels, rows, &columns, k <= columns.n * NR)


cdef void place_steps(
    cn_tile_t *rows, cn_segment_t *steps, const cn_panel_t *pixels, Py_ssize_t width
) noexcept nogil:
    """Gathered pixels follow each other; rows in place go run by run."""
    cdef Py_ssize_t s, place = 0
    rows.b_stride, rows.n_steps = width, 1
    steps.len, steps.in_ = pixels.n_pixels, 0
    if rows.a_row_stride == 0:
        return
    rows.n_steps = pixels.n_segments
    for s in range(pixels.n_segments):
        steps[s].len, steps[s].out = pixels.segment[s].len, pixels.segment[s].out
        steps[s].in_ = place
        place += steps[s].len * width


cdef inline Py_ssize_t next_columns(
    const Gather *g, const cn_tile_t *rows, Py_ssize_t left
) noexcept nogil:
    """Columns of the next panel; rows in place have no tiles of a single vector.

    So the last four vectors are two and two, not three and one.
    """
    cdef Py_ssize_t NR = g.kernels.nr, lanes = g.kernels.lanes
    if rows.a_row_stride != 0 and 0 < left - NR <= lanes:
        return NR - lanes
    return min(NR, left)


cdef inline void add_columns(
    Columns *columns, Py_ssize_t place, Py_ssize_t out, Py_ssize_t n
) noexcept nogil:
    """Remember a panel of n columns: where it lies, and where its sums begin."""
    cdef cn_segment_t *run = &columns.run[columns.n]
    cdef cn_panel_t *panel = &columns.panel[columns.n]
    run.len, run.in_, run.out = n, place, out
    panel.segment, panel.n_segments, panel.n_pixels, panel.joined = run, 1, n, True
    columns.n += 1


cdef void multiply_columns(
    const cn_kernels_t *kernels, const cn_tile_t *rows, Columns *columns,
    bint fetch,
) noexcept nogil:
    """All of a task's rows by some panels of columns.

    Each row of sums is written in one run, as long as there are panels. A block's first
    columns find rows in place far away: they `fetch` them.
    """
    cdef Py_ssize_t MR = kernels.mr, lanes = kernels.lanes
    cdef Py_ssize_t row = 0, i, j, n, n_wide = columns.n
    fetch = fetch and rows.a_row_stride != 0
    # One vector of columns is for three panels of rows at a time, unless in place.
    if rows.a_row_stride == 0 and n_wide > 0 and columns.run[n_wide - 1].len <= lanes:
        n_wide -= 1
    while row < rows.n_rows:
        n = min(3 * MR, rows.n_rows - row)
        for j in range((n + MR - 1) // MR):
            i = 0
            while i < n_wide:
                i += multiply_tile(
                    kernels, rows, columns, i, n_wide - i, row + j * MR,
                    min(MR, n - j * MR), fetch and i == 0,
                )
        for i in range(n_wide, columns.n):
            multiply_tile(kernels, rows, columns, i, 1, row, n, False)
        row += n


cdef inline Py_ssize_t multiply_tile(
    const cn_kernels_t *kernels, const cn_tile_t *rows, Columns *columns,
    Py_ssize_t i, Py_ssize_t n, Py_ssize_t row, Py_ssize_t n_rows, bint fetch,
) noexcept nogil:
    """Some rows by panels of columns from i on, at most n: as many as are alike.

    Returns how many. Beside a single one, `fetch` the next MR rows.
    """
    cdef Py_ssize_t itemsize = kernels.itemsize
    cdef Py_ssize_t width = padded(kernels, columns.run[i].len)
    cdef cn_tile_t tile = rows[0]
    if fetch:
        n = 1
    while n > 1 and padded(kernels, columns.run[i + n - 1].len) != width:
        n -= 1
    tile.panel, tile.n_panels, tile.n_rows = &columns.panel[i], n, n_rows
    if n > 1:
        tile.b_panel_stride = columns.run[i + 1].in_ - columns.run[i].in_
    tile.a = <const char *> rows.a + (
        row // kernels.mr * rows.a_panel_stride * itemsize
    )
    if fetch and row + 2 * kernels.mr <= rows.n_rows:
        tile.next = <const char *> tile.a + rows.a_panel_stride * itemsize
    tile.b = <const char *> rows.b + columns.run[i].in_ * itemsize
    tile.y = <char *> rows.y + row * rows.row_stride * itemsize
    kernels.gemm_tile(&tile)
    return n


cdef void place_columns(
    const Gather *g, Chunk chunk, Py_ssize_t k, Py_ssize_t n, Py_ssize_t *offset
) noexcept nogil:
    """Slab offsets of columns [k, k + n) of a chunk."""
    cdef Py_ssize_t i
    for i in range(n):
        offset[i] = (
            (k + i) // chunk.n_taps * g.channel_stride
            + g.taps.place[chunk.t + (k + i) % chunk.n_taps]
        )
