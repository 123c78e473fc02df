# SPDX-License-Identifier: MIT
"""Dense convolution, forward and input gradient: one blocked product for both.

The input gradient of a convolution with stride (SH, SW) is SH * SW products, one for
each phase of the input pixels: pixels (SH*i + a, SW*j + b) meet only the taps that fall
on the output grid, with unit steps. No zero-stuffed array, no scatter; but few pixels
by many filters add up windows instead (``_matrix.pyx``).
"""

cimport numpy as cnp

import numpy as np

from convnet._depthwise cimport is_better_by_channels, run_depthwise
from convnet._kernels cimport Flushing, active_kernels, flush_denormals, give_back
from convnet._matrix cimport (
    are_few_windows, is_matrix, multiply_matrix, multiply_windows,
)
from convnet._operands cimport (
    Image, Steps, add_tap, describe_array, describe_finish, describe_rows, no_finish,
    place_tap_arrays, take_tap_memory,
)
from convnet._planar cimport is_better_planar, run_planar
from convnet._product cimport Phases, Product, run_product
from convnet._tap_by_tap cimport are_finite, is_better_tap_by_tap, multiply_taps

cnp.import_array()


def forward(
    cnp.ndarray x,
    cnp.ndarray weight,
    cnp.ndarray bias,
    cnp.ndarray y,
    Steps steps,
    Py_ssize_t groups,
    int num_threads,
    dict packings=None,
    cnp.ndarray residual=None,
    clip=None,
    bint keep_denormals=False,
    list plans=None,
):
    """Write the convolution of `x` with `weight`, plus `bias`, to `y`.

    With a list as `plans`, nothing is computed: what would be is appended to it. A dict
    as `packings` keeps the packed weights, which must not change, for later calls. An
    array of y's shape as `residual` is added to the result, unless there is an untied
    bias; then it is kept between the two numbers of `clip`. Denormals of float32 count
    as zero unless they are to be kept.
    """
    cdef Product p
    cdef Flushing _flushing = flush_denormals(y.itemsize, keep_denormals)
    cdef Py_ssize_t KH = steps.KH, KW = steps.KW, t
    describe(&p, x, weight, y, groups)
    p.R, p.pixels.x.C = weight.shape[0] // groups, weight.shape[1]
    p.row_stride, p.channel_stride = weight.shape[1] * KH * KW, KH * KW
    p.pixels.step_h, p.pixels.step_w = steps.SH, steps.SW
    p.finish = describe_finish(y, bias, residual, clip)
    if is_better_by_channels(&p, steps, False):
        run_depthwise(&p, steps, False, num_threads, plans)
        return
    if is_better_planar(&p, steps, False):
        run_planar(&p, steps, False, num_threads, plans)
        return
    cdef Py_ssize_t *memory = take_tap_memory(KH * KW)
    try:
        place_tap_arrays(&p.pixels.taps, memory, KH * KW)
        for t in range(KH * KW):
            add_tap(
                &p.pixels.taps,
                t // KW * steps.DH - steps.PT,
                t % KW * steps.DW - steps.PL,
                t,
            )
        if (
            is_better_tap_by_tap(&p, steps, False)
            and (bias is None or bias.ndim == 1)
            and (plans is not None or are_finite(weight, packings))
        ):
            if plans is None:
                y[...] = 0 if residual is None else residual
            p.finish = describe_finish(y, bias, y, clip)
            multiply_taps(&p, num_threads, plans, packings)
        else:
            run_product(&p, num_threads, plans, packings)
    finally:
        give_back(memory)


def grad_input(
    cnp.ndarray grad_y,
    cnp.ndarray weight,
    cnp.ndarray grad_x,
    Steps steps,
    Py_ssize_t groups,
    int num_threads,
    list plans=None,
):
    """Write the gradient with respect to the input to `grad_x`."""
    cdef Product p
    cdef Flushing _flushing = flush_denormals(grad_x.itemsize)
    cdef Py_ssize_t KH = steps.KH, KW = steps.KW, t
    cdef bint strided = steps.SH != 1 or steps.SW != 1
    describe(&p, grad_y, weight, grad_x, groups)
    p.R, p.pixels.x.C = weight.shape[1], weight.shape[0] // groups
    p.row_stride, p.channel_stride = KH * KW, weight.shape[1] * KH * KW
    p.pixels.step_h, p.pixels.step_w = 1, 1
    if groups == 1 and KH * KW == 1 and not strided and is_matrix(&p):
        multiply_matrix(&p, num_threads, plans)
        return
    if is_better_by_channels(&p, steps, True):
        run_depthwise(&p, steps, True, num_threads, plans)
        return
    if is_better_planar(&p, steps, True):
        run_planar(&p, steps, True, num_threads, plans)
        return
    if are_few_windows(&p, steps):
        if plans is None:
            grad_y = np.ascontiguousarray(grad_y.swapaxes(0, 1))
        multiply_windows(&p, cnp.PyArray_BYTES(grad_y), steps, num_threads, plans)
        return
    cdef Py_ssize_t *memory = take_tap_memory(KH * KW)
    try:
        place_tap_arrays(&p.pixels.taps, memory, KH * KW)
        if strided:
            multiply_by_phases(&p, grad_x, steps, num_threads, plans)
            return
        for t in range(KH * KW):
            add_tap(
                &p.pixels.taps,
                steps.PT - t // KW * steps.DH,
                steps.PL - t % KW * steps.DW,
                t,
            )
        if is_better_tap_by_tap(&p, steps, True):
            if plans is None:
                grad_x[...] = 0
            p.finish.accumulate = True
            multiply_taps(&p, num_threads, plans, None)
        else:
            run_product(&p, num_threads, plans, None)
    finally:
        give_back(memory)


cdef int multiply_by_phases(
    Product *p, cnp.ndarray grad_x, Steps steps, int num_threads, list plans
) except -1:
    """Describe the phases of y's pixels and their taps; then multiply."""
    cdef Image whole = p.pixels.y
    cdef Phases phases
    rows = phase_taps(whole.H, steps.KH, steps.SH, steps.DH, steps.PT)
    cols = phase_taps(whole.W, steps.KW, steps.SW, steps.DW, steps.PL)
    if not rows or not cols:
        if plans is None:
            grad_x[...] = 0         # no pixel is under a window
        return 0
    # Rows and columns of taps of all phases, rising; where each phase finds its own.
    dhs = sorted({dh for taps in rows.values() for _, dh in taps})
    dws = sorted({dw for taps in cols.values() for _, dw in taps})
    for dh in dhs:
        for dw in dws:
            add_tap(&p.pixels.taps, dh, dw, 0)
    row_of = {dh: i * len(dws) for i, dh in enumerate(dhs)}
    col_of = {dw: i for i, dw in enumerate(dws)}
    chosen, offsets, firsts = [], [], [0]
    for row_taps in rows.values():
        for col_taps in cols.values():
            for kh, dh in reversed(row_taps):
                for kw, dw in reversed(col_taps):
                    chosen.append(row_of[dh] + col_of[dw])
                    offsets.append(kh * steps.KW + kw)
            firsts.append(len(offsets))
    # Arrays of intp, which live as long as the call.
    tap, offset = np.array(chosen, np.intp), np.array(offsets, np.intp)
    first_tap = np.array(firsts, np.intp)
    row_phase = number_phases(rows, min(steps.SH, whole.H))
    col_phase = number_phases(cols, min(steps.SW, whole.W))
    phases.SH, phases.SW, phases.n_cols = steps.SH, steps.SW, len(cols)
    phases.H, phases.W, phases.sh, phases.sw = whole.H, whole.W, whole.sh, whole.sw
    phases.row_phase, phases.col_phase = data_of(row_phase), data_of(col_phase)
    phases.first_tap, phases.tap = data_of(first_tap), data_of(tap)
    p.phases, p.n_taps, p.tap = &phases, len(offsets), data_of(offset)
    p.pixels.y.H = (whole.H + phases.SH - 1) // phases.SH
    p.pixels.y.W = (whole.W + phases.SW - 1) // phases.SW
    p.pixels.y.sh, p.pixels.y.sw = whole.sh * phases.SH, whole.sw * phases.SW
    return run_product(p, num_threads, plans, None)


cdef inline const Py_ssize_t *data_of(array) noexcept:
    return <const Py_ssize_t *> cnp.PyArray_DATA(<cnp.ndarray> array)


cdef object number_phases(phases, n):
    """Return which of the phases each of n is, by its place in the dict, or -1."""
    numbers = np.full(n, -1, np.intp)
    numbers[list(phases)] = range(len(phases))
    return numbers


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
    p.finish, p.phases = no_finish(), NULL
    p.streamed, p.turned = False, NULL
