# SPDX-License-Identifier: MIT
#
# Convolutions of few channels a group, forward and input gradient: plane by plane.

from convnet._operands cimport Steps
from convnet._product cimport Product

# Whether a described product is better summed plane by plane than packed and
# multiplied.
cdef bint is_better_planar(const Product *p, Steps steps, bint gradient) noexcept

# Run a described product, whose y are the result's strides and sizes: the convolution,
# or its input gradient.
cdef int run_planar(
    const Product *p, Steps steps, bint gradient, int num_threads, list plans
) except -1
