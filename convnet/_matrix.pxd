# SPDX-License-Identifier: MIT
#
# Input gradients of few pixels, whose weights are read where they lie: to pack each of
# them would take as long as some hundred pixels.

from convnet._operands cimport Steps
from convnet._product cimport Product

# A described gradient of a 1x1 kernel without stride or groups.
cdef bint is_matrix(const Product *p) noexcept nogil
cdef int multiply_matrix(Product *p, int num_threads, list plans) except -1

# Of any other kernel: what each pixel of grad_y adds to its window, and their sums.
# `pixels` are those of grad_y, channel by channel, all images of one side by side.
cdef bint are_few_windows(const Product *p, Steps steps) noexcept
cdef int multiply_windows(
    Product *p, char *pixels, Steps steps, int num_threads, list plans
) except -1
