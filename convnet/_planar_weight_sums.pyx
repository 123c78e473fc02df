# SPDX-License-Identifier: MIT
"""Sums of a weight gradient plane by plane: see ``_planar_weight_sums.pxd``.

Block after block, a task copies the pixels of x to a padded slab in L1 and multiplies
rows of grad_y with what each tap sees. Each tap has a vector of sums, added up at last.
"""

from libc.string cimport memset

from convnet._blocks cimport padded
from convnet._kernels cimport (
    cn_kernels_t, cn_planar_t, cn_plane_t, cn_row_t, cn_slab_t,
)
from convnet._planes cimport (
    PlaneBlock, Planes, fetch_block, get_block, load_block, slab_bytes,
)


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
