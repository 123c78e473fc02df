# SPDX-License-Identifier: MIT
"""Dense convolution, forward and input gradient: one blocked product for both.

The input gradient of a convolution with stride (SH, SW) is SH * SW products, one for
each phase of the input pixels: pixels (SH*i + a, SW*j + b) meet only the taps that fall
on the output grid, with unit steps. No zero-stuffed array, no scatter.
"""

cimport numpy as cnp

import numpy as np

from convnet._blocks cimport Gather
from convnet._kernels cimport active_kernels, give_back
from convnet._operands cimport (
    TAP_ARRAYS, Image, add_tap, describe_array, describe_rows, find_addend,
    place_tap_arrays, take_tap_memory,
)
from convnet._product cimport Product, run_product

cnp.import_array()

# Pixels up to which the gradient of a 1x1 convolution is a product with a matrix.
cdef Py_ssize_t MATRIX_PIXELS = 256


def forward(
    cnp.ndarray x,
    cnp.ndarray weight,
    bias,
    cnp.ndarray y,
    stride,
    padding,
    dilation,
    Py_ssize_t groups,
    int num_threads,
    list plans=None,
    dict packings=None,
    residual=None,
    clip=None,
):
    """Write the convolution of `x` with `weight`, plus `bias`, to `y`.

    With a list as `plans`, nothing is computed: what would be is appended to it. A dict
    as `packings` keeps the packed weights, which must not change, for later calls. An
    array of y's shape as `residual` is added to the result, unless there is an untied
    bias; then it is kept between the two numbers of `clip`.
    """
    cdef Product p
    cdef cnp.ndarray bias_array
    cdef Py_ssize_t KH = weight.shape[2], KW = weight.shape[3]
    cdef Py_ssize_t DH = dilation[0], DW = dilation[1]
    cdef Py_ssize_t PT = padding[0], PL = padding[1], t
    describe(&p, x, weight, y, groups)
    p.R, p.pixels.x.C = weight.shape[0] // groups, weight.shape[1]
    p.row_stride, p.channel_stride = weight.shape[1] * KH * KW, KH * KW
    p.pixels.step_h, p.pixels.step_w = stride[0], stride[1]
    if bias is not None:
        bias_array = np.ascontiguousarray(bias)
        if bias_array.ndim == 1:
            p.bias = <const char *> cnp.PyArray_DATA(bias_array)
        else:
            y[...] = bias_array
            p.accumulate = True
    if residual is not None:
        p.addend = find_addend(y, residual)
        p.accumulate = True
    if clip is not None:
        p.clip, p.low, p.high = True, clip[0], clip[1]
    cdef Py_ssize_t *memory = take_tap_memory(KH * KW)
    try:
        place_tap_arrays(&p.pixels.taps, memory, KH * KW)
        for t in range(KH * KW):
            add_tap(&p.pixels.taps, t // KW * DH - PT, t % KW * DW - PL, t)
        run_product(&p, num_threads, plans, packings)
    finally:
        give_back(memory)


def grad_input(
    cnp.ndarray grad_y,
    cnp.ndarray weight,
    cnp.ndarray grad_x,
    stride,
    padding,
    dilation,
    Py_ssize_t groups,
    int num_threads,
    list plans=None,
):
    """Write the gradient with respect to the input to `grad_x`, phase by phase."""
    cdef Product p, phase
    cdef Py_ssize_t KH = weight.shape[2], KW = weight.shape[3]
    cdef Py_ssize_t SH = stride[0], SW = stride[1]
    cdef Py_ssize_t a, b, kh, kw, dh, dw
    describe(&p, grad_y, weight, grad_x, groups)
    p.R, p.pixels.x.C = weight.shape[1], weight.shape[0] // groups
    p.row_stride, p.channel_stride = KH * KW, weight.shape[1] * KH * KW
    p.pixels.step_h, p.pixels.step_w = 1, 1
    cdef Image whole = p.pixels.y
    cdef dict rows, cols
    if is_matrix(&p, KH * KW, stride) and groups == 1:
        multiply_matrix(&p, num_threads, plans)
        return
    p.woven = SW == 2 and whole.sw == 1
    cdef Py_ssize_t *memory = take_tap_memory(KH * KW)
    try:
        rows = phase_taps(whole.H, KH, SH, dilation[0], padding[0])
        cols = phase_taps(whole.W, KW, SW, dilation[1], padding[1])
        reached = len(rows) * len(cols)
        if plans is None and reached < min(SH, whole.H) * min(SW, whole.W):
            grad_x[...] = 0         # some pixels are under no window
        for a in rows:
            for b in cols:
                phase = p           # planning joins the rows of either image
                phase.pixels.y = take_phase(
                    whole, a, b, SH, SW, p.pixels.kernels.itemsize
                )
                place_tap_arrays(&phase.pixels.taps, memory, KH * KW)
                for kh, dh in rows[a]:
                    for kw, dw in cols[b]:
                        add_tap(&phase.pixels.taps, dh, dw, kh * KW + kw)
                run_product(&phase, num_threads, plans, None)
    finally:
        give_back(memory)


cdef bint is_matrix(const Product *p, Py_ssize_t T, stride) noexcept:
    """Whether a 1x1 gradient has so few pixels that weights are better not packed."""
    cdef Image x = p.pixels.x
    return (
        T == 1
        and stride[0] == stride[1] == 1
        and x.N == 1
        and x.H * x.W <= MATRIX_PIXELS
        and x.sh == x.W * x.sw
        and p.pixels.y.H == x.H
        and p.pixels.y.W == x.W
        and p.pixels.y.sh == p.pixels.y.W * p.pixels.y.sw
    )


cdef int multiply_matrix(Product *p, int num_threads, list plans) except -1:
    """The product with its sides exchanged: pixels are the rows, channels the columns.

    A row of weights is an image of channels; nothing in it has to be transposed.
    """
    cdef Py_ssize_t memory[TAP_ARRAYS]
    cdef Image y = p.pixels.y, x = p.pixels.x
    cdef Gather *g = &p.pixels
    g.x.data, g.x.H, g.x.W, g.x.sn = <char *> p.weight, 1, p.R, 0
    g.x.sc, g.x.sh, g.x.sw = p.channel_stride, p.R, 1
    g.x_row.IW, g.x_row.col_stride = p.R, 1
    g.x_row.begin, g.x_row.end = p.weight, p.weight + g.x.C * p.R * g.kernels.itemsize
    g.y.H, g.y.W, g.y.sc, g.y.sh, g.y.sw = 1, p.R, y.sw, 0, y.sc
    p.weight, p.row_stride, p.channel_stride = x.data, x.sw, x.sc
    p.R = x.H * x.W
    place_tap_arrays(&g.taps, memory, 1)
    add_tap(&g.taps, 0, 0, 0)
    return run_product(p, num_threads, plans, None)


cdef dict phase_taps(n_pixels, n_taps, stride, dilation, padding):
    """Return the taps that meet each phase of the pixels along one axis.

    Pixel ``stride * i + phase`` is under tap k of window ``i + d``: a dict of lists of
    (k, d). Phases without pixels, or without taps, are left out.
    """
    phases = {}
    for k in range(n_taps):
        d, phase = divmod(k * dilation - padding, stride)
        if phase < n_pixels:
            phases.setdefault(phase, []).append((k, -d))
    return phases


cdef Image take_phase(
    Image whole, Py_ssize_t a, Py_ssize_t b, Py_ssize_t SH, Py_ssize_t SW, int itemsize
) noexcept nogil:
    """Every SH-th row from a and SW-th column from b of an image."""
    cdef Image image = whole
    image.data += (a * whole.sh + b * whole.sw) * itemsize
    image.H, image.W = (whole.H - a + SH - 1) // SH, (whole.W - b + SW - 1) // SW
    image.sh, image.sw = whole.sh * SH, whole.sw * SW
    return image


cdef void describe(
    Product *p, cnp.ndarray x, cnp.ndarray weight, cnp.ndarray y, Py_ssize_t groups
) noexcept:
    """Fill in what both passes share; `x` is gathered, `y` is written."""
    p.pixels.kernels = active_kernels(<int> x.itemsize)
    p.pixels.x, p.pixels.y = describe_array(x), describe_array(y)
    p.pixels.x_row = describe_rows(x)
    p.weight = <const char *> cnp.PyArray_DATA(weight)
    p.G = groups
    p.group_stride = (
        weight.shape[0] // groups * weight.shape[1] * weight.shape[2] * weight.shape[3]
    )
    p.bias, p.accumulate, p.addend, p.clip, p.woven = NULL, False, 0, False, False
