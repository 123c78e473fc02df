# SPDX-License-Identifier: MIT
"""Gradients of weights, few channels a group, plane by plane: ``_planar_weight.pxd``.

A task has some output channels of one group, or some groups. Where there are few tasks,
the blocks are split into parts whose number depends on the shapes alone, and the parts'
sums are added in order.
"""

from convnet._blocks cimport ENOUGH_TASKS, Gather, padded
from convnet._estimates cimport planar_weight_cycles
from convnet._kernels cimport give_back, run_tasks, take_scratch
from convnet._operands cimport Image, Steps, add_parts
from convnet._planar_weight_sums cimport CHAIN, PlanarWeight, weight_task
from convnet._planes cimport (
    Planes, add_windows, fits_planes, moving_work, outline_planes, place_columns,
    plan_planes, slab_bytes,
)

# Operations of a task, and bytes of its sums.
cdef double TASK_WORK = 1e6
cdef Py_ssize_t SUMS_BYTES = 24 * 1024
# So many operations that move pixels are worth one that sums, where tasks are cut.
cdef double MOVING = 6


cdef bint is_weight_planar(
    const Gather *x, const Image *grad_y, Py_ssize_t R, Py_ssize_t C, Steps steps,
    double product,
) noexcept:
    cdef double planar = planar_weight_cycles(R, C, grad_y.W, steps, x.kernels.lanes)
    return planar < product and fits_planes(C, grad_y.W, steps)


cdef int run_planar_weight(
    const Gather *x, const Image *grad_y, const char *grad_y_begin,
    const char *grad_y_end, char *grad_w, Py_ssize_t G, Py_ssize_t R, Steps steps,
    int num_threads, list plans,
) except -1:
    cdef PlanarWeight p
    cdef Planes *planes = &p.planes
    cdef Py_ssize_t KH = steps.KH, KW = steps.KW
    cdef Py_ssize_t tasks, indices, parts_bytes = 0
    cdef double work
    cdef char *scratch
    planes.kernels, planes.x, planes.x_row = x.kernels, x.x, x.x_row
    planes.y, p.grad_y = grad_y[0], grad_y[0]
    planes.step_h, planes.step_w = x.step_h, x.step_w
    p.row.begin, p.row.end = grad_y_begin, grad_y_end
    p.row.col_stride = grad_y.sw
    p.grad_w, p.G, p.R, p.T = grad_w, G, R, x.x.C * KH * KW
    add_windows(&planes.rows, KH, steps.DH, steps.PT)
    add_windows(&planes.cols, KW, steps.DW, steps.PL)
    planes.G = G
    planes.in_place = False
    plan_planes(planes, 0)
    work = 2.0 * G * R * p.T * planes.y.N * planes.y.H * planes.y.W
    tasks = plan_tasks(&p, work)
    work = 2 * work + moving_work(planes, R)
    num_threads = <int> min(num_threads, tasks)
    plan_copies(&p)
    indices = (p.T * 2 * sizeof(Py_ssize_t) + 4095) // 4096 * 4096
    if p.n_parts > 1:
        parts_bytes = p.n_parts * G * R * p.T * planes.kernels.itemsize
        parts_bytes = (parts_bytes + 4095) // 4096 * 4096
    p.workspace_bytes = (
        slab_bytes(planes)
        + p.grads_bytes
        + (4 * planes.kernels.lanes + 1) * p.sums_size * planes.kernels.itemsize
        + 4095
    ) // 4096 * 4096
    if plans is not None:
        scratch_bytes = indices + parts_bytes + num_threads * p.workspace_bytes
        outline = outline_planes(planes, tasks, scratch_bytes)
        # A chain and its last block, a total for each block, the lanes, the parts.
        outline["roundings"] = (
            CHAIN + p.block_steps + p.n_blocks + planes.kernels.lanes + p.n_parts
        )
        plans.append(outline)
        return 0
    scratch = <char *> take_scratch(
        indices + parts_bytes + num_threads * p.workspace_bytes
    )
    p.offset = <Py_ssize_t *> scratch
    p.parts = scratch + indices if p.n_parts > 1 else grad_w
    p.workspaces = scratch + indices + parts_bytes
    place_columns(planes, 0, 0, KH * KW, KW, &p.sums, p.offset + p.T, p.offset)
    try:
        run_tasks(weight_task, &p, tasks, num_threads, work)
        if p.n_parts > 1:
            add_parts(planes.kernels, grad_w, p.parts, p.n_parts, G * R * p.T)
    finally:
        give_back(scratch)
    return 0


cdef Py_ssize_t plan_tasks(PlanarWeight *p, double work) noexcept nogil:
    """Rows of a group, or of several groups, each; how many tasks there are."""
    cdef const Planes *planes = &p.planes
    cdef Py_ssize_t lanes = planes.kernels.lanes, rows = p.G * p.R, most
    most = max(1, SUMS_BYTES // (2 * p.T * lanes * planes.kernels.itemsize))
    # Enough of them for the threads, should they be worth waking.
    # Channels that come last are copied by whole vectors of them.
    p.task_rows = max(1 + <Py_ssize_t> (TASK_WORK / work * rows), lanes)
    p.task_rows = min(p.task_rows, rows, most)
    if p.task_rows >= p.R:
        p.task_rows = p.task_rows // p.R * p.R
    p.n_row_tasks = (p.R + p.task_rows - 1) // p.task_rows * p.G
    if p.task_rows >= p.R:
        p.n_row_tasks = (rows + p.task_rows - 1) // p.task_rows
    p.sums_size = padded(planes.kernels, p.task_rows * p.T)
    p.n_blocks = planes.n_row_blocks * planes.n_col_blocks * planes.y.N
    p.block_steps = planes.block_rows * max(1, planes.block_cols // lanes)
    p.n_parts = 1
    if p.n_row_tasks == 1:              # most may be moving pixels
        work += moving_work(planes, p.R) / MOVING
    if work > ENOUGH_TASKS * TASK_WORK:
        p.n_parts = (ENOUGH_TASKS + p.n_row_tasks - 1) // p.n_row_tasks
        p.n_parts = min(p.n_blocks, p.n_parts)
    p.has_totals = p.n_blocks // p.n_parts * p.block_steps > CHAIN
    return p.n_row_tasks * p.n_parts


cdef void plan_copies(PlanarWeight *p) noexcept nogil:
    cdef const Planes *planes = &p.planes
    p.copied, p.grads_bytes = p.grad_y.sw != 1, 0
    p.grad_pitch = padded(planes.kernels, planes.block_cols)
    p.grad_size = planes.block_rows * p.grad_pitch
    if p.copied:
        p.grads_bytes = (
            p.task_rows * p.grad_size + planes.kernels.lanes
        ) * planes.kernels.itemsize + planes.block_rows * sizeof(Py_ssize_t)
        p.grads_bytes = (p.grads_bytes + 63) // 64 * 64
