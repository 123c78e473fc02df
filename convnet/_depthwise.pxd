# SPDX-License-Identifier: MIT
#
# Depthwise convolutions, forward and input gradient: vectors hold channels.

from convnet._operands cimport Steps
from convnet._product cimport Product

# Whether a described product, each of whose groups has one channel and one row, is
# better summed so than plane by plane.
cdef bint is_better_by_channels(const Product *p, Steps steps, bint gradient) noexcept

# Run it, as _planar.run_planar does.
cdef int run_depthwise(
    const Product *p, Steps steps, bint gradient, int num_threads, list plans
) except -1
