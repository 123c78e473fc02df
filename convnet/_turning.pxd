# SPDX-License-Identifier: MIT
#
# Arrays plane by plane, and rows of planes turned: a vector's lanes of planes side by
# side, as if they were channels that come last.

cimport numpy as cnp

from convnet._kernels cimport cn_kernels_t, cn_row_t
from convnet._operands cimport Image

cdef struct PlaneArray:
    const cn_kernels_t *kernels     # that copy its items: indices go as doubles
    Image image                     # no data: there is none
    cn_row_t row

cdef PlaneArray describe_planes(cnp.ndarray array) noexcept

# From a plane to the next one, of its image or of the next; and all images as one with
# more channels, where all planes are equally far apart.
cdef Py_ssize_t next_plane(const PlaneArray *p) noexcept nogil
cdef bint are_even(const PlaneArray *p) noexcept nogil
cdef void join_images(PlaneArray *p) noexcept nogil

# Channel c of image n.
cdef char *find_plane(const PlaneArray *p, Py_ssize_t n, Py_ssize_t c) noexcept nogil

# Rows [first, end) of `count` planes, to and from a slab of `pitch` planes side by
# side. `row` has room for as many numbers as there are rows.
cdef void turn_in(
    const PlaneArray *p, const char *plane, char *slab, Py_ssize_t first,
    Py_ssize_t end, Py_ssize_t count, Py_ssize_t pitch, Py_ssize_t *row,
) noexcept nogil
cdef void turn_out(
    const PlaneArray *p, char *plane, const char *slab, Py_ssize_t first,
    Py_ssize_t end, Py_ssize_t count, Py_ssize_t pitch, Py_ssize_t *row,
) noexcept nogil
