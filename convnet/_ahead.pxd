# SPDX-License-Identifier: MIT
#
# Pixels that are read soon, and which tiles fetch while they multiply: two lines of
# every fourth channel in each tile, until all are on their way.

from convnet._blocks cimport Block, Chunk, Gather
from convnet._kernels cimport cn_tile_t

cdef struct Ahead:
    const char *line                # of the first channel; its run ends at `end`
    const char *end
    Py_ssize_t channel_stride, itemsize
    int turn                        # of every four channels, the one that is next

# Nothing.
cdef inline void look_nowhere(Ahead *a) noexcept nogil:
    a.line = a.end = NULL

# Behind `pixel` of a block whose image is read in place: n more, at last those of the
# next block, if there is one.
cdef void look_behind_pixels(
    const Gather *g, const Block *block, const Block *next, Chunk chunk,
    const char *source, Py_ssize_t pixel, Py_ssize_t n, Ahead *a,
) noexcept nogil

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
