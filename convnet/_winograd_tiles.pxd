# SPDX-License-Identifier: MIT
#
# The tiles of a panel and their transformed inputs.

from convnet._kernels cimport cn_tiles_t
from convnet._winograd_product cimport Winograd

# Bytes of a panel's strips, of its transformed input (points input_stride elements
# apart for so many tiles), and of its rows as planes, for images that are none.
cdef Py_ssize_t strips_bytes(const Winograd *p) noexcept nogil
cdef Py_ssize_t input_bytes(const Winograd *p) noexcept nogil
cdef Py_ssize_t input_stride(const Winograd *p, Py_ssize_t width) noexcept nogil
# Of few tiles: how far apart rows of points are, where channels follow, and in them the
# points of that row.
cdef Py_ssize_t few_stride(const Winograd *p) noexcept nogil
cdef Py_ssize_t planes_bytes(const Winograd *p) noexcept nogil

# Describe the panel whose first tile is number `first`, in memory for its strips that
# `tiles` has, and transform all channels of a group.
cdef void transform_input(
    const Winograd *p, char *input, char *planes, Py_ssize_t group, Py_ssize_t first,
    cn_tiles_t *tiles,
) noexcept nogil
