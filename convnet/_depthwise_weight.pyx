# SPDX-License-Identifier: MIT
"""Gradients of depthwise weights by vectors of channels: ``_depthwise_weight.pxd``.

A task has as many channels as a vector has lanes. Where there are few tasks, blocks are
split into parts whose number depends on the shapes alone, and the parts' sums are added
in order.
"""

from libc.string cimport memset

from convnet._blocks cimport ENOUGH_TASKS, Gather
from convnet._kernels cimport (
    cn_depthwise_t, cn_kernel_t, cn_row_t, give_back, run_tasks, take_scratch,
)
from convnet._operands cimport Image, Steps, add_parts
from convnet._turning cimport PlaneArray, find_plane, turn_in, turn_out
from convnet._turned_planes cimport (
    TurnedPlanes, add_taps, are_better_turned, clear_slab, count_places, count_work,
    load_slab, pad_page, place_pixels, plan_blocks,
)

# How many more lanes planes must waste than channels to be turned.
cdef double WASTED = 1.1
# Products that a sum adds before it is added to a total: chains of thousands would
# round as badly as they are long.
cdef Py_ssize_t CHAIN = 512
cdef double TASK_WORK = 1e6


cdef struct DepthwiseWeight:
    TurnedPlanes planes             # y is grad_y
    PlaneArray w                        # a plane of taps for each channel, of each part
    cn_depthwise_t pixels
    cn_kernel_t kernel
    Py_ssize_t G, T, chain_rows, n_parts
    char *workspaces
    Py_ssize_t sums_bytes, workspace_bytes


cdef bint is_weight_depthwise(
    const Gather *x, const Image *grad_y, Py_ssize_t G, Py_ssize_t R, Py_ssize_t C,
    Steps steps,
) noexcept:
    return R == 1 and C == 1 and are_better_turned(
        x.kernels, &x.x, grad_y, G, steps, False, WASTED
    )


cdef int run_depthwise_weight(
    const Gather *x, const Image *grad_y, cn_row_t row, char *grad_w, Py_ssize_t G,
    Steps steps, int num_threads, list plans,
) except -1:
    cdef DepthwiseWeight p
    cdef TurnedPlanes *planes = &p.planes
    cdef Py_ssize_t index_bytes, parts_bytes = 0, tasks, blocks, itemsize
    cdef double work
    cdef char *scratch
    planes.kernels = planes.x.kernels = planes.y.kernels = p.w.kernels = x.kernels
    planes.x.image, planes.x.row = x.x, x.x_row
    planes.y.image, planes.y.row = grad_y[0], row
    planes.x.image.C = planes.y.image.C = p.G = G
    p.T, itemsize = steps.KH * steps.KW, x.kernels.itemsize
    add_taps(planes, steps, False)
    plan_blocks(planes)
    describe_taps(&p, steps)
    blocks = planes.x.image.N * planes.n_blocks
    work = count_work(planes, p.T)
    p.n_parts = 1
    if work > ENOUGH_TASKS * TASK_WORK:
        p.n_parts = (ENOUGH_TASKS + planes.n_groups - 1) // planes.n_groups
        p.n_parts = min(p.n_parts, blocks)
    tasks = planes.n_groups * p.n_parts
    num_threads = <int> min(num_threads, tasks)
    index_bytes = pad_page(count_places(planes) * sizeof(Py_ssize_t))
    if p.n_parts > 1:
        parts_bytes = pad_page(p.n_parts * G * p.T * itemsize)
    p.sums_bytes = p.T * planes.lanes * itemsize
    p.workspace_bytes = pad_page(
        planes.x_bytes + planes.y_bytes + p.sums_bytes
        + (planes.slab_rows + planes.block_rows) * sizeof(Py_ssize_t)
    )
    if plans is not None:
        plans.append({
            "tasks": tasks,
            "scratch_bytes": (
                index_bytes + parts_bytes + num_threads * p.workspace_bytes
            ),
            "block": (planes.block_rows, planes.n_cols),
            "blocks": blocks * planes.n_groups,
            "chunk": p.T,
            "chunks": 1,
            "in_place": planes.y_in_place,
            # A chain, a total for each of a part's chains, the parts.
            "roundings": p.chain_rows * planes.n_cols + p.n_parts
            + (blocks + p.n_parts - 1) // p.n_parts
            * ((planes.block_rows + p.chain_rows - 1) // p.chain_rows),
        })
        return 0
    scratch = <char *> take_scratch(
        index_bytes + parts_bytes + num_threads * p.workspace_bytes
    )
    p.workspaces = scratch + index_bytes + parts_bytes
    p.w.image.data = scratch + index_bytes if p.n_parts > 1 else grad_w
    try:
        place_pixels(planes, <Py_ssize_t *> scratch)
        run_tasks(group_task, &p, tasks, num_threads, work)
        if p.n_parts > 1:
            add_parts(x.kernels, grad_w, p.w.image.data, p.n_parts, G * p.T)
    finally:
        give_back(scratch)
    return 0


cdef void describe_taps(DepthwiseWeight *p, Steps steps) noexcept:
    cdef const TurnedPlanes *planes = &p.planes
    cdef Image *w = &p.w.image
    memset(&p.pixels, 0, sizeof(p.pixels))
    p.pixels.n_cols = planes.n_cols
    p.pixels.x_row = planes.step_h * planes.pitch * planes.lanes
    p.pixels.x_col = planes.step_w * planes.lanes
    p.kernel.KH, p.kernel.KW = steps.KH, steps.KW
    p.kernel.tap_row = steps.DH * planes.pitch * planes.lanes
    p.kernel.tap_col = steps.DW * planes.lanes
    p.chain_rows = max(1, CHAIN // planes.n_cols)
    w.N, w.C, w.H, w.W = 1, p.G, 1, p.T
    w.sn, w.sc, w.sh, w.sw = p.G * p.T, p.T, p.T, 1


cdef void group_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """A part of the blocks of a group of channels."""
    cdef const DepthwiseWeight *p = <const DepthwiseWeight *> ctx
    cdef const TurnedPlanes *planes = &p.planes
    cdef Py_ssize_t c = i // p.n_parts * planes.lanes, part = i % p.n_parts
    cdef Py_ssize_t blocks = planes.x.image.N * planes.n_blocks
    cdef Py_ssize_t first = part * blocks // p.n_parts, block
    cdef Py_ssize_t count = min(planes.lanes, p.G - c)
    cdef char *memory = p.workspaces + worker * p.workspace_bytes
    cdef char *sums = memory + planes.x_bytes + planes.y_bytes
    cdef Py_ssize_t *row = <Py_ssize_t *> (sums + p.sums_bytes)
    memset(sums, 0, p.sums_bytes)
    for block in range(first, (part + 1) * blocks // p.n_parts):
        clear_slab(planes, memory, block > first)
        add_block(p, block, c, count, memory, sums, row)
    turn_out(
        &p.w, find_plane(&p.w, part, c), sums, 0, 1, count, planes.lanes, row
    )


cdef void add_block(
    const DepthwiseWeight *p, Py_ssize_t block, Py_ssize_t c, Py_ssize_t count,
    char *memory, char *sums, Py_ssize_t *row,
) noexcept nogil:
    """Add the products of a block, some rows of pixels at a time."""
    cdef const TurnedPlanes *planes = &p.planes
    cdef const Image *image = &planes.y.image
    cdef Py_ssize_t n = block // planes.n_blocks, itemsize = planes.kernels.itemsize
    cdef Py_ssize_t first = block % planes.n_blocks * planes.block_rows
    cdef Py_ssize_t n_rows = min(planes.block_rows, planes.n_rows - first)
    cdef char *grads = memory + planes.x_bytes
    cdef const char *x = memory
    cdef cn_depthwise_t d = p.pixels
    load_slab(planes, n, c, count, first, memory, row)
    if planes.y_in_place and count == planes.lanes:
        grads = find_plane(&planes.y, n, c) + first * image.sh * itemsize
        d.y_row, d.y_col = image.sh, image.sw
    else:
        turn_in(
            &planes.y, find_plane(&planes.y, n, c), grads, first, first + n_rows, count,
            planes.lanes, row,
        )
        d.y_row, d.y_col = image.W * planes.lanes, planes.lanes
    while n_rows > 0:
        d.n_rows = min(p.chain_rows, n_rows)
        planes.kernels.depthwise_grad(sums, x, grads, &d, &p.kernel)
        x += d.n_rows * d.x_row * itemsize
        grads += d.n_rows * d.y_row * itemsize
        n_rows -= d.n_rows
