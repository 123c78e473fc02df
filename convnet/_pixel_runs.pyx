# SPDX-License-Identifier: MIT
"""Runs of pixels that few rows read where they lie: see ``_pixel_runs.pxd``."""

from convnet._blocks cimport Block, Gather
from convnet._kernels cimport cn_panel_t, cn_segment_t

cdef enum:
    SHORT_RUN = 4
    LONG_RUN = 8
    RUN_SUMS = 28                   # pixels of a tile, whose sums are in registers


cdef Py_ssize_t best_run(Py_ssize_t W) noexcept nogil:
    cdef Py_ssize_t length, n, best = LONG_RUN, least = run_pixels(W, LONG_RUN)
    for length in range(LONG_RUN - 1, SHORT_RUN - 1, -1):
        n = run_pixels(W, length)
        if n < least:
            best, least = length, n
    return best


cdef Py_ssize_t run_pixels(Py_ssize_t W, Py_ssize_t length) noexcept nogil:
    return (W + length - 1) // length * length


cdef Py_ssize_t cut_runs(
    const Gather *g, const Block *block, Py_ssize_t first, Py_ssize_t length,
    cn_panel_t *panel,
) noexcept nogil:
    cdef Py_ssize_t r = first // block.n_cols, col = first % block.n_cols
    cdef Py_ssize_t most = RUN_SUMS // length
    cdef cn_segment_t *run
    panel.segment, panel.n_segments, panel.n_pixels = block.segment, 0, 0
    while panel.n_segments < most and r < block.n_rows:
        run = block.segment + panel.n_segments
        run.len = min(length, block.n_cols - col)
        run.in_, run.out = block.row_in[r] + col, block.row_out[r] + col * g.y.sw
        panel.n_segments += 1
        panel.n_pixels += run.len
        col += run.len
        if col == block.n_cols:
            r, col = r + 1, 0
    return first + panel.n_pixels
