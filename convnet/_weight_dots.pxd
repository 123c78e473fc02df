# SPDX-License-Identifier: MIT
#
# Gradients of 1x1 weights with a few rows or a few channels: products of whole planes.

from convnet._blocks cimport Gather
from convnet._operands cimport Image, Steps

# Whether R x C channels a group are so few on one side, and planes runs of memory.
cdef bint is_weight_dots(
    const Gather *x, const Image *grad_y, Py_ssize_t R, Py_ssize_t C, Steps steps
) noexcept

# Write the gradient of G groups of R x C weights to grad_w; with a list as plans,
# append what would be done.
cdef int run_weight_dots(
    const Gather *x, const Image *grad_y, char *grad_w, Py_ssize_t G, Py_ssize_t R,
    Py_ssize_t C, int num_threads, list plans,
) except -1
