# SPDX-License-Identifier: MIT
"""Strided input gradients: the phases of the pixels, side by side.

Pixels (SH*i + a, SW*j + b) of an input gradient meet only some taps, at unit steps: one
product for each phase (a, b). All read the same few pixels of grad_y, which are packed
once, tap by tap, so that the taps of a phase are runs of a panel. The sums of a row of
phases then leave the cache as rows of pixels.
"""

from convnet._ahead cimport take_lines
from convnet._blocks cimport Block, padded
from convnet._kernels cimport (
    cn_kernels_t, cn_panel_t, cn_segment_t, cn_tile_t, cn_weave_t, plain_tile,
)
from convnet._operands cimport Image
from convnet._packed_weights cimport packed_rows, panel_bytes
from convnet._product cimport Operands, Phases, Product


cdef Py_ssize_t phases_bytes(const Product *p) noexcept nogil:
    """The sums of one row of phases, for a panel of rows and one of pixels."""
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    if p.phases == NULL:
        return 0
    return p.phases.n_cols * kernels.mr * kernels.nr * kernels.itemsize


cdef Py_ssize_t n_phase_rows(const Product *p) noexcept nogil:
    return 0 if p.phases == NULL else min(p.phases.SH, p.phases.H)


cdef void multiply_phases(
    const Product *p, const Block *block, Operands *some, Py_ssize_t first
) noexcept nogil:
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef Py_ssize_t start, panel, i, n, pixel, at_once
    cdef cn_segment_t whole
    cdef cn_panel_t sums
    cdef cn_tile_t tile = plain_tile()
    tile.steps, tile.a_stride = some.steps, kernels.mr
    tile.a_panel_stride = panel_bytes(p) // kernels.itemsize
    tile.col_stride = 1
    tile.panel, sums.segment, sums.n_segments, sums.joined = &sums, &whole, 1, True
    whole.in_ = whole.out = 0
    for start in range(some.first_panel, some.end_panel, 3):
        pixel = first
        for i in range(some.n):
            n = some.columns[i].n_pixels
            tile.b, tile.b_stride = some.pixels[i], padded(kernels, n)
            # All lanes are stored: there is room, and nothing to cut off.
            whole.len = sums.n_pixels = n if n <= 4 else tile.b_stride
            # One vector of pixels is for three panels of rows at a time.
            at_once = 3 if n <= kernels.lanes else 1
            tile.row_stride = kernels.nr // at_once
            if p.unpacked:
                tile.b_stride = p.pixels.channel_stride
            panel = start
            while panel < min(start + 3, some.end_panel):
                multiply_panels(
                    p, block, some, &tile, panel, min(at_once, some.end_panel - panel),
                    pixel, n,
                )
                panel += at_once
            pixel += n


cdef inline void multiply_panels(
    const Product *p, const Block *block, Operands *some, cn_tile_t *tile,
    Py_ssize_t panel, Py_ssize_t n_panels, Py_ssize_t first, Py_ssize_t n_pixels,
) noexcept nogil:
    """All phases of pixels [first, first + n) of a block, by some panels of rows."""
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef const Phases *phases = p.phases
    cdef Py_ssize_t row = (p.first_panel + panel) * kernels.mr, a, b, phase
    cdef const char *rows = packed_rows(p, some.group, panel, some.chunk.c * p.n_taps)
    cdef char *y = p.pixels.y.data
    cdef cn_weave_t weave
    y += (some.group * p.R + row) * p.pixels.y.sc * kernels.itemsize
    weave.n_rows = min(n_panels * kernels.mr, p.R - row)
    weave.row_stride, weave.x_row_stride = p.pixels.y.sc, tile.row_stride
    weave.col_stride, weave.ways = phases.sw, min(phases.SW, phases.W)
    weave.row_ways = 1
    weave.part_stride, weave.accumulate = kernels.mr * kernels.nr, some.chunk.k > 0
    # Whole tiles are stored faster; the rows behind are zeros.
    tile.n_rows = n_panels * kernels.mr
    while n_panels == 1 and tile.n_rows // 2 >= weave.n_rows:
        tile.n_rows //= 2
    for a in range(some.first_phase, some.end_phase):
        phase = phases.row_phase[a]
        weave.part = phases.col_phase if phase >= 0 else NULL
        if phase >= 0:
            if not weave.accumulate:
                write_pixels(p, block, y, NULL, &weave, a, first, n_pixels)
            for b in range(phases.n_cols):
                tile.y = some.sums + b * weave.part_stride * kernels.itemsize
                multiply_phase(p, some, tile, rows, phase * phases.n_cols + b)
        elif weave.accumulate:
            continue                # nothing to add
        write_pixels(p, block, y, some.sums, &weave, a, first, n_pixels)


cdef inline void multiply_phase(
    const Product *p, Operands *some, cn_tile_t *tile, const char *rows,
    Py_ssize_t phase,
) noexcept nogil:
    """The sums of one phase. Taps that lie one after another in the panel are a run."""
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef cn_segment_t *run = some.steps - 1
    cdef Py_ssize_t first = p.phases.first_tap[phase], t, tap, at, after = -1
    cdef Py_ssize_t n = some.chunk.n_channels
    for t in range(first, p.phases.first_tap[phase + 1]):
        tap = p.phases.tap[t]
        at = p.pixels.taps.place[tap] if p.unpacked else tap * n * tile.b_stride
        if at == after:
            run.len += n
        else:
            run += 1
            run.len, run.in_ = n, at
        after = at + n * tile.b_stride
    tile.n_steps = run + 1 - some.steps
    take_lines(&some.ahead, tile, 1)
    tile.a = rows + first * n * kernels.mr * kernels.itemsize
    kernels.gemm_tile(tile)


cdef inline void write_pixels(
    const Product *p, const Block *block, char *y, const char *sums, cn_weave_t *weave,
    Py_ssize_t a, Py_ssize_t first, Py_ssize_t n_pixels,
) noexcept nogil:
    """Row phase `a` of n pixels of a block, from `first` on; no sums: fetch lines."""
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef const Image *image = &p.pixels.y
    cdef const Phases *phases = p.phases
    cdef Py_ssize_t r = first // block.n_cols, col = first % block.n_cols
    cdef Py_ssize_t i, j, n, out, done = 0
    while done < n_pixels:
        n = min(n_pixels - done, block.n_cols - col)
        i, j = (block.first_row + r) % image.H, block.first_col + col
        if i * phases.SH + a < phases.H:
            weave.n = min(n * weave.ways, phases.W - j * phases.SW)
            out = block.row_out[r] + col * image.sw + a * phases.sh
            if sums == NULL:
                kernels.fetch_rows(y + out * kernels.itemsize, weave)
            else:
                kernels.weave_rows(
                    y + out * kernels.itemsize, sums + done * kernels.itemsize, weave
                )
        done += n
        r, col = r + 1, 0
