# SPDX-License-Identifier: MIT
#
# The products behind Winograd's algorithm, forward and input gradient.

from convnet._kernels cimport cn_filters_t, cn_kernels_t, cn_row_t
from convnet._operands cimport Finish, Image

cdef struct Winograd:
    const cn_kernels_t *kernels
    Image x, y                      # all groups; x.C is the channels of one group
    cn_row_t x_row
    int n, m, n_points              # of a tile on one axis; n * n
    # With stride each phase is a channel of its own, forward, or a row, backward: so
    # many on each axis.
    int step, ways
    Py_ssize_t dh, dw               # where in x the first tile begins
    Py_ssize_t skip_h, skip_w       # results of the first tile that lie outside y
    # With dilation, the pixels (DH*i + a, DW*j + b) of one (a, b) are an image of their
    # own: tiles of one, and how many there are.
    Py_ssize_t DH, DW
    Py_ssize_t TH, TW, n_images
    const char *weight              # group 0, row 0, channel 0
    cn_filters_t filters            # of one group
    Py_ssize_t G, R, C, group_stride    # rows count phases, channels pieces as well
    Finish finish
    # Panels of MR rows; folds of so many panels, which lie side by side in U.
    Py_ssize_t n_panels, n_folds, fold
    # Tiles of a panel; panels of one group and of its longest run; runs of one group;
    # a run's rows are shared by so many tasks, which take so many folds at once.
    Py_ssize_t width, n_tile_panels, run_panels, n_runs, n_parts, folds_at_once
    bint few                        # tiles: see _winograd_few
    # Channels whose weights are transformed when they are used; 0: all are before.
    Py_ssize_t slice_channels
    char *packed                    # U, the transformed weights
    char *workspaces
    Py_ssize_t workspace_bytes

# Plan a described product; transform its weights and run it, or tell the plan. A dict
# keeps transformed weights for later calls.
cdef int run_winograd(
    Winograd *p, int num_threads, list plans, dict packings
) except -1

# Channels of the product for each of x: phases of pieces of its filters.
cdef inline int n_copies(const Winograd *p) noexcept nogil:
    return p.filters.pieces_h * p.filters.pieces_w * p.step * p.step
