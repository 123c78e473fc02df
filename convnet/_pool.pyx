# SPDX-License-Identifier: MIT
"""Pooling drivers: one task for each channel plane of each image."""

cimport numpy as cnp

from libc.stdint cimport int64_t

from convnet._blocks cimport Image, describe_array
from convnet._kernels cimport active_kernels, cn_kernels_t, cn_pool_t, run_tasks

cnp.import_array()


cdef struct Pooling:
    const cn_kernels_t *kernels
    cn_pool_t window
    Image x, y, index
    int all_inside                  # indices: cleared by any task that finds a stray


def max_forward(
    cnp.ndarray x, cnp.ndarray y, indices, kernel, stride, padding, dilation,
    int num_threads,
):
    """Write the maxima of windows to `y`, and where they were found to `indices`."""
    cdef Pooling p
    describe(&p, x, y, indices, kernel, stride, padding, dilation)
    run(&p, max_task, num_threads)


def max_backward(
    cnp.ndarray grad_y, cnp.ndarray indices, cnp.ndarray grad_x, kernel, stride,
    padding, dilation, int num_threads,
):
    """Write the gradient to `grad_x`; if an index is wrong, nothing, and say False."""
    cdef Pooling p
    describe(&p, grad_x, grad_y, indices, kernel, stride, padding, dilation)
    run(&p, check_task, num_threads)
    if p.all_inside:
        run(&p, max_grad_task, num_threads)
    return bool(p.all_inside)


def avg_forward(
    cnp.ndarray x, cnp.ndarray y, kernel, stride, padding, bint count_include_pad,
    Py_ssize_t divisor, int num_threads,
):
    """Write the averages of windows to `y`; `padding` is (top, left, bottom, right)."""
    cdef Pooling p
    describe(&p, x, y, None, kernel, stride, padding, (1, 1))
    describe_average(&p, padding, count_include_pad, divisor)
    run(&p, avg_task, num_threads)


def avg_backward(
    cnp.ndarray grad_y, cnp.ndarray grad_x, kernel, stride, padding,
    bint count_include_pad, Py_ssize_t divisor, int num_threads,
):
    """Write the gradient of averages to `grad_x`."""
    cdef Pooling p
    describe(&p, grad_x, grad_y, None, kernel, stride, padding, (1, 1))
    describe_average(&p, padding, count_include_pad, divisor)
    run(&p, avg_grad_task, num_threads)


cdef int describe(
    Pooling *p, cnp.ndarray x, cnp.ndarray y, indices, kernel, stride, padding, dilation
) except -1:
    cdef cn_pool_t *w = &p.window
    p.kernels = active_kernels(<int> x.itemsize)
    p.x, p.y = describe_array(x), describe_array(y)
    p.index.data, p.all_inside = NULL, True
    if indices is not None:
        p.index = describe_array(indices)
        w.index_row_stride, w.index_col_stride = p.index.sh, p.index.sw
    w.IH, w.IW, w.x_row_stride, w.x_col_stride = p.x.H, p.x.W, p.x.sh, p.x.sw
    w.OH, w.OW, w.y_row_stride, w.y_col_stride = p.y.H, p.y.W, p.y.sh, p.y.sw
    w.KH, w.KW = kernel[0], kernel[1]
    w.SH, w.SW = stride[0], stride[1]
    w.PT, w.PL = padding[0], padding[1]
    w.DH, w.DW = dilation[0], dilation[1]
    return 0


cdef int describe_average(
    Pooling *p, padding, bint count_include_pad, Py_ssize_t divisor
) except -1:
    p.window.PB, p.window.PR = padding[2], padding[3]
    p.window.count_include_pad, p.window.divisor = count_include_pad, divisor
    return 0


ctypedef void (*task_t)(void *, Py_ssize_t, int) noexcept nogil


cdef int run(Pooling *p, task_t task, int num_threads) except -1:
    cdef double windows = <double> p.y.N * p.y.C * p.y.H * p.y.W
    cdef double work = windows * p.window.KH * p.window.KW * 8
    return run_tasks(task, p, p.x.N * p.x.C, num_threads, work)


cdef inline char *plane(const Image *image, Py_ssize_t i, int itemsize) noexcept nogil:
    """Channel plane i of an image, counting (n, c) in order."""
    return image.data + itemsize * (
        i // image.C * image.sn + i % image.C * image.sc
    )


cdef inline int64_t *index_plane(const Pooling *p, Py_ssize_t i) noexcept nogil:
    if p.index.data == NULL:
        return NULL
    return <int64_t *> plane(&p.index, i, sizeof(int64_t))


cdef void max_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef Pooling *p = <Pooling *> ctx
    p.kernels.max_pool(
        plane(&p.y, i, p.kernels.itemsize),
        index_plane(p, i),
        plane(&p.x, i, p.kernels.itemsize),
        &p.window,
    )


cdef void check_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef Pooling *p = <Pooling *> ctx
    if not p.kernels.check_indices(index_plane(p, i), &p.window):
        p.all_inside = False


cdef void max_grad_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef Pooling *p = <Pooling *> ctx
    p.kernels.max_pool_grad(
        plane(&p.x, i, p.kernels.itemsize),
        plane(&p.y, i, p.kernels.itemsize),
        index_plane(p, i),
        &p.window,
    )


cdef void avg_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef Pooling *p = <Pooling *> ctx
    p.kernels.avg_pool(
        plane(&p.y, i, p.kernels.itemsize),
        plane(&p.x, i, p.kernels.itemsize),
        &p.window,
    )


cdef void avg_grad_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef Pooling *p = <Pooling *> ctx
    p.kernels.avg_pool_grad(
        plane(&p.x, i, p.kernels.itemsize),
        plane(&p.y, i, p.kernels.itemsize),
        &p.window,
    )
