# SPDX-License-Identifier: MIT
#
# Pixels that are read soon, and which tiles fetch while they multiply: two lines of
# every fourth channel in each tile, until all are on their way.
#
# Only pixels that are read at one tap: others are multiplied often enough that waiting
# for them does not count, and a tile's steps are no channels then.

from convnet._blocks cimport Gather
from convnet._kernels cimport cn_tile_t

cdef struct Ahead:
    const char *line                # of the first channel; its run ends at `end`
    const char *end
    Py_ssize_t channel_stride, itemsize
    int turn                        # of every four channels, the one that is next

# Nothing.
cdef inline void look_nowhere(Ahead *a) noexcept nogil:
    a.line = a.end = NULL

# n pixels of each channel from `place` on.
cdef inline void look_at(
    const Gather *g, const char *source, Py_ssize_t place, Py_ssize_t n, Ahead *a
) noexcept nogil:
    a.itemsize = g.kernels.itemsize
    a.line = source + (place + g.taps.place[0]) * a.itemsize
    a.end = a.line + n * a.itemsize + 64
    a.channel_stride, a.turn = g.channel_stride, 0

# Let a tile, whose steps are listed, fetch some of the lines that are left.
cdef inline void take_lines(Ahead *a, cn_tile_t *tile) noexcept nogil:
    tile.next = NULL
    if a.line >= a.end:
        return
    tile.next = a.line + a.turn * a.channel_stride * a.itemsize
    tile.next_stride = 4 * a.channel_stride
    a.turn += 1
    if a.turn == 4:
        a.line, a.turn = a.line + 128, 0
