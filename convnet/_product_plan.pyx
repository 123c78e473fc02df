# SPDX-License-Identifier: MIT
"""Plans of blocked products: see ``_product_plan.pxd``."""

from convnet._blocks cimport (
    KC, MAX_PIXELS, SLAB_BYTES, Gather, all_vectors, block_bytes, index_bytes, padded,
    plan_gather,
)
from convnet._estimates cimport packed_cycles, run_cycles, unpacked_cycles
from convnet._kernels cimport cn_segment_t
from convnet._packed_pixels cimport block_panels, pixels_bytes
from convnet._phases cimport n_phase_rows, phases_bytes
from convnet._pixel_runs cimport best_run
from convnet._product cimport Product

# Chunks of streamed columns: L1 holds a panel of them and some rows.
cdef Py_ssize_t STREAMED_DEPTH = 128
# Panels of fewer pixels than AVX-512's have longer chunks, but not so long that sums
# lose digits; and so have phases: each chunk more reads and writes four times the
# pixels that a plain product does.
cdef Py_ssize_t PANEL_BYTES = KC * 48 * 4, LONGEST = 2 * KC
# So many panels of rows are worth that threads pack the same pixels.
cdef Py_ssize_t SHARED_PANELS = 16
# Of fewer ones, threads share the pixels, if those take at most so many more lanes.
cdef double WASTE = 1.1
# So many blocks for each thread end at about the same time.
cdef Py_ssize_t ENOUGH = 8


cdef void plan_pixels(Product *p, Py_ssize_t num_threads) noexcept:
    cdef Gather *g = &p.pixels
    cdef Py_ssize_t max_depth = PANEL_BYTES // (g.kernels.nr * g.kernels.itemsize)
    max_depth = min(max_depth, LONGEST)
    p.run, p.unpacked = 0, is_better_unpacked(p)
    if not p.unpacked and is_better_by_runs(p):
        p.run, p.unpacked = best_run(g.y.W), True
    if p.streamed:
        max_depth = STREAMED_DEPTH
    elif p.phases != NULL and not p.unpacked:
        max_depth = LONGEST
    g.taps.together = p.unpacked or p.phases != NULL
    plan_gather(
        g,
        not p.unpacked,
        0,
        1,
        block_panels(g) * g.kernels.nr,
        max_depth,
        SLAB_BYTES,
    )
    if p.streamed:
        share_columns(g, num_threads)
    elif g.taps.n > 1 and not shares_filters(
        count_blocks(p), (p.R + g.kernels.mr - 1) // g.kernels.mr, num_threads
    ):
        share_rows(g, (num_threads + p.G - 1) // p.G)


cdef inline bint is_better_unpacked(const Product *p) noexcept:
    """Whether packing pixels for so few rows costs more than it brings."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t lanes = g.kernels.lanes
    return unpacked_cycles(p.R, g.x.C, g.y.W, g.taps.n, lanes) < float("inf")


cdef inline bint is_better_by_runs(const Product *p) noexcept:
    """Whether tiles of one vector of rows, by pixels where they lie, take less time."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t taps = g.taps.n, mr = g.kernels.mr
    cdef double cycles = run_cycles(p.R, g.x.C, g.y.W, taps, g.kernels.lanes, mr)
    return p.phases == NULL and cycles < packed_cycles(p.R, taps, mr)


cdef inline void share_columns(Gather *g, Py_ssize_t num_threads) noexcept nogil:
    """Blocks of a streamed row: long runs of memory, some for each thread.

    No sum depends on the columns beside it, so threads may decide.
    """
    cdef Py_ssize_t n = (g.y.W + MAX_PIXELS - 1) // MAX_PIXELS
    n = (n + num_threads - 1) // num_threads * num_threads
    g.cols = padded(g.kernels, (g.y.W + n - 1) // n)
    g.n_col_blocks = (g.y.W + g.cols - 1) // g.cols


cdef inline void share_rows(Gather *g, Py_ssize_t num_threads) noexcept nogil:
    """Let threads share the rows of pixels evenly, unless that wastes more lanes.

    Chunks stay as they are, and so do all sums; bands of a slab are as high as a block.
    """
    cdef Py_ssize_t n_rows = g.y.N * g.y.H, n_blocks = g.n_row_blocks * g.n_col_blocks
    cdef Py_ssize_t rows
    cdef double uneven, waste
    if num_threads == 1 or n_blocks >= ENOUGH * num_threads or g.banded:
        return
    uneven = <double> evenly(n_blocks, num_threads) * g.rows / (n_rows * g.n_col_blocks)
    n_blocks = evenly(g.n_row_blocks, num_threads)
    rows = (n_rows + n_blocks - 1) // n_blocks
    waste = all_vectors(g, n_rows, rows) / all_vectors(g, n_rows, g.rows)
    if waste <= min(WASTE, uneven):
        g.rows = rows
        g.n_row_blocks = (n_rows + rows - 1) // rows


cdef inline Py_ssize_t evenly(Py_ssize_t n, Py_ssize_t num_threads) noexcept nogil:
    """At least n, as many for each thread."""
    return (n + num_threads - 1) // num_threads * num_threads


cdef void plan_tasks(Product *p, Py_ssize_t num_threads) noexcept nogil:
    """Share the rows of some blocks, so that all threads end at about the same time.

    Parts of a block each pack its pixels, cheap beside eight panels of rows. So few
    blocks of many rows are all shared, unless each thread has as many; else those that
    are left over. Phases are shared where panels are fewer than threads. Each result is
    one task's in any case: the same bits.
    """
    cdef Py_ssize_t n_blocks = count_blocks(p)
    p.n_whole, p.n_parts = n_blocks, min(num_threads, p.n_panels)
    p.shares_phases = are_few_blocks(n_blocks, num_threads) and (
        p.n_panels < min(num_threads, n_phase_rows(p))
    )
    if p.streamed:
        pass                        # a part of the columns for each thread
    elif shares_filters(n_blocks, p.n_panels, num_threads):
        p.n_whole = 0
        p.n_parts = parts_of_blocks(n_blocks, p.n_panels // 8, num_threads)
    elif p.shares_phases:
        p.n_whole, p.n_parts = 0, min(num_threads, n_phase_rows(p))
    elif n_blocks < ENOUGH * num_threads:
        p.n_whole -= n_blocks % num_threads
    p.n_tasks = p.n_whole + (n_blocks - p.n_whole) * p.n_parts


cdef inline Py_ssize_t count_blocks(const Product *p) noexcept nogil:
    return p.G * p.pixels.n_row_blocks * p.pixels.n_col_blocks


cdef inline bint shares_filters(
    Py_ssize_t n_blocks, Py_ssize_t n_panels, Py_ssize_t num_threads
) noexcept nogil:
    """Whether threads share few blocks filter by filter, and each packs the pixels."""
    return (
        num_threads > 1
        and n_panels >= SHARED_PANELS
        and are_few_blocks(n_blocks, num_threads)
    )


cdef inline bint are_few_blocks(
    Py_ssize_t n_blocks, Py_ssize_t num_threads
) noexcept nogil:
    """Whether threads would end at different times, each with some whole blocks."""
    return n_blocks < (2 if n_blocks % num_threads == 0 else 4) * num_threads


cdef Py_ssize_t parts_of_blocks(
    Py_ssize_t n_blocks, Py_ssize_t most, Py_ssize_t num_threads
) noexcept nogil:
    """Two tasks for each thread, or one: each part packs a block's pixels again."""
    cdef Py_ssize_t n
    most = min(most, (2 * num_threads + n_blocks - 1) // n_blocks)
    for n in range(most, 0, -1):
        if n_blocks * n % num_threads == 0:
            return n
    return most


cdef Py_ssize_t workspace_bytes(const Product *p) noexcept nogil:
    """Bytes of one thread: its block and panels of packed pixels, in whole pages."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t n = block_bytes(g) + steps_bytes(g) + phases_bytes(p)
    return (n + packed_pixels_bytes(p) + index_bytes(g) + 4095) // 4096 * 4096


cdef Py_ssize_t packed_pixels_bytes(const Product *p) noexcept nogil:
    return 0 if p.unpacked else pixels_bytes(&p.pixels)


cdef Py_ssize_t steps_bytes(const Gather *g) noexcept nogil:
    return (max(g.taps.n, 1) * sizeof(cn_segment_t) + 63) // 64 * 64
