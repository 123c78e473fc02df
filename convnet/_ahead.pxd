# SPDX-License-Identifier: MIT
#
# Pixels that are read soon, and which tiles fetch while they multiply: a line of every
# other channel in each tile, run by run, until all are on their way.

from convnet._blocks cimport Block, Chunk, Gather
from convnet._kernels cimport cn_tile_t

cdef struct Ahead:
    const char *line                # of the first channel; its run ends at `end`
    const char *end
    # Runs to come: rows of n_bytes, or CN_NO_ROW, elements behind x.
    const char *x
    const Py_ssize_t *row
    Py_ssize_t n_rows, n_bytes, itemsize
    Py_ssize_t channel_stride
    int turn                        # of every fourth channel, those that are next
    Py_ssize_t every, wait          # one of so many tiles fetches; those until the next

# Nothing.
cdef inline void look_nowhere(Ahead *a) noexcept nogil:
    a.line = a.end = NULL
    a.n_rows = 0

# Behind `pixel` of a block whose image is read in place: n more, at last those of the
# next block, if there is one.
cdef void look_behind_pixels(
    const Gather *g, const Block *block, const Block *next, Chunk chunk,
    const char *source, Py_ssize_t pixel, Py_ssize_t n, Ahead *a,
) noexcept nogil

# Behind a chunk's slab: the rows that the next slab is filled from, of the block's next
# channels, or of the next block. x is the group's first channel; n_tiles use the slab.
cdef void look_behind_slab(
    const Gather *g, const Block *block, const Block *next, Chunk chunk, const char *x,
    Py_ssize_t n_tiles, Ahead *a,
) noexcept nogil

cdef bint begin_run(Ahead *a) noexcept nogil

# Let a tile, whose steps are listed, fetch some of the lines that are left.
cdef inline void take_lines(Ahead *a, cn_tile_t *tile) noexcept nogil:
    tile.next = NULL
    if a.line >= a.end and (a.n_rows == 0 or not begin_run(a)):
        return
    a.wait -= 1
    if a.wait > 0:
        return
    a.wait = a.every
    tile.next = a.line + a.turn * a.channel_stride * a.itemsize
    tile.next_stride = 4 * a.channel_stride
    a.turn += 1
    if a.turn == 4:
        a.line, a.turn = a.line + 128, 0
