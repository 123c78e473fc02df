# SPDX-License-Identifier: MIT
#
# Sums of a weight gradient that goes plane by plane.

from convnet._kernels cimport cn_planar_t, cn_row_t
from convnet._operands cimport Image
from convnet._planes cimport Planes

cdef enum:
    # Products that a lane adds up before it goes to a total: long chains round badly.
    CHAIN = 512

cdef struct PlanarWeight:
    Planes planes
    Image grad_y
    cn_row_t row                    # of grad_y
    char *grad_w
    Py_ssize_t G, R, T              # groups, rows of each, terms of a row: C * KH * KW
    cn_planar_t sums
    Py_ssize_t *offset              # of each sum in a row of grad_w
    Py_ssize_t task_rows, n_row_tasks, n_blocks, n_parts
    char *parts                     # (n_parts, G * R, T), or grad_w
    Py_ssize_t sums_size            # of a task: all rows' terms, groups of LANES
    # Products that a block adds to a lane, at most; whether there are totals for them.
    Py_ssize_t block_steps
    bint has_totals
    # Rows of grad_y whose pixels lie apart are copied, those of a task together.
    bint copied
    Py_ssize_t grad_pitch, grad_size, grads_bytes
    char *workspaces
    Py_ssize_t workspace_bytes

# Some rows of grad_w, whole groups or a part of one, of one part of the blocks.
cdef void weight_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil
