# SPDX-License-Identifier: MIT
"""Pooling drivers.

A task is some rows of the result, counted through all channel planes of all images:
many small planes or a part of a large one. How many follows from the shapes alone.
Where channels lie side by side in all arrays, those of an image count as one plane.
"""

cimport numpy as cnp

from libc.stdint cimport int64_t

from convnet._kernels cimport active_kernels, cn_kernels_t, cn_pool_t, run_tasks
from convnet._operands cimport Image, describe_array

cnp.import_array()


# Work of a task: enough to make the counter that hands it out cheap, and little enough
# to spread over threads and to let Ctrl-C in.
cdef double TASK_WORK = 5e5

# Rows [first, end) of the result, in one channel plane.
ctypedef void (*operation_t)(
    Pooling *p, Py_ssize_t plane, Py_ssize_t first, Py_ssize_t end
) noexcept nogil


cdef struct Pooling:
    const cn_kernels_t *kernels
    cn_pool_t window
    Image x, y, index
    int all_inside                  # indices: cleared by any task that finds a stray
    operation_t operation
    Py_ssize_t plane_rows, n_rows, task_rows    # of a plane, of all planes, of a task
    Py_ssize_t n_channels           # planes that count as one: channels side by side


def max_forward(
    cnp.ndarray x, cnp.ndarray y, indices, kernel, stride, padding, dilation,
    int num_threads,
):
    """Write the maxima of windows to `y`, and where they were found to `indices`."""
    cdef Pooling p
    describe(&p, x, y, indices, kernel, stride, padding, dilation)
    run(&p, max_rows, p.y.H, 1, num_threads)


def max_backward(
    cnp.ndarray grad_y, cnp.ndarray indices, cnp.ndarray grad_x, kernel, stride,
    padding, dilation, int num_threads,
):
    """Write the gradient to `grad_x`; if an index is wrong, nothing, and say False."""
    cdef Pooling p
    describe(&p, grad_x, grad_y, indices, kernel, stride, padding, dilation)
    run(&p, check_rows, p.y.H, 1, num_threads)
    if p.all_inside:
        run_backward(&p, max_grad_rows, num_threads)
    return bool(p.all_inside)


def avg_forward(
    cnp.ndarray x, cnp.ndarray y, kernel, stride, padding, bint count_include_pad,
    Py_ssize_t divisor, int num_threads,
):
    """Write the averages of windows to `y`; `padding` is (top, left, bottom, right)."""
    cdef Pooling p
    describe(&p, x, y, None, kernel, stride, padding, (1, 1))
    describe_average(&p, padding, count_include_pad, divisor)
    run(&p, avg_rows, p.y.H, 1, num_threads)


def avg_backward(
    cnp.ndarray grad_y, cnp.ndarray grad_x, kernel, stride, padding,
    bint count_include_pad, Py_ssize_t divisor, int num_threads,
):
    """Write the gradient of averages to `grad_x`."""
    cdef Pooling p
    describe(&p, grad_x, grad_y, None, kernel, stride, padding, (1, 1))
    describe_average(&p, padding, count_include_pad, divisor)
    run_backward(&p, avg_grad_rows, num_threads)


cdef int describe(
    Pooling *p, cnp.ndarray x, cnp.ndarray y, indices, kernel, stride, padding, dilation
) except -1:
    cdef cn_pool_t *w = &p.window
    p.kernels = active_kernels(<int> x.itemsize)
    p.x, p.y = describe_array(x), describe_array(y)
    p.index.data, p.all_inside = NULL, True
    w.index_row_stride, w.index_col_stride = 0, 0
    if indices is not None:
        p.index = describe_array(indices)
        w.index_row_stride, w.index_col_stride = p.index.sh, p.index.sw
    p.n_channels = 1
    if p.x.sc == p.y.sc == 1 and (indices is None or p.index.sc == 1):
        p.n_channels = p.x.C if p.x.C >= p.kernels.lanes else 1
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


cdef int run_backward(Pooling *p, operation_t operation, int num_threads) except -1:
    # Neighbouring tasks meet the same windows. Where tasks have no fewer rows than
    # windows have, none meets more than twice as many as are its own.
    cdef Py_ssize_t window_rows = p.window.KH * p.window.DH
    return run(p, operation, p.x.H, min(window_rows, p.x.H), num_threads)


cdef int run(
    Pooling *p, operation_t operation, Py_ssize_t plane_rows, Py_ssize_t least_rows,
    int num_threads,
) except -1:
    """Run an operation on all rows of the result, at least so many in a task."""
    cdef const cn_pool_t *w = &p.window
    cdef double windows = <double> p.y.N * p.y.C * p.y.H * p.y.W
    cdef double work = windows * w.KH * w.KW * 8
    p.operation, p.plane_rows = operation, plane_rows
    p.n_rows = p.x.N * (p.x.C // p.n_channels) * plane_rows
    p.task_rows = max(least_rows, <Py_ssize_t> min(TASK_WORK * p.n_rows / work, 1e9))
    return run_tasks(
        rows_task, p, (p.n_rows + p.task_rows - 1) // p.task_rows, num_threads, work
    )


cdef void rows_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Cut the rows of a task where planes end."""
    cdef Pooling *p = <Pooling *> ctx
    cdef Py_ssize_t row = i * p.task_rows, end = min(row + p.task_rows, p.n_rows)
    cdef Py_ssize_t first, n
    while row < end:
        first = row % p.plane_rows
        n = min(p.plane_rows - first, end - row)
        p.operation(p, row // p.plane_rows, first, first + n)
        row += n


cdef inline char *plane(
    const Pooling *p, const Image *image, Py_ssize_t i, int itemsize
) noexcept nogil:
    """Plane i of an image, or the first one of group i, counting (n, c) in order."""
    cdef Py_ssize_t groups = image.C // p.n_channels
    return image.data + itemsize * (
        i // groups * image.sn + i % groups * p.n_channels * image.sc
    )


cdef inline int64_t *index_plane(const Pooling *p, Py_ssize_t i) noexcept nogil:
    if p.index.data == NULL:
        return NULL
    return <int64_t *> plane(p, &p.index, i, sizeof(int64_t))


cdef void max_rows(
    Pooling *p, Py_ssize_t i, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    p.kernels.max_pool(
        plane(p, &p.y, i, p.kernels.itemsize),
        index_plane(p, i),
        plane(p, &p.x, i, p.kernels.itemsize),
        &p.window,
        first,
        end,
        p.n_channels,
    )


cdef void check_rows(
    Pooling *p, Py_ssize_t i, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    if not p.kernels.check_indices(
        index_plane(p, i), &p.window, first, end, p.n_channels
    ):
        p.all_inside = False


cdef void max_grad_rows(
    Pooling *p, Py_ssize_t i, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    p.kernels.max_pool_grad(
        plane(p, &p.x, i, p.kernels.itemsize),
        plane(p, &p.y, i, p.kernels.itemsize),
        index_plane(p, i),
        &p.window,
        first,
        end,
        p.n_channels,
    )


cdef void avg_rows(
    Pooling *p, Py_ssize_t i, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    p.kernels.avg_pool(
        plane(p, &p.y, i, p.kernels.itemsize),
        plane(p, &p.x, i, p.kernels.itemsize),
        &p.window,
        first,
        end,
        p.n_channels,
    )


cdef void avg_grad_rows(
    Pooling *p, Py_ssize_t i, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    p.kernels.avg_pool_grad(
        plane(p, &p.x, i, p.kernels.itemsize),
        plane(p, &p.y, i, p.kernels.itemsize),
        &p.window,
        first,
        end,
        p.n_channels,
    )
