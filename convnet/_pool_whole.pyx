# SPDX-License-Identifier: MIT
"""Averages of whole planes, their gradients, and maxima: a run of memory each."""

cimport numpy as cnp

from convnet._kernels cimport active_kernels, cn_kernels_t, run_tasks
from convnet._operands cimport Image, Steps, describe_array, is_flat

cnp.import_array()

# Elements of a task. One takes as long as so many operations of a convolution.
cdef Py_ssize_t PIECE = 32 * 1024
cdef double ELEMENT_WORK = 16


cdef enum Operation:
    AVERAGE, SPREAD, MAXIMUM

cdef struct Whole:
    const cn_kernels_t *kernels
    Image x, y                      # y has one pixel for each plane of x
    double divisor
    Operation operation
    Py_ssize_t n_planes, task_planes


cpdef bint is_whole(cnp.ndarray x, Steps steps) noexcept:
    """Whether the only window is all of each plane of `x`, and rows follow each other.
    """
    cdef Image image = describe_array(x)
    return (
        image.H == steps.KH and image.W == steps.KW and steps.DH == steps.DW == 1
        and steps.PT == steps.PL == steps.PB == steps.PR == 0
        and is_flat(&image)
    )


def average(cnp.ndarray x, cnp.ndarray y, Py_ssize_t divisor, int num_threads):
    """Write the averages of the planes of `x` to `y`; a divisor of 0 is their size."""
    run(x, y, divisor, AVERAGE, num_threads)


def spread(cnp.ndarray grad_y, cnp.ndarray grad_x, Py_ssize_t divisor, int num_threads):
    """Write the gradient of averages to `grad_x`."""
    run(grad_x, grad_y, divisor, SPREAD, num_threads)


def maximum(cnp.ndarray x, cnp.ndarray y, int num_threads):
    """Write the maxima of the planes of `x` to `y`."""
    run(x, y, 1, MAXIMUM, num_threads)


cdef int run(
    cnp.ndarray x, cnp.ndarray y, Py_ssize_t divisor, Operation operation,
    int num_threads,
) except -1:
    cdef Whole p
    cdef Py_ssize_t size
    p.kernels, p.operation = active_kernels(<int> x.itemsize), operation
    p.x, p.y = describe_array(x), describe_array(y)
    size = p.x.H * p.x.W
    p.divisor, p.n_planes = divisor if divisor > 0 else size, p.x.N * p.x.C
    p.task_planes = max(1, PIECE // size)
    return run_tasks(
        planes_task, &p, (p.n_planes + p.task_planes - 1) // p.task_planes,
        num_threads, ELEMENT_WORK * p.n_planes * size,
    )


cdef void planes_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Some planes, counted through all images."""
    cdef const Whole *p = <const Whole *> ctx
    cdef Py_ssize_t plane = i * p.task_planes, size = p.x.H * p.x.W, n, c, count
    cdef Py_ssize_t end = min(plane + p.task_planes, p.n_planes)
    cdef char *x
    cdef char *y
    while plane < end:
        n, c = plane // p.x.C, plane % p.x.C
        count = min(p.x.C - c, end - plane)
        x = p.x.data + (n * p.x.sn + c * p.x.sc) * p.kernels.itemsize
        y = p.y.data + (n * p.y.sn + c * p.y.sc) * p.kernels.itemsize
        if p.operation == MAXIMUM:
            p.kernels.max_planes(y, p.y.sc, x, p.x.sc, count, size)
        elif p.operation == SPREAD:
            p.kernels.spread_planes(x, p.x.sc, y, p.y.sc, count, size, p.divisor)
        else:
            p.kernels.mean_planes(y, p.y.sc, x, p.x.sc, count, size, p.divisor)
        plane += count
