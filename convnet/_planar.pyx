# SPDX-License-Identifier: MIT
"""Convolutions of few channels a group, plane by plane: see ``_planar.pxd``.

A task copies the pixels that a block needs, of one group after another, to a padded
slab in L1, and sums columns of taps over it, one row of the product (an output channel)
at a time. The sums of a strided input gradient's phases are woven to rows of pixels.
"""

from libc.string cimport memset

from convnet._blocks cimport padded
from convnet._kernels cimport (
    cn_kernels_t, cn_planar_t, cn_plane_t, cn_tile_t, cn_weave_t, give_back, run_tasks,
    take_scratch,
)
from convnet._operands cimport Image
from convnet._planes cimport (
    MAX_STEP, PlaneBlock, Planes, add_phases, add_windows, count_blocks, fetch_block,
    fits_planes, get_block, load_block, outline_planes, place_columns, plan_planes,
    slab_bytes,
)
from convnet._product cimport Product

# Operations of a task, unless its block has more: some microseconds.
cdef double TASK_WORK = 4e5
# Cycles of a vector: for each row of the product and tap, and to copy it to the slab;
# those of packed products, for each panel of rows and tap, and to pack the vector.
cdef double SUMMING = 1.2, COPYING = 4.0, MULTIPLYING = 5.4, PACKING = 5.0


cdef struct PlanarProduct:
    Planes planes
    Image y                         # the result
    Py_ssize_t SH, SW               # its pixels for each of the planes'
    const Product *product
    cn_planar_t sums[MAX_STEP * MAX_STEP]           # of each phase
    Py_ssize_t *offset[MAX_STEP * MAX_STEP]         # of its weights
    Py_ssize_t n_weights[MAX_STEP * MAX_STEP]
    Py_ssize_t n_blocks, task_blocks
    # Sums of phases, and those that go to pixels apart, are parts: for each row of the
    # product SW of them, some rows of pixels each.
    bint in_parts
    Py_ssize_t part_pitch, part_size
    char *workspaces
    Py_ssize_t weights_bytes, workspace_bytes


cdef bint is_better_planar(
    const Product *p, Py_ssize_t KH, Py_ssize_t KW, stride, dilation
) noexcept:
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef Py_ssize_t lanes = kernels.lanes, W = p.pixels.y.W, C = p.pixels.x.C
    cdef double vectors = (W + lanes - 1) // lanes * lanes / <double> W
    cdef double panels = (p.R + kernels.mr - 1) // kernels.mr
    cdef double planar = vectors * (p.R * SUMMING + COPYING / (KH * KW))
    return (
        planar < panels * MULTIPLYING + PACKING
        and fits_planes(C, KH, KW, stride, dilation)
    )


cdef int run_planar(
    const Product *product, Py_ssize_t KH, Py_ssize_t KW, stride, padding, dilation,
    bint gradient, int num_threads, list plans,
) except -1:
    cdef PlanarProduct p
    cdef Planes *planes = &p.planes
    cdef Py_ssize_t tasks
    cdef double work
    cdef char *scratch
    planes.kernels = product.pixels.kernels
    planes.x, planes.x_row = product.pixels.x, product.pixels.x_row
    p.product, p.y = product, product.pixels.y
    p.in_parts = p.y.sw != 1 or (gradient and stride[0] * stride[1] != 1)
    planes.y, p.SH, p.SW = p.y, 1, 1
    planes.step_h, planes.step_w = stride[0], stride[1]
    if gradient:
        planes.step_h = planes.step_w = 1
        p.SH, p.SW = stride[0], stride[1]
        planes.y.H = (p.y.H + p.SH - 1) // p.SH
        planes.y.W = (p.y.W + p.SW - 1) // p.SW
        add_phases(&planes.rows, KH, p.SH, dilation[0], padding[0])
        add_phases(&planes.cols, KW, p.SW, dilation[1], padding[1])
    else:
        add_windows(&planes.rows, KH, dilation[0], padding[0])
        add_windows(&planes.cols, KW, dilation[1], padding[1])
    planes.G = product.G
    plan_planes(planes)
    work = 2.0 * product.G * product.R * planes.x.C * KH * KW
    work *= <double> planes.y.N * planes.y.H * planes.y.W
    p.n_blocks = count_blocks(planes)
    p.task_blocks = 1 + <Py_ssize_t> min(TASK_WORK / work * p.n_blocks, 1e9)
    tasks = (p.n_blocks + p.task_blocks - 1) // p.task_blocks
    num_threads = <int> min(num_threads, tasks)
    cdef Py_ssize_t indices = index_bytes(&p, KH, KW)
    p.weights_bytes = planes.slab_groups * product.R * planes.x.C * KH * KW
    p.weights_bytes = (p.weights_bytes * planes.kernels.itemsize + 63) // 64 * 64
    p.workspace_bytes = workspace_bytes(&p)
    if plans is not None:
        plans.append(
            outline_planes(planes, tasks, indices + num_threads * p.workspace_bytes)
        )
        return 0
    scratch = <char *> take_scratch(indices + num_threads * p.workspace_bytes)
    p.workspaces = scratch + indices
    try:
        place_phases(&p, <Py_ssize_t *> scratch, KW)
        # A task takes longer than its operations would in a packed product.
        run_tasks(planar_task, &p, tasks, num_threads, 2 * work)
    finally:
        give_back(scratch)
    return 0


cdef Py_ssize_t index_bytes(
    const PlanarProduct *p, Py_ssize_t KH, Py_ssize_t KW
) noexcept nogil:
    cdef Py_ssize_t n = p.planes.x.C * KW * (KH + p.planes.rows.n_phases)
    return (n * sizeof(Py_ssize_t) + 4095) // 4096 * 4096


cdef Py_ssize_t workspace_bytes(PlanarProduct *p) noexcept nogil:
    """Bytes of one thread: a slab, the weights of a row, the sums of phases."""
    cdef Py_ssize_t n = 0
    p.part_pitch = padded(p.planes.kernels, p.planes.block_cols)
    p.part_size = p.part_pitch * p.planes.block_rows
    if p.in_parts:
        n = p.planes.slab_groups * p.product.R * p.SW
        n *= p.part_size * p.planes.kernels.itemsize
    return (slab_bytes(&p.planes) + p.weights_bytes + n + 4095) // 4096 * 4096


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
            p.n_weights[i] = place_columns(
                &p.planes, a, b, p.product.channel_stride, KW, &p.sums[i], memory,
                p.offset[i],
            )
            memory += p.sums[i].n_columns


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
        slab = load_block(&p.planes, &block, memory)
        index += 1
        memset(&sums, 0, sizeof(sums))
        if index < end:
            next_block = get_block(&p.planes, index)
            fetch_block(&p.planes, &next_block, &sums)
            fetch_result(p, &next_block, &sums)
        if p.in_parts:
            sum_parts(p, &block, slab, memory + slab_bytes(&p.planes), &sums)
        else:
            sum_windows(p, &block, slab, memory + slab_bytes(&p.planes), &sums)
        block = next_block


cdef char *find_y(
    const PlanarProduct *p, const PlaneBlock *block, Py_ssize_t row
) noexcept nogil:
    """Where a block's pixels begin in a row of the product, counted over all groups."""
    return p.y.data + p.planes.kernels.itemsize * (
        block.n * p.y.sn
        + row * p.y.sc
        + block.first_row * p.SH * p.y.sh
        + block.first_col * p.SW * p.y.sw
    )


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


cdef void load_weights(
    const PlanarProduct *p, const PlaneBlock *block, Py_ssize_t phase, char *weights
) noexcept nogil:
    """The weights of a phase's taps, in their order, for all rows of a block."""
    cdef Py_ssize_t R = p.product.R, itemsize = p.planes.kernels.itemsize, g
    for g in range(block.group, block.group + block.n_groups):
        p.planes.kernels.gather(
            weights,
            p.product.weight + g * p.product.group_stride * itemsize,
            p.offset[phase],
            p.n_weights[phase],
            R,
            p.product.row_stride,
        )
        weights += R * p.n_weights[phase] * itemsize


cdef void describe_sums(
    const PlanarProduct *p, const PlaneBlock *block, Py_ssize_t phase, cn_planar_t *sums
) noexcept nogil:
    """The sums of all rows of a block."""
    cdef const cn_planar_t *taps = &p.sums[phase]
    sums.n_columns, sums.column, sums.n_taps = taps.n_columns, taps.column, taps.n_taps
    sums.tap_stride, sums.row_stride = taps.tap_stride, taps.row_stride
    sums.n_results, sums.share = block.n_groups * p.product.R, p.product.R
    sums.x_stride = p.planes.x.C * p.planes.channel_stride


cdef void describe_tile(
    const PlanarProduct *p, cn_tile_t *tile, Py_ssize_t group
) noexcept nogil:
    """What becomes of the sums of rows from a group's first one on."""
    memset(tile, 0, sizeof(cn_tile_t))
    tile.col_stride = 1
    if p.product.finish.bias != NULL:
        tile.bias = p.product.finish.bias + (
            group * p.product.R * p.planes.kernels.itemsize
        )
    tile.accumulate = p.product.finish.accumulate
    tile.addend, tile.clip = p.product.finish.addend, p.product.finish.clip
    tile.low, tile.high = p.product.finish.low, p.product.finish.high


cdef void sum_windows(
    const PlanarProduct *p, const PlaneBlock *block, const char *slab, char *weights,
    cn_planar_t *sums,
) noexcept nogil:
    """All rows of a block, finished, to the result."""
    cdef cn_tile_t tile
    describe_sums(p, block, 0, sums)
    sums.n_rows, sums.n_cols, sums.y_stride = block.n_rows, block.n_cols, p.y.sc
    describe_tile(p, &tile, block.group)
    tile.y, tile.row_stride = find_y(p, block, block.group * p.product.R), p.y.sh
    load_weights(p, block, 0, weights)
    p.planes.kernels.planar_sum(&tile, slab, weights, sums)


cdef void sum_parts(
    const PlanarProduct *p, const PlaneBlock *block, const char *slab, char *weights,
    cn_planar_t *sums,
) noexcept nogil:
    """All rows of a block: their phases, one row of phases after another."""
    cdef Py_ssize_t a, b, r, n_rows = block.n_groups * p.product.R
    cdef Py_ssize_t row_bytes = p.SW * p.part_size * p.planes.kernels.itemsize
    cdef Py_ssize_t found[MAX_STEP]
    cdef char *parts = weights + p.weights_bytes
    for a in range(p.SH):
        for b in range(p.SW):
            found[b] = b if p.n_weights[a * p.SW + b] > 0 else -1
            if found[b] >= 0:
                sum_part(p, block, slab, weights, a, b, sums)
        if p.y.sw == 1:
            for r in range(n_rows):
                weave_pixels(p, block, parts + r * row_bytes, found, r, a)
        else:
            for r in range(count_rows(p, block, a)):
                weave_channels(p, block, parts, found, n_rows, r, a)


cdef void sum_part(
    const PlanarProduct *p, const PlaneBlock *block, const char *slab, char *weights,
    Py_ssize_t a, Py_ssize_t b, cn_planar_t *sums,
) noexcept nogil:
    """The sums of phase (a, b), finished, but not yet where they belong."""
    cdef cn_tile_t tile
    describe_sums(p, block, a * p.SW + b, sums)
    sums.n_rows = count_rows(p, block, a)
    sums.n_cols = padded(p.planes.kernels, block.n_cols)
    sums.y_stride = p.SW * p.part_size
    describe_tile(p, &tile, block.group)
    tile.y = weights + p.weights_bytes + b * p.part_size * p.planes.kernels.itemsize
    tile.row_stride = p.part_pitch
    if tile.accumulate:
        load_addends(p, block, &tile, sums.n_results)
    load_weights(p, block, a * p.SW + b, weights)
    p.planes.kernels.planar_sum(&tile, slab, weights, sums)
    sums.n_next[0] = sums.n_next[1] = 0         # fetched


cdef void load_addends(
    const PlanarProduct *p, const PlaneBlock *block, cn_tile_t *tile, Py_ssize_t n
) noexcept nogil:
    """Copy what is to be added from where it lies to the parts."""
    cdef Py_ssize_t itemsize = p.planes.kernels.itemsize, r
    cdef cn_plane_t source, part
    source.n_rows, source.n_cols = block.n_rows, block.n_cols
    part = source
    source.row_stride, source.col_stride = p.y.sh, p.y.sw
    part.row_stride, part.col_stride = p.part_pitch, 1
    for r in range(n):
        p.planes.kernels.add_plane(
            <char *> tile.y + r * p.SW * p.part_size * itemsize,
            &part,
            find_y(p, block, block.group * p.product.R + r) + tile.addend * itemsize,
            &source,
            False,
        )
    tile.addend = 0


cdef inline Py_ssize_t count_rows(
    const PlanarProduct *p, const PlaneBlock *block, Py_ssize_t a
) noexcept nogil:
    """How many of a block's rows have a pixel of phase a."""
    return min(block.n_rows, (p.y.H - a + p.SH - 1) // p.SH - block.first_row)


cdef cn_weave_t describe_weave(
    const PlanarProduct *p, const PlaneBlock *block, const Py_ssize_t *found
) noexcept nogil:
    """Rows of pixels from their parts."""
    cdef cn_weave_t how
    how.accumulate, how.col_stride, how.part = False, p.y.sw, found
    how.ways, how.part_stride = p.SW, p.part_size
    how.n = min(block.n_cols * p.SW, p.y.W - block.first_col * p.SW)
    return how


cdef void weave_pixels(
    const PlanarProduct *p, const PlaneBlock *block, const char *parts,
    const Py_ssize_t *found, Py_ssize_t r, Py_ssize_t a,
) noexcept nogil:
    """The pixels of phase a in row r of a block, whose columns are neighbours."""
    cdef cn_weave_t how = describe_weave(p, block, found)
    how.n_rows = count_rows(p, block, a)
    how.row_stride, how.x_row_stride = p.SH * p.y.sh, p.part_pitch
    p.planes.kernels.weave_rows(
        find_y(p, block, block.group * p.product.R + r)
        + a * p.y.sh * p.planes.kernels.itemsize,
        parts,
        &how,
    )


cdef void weave_channels(
    const PlanarProduct *p, const PlaneBlock *block, const char *parts,
    const Py_ssize_t *found, Py_ssize_t n, Py_ssize_t i, Py_ssize_t a,
) noexcept nogil:
    """Pixel row i of phase a, in all n rows of a block: channels may come last."""
    cdef Py_ssize_t itemsize = p.planes.kernels.itemsize
    cdef cn_weave_t how = describe_weave(p, block, found)
    how.n_rows, how.row_stride, how.x_row_stride = n, p.y.sc, p.SW * p.part_size
    p.planes.kernels.weave_rows(
        find_y(p, block, block.group * p.product.R)
        + (i * p.SH + a) * p.y.sh * itemsize,
        parts + i * p.part_pitch * itemsize,
        &how,
    )
