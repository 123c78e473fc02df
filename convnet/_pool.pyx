# SPDX-License-Identifier: MIT
"""Pooling drivers.

A task is some rows of the result, counted through all planes: many small planes or a
part of a large one. How many follows from the shapes alone.
"""

cimport numpy as cnp

from libc.stdint cimport int64_t
from libc.string cimport memset

from convnet._kernels cimport (
    active_kernels, cn_pool_t, give_back, run_tasks, take_scratch,
)
from convnet._operands cimport Steps
from convnet._pool_operations cimport (
    avg_grad_rows, avg_rows, max_grad_rows, max_rows, operation_t,
)
from convnet._pool_plan cimport Pooling, group_planes
from convnet._turning cimport describe_planes, find_plane, turn_in, turn_out

cnp.import_array()


# Work of a task: enough to make the counter that hands it out cheap, and little enough
# to spread over threads and to let Ctrl-C in. A pixel that is read or written takes as
# long as so many operations of a convolution, or longer where planes are turned.
cdef double TASK_WORK = 1e6, PIXEL_WORK = 35, TURNED_WORK = 90


def max_forward(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray indices, Steps steps, int num_threads
):
    """Write the maxima of windows to `y`, and where they were found to `indices`."""
    cdef Pooling p
    describe(&p, x, y, indices, steps)
    run(&p, max_rows, False, num_threads)


def max_backward(
    cnp.ndarray grad_y, cnp.ndarray indices, cnp.ndarray grad_x, Steps steps,
    int num_threads,
):
    """Write the gradient to `grad_x`, which has no gaps; tell if indices were right."""
    cdef Pooling p
    describe(&p, grad_x, grad_y, indices, steps)
    return run(&p, max_grad_rows, True, num_threads)


def avg_forward(
    cnp.ndarray x, cnp.ndarray y, Steps steps, bint count_include_pad,
    Py_ssize_t divisor, int num_threads,
):
    """Write the averages of windows to `y`; a divisor of 0 counts their pixels."""
    cdef Pooling p
    describe(&p, x, y, None, steps)
    p.window.count_include_pad, p.window.divisor = count_include_pad, divisor
    run(&p, avg_rows, False, num_threads)


def avg_backward(
    cnp.ndarray grad_y, cnp.ndarray grad_x, Steps steps, bint count_include_pad,
    Py_ssize_t divisor, int num_threads,
):
    """Write the gradient of averages to `grad_x`."""
    cdef Pooling p
    describe(&p, grad_x, grad_y, None, steps)
    p.window.count_include_pad, p.window.divisor = count_include_pad, divisor
    run(&p, avg_grad_rows, True, num_threads)


cdef void describe(
    Pooling *p, cnp.ndarray x, cnp.ndarray y, cnp.ndarray indices, Steps steps
) noexcept:
    cdef cn_pool_t *w = &p.window
    p.kernels = active_kernels(<int> x.itemsize)
    p.x, p.y = describe_planes(x), describe_planes(y)
    p.index = describe_planes(y if indices is None else indices)
    if indices is None:
        p.index.image.data = NULL
    w.KH, w.KW, w.SH, w.SW = steps.KH, steps.KW, steps.SH, steps.SW
    w.PT, w.PL, w.PB, w.PR = steps.PT, steps.PL, steps.PB, steps.PR
    w.DH, w.DW = steps.DH, steps.DW
    w.IH, w.IW, w.OH, w.OW = p.x.image.H, p.x.image.W, p.y.image.H, p.y.image.W
    w.x_row_stride, w.x_col_stride = p.x.image.sh, p.x.image.sw
    w.y_row_stride, w.y_col_stride = p.y.image.sh, p.y.image.sw
    w.index_row_stride, w.index_col_stride = p.index.image.sh, p.index.image.sw
    w.n_planes = 1
    w.x_end, w.y_end, w.index_end = p.x.row.end, p.y.row.end, p.index.row.end


cdef bint run(
    Pooling *p, operation_t operation, bint backward, int num_threads
) except -1:
    """Run an operation on all rows of its result; tell whether it could be."""
    cdef cn_pool_t *w = &p.window
    cdef Py_ssize_t reach_bytes = 0, count_bytes
    cdef bint counted
    cdef double planes = <double> p.y.image.N * p.y.image.C
    cdef double windows = planes * w.OH * w.OW
    cdef double work = planes * w.IH * w.IW + windows
    cdef Py_ssize_t least = 1, worker, missing = 0
    p.operation, p.backward, p.all_right = operation, backward, True
    p.scatters = operation == max_grad_rows
    p.plane_rows = w.OH
    if backward:
        # Neighbouring tasks meet the same windows. Where tasks have no fewer rows than
        # windows have, none meets more than twice as many as are its own.
        p.plane_rows, least = w.IH, min(w.IH, w.KH * w.DH)
    group_planes(p)
    work *= TURNED_WORK if p.turned else PIXEL_WORK
    work = max(work, 8 * windows * w.KH * w.KW)
    p.n_rows = p.x.image.N * p.groups * p.plane_rows
    if p.turned:
        least = max(least, p.block_rows)        # or a block is turned several times
    elif p.window.y_channel_stride != 1:
        least = p.plane_rows
    p.task_rows = max(least, <Py_ssize_t> min(TASK_WORK * p.n_rows / work, 1e9))
    if p.task_rows > p.plane_rows:      # whole planes
        p.task_rows -= p.task_rows % p.plane_rows
    w.reach = NULL
    counted = p.scatters and p.kernels.counts_windows(w, p.n_channels)
    if p.scatters and not counted:
        reach_bytes = p.kernels.list_reach(NULL, w) * p.kernels.itemsize
    count_bytes = num_threads * sizeof(Py_ssize_t)
    p.workspaces = <char *> take_scratch(
        num_threads * p.workspace_bytes + count_bytes + reach_bytes
    )
    p.n_given = <Py_ssize_t *> (p.workspaces + num_threads * p.workspace_bytes)
    memset(p.n_given, 0, count_bytes)
    if reach_bytes > 0:
        w.reach = <char *> p.n_given + count_bytes
        p.kernels.list_reach(<void *> w.reach, w)
    try:
        run_tasks(
            rows_task, p, (p.n_rows + p.task_rows - 1) // p.task_rows, num_threads, work
        )
        if counted:
            missing = <Py_ssize_t> windows
            for worker in range(num_threads):
                missing -= p.n_given[worker]
    finally:
        give_back(p.workspaces)
    return p.all_right and missing == 0


cdef void rows_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Cut the rows of a task where planes end."""
    cdef Pooling *p = <Pooling *> ctx
    cdef Py_ssize_t row = i * p.task_rows, left = min(p.task_rows, p.n_rows - row)
    cdef Py_ssize_t group = row // p.plane_rows, first = row % p.plane_rows, n, given
    cdef Py_ssize_t total = 0           # counters of threads share a line
    while left > 0:
        n = min(p.plane_rows - first, left)
        if p.turned:
            n = min(n, p.block_rows)
            turned_rows(p, group, first, first + n, worker)
        else:
            given = plane_rows(p, group, first, first + n)
            total += given
            if given < 0:
                p.all_right = False
        left -= n
        first += n
        if first == p.plane_rows:
            group, first = group + 1, 0
    p.n_given[worker] += total


cdef Py_ssize_t plane_rows(
    const Pooling *p, Py_ssize_t group, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    cdef Py_ssize_t n = 0, c = group * p.n_channels
    if p.x.image.N > 1:                 # small planes would feel the division
        n, c = group // p.groups, group % p.groups * p.n_channels
    return p.operation(
        p.kernels, find_plane(&p.x, n, c), find_plane(&p.y, n, c),
        <int64_t *> find_plane(&p.index, n, c), &p.window, first, end,
        min(p.n_channels, p.x.image.C - c),
    )


cdef void turned_rows(
    const Pooling *p, Py_ssize_t group, Py_ssize_t first, Py_ssize_t end, int worker
) noexcept nogil:
    cdef cn_pool_t w = p.window
    cdef Py_ssize_t n = group // p.groups, c = group % p.groups * p.n_channels
    cdef Py_ssize_t count = min(p.n_channels, p.x.image.C - c), lanes = p.n_channels
    cdef Py_ssize_t x_first = first, x_end = end, y_first = first, y_end = end
    cdef char *x = p.workspaces + worker * p.workspace_bytes
    cdef char *y = x + p.slab_bytes[0]
    cdef char *index = y + p.slab_bytes[1]
    cdef Py_ssize_t *row = <Py_ssize_t *> (index + p.slab_bytes[2])
    # Planes of a single pixel are side by side already.
    cdef bint single = w.OH * w.OW == 1 and p.y.image.sc == 1 and count == lanes
    single = single and (p.index.image.data == NULL or p.index.image.sc == 1)
    if single:
        y = find_plane(&p.y, n, c)
        index = find_plane(&p.index, n, c)
    if p.backward:
        y_end = min(w.OH, (end - 1 + w.PT) // w.SH + 1)
        y_first = min(y_end, max(0, first + w.PT - w.KH + w.SH) // w.SH)
        if not single:
            turn_in(&p.y, find_plane(&p.y, n, c), y, y_first, y_end, count, lanes, row)
    else:
        x_first = max(0, first * w.SH - w.PT)
        x_end = min(w.IH, (end - 1) * w.SH - w.PT + (w.KH - 1) * w.DH + 1)
        turn_in(&p.x, find_plane(&p.x, n, c), x, x_first, x_end, count, lanes, row)
    w.x_row_stride, w.x_col_stride = w.IW * lanes, lanes
    w.y_row_stride = w.index_row_stride = w.OW * lanes
    w.y_col_stride = w.index_col_stride = lanes
    p.operation(
        p.kernels,
        x - x_first * w.x_row_stride * p.kernels.itemsize,
        y - y_first * w.y_row_stride * p.kernels.itemsize,
        NULL if p.index.image.data == NULL else
        (<int64_t *> index) - y_first * w.index_row_stride,
        &w, first, end, lanes,
    )
    if p.backward:
        turn_out(&p.x, find_plane(&p.x, n, c), x, first, end, count, lanes, row)
    elif not single:
        turn_out(&p.y, find_plane(&p.y, n, c), y, first, end, count, lanes, row)
    if p.index.image.data != NULL and not single:
        turn_out(
            &p.index, find_plane(&p.index, n, c), index, first, end, count, lanes, row
        )
