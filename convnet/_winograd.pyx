# SPDX-License-Identifier: MIT
"""Winograd convolution, forward and input gradient.

F(m x m, r x r) with n = m + r - 1 points on each axis; pieces of kernels and phases of
a strided convolution have filters of r x r taps each, those that do not exist being
zero.
"""

cimport numpy as cnp

from convnet._kernels cimport Flushing, active_kernels, flush_denormals
from convnet._operands cimport (
    Steps, describe_array, describe_finish, describe_rows, no_finish,
)
from convnet._winograd_product cimport Winograd, n_copies, run_winograd

cnp.import_array()


def forward(
    cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray y, object tiling,
    Steps steps, Py_ssize_t groups, int num_threads, dict packings=None,
    cnp.ndarray residual=None, clip=None, list plans=None,
):
    """Write the convolution of `x` with `weight` plus `bias` to `y`.

    `tiling` is a `convnet._tiling.Tiling`; the other arguments are as for the direct
    convolution.
    """
    cdef Flushing _flushing = flush_denormals(y.itemsize)
    cdef Winograd p
    describe(&p, x, weight, y, steps, groups, tiling)
    p.step, p.ways, p.filters.flip = <int> steps.SH, 1, False
    p.x.C, p.R = weight.shape[1], weight.shape[0] // groups
    p.filters.row_stride = weight.shape[1] * steps.KH * steps.KW
    p.filters.channel_stride = steps.KH * steps.KW
    p.finish = describe_finish(y, bias, residual, clip)
    p.dh, p.dw = -steps.PT, -steps.PL
    cut_tiles(&p)
    run_winograd(&p, num_threads, plans, packings)


def grad_input(
    cnp.ndarray grad_y, cnp.ndarray weight, cnp.ndarray grad_x, object tiling,
    Steps steps, Py_ssize_t groups, int num_threads, list plans=None,
):
    """Write the gradient of the input to `grad_x`: the filters turned round.

    Pixel S*i + a - P of phase a sums grad_y[i - t] * weight[S*t + a] over taps t.
    """
    cdef Flushing _flushing = flush_denormals(grad_x.itemsize)
    cdef Winograd p
    cdef Py_ssize_t top = steps.PT // steps.SH, left = steps.PL // steps.SW
    describe(&p, grad_y, weight, grad_x, steps, groups, tiling)
    p.step, p.ways, p.filters.flip = 1, <int> steps.SH, True
    p.x.C = weight.shape[0] // groups
    p.R = weight.shape[1] * p.ways * p.ways
    p.filters.row_stride = steps.KH * steps.KW
    p.filters.channel_stride = weight.shape[1] * steps.KH * steps.KW
    p.skip_h, p.skip_w = steps.PT - top * steps.SH, steps.PL - left * steps.SW
    p.dh = top - (p.filters.pieces_h * p.filters.r - 1) * p.DH
    p.dw = left - (p.filters.pieces_w * p.filters.r - 1) * p.DW
    cut_tiles(&p)
    run_winograd(&p, num_threads, plans, None)


cdef int describe(
    Winograd *p, cnp.ndarray x, cnp.ndarray weight, cnp.ndarray y, Steps steps,
    Py_ssize_t groups, object tiling,
) except -1:
    cdef int points, r, pieces_h, pieces_w
    points, r, (pieces_h, pieces_w) = tiling
    p.kernels = active_kernels(<int> x.itemsize)
    p.x, p.y = describe_array(x), describe_array(y)
    p.x_row = describe_rows(x)
    p.n, p.m, p.n_points = points, points - r + 1, points * points
    p.filters.n, p.filters.r = points, r
    p.filters.pieces_h, p.filters.pieces_w = pieces_h, pieces_w
    p.filters.KH, p.filters.KW = steps.KH, steps.KW
    p.weight = <const char *> cnp.PyArray_DATA(weight)
    p.filters.end = p.weight + cnp.PyArray_NBYTES(weight)
    p.G, p.group_stride = groups, cnp.PyArray_SIZE(weight) // groups
    p.finish = no_finish()
    p.skip_h = p.skip_w = 0
    p.DH, p.DW = steps.DH, steps.DW
    return 0


cdef void cut_tiles(Winograd *p) noexcept:
    cdef Py_ssize_t size = p.m * p.ways
    p.C = p.x.C * n_copies(p)
    p.filters.step, p.filters.ways = p.step, p.ways
    p.TH = ((p.y.H + p.DH - 1) // p.DH + p.skip_h + size - 1) // size
    p.TW = ((p.y.W + p.DW - 1) // p.DW + p.skip_w + size - 1) // size
    p.n_images = p.y.N * min(p.DH, p.y.H) * min(p.DW, p.y.W)
