# SPDX-License-Identifier: MIT
#
# Pixels that are read soon, and which tiles fetch while they multiply, until all are on
# their way. Where a tile's steps are channels, every fourth of them is fetched by the
# way, in four turns, two lines for each panel of columns; else a run of one channel.

from convnet._blocks cimport Gather
from convnet._kernels cimport cn_tile_t

cdef enum:
    TURNS = 4
    TWO_LINES = 128

cdef struct Ahead:
    const char *line                # what the next panel fetches, up to `end`
    const char *end
    Py_ssize_t n_bytes              # of a channel
    Py_ssize_t itemsize, channel_stride
    int turns                       # that are left; 0: channel by channel

# Nothing.
cdef inline void look_nowhere(Ahead *a) noexcept nogil:
    a.line = a.end = NULL

# n pixels of each channel from `place` on.
cdef inline void look_at(
    const Gather *g, const char *source, Py_ssize_t place, Py_ssize_t n, Ahead *a
) noexcept nogil:
    a.itemsize, a.channel_stride = g.kernels.itemsize, g.channel_stride
    a.line = source + (place + g.taps.place[0]) * a.itemsize
    a.n_bytes, a.turns = n * a.itemsize, TURNS
    a.end = a.line + a.n_bytes

# Or n elements of each of some channels.
cdef inline void look_at_runs(
    const Gather *g, const char *source, Py_ssize_t place, Py_ssize_t n,
    Py_ssize_t n_channels, Ahead *a,
) noexcept nogil:
    a.itemsize, a.channel_stride = g.kernels.itemsize, g.x.sc
    a.line = source + place * a.itemsize
    a.n_bytes, a.turns = n * a.itemsize, 0
    a.end = a.line + n_channels * a.channel_stride * a.itemsize

# Let a tile, whose steps are listed, fetch some of what is left beside at most n panels
# of columns; returns to how many it should keep.
cdef inline Py_ssize_t take_lines(
    Ahead *a, cn_tile_t *tile, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t stride = TWO_LINES
    tile.next = NULL
    if a.line >= a.end:
        return n
    tile.next, tile.next_stride = a.line, TURNS * a.channel_stride
    if a.turns == 0:
        stride = a.channel_stride * a.itemsize
        tile.next_stride = a.n_bytes * 4 // (tile.steps.len * a.itemsize) + 1
    n = min(n, (a.end - a.line + stride - 1) // stride)
    tile.next_panel_stride = stride // a.itemsize
    a.line += n * stride
    if a.line >= a.end and a.turns > 1:
        a.turns -= 1
        a.end += a.channel_stride * a.itemsize
        a.line = a.end - a.n_bytes
    return n
