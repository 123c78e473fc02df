# SPDX-License-Identifier: MIT
"""The blocked product of packed weights with gathered pixels: see ``_product.pxd``."""

from convnet._blocks cimport (
    MAX_PANELS, Block, Chunk, Gather, block_bytes, cut_panel, get_chunk, load_channels,
    open_block, outline, place_block, plan_gather, require_slab,
)
from convnet._kernels cimport (
    SERIAL_WORK, Packing, cn_depth_t, cn_kernels_t, cn_panel_t, cn_segment_t, cn_tile_t,
    find_packing, give_back, keep_packing, run_tasks, take_scratch,
)

# Packed weights beyond this are made slice by slice: the panels of pixels, which are
# packed again for each slice, cost little beside so many rows.
cdef Py_ssize_t MAX_PACKED_BYTES = 16 * 1024 * 1024
# With one block of pixels each weight is used up at once: slices then stay in the cache
# between packing and use.
cdef Py_ssize_t CACHED_BYTES = 4 * 1024 * 1024


cdef int run_product(
    Product *p, int num_threads, list plans, dict packings
) except -1:
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
    tile.bias = tile.next = NULL
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
