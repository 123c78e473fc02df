# SPDX-License-Identifier: MIT
"""Gradients of weights, few channels a group, plane by plane: ``_planar_weight.pxd``.

A task has some output channels of one group, or some groups. Block after block it
copies the pixels of x to a padded slab in L1 and multiplies rows of grad_y with what
each tap sees; a vector of sums for each tap is added up at the end. Where there are few
tasks, the blocks are split into parts whose number depends on the shapes alone, and the
parts' sums are added in order.
"""

from libc.string cimport memset

from convnet._blocks cimport ENOUGH_TASKS, Gather, padded
from convnet._kernels cimport (
    cn_kernels_t, cn_planar_t, cn_plane_t, cn_row_t, cn_slab_t, give_back, run_tasks,
    take_scratch,
)
from convnet._operands cimport Image
from convnet._planes cimport (
    PlaneBlock, Planes, add_windows, fetch_block, fits_planes, get_block,
    load_block, outline_planes, place_columns, plan_planes, slab_bytes,
)

# Operations of a task, and bytes of its sums.
cdef double TASK_WORK = 1e6
cdef Py_ssize_t SUMS_BYTES = 24 * 1024
# Cycles for a vector of grad_y: for each tap and row; to copy x, for each channel; and
# of a packed product, for each column: a row that panels have, and packing.
cdef double SUMMING = 1.3, COPYING = 5.0, MULTIPLYING = 0.6, PACKING = 6.0
# Products that a lane adds up before it is added to a total: long chains round badly.
cdef Py_ssize_t CHAIN = 512


cdef struct PlanarWeight:
    Planes planes
    Image grad_y
    cn_row_t row                    # of grad_y
    char *grad_w
    Py_ssize_t G, R, T              # groups, rows of each, terms of a row: C * KH * KW
    cn_planar_t sums
    Py_ssize_t *offset              # of each sum in a row of grad_w
    Py_ssize_t task_rows, n_row_tasks, n_blocks, n_parts
    char *parts                     # (n_parts, G * R, T), or grad_w
    Py_ssize_t sums_size            # of a task: all rows' terms, groups of LANES
    # Products that a block adds to a lane, at most; whether there are totals for them.
    Py_ssize_t block_steps
    bint has_totals
    # Rows of grad_y whose pixels lie apart are copied, those of a task together.
    bint copied
    Py_ssize_t grad_pitch, grad_size, grads_bytes
    char *workspaces
    Py_ssize_t workspace_bytes


cpdef double planar_cycles(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t W, Py_ssize_t taps, Py_ssize_t lanes
):
    """Cycles per vector of pixels of R x C channels; rows have W pixels."""
    cdef double vectors = (W + lanes - 1) // lanes * lanes / <double> W
    return vectors * C * (SUMMING * R * taps + COPYING)


cdef bint is_weight_planar(
    const Gather *x, const Image *grad_y, Py_ssize_t R, Py_ssize_t C, Py_ssize_t KH,
    Py_ssize_t KW, stride, dilation
) except -1:
    cdef const cn_kernels_t *kernels = x.kernels
    cdef double rows = (R + kernels.mr - 1) // kernels.mr * kernels.mr
    cdef double columns = padded(kernels, C * KH * KW)
    cdef double planar = planar_cycles(R, C, grad_y.W, KH * KW, kernels.lanes)
    return (
        planar < columns * (rows * MULTIPLYING + PACKING)
        and fits_planes(C, grad_y.W, KH, KW, stride, dilation)
    )


cdef int run_planar_weight(
    const Gather *x, const Image *grad_y, const char *grad_y_begin,
    const char *grad_y_end, char *grad_w, Py_ssize_t G, Py_ssize_t R, Py_ssize_t KH,
    Py_ssize_t KW, padding, dilation, int num_threads, list plans,
) except -1:
    cdef PlanarWeight p
    cdef Planes *planes = &p.planes
    cdef Py_ssize_t tasks, indices, parts_bytes = 0
    cdef double work
    cdef char *scratch
    planes.kernels, planes.x, planes.x_row = x.kernels, x.x, x.x_row
    planes.y, p.grad_y = grad_y[0], grad_y[0]
    planes.step_h, planes.step_w = x.step_h, x.step_w
    p.row.begin, p.row.end = grad_y_begin, grad_y_end
    p.row.col_stride = grad_y.sw
    p.grad_w, p.G, p.R, p.T = grad_w, G, R, x.x.C * KH * KW
    add_windows(&planes.rows, KH, dilation[0], padding[0])
    add_windows(&planes.cols, KW, dilation[1], padding[1])
    planes.G = G
    plan_planes(planes)
    work = 2.0 * G * R * p.T * planes.y.N * planes.y.H * planes.y.W
    tasks = plan_tasks(&p, work)
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
        run_tasks(weight_task, &p, tasks, num_threads, 2 * work)
        if p.n_parts > 1:
            add_parts(&p)
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


cdef void weight_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Some rows of grad_w, whole groups or a part of one, of one part of the blocks."""
    cdef const PlanarWeight *p = <const PlanarWeight *> ctx
    cdef Py_ssize_t part = i // p.n_row_tasks, n, row, end, first, last
    cdef Py_ssize_t per_group = (p.R + p.task_rows - 1) // p.task_rows
    cdef Py_ssize_t per_image = p.n_blocks // p.planes.y.N
    cdef char *memory = p.workspaces + worker * p.workspace_bytes
    cdef char *sums = memory + slab_bytes(&p.planes) + p.grads_bytes
    row = i % p.n_row_tasks * p.task_rows
    end = min(row + p.task_rows, p.G * p.R)
    if p.task_rows < p.R:
        row = i % p.n_row_tasks // per_group * p.R
        end = min(row + p.R, row + (i % per_group + 1) * p.task_rows)
        row += i % per_group * p.task_rows
    memset(sums, 0, (2 + 2 * p.has_totals) * tail(p) * p.planes.kernels.itemsize)
    first, last = part * p.n_blocks // p.n_parts, (part + 1) * p.n_blocks // p.n_parts
    for n in range(first // per_image, (last - 1) // per_image + 1):
        add_image(
            p, memory, sums, n, max(first - n * per_image, 0),
            min(last - n * per_image, per_image), row, end,
        )
    if p.has_totals:
        add_to_totals(p, sums, (end - row) * p.T)
    store_sums(p, sums, part, row, end)


cdef inline Py_ssize_t tail(const PlanarWeight *p) noexcept nogil:
    """How far from the sums of whole vectors those of rows' ends lie.

    Beyond both lie their totals.
    """
    return p.sums_size * p.planes.kernels.lanes


cdef inline bint ends_chain(const PlanarWeight *p, Py_ssize_t index) noexcept nogil:
    return (index + 1) * p.block_steps // CHAIN > index * p.block_steps // CHAIN


cdef void add_to_totals(
    const PlanarWeight *p, char *sums, Py_ssize_t n
) noexcept nogil:
    """Add n sums, and those of rows' ends, to their totals, and begin anew."""
    cdef Py_ssize_t itemsize = p.planes.kernels.itemsize
    cdef cn_plane_t plane
    plane.n_rows, plane.n_cols = 1, n * p.planes.kernels.lanes
    plane.row_stride, plane.col_stride = 0, 1
    for _ in range(2 if p.grad_y.W % p.planes.kernels.lanes else 1):
        p.planes.kernels.add_plane(
            sums + 2 * tail(p) * itemsize, &plane, sums, &plane, True
        )
        memset(sums, 0, plane.n_cols * itemsize)
        sums += tail(p) * itemsize


cdef void add_image(
    const PlanarWeight *p, char *memory, char *sums, Py_ssize_t n, Py_ssize_t first,
    Py_ssize_t last, Py_ssize_t row, Py_ssize_t end,
) noexcept nogil:
    """Add blocks [first, last) of image n to the sums of rows [row, end)."""
    cdef Py_ssize_t index, n_rows
    cdef PlaneBlock block
    cdef cn_planar_t pixels
    while row < end:
        for index in range(first, last):
            block = find_block(p, n, index, row, end)
            n_rows = min(block.n_groups * p.R, end - row)
            memset(&pixels, 0, sizeof(pixels))
            if index + 1 < last:
                fetch_pixels(p, n, index + 1, row, end, &pixels)
            elif row + n_rows < end:
                fetch_pixels(p, n, first, row + n_rows, end, &pixels)
            add_block(p, &block, memory, sums, row, n_rows, &pixels)
            if p.has_totals and ends_chain(p, n * p.n_blocks // p.planes.y.N + index):
                add_to_totals(p, sums, n_rows * p.T)
        sums += n_rows * p.T * p.planes.kernels.lanes * p.planes.kernels.itemsize
        row += n_rows


cdef PlaneBlock find_block(
    const PlanarWeight *p, Py_ssize_t n, Py_ssize_t index, Py_ssize_t row,
    Py_ssize_t end,
) noexcept nogil:
    """Block `index` of an image, of as many groups as rows [row, end) have or fit."""
    cdef PlaneBlock block = get_block(&p.planes, index)
    block.n, block.group = n, row // p.R
    block.n_groups = min(p.planes.slab_groups, (end - 1) // p.R - block.group + 1)
    return block


cdef inline const char *find_grad(
    const PlanarWeight *p, const PlaneBlock *block, Py_ssize_t row
) noexcept nogil:
    """Column 0 of a block's first row of pixels in grad_y."""
    return p.grad_y.data + p.planes.kernels.itemsize * (
        block.n * p.grad_y.sn + row * p.grad_y.sc + block.first_row * p.grad_y.sh
    )


cdef void fetch_pixels(
    const PlanarWeight *p, Py_ssize_t n, Py_ssize_t index, Py_ssize_t row,
    Py_ssize_t end, cn_planar_t *pixels,
) noexcept nogil:
    """Tell what a block will read, of x and of grad_y."""
    cdef PlaneBlock block = find_block(p, n, index, row, end)
    cdef Py_ssize_t size = block.n_rows * p.grad_y.sh
    fetch_block(&p.planes, &block, pixels)
    if not p.copied and p.grad_y.sh == p.grad_y.W:
        if p.planes.n_row_blocks == 1 and p.grad_y.sc == size:
            size *= min(block.n_groups * p.R, end - row)
        pixels.next[1] = find_grad(p, &block, row)
        pixels.n_next[1] = size * p.planes.kernels.itemsize


cdef void add_block(
    const PlanarWeight *p, const PlaneBlock *block, char *memory, char *sums,
    Py_ssize_t row, Py_ssize_t n_rows, cn_planar_t *pixels,
) noexcept nogil:
    """Add a block's pixels to the sums of rows [row, row + n_rows)."""
    cdef const Planes *planes = &p.planes
    cdef const char *slab = load_block(planes, block, memory)
    cdef const char *grad = find_grad(p, block, row)
    cdef Py_ssize_t stride = p.grad_y.sh, first_col = block.first_col
    cdef cn_row_t grad_row = p.row
    pixels.n_columns, pixels.column = p.sums.n_columns, p.sums.column
    pixels.n_taps, pixels.tap_stride = p.sums.n_taps, p.sums.tap_stride
    pixels.row_stride = p.sums.row_stride
    pixels.n_rows, pixels.n_cols = block.n_rows, block.n_cols
    pixels.n_results, pixels.share, pixels.y_stride = n_rows, p.R, p.grad_y.sc
    pixels.x_stride = planes.x.C * planes.channel_stride
    grad_row.IW = first_col + block.n_cols
    if p.copied:
        grad = copy_grads(p, block, memory + slab_bytes(planes), row, n_rows)
        stride, first_col, grad_row.IW = p.grad_pitch, 0, block.n_cols
        grad_row.begin = grad
        grad_row.end = grad + n_rows * p.grad_size * planes.kernels.itemsize
        pixels.y_stride = p.grad_size
    planes.kernels.planar_grad(
        sums, tail(p), slab, grad, stride, first_col, &grad_row, pixels
    )


cdef const char *copy_grads(
    const PlanarWeight *p, const PlaneBlock *block, char *memory, Py_ssize_t row,
    Py_ssize_t n_rows,
) noexcept nogil:
    """Copy a block's pixels of some rows of grad_y to planes."""
    cdef cn_slab_t slab
    cdef Py_ssize_t *lines = <Py_ssize_t *> (
        memory + (p.task_rows * p.grad_size + p.planes.kernels.lanes)
        * p.planes.kernels.itemsize
    )
    cdef Py_ssize_t i, no_phase = 0
    for i in range(block.n_rows):
        lines[i] = i * p.grad_y.sh
    slab.n_channels, slab.x_channel_stride = n_rows, p.grad_y.sc
    slab.channel_stride, slab.n_rows, slab.row = p.grad_size, block.n_rows, lines
    slab.x = p.row
    slab.x.IW = p.grad_y.W
    slab.first_col, slab.step, slab.n_cols = block.first_col, 1, p.grad_pitch
    slab.n_phases, slab.phase, slab.pixel_stride = 1, &no_phase, 1
    p.planes.kernels.fill_slab(memory, find_grad(p, block, row), &slab)
    return memory


cdef void store_sums(
    const PlanarWeight *p, char *sums, Py_ssize_t part, Py_ssize_t row, Py_ssize_t end
) noexcept nogil:
    """Add up each tap's vector, and write them where they belong."""
    cdef const cn_kernels_t *kernels = p.planes.kernels
    cdef Py_ssize_t itemsize = kernels.itemsize
    cdef char *totals = sums + 4 * tail(p) * itemsize
    cdef char *to = p.parts + (part * p.G * p.R + row) * p.T * itemsize
    if p.has_totals:
        sums += 2 * tail(p) * itemsize
    kernels.sum_lanes(
        totals, sums, tail(p), p.grad_y.W % kernels.lanes,
        padded(kernels, (end - row) * p.T),
    )
    for _ in range(end - row):
        kernels.scatter(to, totals, p.offset, p.T)
        totals += p.T * itemsize
        to += p.T * itemsize


cdef void add_parts(const PlanarWeight *p) noexcept nogil:
    """grad_w = the parts' sums, added in order."""
    cdef Py_ssize_t part, n = p.G * p.R * p.T
    cdef cn_plane_t plane
    plane.n_rows, plane.n_cols, plane.row_stride, plane.col_stride = 1, n, 0, 1
    for part in range(p.n_parts):
        p.planes.kernels.add_plane(
            p.grad_w,
            &plane,
            p.parts + part * n * p.planes.kernels.itemsize,
            &plane,
            part > 0,
        )
