# SPDX-License-Identifier: MIT
"""Depthwise convolutions by vectors of channels: see ``_depthwise.pxd``.

A unit is a block of rows of pixels of as many channels as a vector has lanes. Its sums
are turned back, or with channels last written to where they belong.
"""

from libc.string cimport memcpy, memset

from convnet._kernels cimport cn_depthwise_t, give_back, run_tasks, take_scratch
from convnet._operands cimport Image, Steps
from convnet._planes cimport MAX_STEP
from convnet._turning cimport PlaneArray, find_plane, turn_in, turn_out
from convnet._product cimport Product
from convnet._turned_planes cimport (
    TurnedPlanes, add_taps, are_better_turned, clear_slab, count_places, count_work,
    load_slab, pad_page, place_pixels, plan_blocks,
)

# Cycles of a vector of pixels by its planes, and by its channels: what turning takes,
# which is less while all its memory is in L1, and each tap.
cdef double PLANE = 16, PLANE_TAP = 0.85, TURNED = 33, TURNED_IN_L1 = 24
cdef double TURNED_TAP = 0.68
cdef Py_ssize_t L1_BYTES = 46 * 1024
# Operations of a task.
cdef double TASK_WORK = 2e6


cdef struct Depthwise:
    TurnedPlanes planes
    const Product *product
    PlaneArray w                        # a plane of taps for each channel
    Py_ssize_t T, n_units, task_units
    cn_depthwise_t phase[MAX_STEP * MAX_STEP]
    char *workspaces
    Py_ssize_t sums_bytes, weights_bytes, workspace_bytes


cdef bint is_better_by_channels(const Product *p, Steps steps, bint gradient) noexcept:
    if p.R != 1 or p.pixels.x.C != 1 or p.finish.accumulate:
        return False
    if gradient and (
        steps.PT > (steps.KH - 1) * steps.DH or steps.PL > (steps.KW - 1) * steps.DW
    ):
        return False                    # slabs begin with row and column 0 of grad_y
    return are_better_turned(
        p.pixels.kernels, &p.pixels.x, &p.pixels.y, p.G, steps, gradient,
        least_waste(p, steps),
    )


cdef inline double least_waste(const Product *p, Steps steps) noexcept:
    """How many more lanes planes must waste than channels to be turned."""
    cdef const Image *y = &p.pixels.y
    cdef Py_ssize_t T = steps.KH * steps.KW, rows = y.H + steps.KH - 1
    cdef Py_ssize_t pixels = 3 * y.H * y.W + rows * (y.W + steps.KW - 1)
    cdef bint fits = (
        pixels * p.pixels.kernels.lanes * p.pixels.kernels.itemsize <= L1_BYTES
    )
    cdef double turned = (TURNED_IN_L1 if fits else TURNED) + TURNED_TAP * T
    return turned / (PLANE + PLANE_TAP * T)


cdef int run_depthwise(
    const Product *product, Steps steps, bint gradient, int num_threads, list plans
) except -1:
    cdef Depthwise p
    cdef TurnedPlanes *planes = &p.planes
    cdef Py_ssize_t index_bytes, tasks
    cdef double work
    cdef char *scratch
    describe(&p, product, steps, gradient)
    plan_blocks(planes)
    p.n_units = planes.x.image.N * planes.n_groups * planes.n_blocks
    p.weights_bytes = (p.T + 1) * planes.lanes * planes.kernels.itemsize
    p.workspace_bytes = pad_page(
        planes.x_bytes + planes.y_bytes + p.weights_bytes
        + (planes.slab_rows + planes.block_rows * planes.SH) * sizeof(Py_ssize_t)
    )
    work = count_work(planes, p.T)
    p.task_units = 1 + <Py_ssize_t> min(TASK_WORK / work * p.n_units, 1e9)
    tasks = (p.n_units + p.task_units - 1) // p.task_units
    num_threads = <int> min(num_threads, tasks)
    index_bytes = 2 * p.T * planes.SH * planes.SW + count_places(planes)
    index_bytes = pad_page(index_bytes * sizeof(Py_ssize_t))
    if plans is not None:
        plans.append({
            "tasks": tasks,
            "scratch_bytes": index_bytes + num_threads * p.workspace_bytes,
            "block": (planes.block_rows, planes.n_cols),
            "blocks": p.n_units,
            "chunk": p.T,
            "chunks": 1,
            "in_place": planes.y_in_place,
        })
        return 0
    scratch = <char *> take_scratch(index_bytes + num_threads * p.workspace_bytes)
    p.workspaces = scratch + index_bytes
    try:
        place_pixels(planes, place_taps(&p, <Py_ssize_t *> scratch, steps.KW))
        run_tasks(units_task, &p, tasks, num_threads, work)
    finally:
        give_back(scratch)
    return 0


cdef void describe(
    Depthwise *p, const Product *product, Steps steps, bint gradient
) noexcept:
    cdef TurnedPlanes *planes = &p.planes
    cdef Image *w = &p.w.image
    p.product, p.T = product, steps.KH * steps.KW
    planes.kernels = product.pixels.kernels
    planes.x.kernels = planes.y.kernels = p.w.kernels = planes.kernels
    planes.x.image, planes.x.row = product.pixels.x, product.pixels.x_row
    planes.y.image = product.pixels.y
    planes.x.image.C = planes.y.image.C = product.G
    w.data, w.N, w.C, w.H, w.W = <char *> product.weight, 1, product.G, 1, p.T
    w.sn, w.sc, w.sh, w.sw = 0, product.group_stride, p.T, 1
    p.w.row.IW, p.w.row.col_stride, p.w.row.begin = p.T, 1, w.data
    p.w.row.end = w.data + product.G * p.T * planes.kernels.itemsize
    add_taps(planes, steps, gradient)


cdef Py_ssize_t *place_taps(
    Depthwise *p, Py_ssize_t *memory, Py_ssize_t KW
) noexcept nogil:
    """Find where each phase's taps and their weights lie; what is left of the memory.

    They go column by column, as where planes are summed: the same bits.
    """
    cdef const TurnedPlanes *planes = &p.planes
    cdef Py_ssize_t a, b, i, j, n
    cdef cn_depthwise_t *d
    for a in range(planes.SH):
        for b in range(planes.SW):
            d = &p.phase[a * planes.SW + b]
            memset(d, 0, sizeof(cn_depthwise_t))
            d.tap, d.weight, n = memory, memory + p.T, 0
            for j in range(planes.cols.first[b], planes.cols.first[b + 1]):
                for i in range(planes.rows.first[a], planes.rows.first[a + 1]):
                    memory[n] = (planes.rows.d[i] - planes.rows.low) * planes.pitch
                    memory[n] += planes.cols.d[j] - planes.cols.low
                    memory[n] *= planes.lanes
                    memory[p.T + n] = planes.rows.k[i] * KW + planes.cols.k[j]
                    memory[p.T + n] *= planes.lanes
                    n += 1
            memory += 2 * p.T
            d.n_taps = n
            d.n_column = planes.rows.first[a + 1] - planes.rows.first[a]
            d.tap_row = planes.rows.apart * planes.pitch * planes.lanes
            d.x_row = planes.step_h * planes.pitch * planes.lanes
            d.x_col = planes.step_w * planes.lanes
            d.clip = p.product.finish.clip
            d.low, d.high = p.product.finish.low, p.product.finish.high
    return memory


cdef void units_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef const Depthwise *p = <const Depthwise *> ctx
    cdef Py_ssize_t first = i * p.task_units, unit
    cdef char *memory = p.workspaces + worker * p.workspace_bytes
    for unit in range(first, min(first + p.task_units, p.n_units)):
        clear_slab(&p.planes, memory, unit > first)
        sum_unit(p, unit, memory)


cdef void sum_unit(const Depthwise *p, Py_ssize_t unit, char *memory) noexcept nogil:
    cdef const TurnedPlanes *planes = &p.planes
    cdef const Image *image = &planes.y.image
    cdef Py_ssize_t itemsize = planes.kernels.itemsize, lanes = planes.lanes, a, b
    cdef Py_ssize_t n = unit // planes.n_blocks // planes.n_groups, block, c
    block, c = unit % planes.n_blocks, unit // planes.n_blocks % planes.n_groups * lanes
    if planes.y_in_place:               # in the order of memory
        block = unit // planes.n_groups % planes.n_blocks
        c = unit % planes.n_groups * lanes
    cdef Py_ssize_t count = min(lanes, image.C - c), first = block * planes.block_rows
    cdef Py_ssize_t begin = first * planes.SH
    cdef Py_ssize_t end = min(image.H, begin + planes.block_rows * planes.SH)
    cdef char *sums = memory + planes.x_bytes
    cdef char *weights = sums + planes.y_bytes
    cdef char *bias = weights + p.T * lanes * itemsize
    cdef Py_ssize_t *row = <Py_ssize_t *> (weights + p.weights_bytes)
    cdef bint direct = planes.y_in_place and count == lanes
    cdef Py_ssize_t y_row = image.W * lanes, y_col = lanes
    cdef char *y = sums
    cdef cn_depthwise_t d
    load_slab(planes, n, c, count, first, memory, row)
    turn_in(&p.w, find_plane(&p.w, 0, c), weights, 0, 1, count, lanes, row)
    if p.product.finish.bias != NULL:
        memset(bias, 0, lanes * itemsize)
        memcpy(bias, p.product.finish.bias + c * itemsize, count * itemsize)
    else:
        bias = NULL
    if direct:
        y_row, y_col = image.sh, image.sw
        y = find_plane(&planes.y, n, c) + begin * y_row * itemsize
    for a in range(min(planes.SH, end - begin)):
        for b in range(min(planes.SW, image.W)):
            d = p.phase[a * planes.SW + b]
            d.n_rows = (end - begin - a + planes.SH - 1) // planes.SH
            d.n_cols = (image.W - b + planes.SW - 1) // planes.SW
            d.y_row, d.y_col = planes.SH * y_row, planes.SW * y_col
            fetch_planes(p, &planes.x, unit + 1, a * planes.SW + b, 0, &d)
            fetch_planes(p, &planes.y, unit, a * planes.SW + b, 1, &d)
            planes.kernels.depthwise_sum(
                y + (a * y_row + b * y_col) * itemsize, memory, weights, bias, &d
            )
    if not direct:
        turn_out(
            &planes.y, find_plane(&planes.y, n, c), sums, begin, end, count, lanes, row
        )


cdef inline void fetch_planes(
    const Depthwise *p, const PlaneArray *planes, Py_ssize_t unit, Py_ssize_t phase,
    int i, cn_depthwise_t *d,
) noexcept nogil:
    """While a phase is summed, fetch its part of a unit's planes, if they are a run."""
    cdef const Image *image = &planes.image
    cdef Py_ssize_t lanes = p.planes.lanes, n_groups = p.planes.n_groups
    cdef Py_ssize_t c = unit % n_groups * lanes, size = image.H * image.W, part
    if p.planes.n_blocks > 1 or unit == p.n_units or image.sc != size or image.sw != 1:
        return
    part = min(lanes, image.C - c) * size * p.planes.kernels.itemsize
    part //= p.planes.SH * p.planes.SW
    d.next[i] = find_plane(planes, unit // n_groups, c) + phase * part
    d.n_next[i] = part
