# SPDX-License-Identifier: MIT
"""The transformed filters of Winograd's algorithm: see ``_winograd_filters.pxd``.

A fold's points are one stream of memory. From point to point there is one vector more
than needed: at a power of two apart, a transform would write all points to the same few
cache sets.
"""

from convnet._kernels cimport cn_filters_t, run_tasks
from convnet._winograd_few cimport turn_weights, turned_bytes
from convnet._winograd_product cimport Winograd, n_copies


cdef inline Py_ssize_t point_stride(
    const Winograd *p, Py_ssize_t n_channels
) noexcept nogil:
    return n_channels * p.fold * p.kernels.mr + p.kernels.lanes


cdef Py_ssize_t filter_bytes(
    const Winograd *p, Py_ssize_t n_folds, Py_ssize_t n_channels
) noexcept nogil:
    return (
        n_folds * p.n_points * point_stride(p, n_channels) * p.kernels.itemsize
    )


cdef Py_ssize_t packed_bytes(const Winograd *p) noexcept nogil:
    if p.few:
        return p.G * turned_bytes(p)
    return (p.G * filter_bytes(p, p.n_folds, p.C) + 4095) // 4096 * 4096


cdef Filters packed_filters(const Winograd *p, Py_ssize_t group) noexcept nogil:
    cdef Filters filters
    filters.data = p.packed + group * filter_bytes(p, p.n_folds, p.C)
    filters.first_fold, filters.first_channel, filters.n_channels = 0, 0, p.C
    return filters


cdef int transform_weights(Winograd *p, int num_threads) except -1:
    # Ten operations each, if that were all: but of what one core has written alone the
    # other waits for every line.
    cdef double work = 40.0 * packed_bytes(p) / p.kernels.itemsize
    if p.few:
        turn_weights(p)
    else:
        run_tasks(fold_task, p, p.G * p.n_folds, num_threads, work)
    return 0


cdef void fold_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef Winograd *p = <Winograd *> ctx
    cdef Filters filters = packed_filters(p, i // p.n_folds)
    transform_fold(p, &filters, i // p.n_folds, i % p.n_folds)


cdef char *find_filters(
    const Winograd *p, const Filters *filters, Py_ssize_t fold, Py_ssize_t point
) noexcept nogil:
    cdef Py_ssize_t at = (fold - filters.first_fold) * p.n_points + point
    at *= point_stride(p, filters.n_channels)
    return filters.data + at * p.kernels.itemsize


cdef void transform_fold(
    const Winograd *p, const Filters *filters, Py_ssize_t group, Py_ssize_t fold
) noexcept nogil:
    cdef Py_ssize_t itemsize = p.kernels.itemsize, pitch = p.fold * p.kernels.mr
    cdef Py_ssize_t row = fold * pitch
    cdef cn_filters_t some = p.filters
    cdef Py_ssize_t at = (
        group * p.group_stride
        + row // (p.ways * p.ways) * some.row_stride
        + filters.first_channel // n_copies(p) * some.channel_stride
    )
    some.n_rows = min(pitch, p.R - row)
    some.n_channels = filters.n_channels // n_copies(p)
    p.kernels.winograd_filters(
        find_filters(p, filters, fold, 0),
        p.weight + at * itemsize,
        &some,
        pitch,
        point_stride(p, filters.n_channels),
    )
