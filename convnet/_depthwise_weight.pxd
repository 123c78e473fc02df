# SPDX-License-Identifier: MIT
#
# Gradients of depthwise weights: vectors hold channels.

from convnet._blocks cimport Gather
from convnet._operands cimport Image, Steps
from convnet._kernels cimport cn_row_t

# Whether sums by vectors of channels are faster than plane by plane, for groups of R x
# C channels.
cdef bint is_weight_depthwise(
    const Gather *x, const Image *grad_y, Py_ssize_t G, Py_ssize_t R, Py_ssize_t C,
    Steps steps,
) noexcept

# Write the gradient of G groups of KH x KW weights to grad_w; with a list as plans,
# append what would be done. `row` are those of grad_y.
cdef int run_depthwise_weight(
    const Gather *x, const Image *grad_y, cn_row_t row, char *grad_w, Py_ssize_t G,
    Steps steps, int num_threads, list plans,
) except -1
