# SPDX-License-Identifier: MIT
"""The blocked product of packed weights with gathered pixels: see ``_product.pxd``."""

from convnet._ahead cimport look_nowhere, take_lines
from convnet._blocks cimport (
    Block, Gather, block_bytes, get_chunk, load_channels, open_block, outline, padded,
    place_block, require_slab,
)
from convnet._kernels cimport (
    SERIAL_WORK, Packing, cn_kernels_t, cn_segment_t, cn_tile_t, find_packing,
    give_back, keep_packing, near_task, plain_tile, run_tasks, take_scratch,
)
from convnet._packed_pixels cimport (
    are_slabs_fetched, look_behind_chunk, look_behind_slab, pack_panels,
    pixel_panel_bytes,
)
from convnet._packed_weights cimport (
    choose_slices, pack_weights, packed_bytes, packed_rows, panel_bytes,
)
from convnet._phases cimport multiply_phases, n_phase_rows, phases_bytes
from convnet._pixel_runs cimport cut_runs
from convnet._product_plan cimport (
    packed_pixels_bytes, plan_pixels, plan_tasks, steps_bytes, workspace_bytes,
)


cdef int run_product(
    Product *p, int num_threads, list plans, dict packings
) except -1:
    cdef Gather *g = &p.pixels
    cdef Py_ssize_t panels = (p.R + g.kernels.mr - 1) // g.kernels.mr, packed = 0
    cdef double work
    cdef Packing kept
    cdef str name
    cdef char *scratch
    if p.phases == NULL:
        p.n_taps, p.tap = g.taps.n, g.taps.w
    work = 2.0 * p.G * p.R * g.x.C * p.n_taps * g.y.N * g.y.H * g.y.W
    if work < SERIAL_WORK:
        num_threads = 1             # run_tasks would not share it: cut nothing up
    plan_pixels(p, num_threads)
    # Tap by tap, rows lie chunk after chunk, and larger images have smaller chunks.
    name = f"unpacked{g.chunk_channels}" if p.unpacked else "direct"
    kept = find_packing(packings, name, g.kernels.itemsize)
    require_slab(g)
    p.first_panel, p.n_panels = 0, panels
    p.first_chunk, p.n_chunks = 0, g.n_channel_chunks * g.n_tap_chunks
    if packings is None:
        choose_slices(p, panels, num_threads, work)
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
            while p.first_chunk < g.n_channel_chunks * g.n_tap_chunks:
                run_slices(p, panels, num_threads, work)
                p.first_chunk += p.n_chunks
            return 0
        if kept is None:
            kept = Packing(packed_bytes(p))
            p.packed = kept.data
            pack_weights(p, num_threads)
            keep_packing(packings, name, g.kernels.itemsize, kept)
        p.packed = kept.data
        run_tasks(product_task, p, p.n_tasks, num_threads, work, in_order=True)
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
    p.first_panel = 0
    while p.first_panel < panels:
        p.n_panels = min(per_slice, panels - p.first_panel)
        plan_tasks(p, num_threads)
        pack_weights(p, num_threads)
        run_tasks(
            product_task, p, p.n_tasks, num_threads, work * p.n_panels, in_order=True
        )
        p.first_panel += per_slice
    p.n_panels = per_slice
    return 0


cdef void product_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """One block of pixels of one group, by all of its rows or a part of them."""
    cdef Product *p = <Product *> ctx
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t n_blocks = g.n_row_blocks * g.n_col_blocks, index, place = i
    cdef char *memory = p.workspaces + worker * p.workspace_bytes
    cdef bint fetches = are_slabs_fetched(p)
    cdef const char *source = NULL
    cdef const char *x
    cdef Block block, next_block
    cdef Operands some
    some.first_panel, some.end_panel = 0, p.n_panels
    some.first_phase, some.end_phase = 0, n_phase_rows(p)
    if i < p.n_whole:
        place = near_task(i, p.n_whole, p.num_threads)
    else:
        place = p.n_whole + (i - p.n_whole) // p.n_parts
        index = (i - p.n_whole) % p.n_parts
        if p.shares_phases:
            some.first_phase = index * n_phase_rows(p) // p.n_parts
            some.end_phase = (index + 1) * n_phase_rows(p) // p.n_parts
        else:
            some.first_panel = index * p.n_panels // p.n_parts
            some.end_panel = (index + 1) * p.n_panels // p.n_parts
    some.group = place // n_blocks
    some.steps = <cn_segment_t *> (memory + block_bytes(g))
    some.sums = memory + block_bytes(g) + steps_bytes(g)
    some.packed = some.sums + phases_bytes(p)
    x = g.x.data + some.group * g.x.C * g.x.sc * g.kernels.itemsize
    look_nowhere(&some.ahead)
    place_block(g, &block, memory)
    open_block(g, &block, place % n_blocks)
    some.next = NULL
    if (g.direct or fetches) and place % n_blocks + 1 < n_blocks:
        place_block(g, &next_block, some.packed + packed_pixels_bytes(p))
        open_block(g, &next_block, place % n_blocks + 1)
        some.next = &next_block
    for index in range(p.first_chunk, p.first_chunk + p.n_chunks):
        some.chunk = get_chunk(g, index)
        some.panel_bytes = pixel_panel_bytes(g, some.chunk.depth)
        if some.chunk.t == 0 and some.chunk.depth > 0:
            source = load_channels(g, &block, x, some.chunk.c, some.chunk.n_channels)
        if p.streamed:
            look_behind_chunk(p, &block, source, &some, block.n_cols)
        elif fetches:
            look_behind_slab(p, &block, x, &some)
        multiply_chunk(p, &block, source, &some)
    if p.turned != NULL and is_last_slice(p):
        turn_block(p, &block)


cdef inline bint is_last_slice(const Product *p) noexcept nogil:
    cdef const Gather *g = &p.pixels
    return (
        p.first_chunk + p.n_chunks == g.n_channel_chunks * g.n_tap_chunks
        and (p.first_panel + p.n_panels) * g.kernels.mr >= p.R
    )


cdef void turn_block(const Product *p, const Block *block) noexcept nogil:
    """Exchange rows and columns of a block's sums."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t first = block.first_col, itemsize = g.kernels.itemsize
    g.kernels.turn_taps(
        p.turned + first * p.R * itemsize,
        g.y.data + first * itemsize,
        block.n_cols,
        p.R,
        g.y.sc,
        1,
        1,
        0,
    )


cdef void multiply_chunk(
    const Product *p, const Block *block, const char *source, Operands *some
) noexcept nogil:
    """Add one chunk's products to a block of y: its pixels by some panels of rows."""
    cdef Py_ssize_t n_pixels = block.n_rows * block.n_cols, first = 0, next = 0
    if p.run > 0:
        multiply_runs(p, block, source, some)
        return
    while next < n_pixels:
        first = next
        next = pack_panels(p, block, source, some, first)
        if p.phases != NULL:
            multiply_phases(p, block, some, first)
        else:
            multiply_panels(p, some)


cdef void multiply_panels(const Product *p, Operands *some) noexcept nogil:
    """Multiply packed panels of pixels by some panels of rows."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t panel = some.first_panel, i, j, at_once, n_wide = some.n
    cdef cn_tile_t tile = describe_tile(p, some)
    tile.b_panel_stride = some.panel_bytes // g.kernels.itemsize
    # One vector of pixels is for three panels of rows at a time.
    if some.columns[some.n - 1].n_pixels <= g.kernels.lanes:
        n_wide -= 1
    while panel < some.end_panel:
        at_once = min(3, some.end_panel - panel)
        for j in range(at_once):
            i = 0
            while i < n_wide:
                i += multiply_tile(p, some, &tile, i, n_wide - i, panel + j, 1)
        if n_wide < some.n:
            multiply_tile(p, some, &tile, n_wide, 1, panel, at_once)
        panel += at_once


cdef void multiply_runs(
    const Product *p, const Block *block, const char *source, Operands *some
) noexcept nogil:
    """Multiply a block's runs of pixels by some panels of rows, a vector at a time."""
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    cdef Py_ssize_t n_pixels = block.n_rows * block.n_cols, next = 0, panel, n
    cdef cn_tile_t tile = describe_tile(p, some)
    tile.panel, tile.b, tile.b_stride = (
        &some.columns[0], source, p.pixels.channel_stride
    )
    while next < n_pixels:
        next = cut_runs(&p.pixels, block, next, p.run, &some.columns[0])
        panel = some.first_panel
        while panel < some.end_panel:
            n = min(kernels.lanes // kernels.mr, some.end_panel - panel)
            # Of a last panel alone, there may be no other one to read.
            tile.a_panel_stride = (n - 1) * (some.row_bytes // kernels.itemsize)
            place_rows(p, some, &tile, panel, n)
            kernels.runs_tile(&tile, p.run)
            panel += n


cdef inline cn_tile_t describe_tile(const Product *p, Operands *some) noexcept nogil:
    """What all tiles of a chunk share."""
    cdef const Gather *g = &p.pixels
    cdef cn_tile_t tile = plain_tile()
    list_steps(p, some)
    tile.steps, tile.n_steps = some.steps, some.n_steps
    tile.row_stride, tile.col_stride = g.y.sc, g.y.sw
    tile.a_stride = g.kernels.mr
    some.rows = packed_rows(p, some.group, 0, some.chunk.k)
    some.row_bytes = panel_bytes(p)
    tile.a_panel_stride = some.row_bytes // g.kernels.itemsize
    tile.far = some.chunk.k == 0
    tile.accumulate = p.finish.accumulate or some.chunk.k > 0
    tile.addend = p.finish.addend if some.chunk.k == 0 else 0
    tile.clip = p.finish.clip and some.chunk.k + some.chunk.depth == g.x.C * g.taps.n
    tile.low, tile.high = p.finish.low, p.finish.high
    return tile


cdef inline void list_steps(const Product *p, Operands *some) noexcept nogil:
    """Where the terms of the reduction lie: one after another, or tap by tap."""
    cdef Py_ssize_t t
    some.n_steps = 1
    some.steps[0].len, some.steps[0].in_ = some.chunk.depth, 0
    if p.unpacked:
        some.n_steps = p.n_taps
        for t in range(p.n_taps):
            some.steps[t].len = some.chunk.n_channels
            some.steps[t].in_ = p.pixels.taps.place[t]


cdef inline Py_ssize_t multiply_tile(
    const Product *p, Operands *some, cn_tile_t *tile, Py_ssize_t i, Py_ssize_t n,
    Py_ssize_t panel, Py_ssize_t n_panels,
) noexcept nogil:
    """Multiply panels of the pixels from i on, at most n, by n_panels of rows.

    Returns how many of them: those that are packed alike, in one call.
    """
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    tile.panel, tile.b = &some.columns[i], some.pixels[i]
    tile.b_stride = padded(kernels, tile.panel.n_pixels)
    tile.copy = tile.next = NULL
    if p.unpacked or panel == some.first_panel:
        n = 1                       # some of the first panels may not be packed yet
    elif padded(kernels, some.columns[i + n - 1].n_pixels) < tile.b_stride:
        n -= 1
    if p.unpacked:
        tile.b_stride = p.pixels.channel_stride
    elif some.unread[i] != NULL and panel == some.first_panel:
        if is_one_panel(some):
            take_lines(&some.ahead, tile, n)
        else:
            tile.copy = <char *> tile.b
        tile.b, tile.b_stride = some.unread[i], p.pixels.channel_stride
    elif n_panels == 1:
        n = take_lines(&some.ahead, tile, n)
    tile.n_panels = n
    place_rows(p, some, tile, panel, n_panels)
    kernels.gemm_tile(tile)
    return n


cdef inline void place_rows(
    const Product *p, const Operands *some, cn_tile_t *tile, Py_ssize_t panel,
    Py_ssize_t n_panels,
) noexcept nogil:
    """Where n panels of rows lie, and where their results go."""
    cdef Py_ssize_t mr = p.pixels.kernels.mr, itemsize = p.pixels.kernels.itemsize
    cdef Py_ssize_t row = (p.first_panel + panel) * mr
    cdef Py_ssize_t place = some.group * p.R + row
    tile.n_rows = min(n_panels * mr, p.R - row)
    tile.a = some.rows + panel * some.row_bytes
    tile.y = p.pixels.y.data + place * p.pixels.y.sc * itemsize
    tile.bias = NULL
    if p.finish.bias != NULL and some.chunk.k == 0:
        tile.bias = p.finish.bias + place * itemsize
