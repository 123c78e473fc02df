# SPDX-License-Identifier: MIT
#
# The blocked product behind the direct convolution, forward and input gradient.

from convnet._blocks cimport Gather

# y[n, r, i, j] (+)= bias[r] + the gather-product, for every group.
cdef struct Product:
    Gather pixels
    const char *weight              # of group 0, row 0, channel 0, tap 0
    Py_ssize_t G, R                 # groups; rows (output channels) of a group
    Py_ssize_t row_stride, channel_stride, group_stride
    const char *bias                # (G * R,) or NULL
    bint accumulate                 # values are added that lie `addend` from y
    Py_ssize_t addend
    bint clip                       # results are kept between low and high
    bint woven                      # pixels of y between two of this product are ours
    double low, high
    # Rows are packed in panels of MR. A task is a block with all of them, or for blocks
    # from `n_whole` on one of `n_parts` parts of them.
    # Weights that are not kept are packed and used slice by slice: n_panels from
    # first_panel on, and n_chunks of the reduction from first_chunk on.
    Py_ssize_t first_panel, n_panels, n_whole, n_parts, n_tasks
    Py_ssize_t first_chunk, n_chunks
    Py_ssize_t num_threads
    Py_ssize_t pack_channels        # channels that are packed together
    char *packed
    char *workspaces
    Py_ssize_t workspace_bytes

# Plan a described product; pack its weights and multiply, or tell the plan. A dict
# keeps packed weights for later calls.
cdef int run_product(
    Product *p, int num_threads, list plans, dict packings
) except -1
