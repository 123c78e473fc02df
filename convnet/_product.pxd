# SPDX-License-Identifier: MIT
#
# The blocked product behind the direct convolution, forward and input gradient.

from convnet._ahead cimport Ahead
from convnet._blocks cimport MAX_PANELS, Block, Chunk, Gather
from convnet._kernels cimport cn_panel_t, cn_segment_t
from convnet._operands cimport Finish

# The phases of a strided input gradient, pairs of one along the rows of pixels and one
# along the columns. The gather has the taps of all of them, which are a grid; `tap` and
# the weights' offsets in Product go phase by phase.
cdef struct Phases:
    Py_ssize_t SH, SW
    Py_ssize_t H, W, sh, sw         # the image that they make up
    Py_ssize_t n_cols               # phases along the columns that meet a tap
    const Py_ssize_t *row_phase     # (min(SH, H),): which of those that meet a tap, or
    const Py_ssize_t *col_phase     # (min(SW, W),)  -1
    const Py_ssize_t *first_tap     # (phases + 1,)
    const Py_ssize_t *tap           # (taps,): which of the gather's

# y[n, r, i, j] = the gather-product, finished, for every group.
cdef struct Product:
    Gather pixels
    const Phases *phases            # what y's pixels are; NULL: one pixel each
    const char *weight              # of group 0, row 0, channel 0, tap 0
    Py_ssize_t G, R                 # groups; rows (output channels) of a group
    Py_ssize_t row_stride, channel_stride, group_stride
    bint unpacked                   # few rows: pixels are not packed, but read in place
    bint streamed                   # few rows by a row of pixels larger than a cache
    char *turned                    # what y becomes at last, pixels in rows; or NULL
    Py_ssize_t run                  # and so, by runs of so many; or 0
    Py_ssize_t n_taps               # of the weights
    const Py_ssize_t *tap
    Finish finish
    # Rows are packed in panels of MR. A task is a block with all of them, or for blocks
    # from `n_whole` on one of `n_parts` parts of them, or of the rows of phases.
    # Weights that are not kept are packed and used slice by slice: n_panels from
    # first_panel on, and n_chunks of the reduction from first_chunk on.
    Py_ssize_t first_panel, n_panels, n_whole, n_parts, n_tasks
    bint shares_phases
    Py_ssize_t first_chunk, n_chunks
    Py_ssize_t num_threads
    Py_ssize_t pack_channels        # channels that are packed together
    char *packed
    char *workspaces
    Py_ssize_t workspace_bytes

# Some panels of a block's pixels, packed for one chunk, and the rows to multiply with.
cdef struct Operands:
    Chunk chunk
    Py_ssize_t group, first_panel, end_panel, first_phase, end_phase
    const char *rows                # the chunk's panels of rows, row_bytes apart
    Py_ssize_t row_bytes
    cn_segment_t *steps             # where the terms lie in a panel of pixels
    Py_ssize_t n_steps
    char *sums                      # of phases
    char *packed                    # panels of pixels, panel_bytes apart
    Py_ssize_t n, panel_bytes
    cn_panel_t columns[MAX_PANELS]
    const char *pixels[MAX_PANELS]  # where each panel begins
    const char *unread[MAX_PANELS]  # where its pixels lie that a tile packs, or NULL
    const Block *next               # this thread's next block of the group, or NULL
    Ahead ahead                     # what is read after these pixels

# Whether a task has one panel of rows, which alone reads what is packed.
cdef inline bint is_one_panel(const Operands *some) noexcept nogil:
    return some.end_panel == some.first_panel + 1

# Plan a described product; pack its weights and multiply, or tell the plan. A dict
# keeps packed weights for later calls.
cdef int run_product(
    Product *p, int num_threads, list plans, dict packings
) except -1
