# SPDX-License-Identifier: MIT
"""Lines that tiles fetch early: see ``_ahead.pxd``.

Only pixels that are read at one tap: others are multiplied often enough that waiting
for them does not count, and a tile's steps are no channels then.
"""

from convnet._blocks cimport Block, Chunk, Gather
from convnet._kernels cimport CN_NO_ROW


cdef bint begin_run(Ahead *a) noexcept nogil:
    """The next row, and those that follow it at once, are the run; or there is none."""
    cdef Py_ssize_t n = a.n_bytes // a.itemsize, end
    while a.n_rows > 0 and a.row[0] == CN_NO_ROW:
        a.row, a.n_rows = a.row + 1, a.n_rows - 1
    if a.n_rows == 0:
        return False
    a.line, end = a.x + a.row[0] * a.itemsize, a.row[0] + n
    a.row, a.n_rows = a.row + 1, a.n_rows - 1
    while a.n_rows > 0 and a.row[0] == end:
        a.row, a.n_rows, end = a.row + 1, a.n_rows - 1, end + n
    # The last line may begin behind the place where the first one's was cut.
    a.end = a.x + end * a.itemsize + 63
    a.turn = 0
    return True


cdef void look_behind_pixels(
    const Gather *g, const Block *block, const Block *next, Chunk chunk,
    const char *source, Py_ssize_t pixel, Py_ssize_t n, Ahead *a,
) noexcept nogil:
    cdef Py_ssize_t place
    look_nowhere(a)
    if g.taps.n != 1:
        return
    if pixel < block.n_rows * block.n_cols:
        place = block.row_in[pixel // block.n_cols] + pixel % block.n_cols
    elif chunk.c + chunk.n_channels < g.x.C:
        place = chunk.n_channels * g.channel_stride + block.row_in[0]
    elif next != NULL:
        place = next.row_in[0] - chunk.c * g.channel_stride
    else:
        return
    a.itemsize = g.kernels.itemsize
    a.line = source + (place + g.taps.place[0]) * a.itemsize
    a.end = a.line + n * a.itemsize + 64
    a.channel_stride, a.turn, a.every, a.wait = g.channel_stride, 0, 1, 0


cdef void look_behind_slab(
    const Gather *g, const Block *block, const Block *next, Chunk chunk, const char *x,
    Py_ssize_t n_tiles, Ahead *a,
) noexcept nogil:
    cdef Py_ssize_t c = chunk.c + chunk.n_channels, lo, hi
    look_nowhere(a)
    if g.taps.n != 1 or g.x.sw != 1:
        return
    if c >= g.x.C:
        c, block = 0, next
        if next == NULL:
            return
    lo = block.first_col * g.step_w + g.dw_min
    hi = min(lo + g.n_cols * g.step_w, g.x.W)
    lo = max(lo, 0)
    if lo >= hi:
        return
    a.itemsize = g.kernels.itemsize
    a.x = x + (c * g.x.sc + lo) * a.itemsize
    a.row, a.n_rows = block.slab_row, block.n_slab_rows
    a.n_bytes = (hi - lo) * a.itemsize
    a.channel_stride, a.wait = g.x.sc, 0
    # Spread over all tiles: a burst would fill the buffers that the first ones want.
    a.every = n_tiles // (4 * a.n_rows * (a.n_bytes // 128 + 1))
