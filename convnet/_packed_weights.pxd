# SPDX-License-Identifier: MIT
#
# The weights of a product as panels of MR rows: chunk by chunk, the terms in the order
# in which pixels are read (channels, then taps; taps that stay together, the opposite).

from convnet._product cimport Product

# Decide how many panels of how many chunks are packed at a time.
cdef void choose_slices(
    Product *p, Py_ssize_t panels, Py_ssize_t num_threads, double work
) noexcept nogil
cdef Py_ssize_t packed_bytes(const Product *p) noexcept nogil

# Pack the slice in work; then the rows of a panel from step k of the reduction on.
cdef int pack_weights(Product *p, int num_threads) except -1
cdef Py_ssize_t panel_bytes(const Product *p) noexcept nogil
cdef char *packed_rows(
    const Product *p, Py_ssize_t group, Py_ssize_t panel, Py_ssize_t k
) noexcept nogil
