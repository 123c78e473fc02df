# SPDX-License-Identifier: MIT
#
# The gradient of the weights with few channels a group: plane by plane.

from convnet._blocks cimport Gather
from convnet._operands cimport Image, Steps

# Whether sums of pixels, plane by plane, are faster than a product that takes so many
# cycles, for R x C channels a group.
cdef bint is_weight_planar(
    const Gather *x, const Image *grad_y, Py_ssize_t R, Py_ssize_t C, Steps steps,
    double product,
) noexcept

# Write the gradient of G groups of R x C x KH x KW weights to grad_w; with a list as
# plans, append what would be done.
cdef int run_planar_weight(
    const Gather *x, const Image *grad_y, const char *grad_y_begin,
    const char *grad_y_end, char *grad_w, Py_ssize_t G, Py_ssize_t R, Steps steps,
    int num_threads, list plans,
) except -1
