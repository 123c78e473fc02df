# SPDX-License-Identifier: MIT
#
# What a pooling does to planes.

from libc.stdint cimport int64_t

from convnet._kernels cimport cn_kernels_t, cn_pool_t

# Rows [first, end) of the result in so many planes side by side. Returns -1 where that
# cannot be; where the gradient of maxima counts, how many windows gave to these rows.
ctypedef Py_ssize_t (*operation_t)(
    const cn_kernels_t *kernels, char *x, char *y, int64_t *index,
    const cn_pool_t *window, Py_ssize_t first, Py_ssize_t end, Py_ssize_t n_channels,
) noexcept nogil


cdef inline Py_ssize_t max_rows(
    const cn_kernels_t *kernels, char *x, char *y, int64_t *index,
    const cn_pool_t *window, Py_ssize_t first, Py_ssize_t end, Py_ssize_t n_channels,
) noexcept nogil:
    kernels.max_pool(y, index, x, window, first, end, n_channels)
    return 0


cdef inline Py_ssize_t max_grad_rows(
    const cn_kernels_t *kernels, char *x, char *y, int64_t *index,
    const cn_pool_t *window, Py_ssize_t first, Py_ssize_t end, Py_ssize_t n_channels,
) noexcept nogil:
    return kernels.max_pool_grad(x, y, index, window, first, end, n_channels)


cdef inline Py_ssize_t avg_rows(
    const cn_kernels_t *kernels, char *x, char *y, int64_t *index,
    const cn_pool_t *window, Py_ssize_t first, Py_ssize_t end, Py_ssize_t n_channels,
) noexcept nogil:
    kernels.avg_pool(y, x, window, first, end, n_channels)
    return 0


cdef inline Py_ssize_t avg_grad_rows(
    const cn_kernels_t *kernels, char *x, char *y, int64_t *index,
    const cn_pool_t *window, Py_ssize_t first, Py_ssize_t end, Py_ssize_t n_channels,
) noexcept nogil:
    kernels.avg_pool_grad(x, y, window, first, end, n_channels)
    return 0
