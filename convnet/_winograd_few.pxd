# SPDX-License-Identifier: MIT
#
# Winograd's products of so few tiles that transformed filters are not worth their
# memory.

from convnet._winograd_product cimport Winograd

# Weights that are kept: the taps of a vector of filters side by side. The bytes of a
# group, and to turn all of them to p.packed.
cdef Py_ssize_t turned_bytes(const Winograd *p) noexcept nogil
cdef void turn_weights(Winograd *p) noexcept

# The sums of all points by folds [first, end) of a group's filters; rows are tiles.
cdef void multiply_few(
    const Winograd *p, Py_ssize_t group, const char *input, char *sums,
    Py_ssize_t sums_stride, Py_ssize_t first, Py_ssize_t end,
) noexcept nogil
