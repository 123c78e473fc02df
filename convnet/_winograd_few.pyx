# SPDX-License-Identifier: MIT
"""Winograd's products of few tiles: see ``_winograd_few.pxd``.

A vector of filters meets all tiles at all points before the next one: the kernel reads
its weights, or the turned ones that are kept, and transforms them on the way.
"""

from convnet._kernels cimport cn_filters_t
from convnet._winograd_product cimport Winograd
from convnet._winograd_tiles cimport few_stride

cdef enum:
    TAPS = 9


cdef inline Py_ssize_t vector_bytes(const Winograd *p) noexcept nogil:
    return p.C * TAPS * p.kernels.lanes * p.kernels.itemsize


cdef Py_ssize_t turned_bytes(const Winograd *p) noexcept nogil:
    return p.n_folds * vector_bytes(p)


cdef inline const char *raw_weights(
    const Winograd *p, Py_ssize_t group, Py_ssize_t vector, cn_filters_t *filters
) noexcept nogil:
    """A vector of a group's filters, as the user has them."""
    cdef Py_ssize_t row = vector * p.kernels.lanes
    filters[0] = p.filters
    filters.n_rows, filters.n_channels = p.R - row, p.C
    row = group * p.group_stride + row * filters.row_stride
    return p.weight + row * p.kernels.itemsize


cdef void turn_weights(Winograd *p) noexcept:
    cdef Py_ssize_t i
    cdef cn_filters_t filters
    cdef const char *weights
    for i in range(p.G * p.n_folds):
        weights = raw_weights(p, i // p.n_folds, i % p.n_folds, &filters)
        p.kernels.turn_few(p.packed + i * vector_bytes(p), weights, &filters)


cdef void multiply_few(
    const Winograd *p, Py_ssize_t group, const char *input, char *sums,
    Py_ssize_t sums_stride, Py_ssize_t first, Py_ssize_t end,
) noexcept nogil:
    cdef Py_ssize_t lanes = p.kernels.lanes, vector
    cdef cn_filters_t filters
    cdef const char *weights
    for vector in range(first, end):
        weights = raw_weights(p, group, vector, &filters)
        if p.packed != NULL:
            weights = p.packed + (group * p.n_folds + vector) * vector_bytes(p)
            filters.row_stride, filters.channel_stride = 1, TAPS * lanes
        p.kernels.winograd_few(
            sums, sums_stride, lanes, input, few_stride(p), weights, &filters
        )
        sums += lanes * lanes * p.kernels.itemsize
