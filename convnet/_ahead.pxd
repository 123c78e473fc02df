# SPDX-License-Identifier: MIT
#
# Pixels that are read soon, and which tiles fetch while they multiply, until all are on
# their way: where a tile's steps are channels, two lines of every fourth of them; else
# a run of one channel in each tile.

from convnet._blocks cimport Gather
from convnet._kernels cimport cn_tile_t

cdef struct Ahead:
    const char *line                # of the first channel; its run ends at `end`
    const char *end
    Py_ssize_t channel_stride, itemsize
    int turn                        # of every four channels, the one that is next
    Py_ssize_t n_run                # elements of a channel that one tile fetches; or 0

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
    a.channel_stride, a.turn, a.n_run = g.channel_stride, 0, 0

# Or n elements of each of some channels.
cdef inline void look_at_runs(
    const Gather *g, const char *source, Py_ssize_t place, Py_ssize_t n,
    Py_ssize_t n_channels, Ahead *a,
) noexcept nogil:
    a.itemsize, a.channel_stride, a.n_run = g.kernels.itemsize, g.x.sc, n
    a.line = source + place * a.itemsize
    a.end = a.line + n_channels * a.channel_stride * a.itemsize

# Let a tile, whose steps are listed, fetch some of the lines that are left.
cdef inline void take_lines(Ahead *a, cn_tile_t *tile) noexcept nogil:
    tile.next = NULL
    if a.line >= a.end:
        return
    if a.n_run > 0:
        tile.next = a.line
        tile.next_stride = a.n_run * 4 // tile.steps.len + 1
        a.line += a.channel_stride * a.itemsize
        return
    tile.next = a.line + a.turn * a.channel_stride * a.itemsize
    tile.next_stride = 4 * a.channel_stride
    a.turn += 1
    if a.turn == 4:
        a.line, a.turn = a.line + 128, 0
