# SPDX-License-Identifier: MIT
"""Depthwise convolutions by vectors of channels: see ``_depthwise.pxd``.

A unit is some rows of pixels of a vector's lanes of channels. Their planes are turned to
a padded slab, channels side by side, where every tap of every pixel is an aligned vector:
no lane is empty in narrow planes, no shuffle needed for strides and dilations. The sums
are turned back, or with channels last written to where they belong.
"""

from libc.string cimport memcpy, memset

from convnet._blocks cimport padded
from convnet._kernels cimport (
    CN_NO_ROW, cn_depthwise_t, cn_kernels_t, cn_slab_t, give_back, run_tasks,
    take_scratch,
)
from convnet._operands cimport Image, Steps
from convnet._planes cimport MAX_STEP, Axis, add_phases, add_windows, fits_planes
from convnet._pool_planes cimport Planes, find_plane, turn_in, turn_out
from convnet._product cimport Product

# Widths up to which planes of some kinds are better turned, and shares of lanes: those
# that channels must fill, and how many more planes would need.
cdef Py_ssize_t VERY_NARROW = 8, NARROW = 32, DILATED = 80
cdef double FILLED = 0.7, WASTED = 1.3
# Bytes of a unit's slabs, unless a row of pixels needs more; operations of a task.
cdef Py_ssize_t UNIT_BYTES = 256 * 1024
cdef double TASK_WORK = 4e5


cdef struct Depthwise:
    const cn_kernels_t *kernels
    const Product *product
    Planes x, y, w                  # w: a plane of taps for each channel
    Axis rows, cols
    Py_ssize_t SH, SW               # pixels of the result for each that a phase has
    Py_ssize_t step_h, step_w
    Py_ssize_t T, lanes
    Py_ssize_t n_rows, n_cols       # of a phase
    Py_ssize_t block_rows, n_blocks, n_groups, n_units, task_units
    Py_ssize_t slab_rows, pitch     # pixels of the slab
    bint flat, in_place             # whether x is one long row; y holds the sums
    cn_depthwise_t phase[MAX_STEP * MAX_STEP]
    Py_ssize_t *place               # of each pixel of a flat block of x
    char *workspaces
    Py_ssize_t slab_bytes, sums_bytes, weights_bytes, workspace_bytes


cdef bint is_better_by_channels(const Product *p, Steps steps, bint gradient) noexcept:
    cdef Image x = p.pixels.x, y = p.pixels.y
    cdef bint strided = steps.SH != 1 or steps.SW != 1
    cdef bint dilated = steps.DH != 1 or steps.DW != 1
    cdef double filled, wasted
    if p.R != 1 or x.C != 1 or p.G < p.pixels.kernels.lanes or p.finish.accumulate:
        return False
    if not fits_planes(1, y.W, steps):
        return False
    if gradient and (
        steps.PT > (steps.KH - 1) * steps.DH or steps.PL > (steps.KW - 1) * steps.DW
    ):
        return False                    # rows or columns before the first are not read
    # Lanes that planes leave empty, against those of channels.
    filled = p.G / <double> padded(p.pixels.kernels, p.G)
    if x.sc == 1 and y.sc == 1 and filled >= FILLED:
        return True
    wasted = padded(p.pixels.kernels, y.W) / <double> y.W * filled
    if gradient and strided or max(steps.SH, steps.SW) > 2:
        return y.W <= NARROW or filled >= FILLED
    if dilated:
        return y.W <= DILATED and filled >= FILLED
    return y.W <= VERY_NARROW or y.W <= NARROW and wasted >= WASTED


cdef int run_depthwise(
    const Product *product, Steps steps, bint gradient, int num_threads, list plans
) except -1:
    cdef Depthwise p
    cdef Py_ssize_t index_bytes
    cdef double work
    cdef char *scratch
    describe(&p, product, steps, gradient)
    plan(&p)
    work = 2.0 * p.T * p.y.image.N * product.G
    work *= <double> p.n_rows * p.n_cols
    p.task_units = 1 + <Py_ssize_t> min(TASK_WORK / work * p.n_units, 1e9)
    cdef Py_ssize_t tasks = (p.n_units + p.task_units - 1) // p.task_units
    num_threads = <int> min(num_threads, tasks)
    index_bytes = 2 * p.T * p.SH * p.SW + p.x.image.W * p.slab_rows
    index_bytes = pad_page(index_bytes * sizeof(Py_ssize_t))
    if plans is not None:
        plans.append({
            "tasks": tasks,
            "scratch_bytes": index_bytes + num_threads * p.workspace_bytes,
            "block": (p.block_rows, p.n_cols),
            "blocks": p.n_units,
            "chunk": p.T,
            "chunks": 1,
            "in_place": p.in_place,
        })
        return 0
    scratch = <char *> take_scratch(index_bytes + num_threads * p.workspace_bytes)
    p.workspaces = scratch + index_bytes
    try:
        place_taps(&p, <Py_ssize_t *> scratch, steps.KW)
        run_tasks(units_task, &p, tasks, num_threads, 2 * work)
    finally:
        give_back(scratch)
    return 0


cdef void describe(
    Depthwise *p, const Product *product, Steps steps, bint gradient
) noexcept:
    cdef Image *w = &p.w.image
    p.product, p.kernels = product, product.pixels.kernels
    p.x.kernels = p.y.kernels = p.w.kernels = p.kernels
    p.x.image, p.x.row = product.pixels.x, product.pixels.x_row
    p.y.image = product.pixels.y
    p.x.image.C = p.y.image.C = product.G
    p.lanes, p.T = p.kernels.lanes, steps.KH * steps.KW
    w.data, w.N, w.C, w.H, w.W = <char *> product.weight, 1, product.G, 1, p.T
    w.sn, w.sc, w.sh, w.sw = 0, product.group_stride, p.T, 1
    p.w.row.IW, p.w.row.col_stride, p.w.row.begin = p.T, 1, w.data
    p.w.row.end = w.data + product.G * p.T * p.kernels.itemsize
    p.SH = p.SW = 1
    p.step_h, p.step_w = steps.SH, steps.SW
    if gradient:
        p.SH, p.SW, p.step_h, p.step_w = steps.SH, steps.SW, 1, 1
        add_phases(&p.rows, steps.KH, p.SH, steps.DH, steps.PT)
        add_phases(&p.cols, steps.KW, p.SW, steps.DW, steps.PL)
    else:
        add_windows(&p.rows, steps.KH, steps.DH, steps.PT)
        add_windows(&p.cols, steps.KW, steps.DW, steps.PL)


cdef void plan(Depthwise *p) noexcept nogil:
    """Cut the rows into blocks whose slabs are in L2, from the shapes alone."""
    cdef const Image *x = &p.x.image
    cdef const Image *y = &p.y.image
    cdef Py_ssize_t vector = p.lanes * p.kernels.itemsize
    p.n_rows = (y.H + p.SH - 1) // p.SH
    p.n_cols = (y.W + p.SW - 1) // p.SW
    p.pitch = max((p.n_cols - 1) * p.step_w + p.cols.span, x.W - p.cols.low)
    p.in_place = y.sc == 1
    p.flat = x.sw == 1 and (x.sh == x.W or x.H == 1)
    p.n_blocks = 1
    while True:
        p.block_rows = (p.n_rows + p.n_blocks - 1) // p.n_blocks
        p.slab_rows = (p.block_rows - 1) * p.step_h + p.rows.span
        p.slab_bytes = p.slab_rows * p.pitch * vector
        p.sums_bytes = p.block_rows * p.SH * y.W * vector
        if p.slab_bytes + p.sums_bytes <= UNIT_BYTES or p.block_rows == 1:
            break
        p.n_blocks += 1
    p.n_blocks = (p.n_rows + p.block_rows - 1) // p.block_rows
    p.n_groups = (x.C + p.lanes - 1) // p.lanes
    p.n_units = x.N * p.n_groups * p.n_blocks
    p.weights_bytes = (p.T + 1) * vector
    p.workspace_bytes = pad_page(
        p.slab_bytes + p.sums_bytes + p.weights_bytes
        + (p.slab_rows + p.block_rows * p.SH) * sizeof(Py_ssize_t)
    )


cdef inline Py_ssize_t pad_page(Py_ssize_t n) noexcept nogil:
    return (n + 4095) // 4096 * 4096


cdef void place_taps(Depthwise *p, Py_ssize_t *memory, Py_ssize_t KW) noexcept nogil:
    """Find where each phase's taps lie in the slab, and where pixels of x go there."""
    cdef Py_ssize_t a, b, i, j, n
    cdef cn_depthwise_t *d
    for a in range(p.SH):
        for b in range(p.SW):
            d = &p.phase[a * p.SW + b]
            d.tap, d.weight, n = memory, memory + p.T, 0
            # Column by column, as planes are summed: the same bits.
            for j in range(p.cols.first[b], p.cols.first[b + 1]):
                for i in range(p.rows.first[a], p.rows.first[a + 1]):
                    memory[n] = (p.rows.d[i] - p.rows.low) * p.pitch
                    memory[n] = (memory[n] + p.cols.d[j] - p.cols.low) * p.lanes
                    memory[p.T + n] = (p.rows.k[i] * KW + p.cols.k[j]) * p.lanes
                    n += 1
            memory += 2 * p.T
            d.n_taps = n
            d.x_row, d.x_col = p.step_h * p.pitch * p.lanes, p.step_w * p.lanes
            d.clip = p.product.finish.clip
            d.low, d.high = p.product.finish.low, p.product.finish.high
    p.place, n = memory, p.x.image.W
    for i in range(p.slab_rows if p.flat else 0):
        for j in range(n):
            memory[i * n + j] = (i * p.pitch + j) * p.lanes


cdef void units_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Some units. Whole planes have the same borders, which are zeroed once."""
    cdef const Depthwise *p = <const Depthwise *> ctx
    cdef Py_ssize_t unit = i * p.task_units, end = min(unit + p.task_units, p.n_units)
    cdef char *memory = p.workspaces + worker * p.workspace_bytes
    if p.flat:
        memset(memory, 0, p.slab_bytes)
    while unit < end:
        sum_unit(p, unit, memory)
        unit += 1
        if p.flat and p.n_blocks > 1 and unit < end:
            memset(memory, 0, p.slab_bytes)


cdef void sum_unit(const Depthwise *p, Py_ssize_t unit, char *memory) noexcept nogil:
    cdef Py_ssize_t n = unit // p.n_blocks // p.n_groups, block, c
    block, c = unit % p.n_blocks, unit // p.n_blocks % p.n_groups * p.lanes
    if p.in_place:                      # in the order of memory
        block, c = unit // p.n_groups % p.n_blocks, unit % p.n_groups * p.lanes
    cdef Py_ssize_t count = min(p.lanes, p.x.image.C - c), itemsize = p.kernels.itemsize
    cdef Py_ssize_t first = block * p.block_rows
    cdef Py_ssize_t n_rows = min(p.block_rows, p.n_rows - first)
    cdef Py_ssize_t y_first = first * p.SH, y_end = min(p.y.image.H, (first + n_rows) * p.SH)
    cdef char *sums = memory + p.slab_bytes
    cdef char *weights = sums + p.sums_bytes
    cdef char *bias = weights + p.T * p.lanes * itemsize
    cdef Py_ssize_t *row = <Py_ssize_t *> (weights + p.weights_bytes)
    cdef Py_ssize_t a, b
    cdef bint direct = p.in_place and count == p.lanes
    cdef cn_depthwise_t d
    load_slab(p, n, c, count, first, memory, row)
    turn_in(&p.w, find_plane(&p.w, 0, c), weights, 0, 1, count, p.lanes, row)
    if p.product.finish.bias != NULL:
        memset(bias, 0, p.lanes * itemsize)
        memcpy(bias, p.product.finish.bias + c * itemsize, count * itemsize)
    else:
        bias = NULL
    for a in range(min(p.SH, y_end - y_first)):
        for b in range(min(p.SW, p.y.image.W)):
            d = p.phase[a * p.SW + b]
            d.n_rows = (y_end - y_first - a + p.SH - 1) // p.SH
            d.n_cols = (p.y.image.W - b + p.SW - 1) // p.SW
            fetch_ahead(p, unit, a * p.SW + b, &d)
            if direct:
                d.y_row, d.y_col = p.SH * p.y.image.sh, p.SW * p.y.image.sw
                p.kernels.depthwise_sum(
                    find_plane(&p.y, n, c)
                    + ((y_first + a) * p.y.image.sh + b * p.y.image.sw) * itemsize,
                    memory, weights, bias, &d,
                )
                continue
            d.y_row, d.y_col = p.SH * p.y.image.W * p.lanes, p.SW * p.lanes
            p.kernels.depthwise_sum(
                sums + (a * p.y.image.W + b) * p.lanes * itemsize, memory, weights,
                bias, &d,
            )
    if not direct:
        turn_out(
            &p.y, find_plane(&p.y, n, c), sums, y_first, y_end, count, p.lanes, row
        )


cdef void fetch_ahead(
    const Depthwise *p, Py_ssize_t unit, Py_ssize_t phase, cn_depthwise_t *d
) noexcept nogil:
    """While a phase is summed, fetch its part of the next unit, and of the result."""
    fetch_planes(p, &p.x, unit + 1, phase, &d.next[0], &d.n_next[0])
    fetch_planes(p, &p.y, unit, phase, &d.next[1], &d.n_next[1])


cdef inline void fetch_planes(
    const Depthwise *p, const Planes *planes, Py_ssize_t unit, Py_ssize_t phase,
    const void **next, Py_ssize_t *n_next,
) noexcept nogil:
    """A unit's planes, if they are whole and a run of memory."""
    cdef const Image *image = &planes.image
    cdef Py_ssize_t c = unit % p.n_groups * p.lanes, size = image.H * image.W, part
    next[0], n_next[0] = NULL, 0
    if p.n_blocks > 1 or unit == p.n_units or image.sc != size or image.sw != 1:
        return
    part = min(p.lanes, image.C - c) * size * p.kernels.itemsize // (p.SH * p.SW)
    next[0] = find_plane(planes, unit // p.n_groups, c) + phase * part
    n_next[0] = part


cdef void load_slab(
    const Depthwise *p, Py_ssize_t n, Py_ssize_t c, Py_ssize_t count, Py_ssize_t first,
    char *slab, Py_ssize_t *row,
) noexcept nogil:
    """Turn the rows that a block's taps read; what lies beside the image is zero."""
    cdef cn_slab_t s
    cdef const Image *x = &p.x.image
    cdef Py_ssize_t top = first * p.step_h + p.rows.low, r, zero = 0
    cdef Py_ssize_t begin = min(max(top, 0), x.H), end = min(top + p.slab_rows, x.H)
    memset(&s, 0, sizeof(s))
    s.n_channels, s.x_channel_stride, s.x = count, x.sc, p.x.row
    s.n_phases, s.step, s.pixel_stride, s.phase = 1, 1, p.lanes, &zero
    if p.flat and (end - begin) * x.W >= p.lanes:
        slab += ((begin - top) * p.pitch - p.cols.low) * p.lanes * p.kernels.itemsize
        p.kernels.turn_plane(
            slab,
            find_plane(&p.x, n, c) + begin * x.sh * p.kernels.itemsize,
            (end - begin) * x.W,
            p.place,
            &s,
        )
        return
    s.n_rows, s.row, s.first_col, s.n_cols = p.slab_rows, row, p.cols.low, p.pitch
    for r in range(p.slab_rows):
        row[r] = (top + r) * x.sh if 0 <= top + r < x.H else CN_NO_ROW
    p.kernels.turn_slab(slab, find_plane(&p.x, n, c), &s)
