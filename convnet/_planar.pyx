# SPDX-License-Identifier: MIT
"""Convolutions of few channels a group, plane by plane: see ``_planar.pxd``.

A task copies the pixels that a block needs to a padded slab in L1 and sums columns of
taps over it, one row of the product (an output channel) at a time.
"""

from libc.string cimport memset

from convnet._blocks cimport padded
from convnet._estimates cimport packed_cycles, planar_cycles
from convnet._kernels cimport (
    cn_kernels_t, cn_planar_t, give_back, run_tasks, take_scratch,
)
from convnet._operands cimport Steps
from convnet._planar_sums cimport (
    PlanarProduct, find_y, load_weights, sum_parts, sum_windows,
)
from convnet._planes cimport (
    PlaneBlock, Planes, add_phases, add_windows, are_small_windows, count_blocks,
    fetch_block, fits_planes, get_block, load_block, moving_work, outline_planes,
    place_columns, place_windows, plan_planes, slab_bytes, suit_in_place,
)
from convnet._product cimport Product

# Operations of a task, unless its block has more: some microseconds.
cdef double TASK_WORK = 4e5
# What bringing a weight into its place takes, in such operations.
cdef double WEIGHT_WORK = 20


cdef bint is_better_planar(const Product *p, Steps steps, bint gradient) noexcept:
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef Py_ssize_t W = p.pixels.y.W, taps = steps.KH * steps.KW
    cdef double planar
    cdef Planes planes
    if gradient:                        # by phases
        W = (W + steps.SW - 1) // steps.SW
    planar = planar_cycles(p.R, W, taps, kernels.lanes)
    if planar >= packed_cycles(p.R, taps, kernels.mr):
        return False
    if not are_small_windows(p.pixels.x.C, steps):
        return False
    # Strides decide whether there is a slab, but not in which order sums are made.
    describe(&planes, p, steps, gradient)
    return suit_in_place(&planes, p.R) or fits_planes(p.pixels.x.C, W, steps)


cdef int run_planar(
    const Product *product, Steps steps, bint gradient, int num_threads, list plans
) except -1:
    cdef PlanarProduct p
    cdef Py_ssize_t KH = steps.KH, KW = steps.KW
    cdef Planes *planes = &p.planes
    cdef Py_ssize_t tasks, shared
    cdef double work
    cdef char *scratch
    describe(planes, product, steps, gradient)
    p.product, p.y, p.SH, p.SW = product, product.pixels.y, 1, 1
    if gradient:
        p.SH, p.SW = steps.SH, steps.SW
    p.in_parts = p.y.sw != 1 or p.SH * p.SW != 1
    plan_planes(planes, product.R * p.SH * p.SW if p.in_parts else 0)
    work = 2.0 * product.G * product.R * planes.x.C * KH * KW
    work *= <double> planes.y.N * planes.y.H * planes.y.W
    p.n_blocks = count_blocks(planes)
    p.task_blocks = 1 + <Py_ssize_t> min(TASK_WORK / work * p.n_blocks, 1e9)
    tasks = (p.n_blocks + p.task_blocks - 1) // p.task_blocks
    num_threads = <int> min(num_threads, tasks)
    cdef Py_ssize_t indices = index_bytes(&p, KH, KW), weights
    weights = product.G * product.R * planes.x.C * KH * KW
    shared = indices + (weights * planes.kernels.itemsize + 4095) // 4096 * 4096
    p.workspace_bytes = workspace_bytes(&p)
    if plans is not None:
        plans.append(
            outline_planes(planes, tasks, shared + num_threads * p.workspace_bytes)
        )
        return 0
    scratch = <char *> take_scratch(shared + num_threads * p.workspace_bytes)
    p.weights, p.workspaces = scratch + indices, scratch + shared
    try:
        place_phases(&p, <Py_ssize_t *> scratch, KW)
        run_tasks(weights_task, &p, product.G, num_threads, WEIGHT_WORK * weights)
        # A task takes longer than its operations would in a packed product.
        work = 2 * work + moving_work(planes, product.R * p.SH * p.SW)
        run_tasks(planar_task, &p, tasks, num_threads, work)
    finally:
        give_back(scratch)
    return 0


cdef void describe(
    Planes *planes, const Product *p, Steps steps, bint gradient
) noexcept:
    """The pixels that windows belong to, and their taps."""
    planes.kernels, planes.G = p.pixels.kernels, p.G
    planes.x, planes.x_row, planes.y = p.pixels.x, p.pixels.x_row, p.pixels.y
    planes.step_h, planes.step_w = steps.SH, steps.SW
    if gradient:
        planes.step_h = planes.step_w = 1
        planes.y.H = (p.pixels.y.H + steps.SH - 1) // steps.SH
        planes.y.W = (p.pixels.y.W + steps.SW - 1) // steps.SW
        add_phases(&planes.rows, steps.KH, steps.SH, steps.DH, steps.PT)
        add_phases(&planes.cols, steps.KW, steps.SW, steps.DW, steps.PL)
    else:
        add_windows(&planes.rows, steps.KH, steps.DH, steps.PT)
        add_windows(&planes.cols, steps.KW, steps.DW, steps.PL)
    planes.in_place = planes.x.sw == 1 and suit_in_place(planes, p.R)


cdef Py_ssize_t index_bytes(
    const PlanarProduct *p, Py_ssize_t KH, Py_ssize_t KW
) noexcept nogil:
    cdef Py_ssize_t n = p.planes.x.C * KW * (KH + p.planes.rows.n_phases)
    return (n * sizeof(Py_ssize_t) + 4095) // 4096 * 4096


cdef Py_ssize_t workspace_bytes(PlanarProduct *p) noexcept nogil:
    """Bytes of one thread: a slab and the sums of phases."""
    cdef Py_ssize_t n = 0
    p.part_pitch = padded(p.planes.kernels, p.planes.block_cols)
    p.part_size = p.part_pitch * p.planes.block_rows
    if p.in_parts:
        n = p.planes.slab_groups * p.product.R * p.SH * p.SW
        n *= p.part_size * p.planes.kernels.itemsize
    return (slab_bytes(&p.planes) + n + 4095) // 4096 * 4096


cdef void place_phases(
    PlanarProduct *p, Py_ssize_t *memory, Py_ssize_t KW
) noexcept nogil:
    """Find the columns of taps of each phase, and the order of its weights."""
    cdef Py_ssize_t a, b, i
    for a in range(p.SH):
        for b in range(p.SW):
            i = a * p.SW + b
            p.offset[i] = memory
            memory += p.planes.x.C * (
                (p.planes.rows.first[a + 1] - p.planes.rows.first[a])
                * (p.planes.cols.first[b + 1] - p.planes.cols.first[b])
            )
            if p.planes.in_place:
                p.n_weights[i] = place_windows(
                    &p.planes, a, b, p.product.channel_stride, KW, &p.sums[i],
                    &p.windows[i], memory, p.offset[i],
                )
            else:
                p.n_weights[i] = place_columns(
                    &p.planes, a, b, p.product.channel_stride, KW, &p.sums[i], memory,
                    p.offset[i],
                )
            memory += p.sums[i].n_columns


cdef void weights_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    load_weights(<const PlanarProduct *> ctx, i)


cdef void planar_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Some blocks. The pixels of the next one are fetched meanwhile."""
    cdef const PlanarProduct *p = <const PlanarProduct *> ctx
    cdef Py_ssize_t index = i * p.task_blocks
    cdef Py_ssize_t end = min(index + p.task_blocks, p.n_blocks)
    cdef char *memory = p.workspaces + worker * p.workspace_bytes
    cdef const char *slab
    cdef PlaneBlock next_block, block = get_block(&p.planes, index)
    cdef cn_planar_t sums
    while index < end:
        index += 1
        memset(&sums, 0, sizeof(sums))
        slab = NULL
        if not p.planes.in_place:
            slab = load_block(&p.planes, &block, memory)
        if index < end:
            next_block = get_block(&p.planes, index)
            fetch_block(&p.planes, &next_block, &sums)
            fetch_result(p, &next_block, &sums)
        if p.in_parts:
            sum_parts(p, &block, slab, memory + slab_bytes(&p.planes), &sums)
        else:
            sum_windows(p, &block, slab, &sums)
        if index < end:
            block = next_block


cdef void fetch_result(
    const PlanarProduct *p, const PlaneBlock *block, cn_planar_t *sums
) noexcept nogil:
    """Tell where a block's result goes: stores to what is far away take long."""
    cdef Py_ssize_t first = block.first_row * p.SH
    cdef Py_ssize_t n_rows = min(block.n_rows * p.SH, p.y.H - first)
    cdef Py_ssize_t n = n_rows * p.y.sh
    if p.y.sw != 1 or p.y.sh != p.y.W:
        return
    if p.planes.n_row_blocks == 1 and p.y.sc == n:
        n *= block.n_groups * p.product.R
    sums.next[1] = find_y(p, block, block.group * p.product.R)
    sums.n_next[1] = n * p.planes.kernels.itemsize
