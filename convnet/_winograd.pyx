# SPDX-License-Identifier: MIT
"""Winograd convolution of 3x3 kernels at stride 1, forward and input gradient."""

cimport numpy as cnp

from convnet._kernels cimport Flushing, active_kernels, flush_denormals
from convnet._operands cimport (
    Steps, describe_array, describe_finish, describe_rows, no_finish,
)
from convnet._winograd_product cimport Winograd, run_winograd

cnp.import_array()


def forward(
    cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray y, int m,
    Steps steps, Py_ssize_t groups, int num_threads, dict packings=None,
    cnp.ndarray residual=None, clip=None, list plans=None,
):
    """Write the convolution of `x` with `weight` plus `bias` to `y`, by F(m, 3).

    The other arguments are as for the direct convolution.
    """
    cdef Flushing _flushing = flush_denormals(y.itemsize)
    cdef Winograd p
    describe(&p, x, weight, y, groups, m)
    p.R, p.x.C = weight.shape[0] // groups, weight.shape[1]
    p.row_stride, p.channel_stride = weight.shape[1] * 9, 9
    p.flip = False
    p.finish = describe_finish(y, bias, residual, clip)
    p.dh, p.dw = -steps.PT, -steps.PL
    run_winograd(&p, num_threads, plans, packings)


def grad_input(
    cnp.ndarray grad_y, cnp.ndarray weight, cnp.ndarray grad_x, int m, Steps steps,
    Py_ssize_t groups, int num_threads, list plans=None,
):
    """Write the gradient of the input to `grad_x`: the filters turned round."""
    cdef Flushing _flushing = flush_denormals(grad_x.itemsize)
    cdef Winograd p
    describe(&p, grad_y, weight, grad_x, groups, m)
    p.R, p.x.C = weight.shape[1], weight.shape[0] // groups
    p.row_stride, p.channel_stride = 9, weight.shape[1] * 9
    p.flip = True
    p.dh, p.dw = steps.PT - 2, steps.PL - 2
    run_winograd(&p, num_threads, plans, None)


cdef void describe(
    Winograd *p, cnp.ndarray x, cnp.ndarray weight, cnp.ndarray y, Py_ssize_t groups,
    int m,
) noexcept:
    p.kernels = active_kernels(<int> x.itemsize)
    p.x, p.y = describe_array(x), describe_array(y)
    p.x_row = describe_rows(x)
    p.m, p.n_points = m, (m + 2) * (m + 2)
    p.TH, p.TW = (p.y.H + m - 1) // m, (p.y.W + m - 1) // m
    p.weight = <const char *> cnp.PyArray_DATA(weight)
    p.G, p.group_stride = groups, weight.shape[0] // groups * weight.shape[1] * 9
    p.finish = no_finish()
