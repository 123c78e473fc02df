# SPDX-License-Identifier: MIT
#
# Convolutions of few channels a group, forward and input gradient: plane by plane.

cimport numpy as cnp

from convnet._product cimport Product

# Whether a described product, of a kernel of KH x KW taps, is better summed plane by
# plane than packed and multiplied.
cdef bint is_better_planar(
    const Product *p, Py_ssize_t KH, Py_ssize_t KW, stride, dilation
) except -1

# Run a described product, whose y are the result's strides and sizes: the convolution,
# or its input gradient.
cdef int run_planar(
    const Product *p, Py_ssize_t KH, Py_ssize_t KW, stride, padding, dilation,
    bint gradient, int num_threads, list plans,
) except -1
