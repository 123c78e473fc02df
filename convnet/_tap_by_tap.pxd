# SPDX-License-Identifier: MIT
#
# Convolutions many of whose taps read nothing but padding, as a sum of products: a tap
# at the pixels where it reads the image.

cimport numpy as cnp

from convnet._operands cimport Steps
from convnet._product cimport Product

# Whether that is faster than products of all taps, at all pixels of y.
cdef bint is_better_tap_by_tap(
    const Product *p, Steps steps, bint gradient
) noexcept

# Padding is zeros, of which infinities make NaN: what meets it must be finite for a tap
# to be left out. A dict keeps the answer.
cdef bint are_finite(cnp.ndarray array, dict packings)

# Add the products of a described gather's taps to y, which has been set; what finishes
# y, and adds to it, comes with the last one.
cdef int multiply_taps(
    const Product *p, int num_threads, list plans, dict packings
) except -1
