# SPDX-License-Identifier: MIT
"""Winograd convolution at stride 1, gradient for the weights.

F(r x r, m x m): tiles of m x m pixels of grad_y are the filters, tiles of n x n pixels
of x the inputs, n = m + r - 1, and the sum over tiles is the reduction of n^2 products:

    S[point, r, c] = sum over tiles of U[point, tile, r] * V[point, tile, c]

Blocks of tiles come from two turned slabs, channels last, so that transforms run over
channels. A block goes in passes, a pair of columns of points at a time, so that their
operands stay in L2. Tasks own rows by chunks of channels and walk over all tiles in
order, or over a part of them, as in _conv_weight. A task that has all tiles transforms
its sums back before they leave the cache.
"""

cimport numpy as cnp

from convnet._blocks cimport (
    ENOUGH_TASKS, KC, SLAB_BYTES, Block, Chunk, Gather, block_bytes, cut_panel,
    get_chunk, load_channels, odd_lines, open_block, outline, padded, place_block,
    plan_gather, plan_gather_like, require_slab,
)
from convnet._kernels cimport (
    CN_MAX_POINTS, SLICE_WORK, Flushing, active_kernels, cn_filters_t, cn_panel_t,
    cn_segment_t, cn_tile_t, flush_denormals, give_back, plain_tile, run_tasks,
    take_scratch,
)
from convnet._operands cimport (
    TAP_ARRAYS, Steps, Taps, add_tap, describe_array, describe_rows, place_tap_arrays,
)
from convnet._weight_plan cimport share_rows

cnp.import_array()

# Channels of a task, by as many rows: the sums of all points fill an L2 of 2 MB, but
# those of a pair of columns, which are in work, a third of it.
cdef Py_ssize_t TASK_CHANNELS = 128
# Tiles of a block: its sums are read and written once for so many.
cdef Py_ssize_t MAX_TILES = 64
# Rows whose products take as long as a task's transforms of its channels.
cdef Py_ssize_t TRANSFORM_ROWS = 10


cdef struct WinogradWeight:
    Gather x, grad_y                # at the same tiles
    char *grad_w
    cn_filters_t filters            # KH, KW, r, n and pieces alone
    Py_ssize_t piece                # of the kernel
    int m, n_points                 # n^2
    Py_ssize_t G, R, C              # groups; rows and channels of a group
    Py_ssize_t n_blocks, n_parts
    # Of each part's blocks, those that are added up now: `n_now` from `first` on.
    Py_ssize_t first, n_now
    # S: (n_parts, G, points, R, C), or of each task that has all tiles (points, rows,
    # channels), in its workspace.
    bint whole
    char *sums
    Py_ssize_t row_size, point_size, group_size, part_size, sums_bytes
    char *workspaces
    Py_ssize_t workspace_bytes


# Tiles of a block in work, and channels of a chunk.
cdef struct Tiles:
    const char *pixels
    cn_panel_t panel
    Py_ssize_t n_channels


def grad_weight(
    cnp.ndarray grad_y, cnp.ndarray x, cnp.ndarray grad_w, object tiling, Steps steps,
    Py_ssize_t groups, int num_threads, list plans=None,
):
    """Write the gradient with respect to the weights to `grad_w`.

    `tiling` is a `convnet._tiling.Tiling`. With a list as `plans`, nothing is computed:
    what would be is appended to it.
    """
    cdef Flushing _flushing = flush_denormals(grad_w.itemsize)
    cdef WinogradWeight p
    cdef int n, r, pieces_h, pieces_w
    n, r, (pieces_h, pieces_w) = tiling
    p.filters.KH, p.filters.KW, p.filters.r, p.filters.n = steps.KH, steps.KW, r, n
    p.filters.pieces_h, p.filters.pieces_w = pieces_h, pieces_w
    p.m, p.n_points = n - r + 1, n * n
    p.grad_w = <char *> cnp.PyArray_DATA(grad_w)
    p.G, p.R, p.C = groups, grad_w.shape[0] // groups, grad_w.shape[1]
    for p.piece in range(pieces_h * pieces_w):
        describe(&p.x, x, grad_y, p.C, p.m)
        describe(&p.grad_y, grad_y, grad_y, p.R, p.m)
        run_piece(&p, steps, num_threads, plans)


cdef int run_piece(
    WinogradWeight *p, Steps steps, int num_threads, list plans
) except -1:
    """The gradient of a piece of the kernel, r x r of its taps."""
    cdef Py_ssize_t x_memory[CN_MAX_POINTS * CN_MAX_POINTS * TAP_ARRAYS]
    cdef Py_ssize_t y_memory[CN_MAX_POINTS * CN_MAX_POINTS * TAP_ARRAYS]
    cdef Py_ssize_t dh = p.piece // p.filters.pieces_w * p.filters.r - steps.PT
    cdef Py_ssize_t dw = p.piece % p.filters.pieces_w * p.filters.r - steps.PL
    add_square(&p.x.taps, x_memory, p.filters.n, dh, dw)
    add_square(&p.grad_y.taps, y_memory, p.m, 0, 0)
    plan_gather(&p.x, False, TASK_CHANNELS, 1, MAX_TILES, KC, 2 * SLAB_BYTES)
    plan_gather_like(&p.grad_y, &p.x, TASK_CHANNELS)
    require_slab(&p.x)
    require_slab(&p.grad_y)
    return run(p, num_threads, plans)


cdef void add_square(
    Taps *taps, Py_ssize_t *memory, int size, Py_ssize_t dh, Py_ssize_t dw
) noexcept:
    """Let taps be the pixels of a tile that begins at (dh, dw)."""
    cdef Py_ssize_t t
    place_tap_arrays(taps, memory, size * size)
    for t in range(size * size):
        add_tap(taps, dh + t // size, dw + t % size, t)


cdef void describe(
    Gather *g, cnp.ndarray source, cnp.ndarray grad_y, Py_ssize_t channels, int m
) noexcept:
    """Gather a group's channels of `source` at the tiles of grad_y."""
    g.kernels = active_kernels(<int> source.itemsize)
    g.x, g.x_row, g.y = (
        describe_array(source), describe_rows(source), describe_array(grad_y)
    )
    g.x.C = channels
    g.y.H, g.y.W = (g.y.H + m - 1) // m, (g.y.W + m - 1) // m
    g.step_h = g.step_w = m


cdef int run(WinogradWeight *p, int num_threads, list plans) except -1:
    cdef Py_ssize_t tasks = plan_tasks(p, num_threads), longest, n_bytes = 0
    cdef double work
    cdef char *scratch
    cdef bint whole
    num_threads = <int> min(num_threads, tasks)
    work = 2.0 * p.G * p.R * p.C * p.n_points * p.x.y.N * p.x.y.H * p.x.y.W
    # Between tasks an interrupt may end the call.
    whole = p.n_parts == 1 and work < 4.0 * SLICE_WORK * tasks
    if p.n_parts == 1:              # batches of any size have the same scratch
        n_bytes = lay_out_sums(p, not whole, num_threads)
    n_bytes = max(n_bytes, lay_out_sums(p, whole, num_threads))
    if plans is not None:
        plans.append(outline(&p.x, tasks, n_bytes))
        return 0
    scratch = <char *> take_scratch(n_bytes)
    p.sums, p.workspaces = scratch, scratch + p.sums_bytes
    # Rounds of blocks, for the same reason.
    longest = (p.n_blocks + p.n_parts - 1) // p.n_parts
    p.n_now = max(1, <Py_ssize_t> (p.n_blocks * min(1.0, SLICE_WORK / work)))
    if p.whole:
        p.n_now = p.n_blocks
    try:
        p.first = 0
        while p.first < longest:
            run_tasks(tile_task, p, tasks, num_threads, work * p.n_now / p.n_blocks)
            p.first += p.n_now
        if not p.whole:
            work = 20.0 * p.n_parts * p.part_size
            run_tasks(turn_task, p, p.G * p.R, num_threads, work)
    finally:
        give_back(scratch)
    return 0


cdef Py_ssize_t plan_tasks(WinogradWeight *p, int num_threads) noexcept nogil:
    """Choose parts by the shape alone, and rows of a task for the threads: no sum
    depends on those. Return the number of tasks.
    """
    cdef Py_ssize_t tasks = p.G * p.x.n_channel_chunks, lanes = p.x.kernels.lanes
    cdef Py_ssize_t most = tasks * ((p.R + lanes - 1) // lanes), rows
    p.n_blocks = p.x.n_row_blocks * p.x.n_col_blocks
    p.n_parts = min(p.n_blocks, (ENOUGH_TASKS + most - 1) // most)
    rows = share_rows(
        p.R, lanes, p.grad_y.chunk_channels, tasks * p.n_parts, TRANSFORM_ROWS,
        num_threads,
    )
    plan_gather_like(&p.grad_y, &p.x, rows)
    return tasks * p.n_parts * p.grad_y.n_channel_chunks


cdef Py_ssize_t lay_out_sums(
    WinogradWeight *p, bint whole, int num_threads
) noexcept nogil:
    """Decide where sums lie, of parts or of tasks; return the bytes of all scratch."""
    cdef Py_ssize_t lanes = p.x.kernels.lanes, rows = p.R, channels = p.C
    p.whole = whole
    if whole:
        rows, channels = p.grad_y.chunk_channels, p.x.chunk_channels
    p.row_size = padded(p.x.kernels, channels)
    # Not at a power of two: all points would share cache sets.
    p.point_size = rows * p.row_size + lanes
    p.group_size = p.n_points * p.point_size
    p.part_size = p.G * p.group_size
    p.sums_bytes = 0
    if not whole:
        p.sums_bytes = p.n_parts * p.part_size * p.x.kernels.itemsize
        p.sums_bytes = (p.sums_bytes + 4095) // 4096 * 4096
    p.workspace_bytes = workspace_bytes(p)
    return p.sums_bytes + num_threads * p.workspace_bytes


cdef inline Py_ssize_t pitch(const Gather *g) noexcept nogil:
    """From tile to tile of transformed channels: whole vectors, an odd number."""
    return (g.chunk_channels // g.kernels.lanes | 1) * g.kernels.lanes


cdef inline Py_ssize_t points_stride(const Gather *g) noexcept nogil:
    return odd_lines(g.rows * g.cols * pitch(g))


cdef Py_ssize_t workspace_bytes(const WinogradWeight *p) noexcept nogil:
    """Bytes of one thread: two blocks and their transformed tiles, in whole pages."""
    cdef Py_ssize_t n = points_stride(&p.x) + points_stride(&p.grad_y)
    # A tile reads MR rows, whether there are so many or not.
    n = (2 * p.filters.n * n + p.x.kernels.mr) * p.x.kernels.itemsize
    if p.whole:
        n += p.group_size * p.x.kernels.itemsize
    return (block_bytes(&p.x) + block_bytes(&p.grad_y) + n + 4095) // 4096 * 4096


cdef void tile_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """One part of the tiles, for one chunk of channels and one of rows."""
    cdef WinogradWeight *p = <WinogradWeight *> ctx
    cdef Py_ssize_t rest = i // p.grad_y.n_channel_chunks
    cdef Chunk rows = get_chunk(&p.grad_y, i % p.grad_y.n_channel_chunks)
    cdef Chunk channels = get_chunk(&p.x, rest % p.x.n_channel_chunks)
    cdef Py_ssize_t group = rest // p.x.n_channel_chunks % p.G
    cdef Py_ssize_t part = rest // p.x.n_channel_chunks // p.G, index
    cdef Py_ssize_t begin = part * p.n_blocks // p.n_parts
    cdef Py_ssize_t end = (part + 1) * p.n_blocks // p.n_parts
    cdef int itemsize = p.x.kernels.itemsize
    cdef char *sums = p.workspaces + worker * p.workspace_bytes
    cdef char *memory = sums + p.whole * p.group_size * itemsize
    cdef char *v = memory + block_bytes(&p.x) + block_bytes(&p.grad_y)
    cdef char *u = v + 2 * p.filters.n * points_stride(&p.x) * itemsize
    cdef Py_ssize_t at
    cdef Tiles x, grad_y
    cdef int pair
    if not p.whole:
        sums = p.sums + itemsize * (
            part * p.part_size + group * p.group_size + rows.c * p.row_size + channels.c
        )
    for index in range(begin + p.first, min(begin + p.first + p.n_now, end)):
        load(&x, &p.x, index, group, channels, memory)
        load(&grad_y, &p.grad_y, index, group, rows, memory + block_bytes(&p.x))
        for pair in range(p.filters.n // 2):
            transform(&p.x, &x, v, pair, p.filters.n, p.filters.n)
            transform(&p.grad_y, &grad_y, u, pair, p.m, p.filters.n)
            at = pair * 2 * p.filters.n * p.point_size * itemsize
            multiply(p, u, v, &grad_y, &x, sums + at, index > begin)
    if p.whole:
        for index in range(rows.n_channels):
            turn_row(
                p,
                (group * p.R + rows.c + index) * p.C + channels.c,
                sums + index * p.row_size * itemsize,
                channels.n_channels,
            )


cdef void load(
    Tiles *t, const Gather *g, Py_ssize_t index, Py_ssize_t group, Chunk chunk,
    char *memory,
) noexcept nogil:
    """Bring in a chunk of channels of the pixels of a block of tiles."""
    cdef const char *first = g.x.data + group * g.x.C * g.x.sc * g.kernels.itemsize
    cdef Block block
    place_block(g, &block, memory)
    open_block(g, &block, index)
    t.n_channels = chunk.n_channels
    t.pixels = load_channels(g, &block, first, chunk.c, chunk.n_channels)
    cut_panel(g, &block, 0, block.n_rows * block.n_cols, block.segment, &t.panel)


cdef inline void transform(
    const Gather *g, const Tiles *t, char *points, int pair, int size, int n
) noexcept nogil:
    """Two columns of the n^2 points of a block of tiles of size x size pixels."""
    g.kernels.winograd_pixels(
        points, t.pixels, &t.panel, g.taps.place, g.pixel_stride, t.n_channels,
        pitch(g), points_stride(g), pair, size, n,
    )


cdef void multiply(
    const WinogradWeight *p, const char *u, const char *v, const Tiles *rows,
    const Tiles *channels, char *sums, bint accumulate,
) noexcept nogil:
    """Add a block's products to the sums of two columns of points."""
    cdef Py_ssize_t NR = p.x.kernels.nr, itemsize = p.x.kernels.itemsize, i, c
    cdef cn_segment_t steps, run
    cdef cn_panel_t columns
    cdef cn_tile_t tile = plain_tile()
    steps.len, steps.in_, run.out = rows.panel.n_pixels, 0, 0
    columns.segment, columns.n_segments, columns.joined = &run, 1, True
    tile.steps, tile.n_steps, tile.panel = &steps, 1, &columns
    tile.a_stride, tile.a_panel_stride = pitch(&p.grad_y), p.x.kernels.mr
    tile.b_stride, tile.row_stride, tile.col_stride = pitch(&p.x), p.row_size, 1
    tile.accumulate, tile.far, tile.n_rows = accumulate, True, rows.n_channels
    for i in range(2 * p.filters.n):
        for c in range((channels.n_channels + NR - 1) // NR):
            columns.n_pixels = run.len = min(NR, channels.n_channels - c * NR)
            tile.a = u + i * points_stride(&p.grad_y) * itemsize
            tile.b = v + (i * points_stride(&p.x) + c * NR) * itemsize
            tile.y = sums + (i * p.point_size + c * NR) * itemsize
            p.x.kernels.gemm_tile(&tile)


cdef void turn_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Row i of grad_w: the sum of its parts, transformed back, taps last."""
    cdef WinogradWeight *p = <WinogradWeight *> ctx
    cdef Py_ssize_t at = i // p.R * p.group_size + i % p.R * p.row_size
    turn_row(p, i * p.C, p.sums + at * p.x.kernels.itemsize, p.C)


cdef inline void turn_row(
    const WinogradWeight *p, Py_ssize_t first, const char *sums, Py_ssize_t n_channels
) noexcept nogil:
    """Channels of a row of grad_w, from kernel `first` on."""
    cdef Py_ssize_t n_taps = p.filters.KH * p.filters.KW
    p.x.kernels.winograd_turn(
        p.grad_w + first * n_taps * p.x.kernels.itemsize,
        p.C * n_taps,
        sums,
        n_channels,
        p.point_size,
        p.n_parts,
        p.part_size,
        &p.filters,
        p.piece,
    )
