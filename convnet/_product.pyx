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
# With few blocks of pixels weights are used up at once: slices of one chunk then stay
# in the cache between packing and use.
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
    cdef Py_ssize_t n_blocks = g.n_row_blocks * g.n_col_blocks, index, place = i
    cdef char *memory = p.workspaces + worker * p.workspace_bytes
    cdef const char *source = NULL
    cdef const char *x
    cdef Block block
    cdef Operands some
    some.first_panel, some.end_panel = 0, p.n_panels
    if i >= p.n_whole:
        place = p.n_whole + (i - p.n_whole) // p.n_parts
        index = (i - p.n_whole) % p.n_parts
        some.first_panel = index * p.n_panels // p.n_parts
        some.end_panel = (index + 1) * p.n_panels // p.n_parts
    some.group, some.packed = place // n_blocks, memory + block_bytes(g)
    x = g.x.data + some.group * g.x.C * g.x.sc * g.kernels.itemsize
    place_block(g, &block, memory)
    open_block(g, &block, place % n_blocks)
    for index in range(p.first_chunk, p.first_chunk + p.n_chunks):
        some.chunk = get_chunk(g, index)
        some.panel_bytes = pixel_panel_bytes(g, some.chunk.depth)
        if some.chunk.t == 0 and some.chunk.depth > 0:
            source = load_channels(g, &block, x, some.chunk.c, some.chunk.n_channels)
        multiply_chunk(p, &block, source, &some)


# Some panels of a block's pixels, packed for one chunk, and the rows to multiply with.
cdef struct Operands:
    Chunk chunk
    Py_ssize_t group, first_panel, end_panel
    char *packed                    # panels of pixels, panel_bytes apart
    Py_ssize_t n, panel_bytes
    cn_panel_t columns[MAX_PANELS]
    const char *next                # what is read after them, or NULL


cdef void multiply_chunk(
    const Product *p, const Block *block, const char *source, Operands *some
) noexcept nogil:
    """Add one chunk's products to a block of y: its pixels by some panels of rows.

    As many panels of pixels are packed together as L2 holds beside the rest. Then rows
    of y are written in long runs, which the hardware sees coming.
    """
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t NR = g.kernels.nr, n_pixels = block.n_rows * block.n_cols
    cdef Py_ssize_t n_panels = (n_pixels + NR - 1) // NR, first = 0, i, pixel
    cdef Py_ssize_t together = PIXEL_BYTES // max(some.panel_bytes, 1)
    cdef cn_segment_t *segment
    cdef cn_depth_t depth
    depth.n_channels, depth.channel_stride = some.chunk.n_channels, g.channel_stride
    depth.n_taps, depth.tap = some.chunk.n_taps, g.taps.place + some.chunk.t
    depth.ahead = NR if g.direct else 0
    together = min(max(together, 1), MAX_PANELS)
    while first < n_panels:
        some.n = min(together, n_panels - first)
        segment = block.segment
        for i in range(some.n):
            pixel = (first + i) * NR
            cut_panel(
                g, block, pixel, min(NR, n_pixels - pixel), segment, &some.columns[i]
            )
            segment += some.columns[i].n_segments
            if some.chunk.depth > 0:
                g.kernels.pack_pixels(
                    some.packed + i * some.panel_bytes,
                    source,
                    &depth,
                    &some.columns[i],
                )
        first += some.n
        some.next = find_next(p, block, some.chunk, source, first * NR)
        multiply_panels(p, some)


cdef const char *find_next(
    const Product *p, const Block *block, Chunk chunk, const char *source,
    Py_ssize_t pixel,
) noexcept nogil:
    """What a task reads when it has used a block's pixels up to `pixel`, or NULL.

    Only images that are read in place, at one tap, are worth to be fetched so early.
    """
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t place, row
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


cdef void multiply_panels(const Product *p, Operands *some) noexcept nogil:
    """Multiply packed panels of pixels by some panels of rows."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t panel = some.first_panel, i, j, at_once, n_wide = some.n
    cdef Py_ssize_t next = 0, line = 64
    cdef Py_ssize_t next_bytes = some.n * g.kernels.nr * g.kernels.itemsize + line
    cdef cn_segment_t steps
    cdef cn_tile_t tile
    steps.len, steps.in_ = some.chunk.depth, 0
    tile.steps, tile.n_steps, tile.next = &steps, 1, NULL
    tile.row_stride, tile.col_stride = g.y.sc, g.y.sw
    tile.next_stride, tile.a_stride = g.channel_stride, g.kernels.mr
    tile.a_panel_stride = panel_bytes(p) // g.kernels.itemsize
    tile.far, tile.woven = some.chunk.k == 0, p.woven
    tile.accumulate = p.accumulate or some.chunk.k > 0
    tile.addend = p.addend if some.chunk.k == 0 else 0
    tile.clip = p.clip and some.chunk.k + some.chunk.depth == g.x.C * g.taps.n
    tile.low, tile.high = p.low, p.high
    # One vector of pixels is for three panels of rows at a time.
    if some.columns[some.n - 1].n_pixels <= g.kernels.lanes:
        n_wide -= 1
    while panel < some.end_panel:
        at_once = min(3, some.end_panel - panel)
        for j in range(at_once):
            for i in range(n_wide):
                # Each tile fetches one line of all channels.
                tile.next = NULL
                if some.next != NULL and next < next_bytes:
                    tile.next, next = some.next + next, next + line
                multiply_tile(p, some, &tile, i, panel + j, 1)
        if n_wide < some.n:
            tile.next = NULL
            multiply_tile(p, some, &tile, n_wide, panel, at_once)
        panel += at_once


cdef inline void multiply_tile(
    const Product *p, Operands *some, cn_tile_t *tile, Py_ssize_t i, Py_ssize_t panel,
    Py_ssize_t n_panels,
) noexcept nogil:
    """Multiply panel i of the pixels by n panels of rows."""
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef Py_ssize_t lanes = kernels.lanes
    cdef Py_ssize_t row = (p.first_panel + panel) * kernels.mr
    cdef Py_ssize_t place = some.group * p.R + row
    tile.panel, tile.b = &some.columns[i], some.packed + i * some.panel_bytes
    tile.b_stride = (tile.panel.n_pixels + lanes - 1) // lanes * lanes
    tile.n_rows = min(n_panels * kernels.mr, p.R - row)
    tile.a = packed_rows(p, some.group, panel, some.chunk.k)
    tile.y = p.pixels.y.data + place * p.pixels.y.sc * kernels.itemsize
    tile.bias = NULL
    if p.bias != NULL and some.chunk.k == 0:
        tile.bias = p.bias + place * kernels.itemsize
    kernels.gemm_tile(tile)
