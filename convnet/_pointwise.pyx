# SPDX-License-Identifier: MIT
"""Rectifiers and steps of optimizers: one pass over contiguous arrays, in pieces."""

cimport numpy as cnp

from convnet._kernels cimport (
    Flushing, active_kernels, cn_adam_t, cn_kernels_t, flush_denormals, run_tasks,
)

cnp.import_array()

# Elements of a task. One takes as long as so many operations of a convolution.
cdef Py_ssize_t PIECE = 32 * 1024
cdef double ELEMENT_WORK = 8.0


# One operation on n elements of arrays that begin at `operand`.
cdef struct Pointwise:
    const cn_kernels_t *kernels
    void (*operation)(
        const Pointwise *p, char **operand, Py_ssize_t n
    ) noexcept nogil
    char *operand[4]
    Py_ssize_t size
    double lr, momentum, decay
    bint nesterov
    cn_adam_t adam


def rectify(cnp.ndarray x, cnp.ndarray y, int num_threads):
    """Write max(x, 0) to `y`, which may be `x`; NaN stays."""
    cdef Pointwise p
    p.operation = rectify_piece
    describe(&p, y, x, None, None)
    run(&p, num_threads)


def rectify_grad(
    cnp.ndarray grad_y, cnp.ndarray y, cnp.ndarray grad_x, int num_threads
):
    """Write `grad_y` to `grad_x` where `y` is above 0, and 0 elsewhere."""
    cdef Pointwise p
    p.operation = rectify_grad_piece
    describe(&p, grad_x, grad_y, y, None)
    run(&p, num_threads)


def sgd_step(
    cnp.ndarray value, cnp.ndarray grad, cnp.ndarray velocity, double lr,
    double momentum, double decay, bint nesterov, int num_threads,
):
    """Take a step of gradient descent; `velocity` is None without momentum.

    A velocity whose gradient stays zero decays to a denormal and never to zero.
    """
    cdef Flushing _flushing = flush_denormals(value.itemsize)
    cdef Pointwise p
    p.operation = sgd_piece
    p.lr, p.momentum, p.decay, p.nesterov = lr, momentum, decay, nesterov
    describe(&p, value, grad, velocity, None)
    run(&p, num_threads)


def adam_step(
    cnp.ndarray value, cnp.ndarray grad, cnp.ndarray mean, cnp.ndarray square,
    cn_adam_t factors, int num_threads,
):
    """Take a step of Adam; `factors` is a dict of them."""
    cdef Flushing _flushing = flush_denormals(value.itemsize)
    cdef Pointwise p
    p.operation, p.adam = adam_piece, factors
    describe(&p, value, grad, mean, square)
    run(&p, num_threads)


cdef void describe(
    Pointwise *p, cnp.ndarray result, cnp.ndarray a, cnp.ndarray b, cnp.ndarray c
) noexcept:
    p.kernels = active_kernels(cnp.PyArray_ITEMSIZE(result))
    p.size = cnp.PyArray_SIZE(result)
    p.operand[0], p.operand[1] = result.data, a.data
    p.operand[2] = NULL if b is None else b.data
    p.operand[3] = NULL if c is None else c.data


cdef int run(Pointwise *p, int num_threads) except -1:
    cdef Py_ssize_t n_tasks = (p.size + PIECE - 1) // PIECE
    if n_tasks == 1:
        p.operation(p, p.operand, p.size)
        return 0
    return run_tasks(piece_task, p, n_tasks, num_threads, ELEMENT_WORK * p.size)


cdef void piece_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef const Pointwise *p = <const Pointwise *> ctx
    cdef Py_ssize_t first = i * PIECE
    cdef char *operand[4]
    for k in range(4):
        operand[k] = p.operand[k]
        if operand[k] != NULL:
            operand[k] += first * p.kernels.itemsize
    p.operation(p, operand, min(PIECE, p.size - first))


cdef void rectify_piece(
    const Pointwise *p, char **operand, Py_ssize_t n
) noexcept nogil:
    p.kernels.rectify(operand[0], operand[1], n)


cdef void rectify_grad_piece(
    const Pointwise *p, char **operand, Py_ssize_t n
) noexcept nogil:
    p.kernels.rectify_grad(operand[0], operand[1], operand[2], n)


cdef void sgd_piece(const Pointwise *p, char **operand, Py_ssize_t n) noexcept nogil:
    p.kernels.sgd_step(
        operand[0], operand[2], operand[1], n, p.lr, p.momentum, p.decay, p.nesterov
    )


cdef void adam_piece(const Pointwise *p, char **operand, Py_ssize_t n) noexcept nogil:
    p.kernels.adam_step(operand[0], operand[2], operand[3], operand[1], n, &p.adam)
