# SPDX-License-Identifier: MIT
"""Dense convolution, forward and input gradient: one blocked product for both.

The input gradient of a convolution with stride (SH, SW) is SH * SW products, one for
each phase of the input pixels: pixels (SH*i + a, SW*j + b) meet only the taps that fall
on the output grid, with unit steps. No zero-stuffed array, no scatter.
"""

cimport numpy as cnp

import numpy as np

from convnet._blocks cimport (
    MAX_PANELS, Block, Chunk, Gather, Image, add_tap, block_bytes, cut_panel,
    describe_array,
    describe_rows, find_addend, get_chunk, load_channels, open_block, outline,
    place_block, place_tap_arrays, plan_gather, require_slab, take_tap_memory,
)
from convnet._kernels cimport (
    SERIAL_WORK, Packing, active_kernels, cn_depth_t, cn_kernels_t, cn_panel_t,
    cn_segment_t, cn_tile_t, find_packing, give_back, keep_packing, run_tasks,
    take_scratch,
)

cnp.import_array()


# Packed weights beyond this are made slice by slice: the panels of pixels, which are
# packed again for each slice, cost little beside so many rows.
cdef Py_ssize_t MAX_PACKED_BYTES = 16 * 1024 * 1024
# With one block of pixels each weight is used up at once: slices then stay in the cache
# between packing and use.
cdef Py_ssize_t CACHED_BYTES = 4 * 1024 * 1024


# y[n, r, i, j] (+)= bias[r] + the gather-product, for every group.
cdef struct Product:
    Gather pixels
    const char *weight              # of group 0, row 0, channel 0, tap 0
    Py_ssize_t G, R                 # groups; rows (output channels) of a group
    Py_ssize_t row_stride, channel_stride, group_stride
    const char *bias                # (G * R,) or NULL
    bint accumulate                 # values are added that lie `addend` from y
    Py_ssize_t addend
    bint clip                       # results are kept between low and high
    double low, high
    # Rows are packed in panels of MR. A task is a block with all of them, or for blocks
    # from `n_whole` on one of `n_parts` parts of them.
    # Many weights are packed and used slice by slice: n_panels from first_panel on.
    Py_ssize_t first_panel, n_panels, n_whole, n_parts, n_tasks
    Py_ssize_t pack_channels        # channels that are packed together
    char *packed
    char *workspaces
    Py_ssize_t workspace_bytes


def forward(
    cnp.ndarray x,
    cnp.ndarray weight,
    bias,
    cnp.ndarray y,
    stride,
    padding,
    dilation,
    Py_ssize_t groups,
    int num_threads,
    list plans=None,
    dict packings=None,
    residual=None,
    clip=None,
):
    """Write the convolution of `x` with `weight`, plus `bias`, to `y`.

    With a list as `plans`, nothing is computed: what would be is appended to it. A dict
    as `packings` keeps the packed weights, which must not change, for later calls. An
    array of y's shape as `residual` is added to the result, unless there is an untied
    bias; then it is kept between the two numbers of `clip`.
    """
    cdef Product p
    cdef cnp.ndarray bias_array
    cdef Py_ssize_t KH = weight.shape[2], KW = weight.shape[3]
    cdef Py_ssize_t DH = dilation[0], DW = dilation[1]
    cdef Py_ssize_t PT = padding[0], PL = padding[1], t
    describe(&p, x, weight, y, groups)
    p.R, p.pixels.x.C = weight.shape[0] // groups, weight.shape[1]
    p.row_stride, p.channel_stride = weight.shape[1] * KH * KW, KH * KW
    p.pixels.step_h, p.pixels.step_w = stride[0], stride[1]
    if bias is not None:
        bias_array = np.ascontiguousarray(bias)
        if bias_array.ndim == 1:
            p.bias = <const char *> cnp.PyArray_DATA(bias_array)
        else:
            y[...] = bias_array
            p.accumulate = True
    if residual is not None:
        p.addend = find_addend(y, residual)
        p.accumulate = True
    if clip is not None:
        p.clip, p.low, p.high = True, clip[0], clip[1]
    cdef Py_ssize_t *memory = take_tap_memory(KH * KW)
    try:
        place_tap_arrays(&p.pixels.taps, memory, KH * KW)
        for t in range(KH * KW):
            add_tap(&p.pixels.taps, t // KW * DH - PT, t % KW * DW - PL, t)
        run_product(&p, num_threads, plans, packings)
    finally:
        give_back(memory)


def grad_input(
    cnp.ndarray grad_y,
    cnp.ndarray weight,
    cnp.ndarray grad_x,
    stride,
    padding,
    dilation,
    Py_ssize_t groups,
    int num_threads,
    list plans=None,
):
    """Write the gradient with respect to the input to `grad_x`, phase by phase."""
    cdef Product p
    cdef Py_ssize_t KH = weight.shape[2], KW = weight.shape[3]
    cdef Py_ssize_t SH = stride[0], SW = stride[1]
    cdef Py_ssize_t a, b, kh, kw, dh, dw
    describe(&p, grad_y, weight, grad_x, groups)
    p.R, p.pixels.x.C = weight.shape[1], weight.shape[0] // groups
    p.row_stride, p.channel_stride = KH * KW, weight.shape[1] * KH * KW
    p.pixels.step_h, p.pixels.step_w = 1, 1
    cdef Image whole = p.pixels.y
    cdef dict rows, cols
    cdef Py_ssize_t *memory = take_tap_memory(KH * KW)
    try:
        rows = phase_taps(whole.H, KH, SH, dilation[0], padding[0])
        cols = phase_taps(whole.W, KW, SW, dilation[1], padding[1])
        reached = len(rows) * len(cols)
        if plans is None and reached < min(SH, whole.H) * min(SW, whole.W):
            grad_x[...] = 0         # some pixels are under no window
        for a in rows:
            for b in cols:
                p.pixels.y = take_phase(whole, a, b, SH, SW, p.pixels.kernels.itemsize)
                place_tap_arrays(&p.pixels.taps, memory, KH * KW)
                for kh, dh in rows[a]:
                    for kw, dw in cols[b]:
                        add_tap(&p.pixels.taps, dh, dw, kh * KW + kw)
                run_product(&p, num_threads, plans, None)
    finally:
        give_back(memory)


cdef dict phase_taps(n_pixels, n_taps, stride, dilation, padding):
    """Return the taps that meet each phase of the pixels along one axis.

    Pixel ``stride * i + phase`` is under tap k of window ``i + d``: a dict of lists of
    (k, d). Phases without pixels, or without taps, are left out.
    """
    phases = {}
    for k in range(n_taps):
        d, phase = divmod(k * dilation - padding, stride)
        if phase < n_pixels:
            phases.setdefault(phase, []).append((k, -d))
    return phases


cdef Image take_phase(
    Image whole, Py_ssize_t a, Py_ssize_t b, Py_ssize_t SH, Py_ssize_t SW, int itemsize
) noexcept nogil:
    """Every SH-th row from a and SW-th column from b of an image."""
    cdef Image image = whole
    image.data += (a * whole.sh + b * whole.sw) * itemsize
    image.H, image.W = (whole.H - a + SH - 1) // SH, (whole.W - b + SW - 1) // SW
    image.sh, image.sw = whole.sh * SH, whole.sw * SW
    return image


cdef void describe(
    Product *p, cnp.ndarray x, cnp.ndarray weight, cnp.ndarray y, Py_ssize_t groups
) noexcept:
    """Fill in what both passes share; `x` is gathered, `y` is written."""
    p.pixels.kernels = active_kernels(<int> x.itemsize)
    p.pixels.x, p.pixels.y = describe_array(x), describe_array(y)
    p.pixels.x_row = describe_rows(x)
    p.weight = <const char *> cnp.PyArray_DATA(weight)
    p.G = groups
    p.group_stride = (
        weight.shape[0] // groups * weight.shape[1] * weight.shape[2] * weight.shape[3]
    )
    p.bias, p.accumulate, p.addend, p.clip = NULL, False, 0, False


cdef int run_product(
    Product *p, int num_threads, list plans, dict packings
) except -1:
    """Plan a described product; pack its weights and multiply, or tell the plan."""
    cdef Gather *g = &p.pixels
    cdef Py_ssize_t panels = (p.R + g.kernels.mr - 1) // g.kernels.mr, packed = 0
    cdef double work = 2.0 * p.G * p.R * g.x.C * g.taps.n * g.y.N * g.y.H * g.y.W
    cdef Packing kept = find_packing(packings, "direct", g.kernels.itemsize)
    cdef char *scratch
    plan_gather(g, True, False, MAX_PANELS)
    require_slab(g)
    if work < SERIAL_WORK:
        num_threads = 1             # run_tasks would not share it: cut nothing up
    p.first_panel, p.n_panels = 0, panels
    if packings is None:
        p.n_panels = min(panels, max(1, slice_bytes(g) // panel_bytes(p) // p.G))
        packed = packed_bytes(p)
    plan_tasks(p, num_threads)
    num_threads = <int> min(num_threads, p.n_tasks)
    p.workspace_bytes = workspace_bytes(p)
    if plans is not None:
        plans.append(outline(g, p.n_tasks, packed + num_threads * p.workspace_bytes))
        return 0
    scratch = <char *> take_scratch(packed + num_threads * p.workspace_bytes)
    p.packed, p.workspaces = scratch, scratch + packed
    try:
        if packings is None:
            run_slices(p, panels, num_threads, work)
            return 0
        if kept is None:
            kept = Packing(packed_bytes(p))
            p.packed = kept.data
            pack_weights(p, num_threads)
            keep_packing(packings, "direct", g.kernels.itemsize, kept)
        p.packed = kept.data
        run_tasks(product_task, p, p.n_tasks, num_threads, work)
    finally:
        give_back(scratch)
    return 0


cdef int run_slices(
    Product *p, Py_ssize_t panels, int num_threads, double work
) except -1:
    """Pack as many panels of weights as the scratch holds and multiply, in turns."""
    cdef Py_ssize_t per_slice = p.n_panels
    while p.first_panel < panels:
        p.n_panels = min(per_slice, panels - p.first_panel)
        plan_tasks(p, num_threads)
        pack_weights(p, num_threads)
        run_tasks(product_task, p, p.n_tasks, num_threads, work * p.n_panels / panels)
        p.first_panel += per_slice
    return 0


cdef int pack_weights(Product *p, int num_threads) except -1:
    cdef Py_ssize_t C = p.pixels.x.C, T = max(p.pixels.taps.n, 1)
    # Packing a weight takes about as long as 100 operations of the products.
    cdef double work = 100.0 * p.G * p.n_panels * panel_bytes(p) / 4
    p.pack_channels = max(16, 256 // T)
    run_tasks(
        pack_task, p, p.G * ((C + p.pack_channels - 1) // p.pack_channels), num_threads,
        work,
    )
    return 0


cdef void plan_tasks(Product *p, Py_ssize_t num_threads) noexcept nogil:
    """Share the rows of some blocks, so that all threads end at about the same time.

    Parts of a block each pack its pixels, cheap beside eight panels of rows. So
    few blocks of many rows are all shared; else those that are left over when each
    thread has had as many. Each result is one task's in any case: the same bits.
    """
    cdef Py_ssize_t n_blocks = p.G * p.pixels.n_row_blocks * p.pixels.n_col_blocks
    if num_threads > 1 and n_blocks < 4 * num_threads and p.n_panels >= 16:
        p.n_whole = 0
        p.n_parts = min((4 * num_threads + n_blocks - 1) // n_blocks, p.n_panels // 8)
    else:
        p.n_whole = n_blocks
        if n_blocks < 8 * num_threads:
            p.n_whole -= n_blocks % num_threads
        p.n_parts = min(num_threads, p.n_panels)
    p.n_tasks = p.n_whole + (n_blocks - p.n_whole) * p.n_parts


cdef inline Py_ssize_t slice_bytes(const Gather *g) noexcept nogil:
    return MAX_PACKED_BYTES if g.n_row_blocks * g.n_col_blocks > 1 else CACHED_BYTES


cdef inline Py_ssize_t panel_bytes(const Product *p) noexcept nogil:
    """Bytes of a panel of packed rows; a vector more keeps panels off the same sets."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t depth = g.x.C * g.taps.n
    return (depth * g.kernels.mr + g.kernels.lanes) * g.kernels.itemsize


cdef Py_ssize_t packed_bytes(const Product *p) noexcept nogil:
    return (p.G * p.n_panels * panel_bytes(p) + 4095) // 4096 * 4096


cdef Py_ssize_t workspace_bytes(const Product *p) noexcept nogil:
    """Bytes of one thread: its block and one panel of packed pixels, in whole pages."""
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef Py_ssize_t depth = p.pixels.chunk_channels * p.pixels.chunk_taps
    cdef Py_ssize_t panel = depth * kernels.nr * kernels.itemsize
    return (block_bytes(&p.pixels) + panel + 4095) // 4096 * 4096


cdef inline char *packed_rows(
    const Product *p, Py_ssize_t group, Py_ssize_t panel, Py_ssize_t k
) noexcept nogil:
    """A panel's rows from step k of the reduction on."""
    return (
        p.packed
        + (group * p.n_panels + panel) * panel_bytes(p)
        + k * p.pixels.kernels.mr * p.pixels.kernels.itemsize
    )


cdef void pack_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Pack some channels of a group, all panels in work.

    Panels of an input gradient lie side by side in each channel's weights: a line of
    memory that one has read serves the next.
    """
    cdef Product *p = <Product *> ctx
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t per_group = (g.x.C + p.pack_channels - 1) // p.pack_channels
    cdef Py_ssize_t group = i // per_group, c = i % per_group * p.pack_channels
    cdef Py_ssize_t first = group * p.group_stride + c * p.channel_stride, panel, row
    cdef cn_depth_t depth
    depth.n_channels = min(p.pack_channels, g.x.C - c)
    depth.channel_stride = p.channel_stride
    depth.n_taps, depth.tap, depth.ahead = g.taps.n, g.taps.w, 0
    for panel in range(p.n_panels):
        row = (p.first_panel + panel) * g.kernels.mr
        g.kernels.pack_rows(
            packed_rows(p, group, panel, c * g.taps.n),
            p.weight + (first + row * p.row_stride) * g.kernels.itemsize,
            min(g.kernels.mr, p.R - row),
            p.row_stride,
            &depth,
        )


cdef void product_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """One block of pixels of one group, by all of its rows or a part of them."""
    cdef Product *p = <Product *> ctx
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t n_blocks = g.n_row_blocks * g.n_col_blocks, index
    cdef Py_ssize_t place = i, first_panel = 0, end_panel = p.n_panels
    if i >= p.n_whole:
        place = p.n_whole + (i - p.n_whole) // p.n_parts
        index = (i - p.n_whole) % p.n_parts
        first_panel = index * p.n_panels // p.n_parts
        end_panel = (index + 1) * p.n_panels // p.n_parts
    cdef Py_ssize_t group = place // n_blocks
    cdef char *memory = p.workspaces + worker * p.workspace_bytes
    cdef const char *source = NULL
    cdef const char *x = g.x.data + group * g.x.C * g.x.sc * g.kernels.itemsize
    cdef Block block
    cdef Chunk chunk
    place_block(g, &block, memory)
    open_block(g, &block, place % n_blocks)
    memory += block_bytes(g)
    for index in range(g.n_channel_chunks * g.n_tap_chunks):
        chunk = get_chunk(g, index)
        if chunk.t == 0 and chunk.depth > 0:
            source = load_channels(g, &block, x, chunk.c, chunk.n_channels)
        multiply_chunk(
            p, &block, chunk, source, memory, group, first_panel, end_panel
        )


cdef void multiply_chunk(
    const Product *p, const Block *block, Chunk chunk, const char *source, char *packed,
    Py_ssize_t group, Py_ssize_t first_panel, Py_ssize_t end_panel,
) noexcept nogil:
    """Add one chunk's products to a block of y: its pixels by some panels of rows."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t MR = g.kernels.mr, NR = g.kernels.nr
    cdef Py_ssize_t itemsize = g.kernels.itemsize, lanes = g.kernels.lanes
    cdef Py_ssize_t n_pixels = block.n_rows * block.n_cols, i, panel, row, panels
    cdef cn_depth_t depth
    cdef cn_panel_t columns
    cdef cn_segment_t steps
    cdef cn_tile_t tile
    depth.n_channels, depth.channel_stride = chunk.n_channels, g.channel_stride
    depth.n_taps, depth.tap = chunk.n_taps, g.taps.place + chunk.t
    depth.ahead = NR if g.direct else 0
    steps.len, steps.in_ = chunk.depth, 0
    tile.steps, tile.n_steps, tile.b, tile.panel = &steps, 1, packed, &columns
    tile.row_stride, tile.col_stride = g.y.sc, g.y.sw
    tile.a_stride, tile.a_panel_stride = MR, panel_bytes(p) // itemsize
    tile.accumulate = p.accumulate or chunk.k > 0
    tile.addend = p.addend if chunk.k == 0 else 0
    tile.clip = p.clip and chunk.k + chunk.depth == g.x.C * g.taps.n
    tile.low, tile.high = p.low, p.high
    tile.bias = NULL
    for i in range((n_pixels + NR - 1) // NR):
        cut_panel(g, block, i * NR, min(NR, n_pixels - i * NR), &columns)
        if chunk.depth > 0:
            g.kernels.pack_pixels(packed, source, &depth, &columns)
        tile.b_stride = (columns.n_pixels + lanes - 1) // lanes * lanes
        # One vector of pixels is for three panels of rows at a time.
        panels = 3 if columns.n_pixels <= lanes else 1
        panel = first_panel
        while panel < end_panel:
            row = (p.first_panel + panel) * MR
            tile.n_rows = min(min(panels, end_panel - panel) * MR, p.R - row)
            tile.a = packed_rows(p, group, panel, chunk.k)
            tile.y = g.y.data + (group * p.R + row) * g.y.sc * itemsize
            if p.bias != NULL and chunk.k == 0:
                tile.bias = p.bias + (group * p.R + row) * itemsize
            g.kernels.gemm_tile(&tile)
            panel += panels
