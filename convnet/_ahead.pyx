# SPDX-License-Identifier: MIT
"""Lines that tiles fetch early: see ``_ahead.pxd``.

Only pixels that are read at one tap: others are multiplied often enough that waiting
for them does not count, and a tile's steps are no channels then.
"""

from convnet._blocks cimport Block, Chunk, Gather


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
    a.channel_stride, a.turn = g.channel_stride, 0
