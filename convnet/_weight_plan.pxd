# SPDX-License-Identifier: MIT
#
# Blocking of the weight gradient's products: which operand is turned, and tasks.

from convnet._blocks cimport Gather
from convnet._operands cimport Image, Steps

cdef struct WeightGradient:
    Gather pixels                   # x gathered at the pixels of grad_y
    Image grad_y
    char *grad_w
    Py_ssize_t G, R, C, T           # groups; rows and channels of a group; taps
    bint swapped                    # x and grad_y have changed places, and so R and C
    bint in_place                   # rows of grad_y are read where they lie
    Py_ssize_t n_panels, task_panels, n_row_tasks, n_chunks
    Py_ssize_t n_blocks, n_parts
    # Of each part's blocks, those that are added up now: `n_now` from `first` on.
    Py_ssize_t first, n_now
    # The parts' sums: (n_parts, G, R, C, T), or turned (n_parts, G, T, R, C) with
    # channels rounded up to whole vectors, which swapped ones are as well; and the
    # steps from one to the next.
    char *sums
    Py_ssize_t part_size, group_size, tap_size, row_size
    char *workspaces
    Py_ssize_t workspace_bytes

# Whether a slab of x is turned, rather than columns of all taps gathered, and whether
# taps are joined there; whether it changes places with grad_y; and whether tiles read
# grad_y where it lies.
cdef bint is_better_turned(const WeightGradient *p) noexcept nogil
cdef bint joins_taps(const WeightGradient *p, Steps steps) noexcept
cdef bint is_better_swapped(const WeightGradient *p) noexcept nogil
cdef bint reads_in_place(const WeightGradient *p) noexcept nogil

# Cycles of a product for a vector of grad_y.
cdef double product_cycles(const WeightGradient *p, Steps steps) noexcept

cdef inline bint needs_turning(const WeightGradient *p) noexcept nogil:
    """Whether sums lie otherwise than grad_w."""
    return p.pixels.turned and (p.T > 1 or p.swapped)

# Choose tasks, and lay out the parts' sums.
cdef void plan_tasks(WeightGradient *p, int num_threads) noexcept nogil
cdef Py_ssize_t workspace_bytes(const WeightGradient *p) noexcept nogil

# Rows of a task of a weight gradient, a multiple of `unit` and at most `most`, so that
# threads are ready at the same time: `n_tasks` tasks for each of the shares into which
# n rows are cut, and each takes as long as if it had so many `more`. No sum depends on
# it, so threads may decide.
cdef Py_ssize_t share_rows(
    Py_ssize_t n, Py_ssize_t unit, Py_ssize_t most, Py_ssize_t n_tasks,
    Py_ssize_t more, int num_threads,
) noexcept nogil
