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
# With few blocks of pixels weights are used up at once: slices of one chunk then stay in
# the cache between packing and use.
cdef Py_ssize_t FEW_BLOCKS = 4
cdef Py_ssize_t CACHED_BYTES = 1280 * 1024
# Panels of pixels that are packed together fill so much of L2.
cdef Py_ssize_t PIXEL_BYTES = 192 * 1024


cdef int run_product(
    Product *p, int num_threads, list plans, dict packings
) except -1:
    cdef Gather *g = &p.pixels
    cdef Py_ssize_t panels = (p.R + g.kernels.mr - 1) // g.kernels.mr, packed = 0
    cdef double work = 2.0 * p.G * p.R * g.x.C * g.taps.n * g.y.N * g.y.H * g.y.W
    cdef Packing kept = find_packing(packings, "direct", g.kernels.itemsize)
    cdef char *scratch
    plan_gather(g, True, 0, MAX_PANELS * g.kernels.nr)
    require_slab(g)
    if work < SERIAL_WORK:
        num_threads = 1             # run_tasks would not share it: cut nothing up
    p.first_panel, p.n_panels = 0, panels
    p.first_chunk, p.n_chunks = 0, g.n_channel_chunks * g.n_tap_chunks
    if packings is None:
        choose_slices(p, panels)
        packed = packed_bytes(p)
    plan_tasks(p, num_threads)
    p.num_threads = num_threads = <int> min(num_threads, p.n_tasks)
    p.workspace_bytes = workspace_bytes(p)
    if plans is not None:
        plans.append(outline(g, p.n_tasks, packed + num_threads * p.workspace_bytes))
        return 0
    scratch = <char *> take_scratch(packed + num_threads * p.workspace_bytes)
    p.packed, p.workspaces = scratch, scratch + packed
    try:
        if packings is None:
            for p.first_chunk in range(
                0, g.n_channel_chunks * g.n_tap_chunks, p.n_chunks
            ):
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
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t per_slice = p.n_panels
    work = work / panels * p.n_chunks / (g.n_channel_chunks * g.n_tap_chunks)
    for p.first_panel in range(0, panels, per_slice):
        p.n_panels = min(per_slice, panels - p.first_panel)
        plan_tasks(p, num_threads)
        pack_weights(p, num_threads)
        run_tasks(product_task, p, p.n_tasks, num_threads, work * p.n_panels)
    p.n_panels = per_slice
    return 0


cdef void choose_slices(Product *p, Py_ssize_t panels) noexcept nogil:
    """How many panels of how many chunks are packed at a time."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t most = MAX_PACKED_BYTES
    if g.n_row_blocks * g.n_col_blocks <= FEW_BLOCKS and g.n_tap_chunks == 1:
        p.n_chunks, most = 1, CACHED_BYTES
    p.n_panels = min(panels, max(1, most // panel_bytes(p) // p.G))


cdef int pack_weights(Product *p, int num_threads) except -1:
    cdef Py_ssize_t T = max(p.pixels.taps.n, 1), n_tasks
    # Packing a weight takes about as long as 100 operations of the products.
    cdef double work = 100.0 * p.G * p.n_panels * panel_bytes(p) / 4
    # Lines of memory that one panel has read serve the next ones, or the next channels.
    p.pack_channels = 16 if p.row_stride < p.channel_stride else max(16, 256 // T)
    n_tasks = (slice_channels(p) + p.pack_channels - 1) // p.pack_channels
    run_tasks(pack_task, p, p.G * n_tasks, num_threads, work)
    return 0


cdef inline Py_ssize_t slice_channels(const Product *p) noexcept nogil:
    """Input channels of the slice in work: all, or those of its chunks."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t first = p.first_chunk // g.n_tap_chunks * g.chunk_channels
    cdef Py_ssize_t n = p.n_chunks // g.n_tap_chunks * g.chunk_channels
    return min(n, g.x.C - first)


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


cdef inline Py_ssize_t panel_bytes(const Product *p) noexcept nogil:
    """Bytes of a panel of packed rows; a vector more keeps panels off the same sets."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t n = p.n_chunks // g.n_tap_chunks * g.chunk_channels
    cdef Py_ssize_t depth = min(n, g.x.C) * g.taps.n
    return (depth * g.kernels.mr + g.kernels.lanes) * g.kernels.itemsize


cdef Py_ssize_t packed_bytes(const Product *p) noexcept nogil:
    return (p.G * p.n_panels * panel_bytes(p) + 4095) // 4096 * 4096


cdef Py_ssize_t workspace_bytes(const Product *p) noexcept nogil:
    """Bytes of one thread: its block and panels of packed pixels, in whole pages."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t panel = pixel_panel_bytes(g, g.chunk_channels * g.chunk_taps)
    cdef Py_ssize_t n = block_bytes(g) + max(panel, PIXEL_BYTES)
    return (n + 4095) // 4096 * 4096


cdef inline Py_ssize_t pixel_panel_bytes(
    const Gather *g, Py_ssize_t depth
) noexcept nogil:
    return depth * g.kernels.nr * g.kernels.itemsize


cdef inline char *packed_rows(
    const Product *p, Py_ssize_t group, Py_ssize_t panel, Py_ssize_t k
) noexcept nogil:
    """A panel's rows from step k of the reduction on."""
    cdef const Gather *g = &p.pixels
    k -= p.first_chunk // g.n_tap_chunks * g.chunk_channels * g.taps.n
    return (
        p.packed
        + (group * p.n_panels + panel) * panel_bytes(p)
        + k * g.kernels.mr * g.kernels.itemsize
    )


cdef void pack_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Pack some channels of a group, all panels in work."""
    cdef Product *p = <Product *> ctx
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t n = slice_channels(p)
    cdef Py_ssize_t per_group = (n + p.pack_channels - 1) // p.pack_channels
    cdef Py_ssize_t group = i // per_group, c = i % per_group * p.pack_channels
    cdef Py_ssize_t first, panel, row
    cdef cn_depth_t depth
    depth.n_channels = min(p.pack_channels, n - c)
    c += p.first_chunk // g.n_tap_chunks * g.chunk_channels
    first = group * p.group_stride + c * p.channel_stride
    depth.channel_stride = p.channel_stride
    depth.n_taps, depth.tap, depth.ahead = g.taps.n, g.taps.w, 0
    if p.row_stride < p.channel_stride:
        # Each channel is a stream of memory, more than the hardware follows.
        depth.ahead = g.kernels.mr * p.row_stride * max(4, 16 // max(g.taps.n, 1))
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
    for index in range(p.first_chunk, p.first_chunk + p.n_chunks):
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
    """Add one chunk's products to a block of y: its pixels by some panels of rows.

    As many panels of pixels are packed together as L2 holds beside the rest. Then rows of
    y are written in long runs, which the hardware sees coming.
    """
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t NR = g.kernels.nr, n_pixels = block.n_rows * block.n_cols
    cdef Py_ssize_t first = 0, end, i, bytes = pixel_panel_bytes(g, chunk.depth)
    cdef Py_ssize_t together = min(MAX_PANELS, max(1, PIXEL_BYTES // max(bytes, 1)))
    cdef cn_panel_t columns[MAX_PANELS]
    cdef cn_segment_t *segment
    cdef cn_depth_t depth
    depth.n_channels, depth.channel_stride = chunk.n_channels, g.channel_stride
    depth.n_taps, depth.tap = chunk.n_taps, g.taps.place + chunk.t
    depth.ahead = NR if g.direct else 0
    while first * NR < n_pixels:
        end = min(first + together, (n_pixels + NR - 1) // NR)
        segment = block.segment
        for i in range(first, end):
            cut_panel(
                g, block, i * NR, min(NR, n_pixels - i * NR), segment, &columns[i - first]
            )
            segment += columns[i - first].n_segments
            if chunk.depth > 0:
                g.kernels.pack_pixels(
                    packed + (i - first) * bytes, source, &depth, &columns[i - first]
                )
        multiply_panels(
            p,
            chunk,
            columns,
            end - first,
            packed,
            find_next(p, block, chunk, source, end * NR),
            group,
            first_panel,
            end_panel,
        )
        first = end


cdef const char *find_next(
    const Product *p, const Block *block, Chunk chunk, const char *source,
    Py_ssize_t pixel,
) noexcept nogil:
    """What a task reads when it has used a block's pixels up to `pixel`, or NULL.

    Only images that are read in place, at one tap, are worth to be fetched so early.
    """
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t place = 0, row
    if not g.direct or g.taps.n != 1:
        return NULL
    if pixel < block.n_rows * block.n_cols:
        place = block.row_in[pixel // block.n_cols] + pixel % block.n_cols
    elif chunk.c + chunk.n_channels < g.x.C:
        place = chunk.n_channels * g.channel_stride + block.row_in[0]
    else:
        # Threads take turns: this one's next block comes after theirs.
        row = block.first_row + p.num_threads * g.rows
        if row >= g.y.N * g.y.H:
            return NULL
        place = row // g.y.H * g.x.sn + row % g.y.H * g.step_h * g.x.sh
        place += block.first_col - chunk.c * g.channel_stride
    return source + (place + g.taps.place[0]) * g.kernels.itemsize


cdef void multiply_panels(
    const Product *p, Chunk chunk, const cn_panel_t *columns, Py_ssize_t n,
    const char *packed, const char *next, Py_ssize_t group, Py_ssize_t first_panel,
    Py_ssize_t end_panel,
) noexcept nogil:
    """Multiply n packed panels of pixels by some panels of rows."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t lanes = g.kernels.lanes, bytes = pixel_panel_bytes(g, chunk.depth)
    cdef Py_ssize_t panel, i, j, at_once, n_wide = n, line = 0
    cdef cn_segment_t steps
    cdef cn_tile_t tile
    steps.len, steps.in_ = chunk.depth, 0
    tile.steps, tile.n_steps = &steps, 1
    tile.row_stride, tile.col_stride = g.y.sc, g.y.sw
    tile.a_stride = g.kernels.mr
    tile.a_panel_stride = panel_bytes(p) // g.kernels.itemsize
    tile.accumulate = p.accumulate or chunk.k > 0
    tile.addend = p.addend if chunk.k == 0 else 0
    tile.clip = p.clip and chunk.k + chunk.depth == g.x.C * g.taps.n
    tile.low, tile.high = p.low, p.high
    tile.next, tile.next_stride, tile.far = NULL, g.channel_stride, chunk.k == 0
    # One vector of pixels is for three panels of rows at a time.
    if columns[n - 1].n_pixels <= lanes:
        n_wide = n - 1
    panel = first_panel
    while panel < end_panel:
        at_once = min(3, end_panel - panel)
        for j in range(at_once):
            for i in range(n_wide):
                tile.panel, tile.b = columns + i, packed + i * bytes
                tile.b_stride = (tile.panel.n_pixels + lanes - 1) // lanes * lanes
                tile.next = NULL
                if next != NULL and line <= n * g.kernels.nr * g.kernels.itemsize:
                    tile.next = next + line
                    line += 64
                multiply_rows(p, &tile, chunk, group, panel + j, 1)
        if n_wide < n:
            tile.panel, tile.b = columns + n_wide, packed + n_wide * bytes
            tile.b_stride = lanes
            multiply_rows(p, &tile, chunk, group, panel, at_once)
        panel += at_once


cdef inline void multiply_rows(
    const Product *p, cn_tile_t *tile, Chunk chunk, Py_ssize_t group, Py_ssize_t panel,
    Py_ssize_t n_panels,
) noexcept nogil:
    """Multiply a tile's panel of pixels by n panels of rows."""
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef Py_ssize_t row = (p.first_panel + panel) * kernels.mr
    cdef Py_ssize_t place = group * p.R + row
    tile.n_rows = min(n_panels * kernels.mr, p.R - row)
    tile.a = packed_rows(p, group, panel, chunk.k)
    tile.y = p.pixels.y.data + place * p.pixels.y.sc * kernels.itemsize
    tile.bias = NULL
    if p.bias != NULL and chunk.k == 0:
        tile.bias = p.bias + place * kernels.itemsize
    kernels.gemm_tile(tile)
