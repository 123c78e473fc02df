# SPDX-License-Identifier: MIT
"""Dense convolution, gradient with respect to weights and bias.

    grad_w[r, c, t] = sum over n, i, j of
                      grad_y[n, r, i, j] * x[gathered by c, t, n, i, j]

Pixels are the reduction here. Tasks own tiles of grad_w (rows by chunks of (c, t)) and
walk over all pixels in order; where that gives too few tasks, the pixels are split into
parts whose number depends on the shape alone, each with a sum of its own, and the parts
are added in order. So the bits never depend on the number of threads.
"""

cimport numpy as cnp

from libc.string cimport memset

from convnet._blocks cimport (
    Block, Chunk, Gather, Image, add_tap, block_bytes, cut_panel, describe_array,
    get_chunk, load_channels, open_block, outline, place_block, place_tap_arrays,
    plan_gather, require_slab, take_tap_memory,
)
from convnet._kernels cimport (
    SLICE_WORK, active_kernels, cn_depth_t, cn_kernels_t, cn_panel_t, cn_plane_t,
    cn_segment_t, cn_tile_t, give_back, run_tasks, take_scratch,
)

cnp.import_array()

# Rows of grad_w in a task, in panels of MR: their packed grad_y fills 1/4 of an L2.
cdef Py_ssize_t TASK_PANELS = 16
# Fewer tasks than this, and the pixels are split into parts.
cdef Py_ssize_t ENOUGH_TASKS = 8


cdef struct WeightGradient:
    Gather pixels                   # x gathered at the pixels of grad_y
    Image grad_y
    Py_ssize_t G, R, K              # groups; rows of a group; columns: channels * taps
    Py_ssize_t n_panels, task_panels, n_row_tasks, n_chunks
    Py_ssize_t n_blocks, n_parts
    # Of each part's blocks, those that are added up now: `n_now` from `first` on.
    Py_ssize_t first, n_now
    char *sums                      # (n_parts, G * R, K)
    char *workspaces
    Py_ssize_t workspace_bytes


def grad_weight(
    cnp.ndarray grad_y,
    cnp.ndarray x,
    cnp.ndarray grad_w,
    stride,
    padding,
    dilation,
    Py_ssize_t groups,
    int num_threads,
    list plans=None,
):
    """Write the gradient with respect to the weights to `grad_w`.

    With a list as `plans`, nothing is computed: what would be is appended to it.
    """
    cdef WeightGradient p
    cdef Gather *g = &p.pixels
    cdef Py_ssize_t KH = grad_w.shape[2], KW = grad_w.shape[3], T = KH * KW, t
    cdef Py_ssize_t DH = dilation[0], DW = dilation[1]
    cdef Py_ssize_t PT = padding[0], PL = padding[1]
    g.kernels = active_kernels(<int> x.itemsize)
    g.x, p.grad_y = describe_array(x), describe_array(grad_y)
    # Segments carry offsets into grad_y: the product's "output pixels" are its pixels.
    g.y = p.grad_y
    g.step_h, g.step_w = stride[0], stride[1]
    p.G, p.R, p.K = groups, grad_w.shape[0] // groups, grad_w.shape[1] * T
    g.x.C = grad_w.shape[1]
    cdef Py_ssize_t *memory = take_tap_memory(T)
    try:
        place_tap_arrays(&g.taps, memory, T)
        for t in range(T):
            add_tap(&g.taps, t // KW * DH - PT, t % KW * DW - PL, t)
        plan_gather(g, False)
        require_slab(g)
        run_weight_gradient(&p, <char *> cnp.PyArray_DATA(grad_w), num_threads, plans)
    finally:
        give_back(memory)


cdef int run_weight_gradient(
    WeightGradient *p, char *grad_w, int num_threads, list plans
) except -1:
    cdef Gather *g = &p.pixels
    cdef Py_ssize_t n_elements = p.G * p.R * p.K, tasks, sums_bytes = 0
    cdef double work = 2.0 * n_elements * g.y.N * g.y.H * g.y.W
    cdef char *scratch
    plan_tasks(p)
    tasks = p.n_parts * p.G * p.n_chunks * p.n_row_tasks
    num_threads = <int> min(num_threads, tasks)
    p.workspace_bytes = workspace_bytes(p)
    if p.n_parts > 1:
        sums_bytes = (p.n_parts * n_elements * g.kernels.itemsize + 4095) // 4096 * 4096
    if plans is not None:
        plans.append(outline(g, tasks, sums_bytes + num_threads * p.workspace_bytes))
        return 0
    scratch = <char *> take_scratch(sums_bytes + num_threads * p.workspace_bytes)
    p.sums = scratch if p.n_parts > 1 else grad_w
    p.workspaces = scratch + sums_bytes
    # Tasks are few and may be long: they go on in rounds, between which an interrupt
    # may end the call.
    p.n_now = max(1, <Py_ssize_t> (p.n_blocks * min(1.0, SLICE_WORK / work)))
    try:
        for p.first in range(0, -(-p.n_blocks // p.n_parts), p.n_now):
            run_tasks(weight_task, p, tasks, num_threads, work * p.n_now / p.n_blocks)
        if p.n_parts > 1:
            add_parts(p, grad_w)
    finally:
        give_back(scratch)
    return 0


cdef void plan_tasks(WeightGradient *p) noexcept nogil:
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t tasks
    p.n_panels = (p.R + g.kernels.mr - 1) // g.kernels.mr
    p.task_panels = min(p.n_panels, TASK_PANELS)
    p.n_row_tasks = (p.n_panels + p.task_panels - 1) // p.task_panels
    p.n_chunks = g.n_channel_chunks * g.n_tap_chunks
    p.n_blocks = g.n_row_blocks * g.n_col_blocks
    tasks = p.G * p.n_chunks * p.n_row_tasks
    p.n_parts = min(p.n_blocks, (ENOUGH_TASKS + tasks - 1) // tasks)


cdef Py_ssize_t pixels_bytes(const WeightGradient *p) noexcept nogil:
    """Bytes of a block's gathered pixels: one panel of columns, and spill space."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t n = (g.rows * g.cols + g.kernels.lanes) * g.kernels.nr
    return (n * g.kernels.itemsize + 63) // 64 * 64


cdef Py_ssize_t workspace_bytes(const WeightGradient *p) noexcept nogil:
    """Bytes of one thread: block, gathered pixels, packed grad_y, column offsets."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t rows = p.task_panels * g.kernels.mr * g.rows * g.cols
    cdef Py_ssize_t offsets = g.kernels.nr * sizeof(Py_ssize_t)
    return (
        block_bytes(g) + pixels_bytes(p) + offsets + rows * g.kernels.itemsize + 4095
    ) // 4096 * 4096


cdef void weight_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """One part of the pixels, for one chunk of columns and some panels of rows."""
    cdef WeightGradient *p = <WeightGradient *> ctx
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t row_task = i % p.n_row_tasks, rest = i // p.n_row_tasks
    cdef Py_ssize_t group = rest // p.n_chunks % p.G, part = rest // p.n_chunks // p.G
    cdef Chunk chunk = get_chunk(g, rest % p.n_chunks)
    cdef Py_ssize_t begin = part * p.n_blocks // p.n_parts, index
    cdef Py_ssize_t end = (part + 1) * p.n_blocks // p.n_parts
    cdef char *memory = p.workspaces + worker * p.workspace_bytes
    cdef const char *x = g.x.data + group * g.x.C * g.x.sc * g.kernels.itemsize
    cdef const char *source
    cdef cn_panel_t pixels
    cdef Block block
    place_block(g, &block, memory)
    memory += block_bytes(g)
    for index in range(begin + p.first, min(begin + p.first + p.n_now, end)):
        open_block(g, &block, index)
        source = load_channels(g, &block, x, chunk.c, chunk.n_channels)
        cut_panel(g, &block, 0, block.n_rows * block.n_cols, &pixels)
        multiply_block(
            p, chunk, source, &pixels, memory, group, row_task, part, index > begin
        )


cdef void multiply_block(
    const WeightGradient *p, Chunk chunk, const char *source, const cn_panel_t *pixels,
    char *memory, Py_ssize_t group, Py_ssize_t row_task, Py_ssize_t part,
    bint accumulate,
) noexcept nogil:
    """Add one block's products to the part's sums: all columns, all rows of a task."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t MR = g.kernels.mr, NR = g.kernels.nr, itemsize = g.kernels.itemsize
    cdef Py_ssize_t *offset = <Py_ssize_t *> memory
    cdef char *gathered = memory + NR * sizeof(Py_ssize_t)
    cdef char *packed = gathered + pixels_bytes(p)
    cdef Py_ssize_t first_row = row_task * p.task_panels * MR
    cdef Py_ssize_t end_row = min(first_row + p.task_panels * MR, p.R)
    cdef Py_ssize_t i, n, panel, row
    cdef cn_segment_t run
    cdef cn_panel_t columns
    cdef cn_tile_t tile
    pack_grad_rows(p, pixels, packed, group, first_row, end_row)
    columns.segment, columns.n_segments, columns.joined = &run, 1, True
    run.in_ = 0
    tile.depth, tile.b, tile.bias = pixels.n_pixels, gathered, NULL
    tile.panel = &columns
    tile.a_stride, tile.row_stride, tile.col_stride = MR, p.K, 1
    tile.accumulate, tile.addend, tile.clip = accumulate, 0, False
    for i in range((chunk.depth + NR - 1) // NR):
        n = min(NR, chunk.depth - i * NR)
        place_columns(g, chunk, i * NR, n, offset)
        g.kernels.pack_taps(gathered, source, offset, n, pixels)
        columns.n_pixels = run.len = n
        run.out = chunk.k + i * NR
        for panel in range((end_row - first_row + MR - 1) // MR):
            row = first_row + panel * MR
            tile.n_rows = min(MR, end_row - row)
            tile.a = packed + panel * MR * pixels.n_pixels * itemsize
            tile.y = p.sums + ((part * p.G + group) * p.R + row) * p.K * itemsize
            g.kernels.gemm_tile(&tile)


cdef void place_columns(
    const Gather *g, Chunk chunk, Py_ssize_t k, Py_ssize_t n, Py_ssize_t *offset
) noexcept nogil:
    """Slab offsets of columns [k, k + n) of a chunk."""
    cdef Py_ssize_t i
    for i in range(n):
        offset[i] = (
            (k + i) // chunk.n_taps * g.channel_stride
            + g.taps.place[chunk.t + (k + i) % chunk.n_taps]
        )


cdef void pack_grad_rows(
    const WeightGradient *p, const cn_panel_t *pixels, char *packed, Py_ssize_t group,
    Py_ssize_t first_row, Py_ssize_t end_row,
) noexcept nogil:
    """Pack rows (output channels) of grad_y at a block's pixels, MR rows a panel."""
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef Py_ssize_t MR = kernels.mr, itemsize = kernels.itemsize, no_offset = 0
    cdef Py_ssize_t panel, row, s
    cdef const char *grad_y
    cdef cn_depth_t run
    run.channel_stride, run.n_taps, run.tap = p.grad_y.sw, 1, &no_offset
    for panel in range((end_row - first_row + MR - 1) // MR):
        row = first_row + panel * MR
        grad_y = p.grad_y.data + (group * p.R + row) * p.grad_y.sc * itemsize
        for s in range(pixels.n_segments):
            run.n_channels = pixels.segment[s].len
            kernels.pack_rows(
                packed,
                grad_y + pixels.segment[s].out * itemsize,
                min(MR, end_row - row),
                p.grad_y.sc,
                &run,
            )
            packed += run.n_channels * MR * itemsize


cdef void add_parts(const WeightGradient *p, char *grad_w) noexcept nogil:
    """grad_w = the parts' sums, added in order."""
    cdef Py_ssize_t part, n = p.G * p.R * p.K
    cdef cn_plane_t plane
    plane.n_rows, plane.n_cols, plane.row_stride, plane.col_stride = 1, n, 0, 1
    for part in range(p.n_parts):
        p.pixels.kernels.add_plane(
            grad_w,
            &plane,
            p.sums + part * n * p.pixels.kernels.itemsize,
            &plane,
            part > 0,
        )


cdef struct BiasGradient:
    const cn_kernels_t *kernels
    Image grad_y, grad_b            # a tied bias has one pixel
    Py_ssize_t n_parts
    double *sums                    # channels last: (n_parts, C)


# Channels last, all channels of some rows are summed together, in so many parts, unless
# a part would have fewer elements than this.
cdef Py_ssize_t MAX_BIAS_PARTS = 64
cdef Py_ssize_t PART_ELEMENTS = 1 << 16


def grad_bias(cnp.ndarray grad_y, grad_b, int num_threads):
    """Write the gradient of the bias to `grad_b`, of shape (OC,) or (OC, OH, OW)."""
    cdef BiasGradient p
    cdef bint untied = grad_b.ndim == 3
    # Memory is the limit: an element takes as long as eight multiply-adds.
    cdef Py_ssize_t n_elements = cnp.PyArray_SIZE(grad_y)
    cdef double work = 8.0 * n_elements
    p.kernels = active_kernels(<int> grad_y.itemsize)
    p.grad_y = describe_array(grad_y)
    p.grad_b = describe_array(grad_b.reshape(1, *(*grad_b.shape, 1, 1)[:3]))
    if untied:
        if p.grad_y.sc == 1 and p.grad_y.C >= p.kernels.lanes:
            # Channels last: inner loops run over what lies side by side.
            swap_channels(&p.grad_y)
            swap_channels(&p.grad_b)
        run_tasks(untied_bias_task, &p, p.grad_y.C, num_threads, work)
    elif p.grad_y.sc == 1:
        p.n_parts = min(MAX_BIAS_PARTS, 1 + n_elements // PART_ELEMENTS)
        p.sums = <double *> take_scratch(p.n_parts * p.grad_y.C * sizeof(double))
        try:
            run_tasks(bias_part_task, &p, p.n_parts, num_threads, work)
            add_bias_parts(&p)
        finally:
            give_back(p.sums)
    else:
        run_tasks(bias_task, &p, p.grad_y.C, num_threads, work)


cdef void swap_channels(Image *image) noexcept nogil:
    """Call columns channels and channels columns."""
    image.C, image.W = image.W, image.C
    image.sc, image.sw = image.sw, image.sc


cdef inline char *bias_at(const BiasGradient *p, Py_ssize_t i) noexcept nogil:
    return p.grad_b.data + i * p.grad_b.sc * p.kernels.itemsize


cdef inline void store_bias(
    const BiasGradient *p, Py_ssize_t i, double total
) noexcept nogil:
    if p.kernels.itemsize == 4:
        (<float *> bias_at(p, i))[0] = <float> total
    else:
        (<double *> bias_at(p, i))[0] = total


cdef inline cn_plane_t pixels_of(const Image *image) noexcept nogil:
    cdef cn_plane_t plane
    plane.n_rows, plane.n_cols = image.H, image.W
    plane.row_stride, plane.col_stride = image.sh, image.sw
    return plane


cdef void bias_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Sum one channel over the batch and over its pixels."""
    cdef BiasGradient *p = <BiasGradient *> ctx
    cdef const Image *y = &p.grad_y
    cdef cn_plane_t pixels = pixels_of(y)
    cdef Py_ssize_t n
    cdef double total = 0
    for n in range(y.N):
        total += p.kernels.sum_plane(
            y.data + (n * y.sn + i * y.sc) * p.kernels.itemsize, &pixels
        )
    store_bias(p, i, total)


cdef void untied_bias_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Sum one channel over the batch alone."""
    cdef BiasGradient *p = <BiasGradient *> ctx
    cdef const Image *y = &p.grad_y
    cdef cn_plane_t pixels = pixels_of(y), biases = pixels_of(&p.grad_b)
    cdef Py_ssize_t n
    for n in range(y.N):
        p.kernels.add_plane(
            bias_at(p, i),
            &biases,
            y.data + (n * y.sn + i * y.sc) * p.kernels.itemsize,
            &pixels,
            n > 0,
        )


cdef void bias_part_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Sum all channels, which lie side by side, over one part of the rows (n, h)."""
    cdef BiasGradient *p = <BiasGradient *> ctx
    cdef const Image *y = &p.grad_y
    cdef cn_plane_t pixels = pixels_of(y)
    cdef Py_ssize_t n_rows = y.N * y.H, row
    cdef double *sums = p.sums + i * y.C
    memset(sums, 0, y.C * sizeof(double))
    pixels.n_rows = 1
    for row in range(i * n_rows // p.n_parts, (i + 1) * n_rows // p.n_parts):
        p.kernels.sum_channels(
            sums,
            y.data + (row // y.H * y.sn + row % y.H * y.sh) * p.kernels.itemsize,
            &pixels,
            y.C,
        )


cdef void add_bias_parts(const BiasGradient *p) noexcept nogil:
    """grad_b = the parts' sums, added in order."""
    cdef Py_ssize_t C = p.grad_y.C, c, part
    cdef double total
    for c in range(C):
        total = 0
        for part in range(p.n_parts):
            total += p.sums[part * C + c]
        store_bias(p, c, total)
