# SPDX-License-Identifier: MIT
"""Winograd convolution of 3x3 kernels at stride 1, forward and input gradient.

Tiles of m x m output pixels are "pixels" of a Gather with steps of m and (m + 2)^2
taps, so blocks, slabs and panels are those of every other product. A task takes a run
of tiles that fills a panel, transforms all of its channels, and then, for one panel of
filters after the other, multiplies point by point and transforms back: what is
transformed stays in the cache until it is used up.
"""

cimport numpy as cnp

import numpy as np

from convnet._blocks cimport (
    TAP_ARRAYS, Block, Chunk, Gather, Image, add_tap, block_bytes, cut_panel,
    describe_array, find_addend, get_chunk, load_channels, open_rows, outline,
    place_block, place_tap_arrays, plan_strips, require_slab,
)
from convnet._kernels cimport (
    Packing, active_kernels, cn_depth_t, cn_panel_t, cn_run_t, cn_segment_t,
    cn_tile_t, find_packing, give_back, keep_packing, run_tasks, take_scratch,
)

cnp.import_array()

# Bytes of one panel's transformed input: with slab and sums they fill an L2 of 1 MB.
cdef Py_ssize_t MAX_INPUT_BYTES = 640 * 1024
# Channels that are added up in one go: sums of sums round less than one long sum, and
# the transforms enlarge what is lost.
cdef Py_ssize_t SUM_LENGTH = 128


cdef struct Winograd:
    Gather tiles
    Image y
    int m, n_points                 # (m + 2)^2
    const char *weight              # group 0, row 0, channel 0
    bint flip                       # filters turned by 180 degrees
    Py_ssize_t G, R, row_stride, channel_stride, group_stride
    const char *bias
    bint accumulate, clip
    Py_ssize_t addend
    double low, high
    Py_ssize_t n_panels             # of MR rows
    # Tiles of the longest run; runs of a strip, and of all strips and groups.
    Py_ssize_t run_tiles, strip_runs, n_runs
    Py_ssize_t n_parts              # a run's rows are shared by so many tasks
    char *packed                    # U: (groups, points, row panels, channels, MR)
    char *workspaces
    Py_ssize_t workspace_bytes


def forward(
    cnp.ndarray x, cnp.ndarray weight, bias, cnp.ndarray y, padding, Py_ssize_t groups,
    int num_threads, int m, list plans=None, dict packings=None, residual=None,
    clip=None,
):
    """Write the convolution of `x` with `weight` plus `bias` to `y`, by F(m, 3).

    The last four arguments are as for the direct convolution.
    """
    cdef Winograd p
    cdef cnp.ndarray bias_array
    describe(&p, x, weight, y, groups, m)
    p.R, p.tiles.x.C = weight.shape[0] // groups, weight.shape[1]
    p.row_stride, p.channel_stride = weight.shape[1] * 9, 9
    p.flip = False
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
    run(
        &p, -<Py_ssize_t> padding[0], -<Py_ssize_t> padding[1], num_threads, plans,
        packings,
    )


def grad_input(
    cnp.ndarray grad_y, cnp.ndarray weight, cnp.ndarray grad_x, padding,
    Py_ssize_t groups, int num_threads, int m, list plans=None,
):
    """Write the gradient of the input to `grad_x`: the filters turned round."""
    cdef Winograd p
    describe(&p, grad_y, weight, grad_x, groups, m)
    p.R, p.tiles.x.C = weight.shape[1], weight.shape[0] // groups
    p.row_stride, p.channel_stride = 9, weight.shape[1] * 9
    p.flip = True
    run(&p, padding[0] - 2, padding[1] - 2, num_threads, plans, None)


cdef void describe(
    Winograd *p, cnp.ndarray x, cnp.ndarray weight, cnp.ndarray y, Py_ssize_t groups,
    int m,
) noexcept:
    p.tiles.kernels = active_kernels(<int> x.itemsize)
    p.tiles.x, p.y = describe_array(x), describe_array(y)
    p.tiles.y = p.y
    p.tiles.y.H, p.tiles.y.W = (p.y.H + m - 1) // m, (p.y.W + m - 1) // m
    p.tiles.y.sh, p.tiles.y.sw = p.y.sh * m, p.y.sw * m
    p.tiles.step_h = p.tiles.step_w = p.m = m
    p.n_points = (m + 2) * (m + 2)
    p.weight = <const char *> cnp.PyArray_DATA(weight)
    p.G, p.group_stride = groups, weight.shape[0] // groups * weight.shape[1] * 9
    p.bias, p.accumulate, p.addend, p.clip = NULL, False, 0, False


cdef int run(
    Winograd *p, Py_ssize_t dh, Py_ssize_t dw, int num_threads, list plans,
    dict packings,
) except -1:
    """Run a described product whose first tile begins at (dh, dw) of x."""
    cdef Gather *g = &p.tiles
    cdef Py_ssize_t memory[36 * TAP_ARRAYS]
    cdef Py_ssize_t packed = 0, t
    cdef double work
    cdef str name = f"winograd{p.m}"
    cdef Packing kept = find_packing(packings, name, g.kernels.itemsize)
    cdef char *scratch
    place_tap_arrays(&g.taps, memory, p.n_points)
    for t in range(p.n_points):
        add_tap(&g.taps, dh + t // (p.m + 2), dw + t % (p.m + 2), t)
    plan_runs(p, num_threads)
    require_slab(g)
    if packings is None:
        packed = packed_bytes(p)
    num_threads = <int> min(num_threads, p.n_runs * p.n_parts)
    p.workspace_bytes = workspace_bytes(p)
    if plans is not None:
        plans.append(
            outline(g, p.n_runs * p.n_parts, packed + num_threads * p.workspace_bytes)
        )
        return 0
    scratch = <char *> take_scratch(packed + num_threads * p.workspace_bytes)
    p.packed, p.workspaces = scratch, scratch + packed
    work = 2.0 * p.G * p.R * g.x.C * p.n_points * p.n_runs * p.run_tiles
    try:
        if packings is None:
            transform_weights(p, num_threads)
        elif kept is None:
            kept = Packing(packed_bytes(p))
            p.packed = kept.data
            transform_weights(p, num_threads)
            keep_packing(packings, name, g.kernels.itemsize, kept)
        if kept is not None:
            p.packed = kept.data
        run_tasks(tile_task, p, p.n_runs * p.n_parts, num_threads, work)
    finally:
        give_back(scratch)
    return 0


cdef int transform_weights(Winograd *p, int num_threads) except -1:
    cdef double work = 10.0 * packed_bytes(p) / p.tiles.kernels.itemsize
    run_tasks(weight_task, p, p.G * p.n_panels, num_threads, work)
    return 0


cdef void plan_runs(Winograd *p, Py_ssize_t num_threads) noexcept nogil:
    """Choose the tiles of a run: as many vectors as the cache holds transformed."""
    cdef Gather *g = &p.tiles
    cdef Py_ssize_t lanes = g.kernels.lanes, most, vectors, runs
    cdef Py_ssize_t vector = p.n_points * g.x.C * lanes * g.kernels.itemsize
    most = max(1, min(3, MAX_INPUT_BYTES // vector))
    plan_strips(g, most * lanes)
    vectors = (g.y.N * g.y.H * g.cols + lanes - 1) // lanes
    p.strip_runs = (vectors + most - 1) // most
    runs = p.G * g.n_col_blocks * p.strip_runs
    if runs < 4 * num_threads and runs % num_threads > 0:
        # Smaller runs, so that all threads have as many; the results are the same.
        runs = (runs + num_threads - 1) // num_threads * num_threads
        p.strip_runs = min(vectors, runs // (p.G * g.n_col_blocks))
    p.n_runs = p.G * g.n_col_blocks * p.strip_runs
    p.run_tiles = (vectors + p.strip_runs - 1) // p.strip_runs * lanes
    p.n_panels = (p.R + g.kernels.mr - 1) // g.kernels.mr
    p.n_parts = 1 if p.n_runs >= num_threads else min(num_threads, p.n_panels)


# From point to point there is one vector more than needed: at a power of two apart, all
# points of a transform would fall on the same few lines of the cache.
cdef inline Py_ssize_t filters_stride(const Winograd *p) noexcept nogil:
    return p.tiles.x.C * p.tiles.kernels.mr + p.tiles.kernels.lanes


cdef Py_ssize_t packed_bytes(const Winograd *p) noexcept nogil:
    cdef Py_ssize_t n = p.G * p.n_panels * p.n_points * filters_stride(p)
    return (n * p.tiles.kernels.itemsize + 4095) // 4096 * 4096


cdef Py_ssize_t workspace_bytes(const Winograd *p) noexcept nogil:
    """Bytes of one thread: block, transformed input, sums and the runs' ends."""
    cdef Py_ssize_t runs = (p.tiles.rows + 2) * sizeof(cn_run_t)
    return (
        block_bytes(&p.tiles) + input_bytes(p) + sums_bytes(p) + runs + 4095
    ) // 4096 * 4096


cdef inline Py_ssize_t input_stride(const Winograd *p, Py_ssize_t width) noexcept nogil:
    return p.tiles.x.C * width + p.tiles.kernels.lanes


cdef inline Py_ssize_t input_bytes(const Winograd *p) noexcept nogil:
    return p.n_points * input_stride(p, p.run_tiles) * p.tiles.kernels.itemsize


cdef inline Py_ssize_t sums_bytes(const Winograd *p) noexcept nogil:
    cdef Py_ssize_t tile = p.tiles.kernels.mr * p.tiles.kernels.nr
    return p.n_points * tile * p.tiles.kernels.itemsize


cdef inline char *packed_filters(
    const Winograd *p, Py_ssize_t group, Py_ssize_t panel, Py_ssize_t point
) noexcept nogil:
    cdef Py_ssize_t index = (group * p.n_panels + panel) * p.n_points + point
    return p.packed + index * filters_stride(p) * p.tiles.kernels.itemsize


cdef void weight_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Transform filter panel i % n_panels of group i // n_panels."""
    cdef Winograd *p = <Winograd *> ctx
    cdef const Gather *g = &p.tiles
    cdef Py_ssize_t group = i // p.n_panels, panel = i % p.n_panels
    cdef Py_ssize_t row = panel * g.kernels.mr
    g.kernels.winograd_weight(
        packed_filters(p, group, panel, 0),
        p.weight + (group * p.group_stride + row * p.row_stride) * g.kernels.itemsize,
        min(g.kernels.mr, p.R - row),
        p.row_stride,
        g.x.C,
        p.channel_stride,
        p.flip,
        filters_stride(p),
        p.m,
    )


cdef void tile_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """One run of tiles of one group, by all of its filters or a part of them."""
    cdef Winograd *p = <Winograd *> ctx
    cdef const Gather *g = &p.tiles
    cdef Py_ssize_t part = i % p.n_parts, index = i // p.n_parts
    cdef Py_ssize_t group = index // (p.strip_runs * g.n_col_blocks)
    cdef Py_ssize_t strip = index // p.strip_runs % g.n_col_blocks
    cdef Py_ssize_t cols = min(g.cols, g.y.W - strip * g.cols)
    cdef Py_ssize_t n_tiles = g.y.N * g.y.H * cols, lanes = g.kernels.lanes
    cdef Py_ssize_t vectors = (n_tiles + lanes - 1) // lanes, run = index % p.strip_runs
    cdef Py_ssize_t first = run * vectors // p.strip_runs * lanes
    cdef Py_ssize_t last = (run + 1) * vectors // p.strip_runs * lanes
    cdef char *memory = p.workspaces + worker * p.workspace_bytes
    cdef Block block
    cdef cn_panel_t tiles
    if first == last:               # the last strip may be narrower
        return
    last = min(last, n_tiles) - 1
    place_block(g, &block, memory)
    open_rows(g, &block, first // cols, last // cols - first // cols + 1, strip)
    cut_panel(g, &block, first % cols, last - first + 1, &tiles)
    memory += block_bytes(g)
    transform_channels(p, &block, &tiles, memory, group)
    multiply_filters(p, &block, &tiles, first, memory, group, part)


cdef void transform_channels(
    const Winograd *p, const Block *block, const cn_panel_t *tiles, char *transformed,
    Py_ssize_t group,
) noexcept nogil:
    """V = B^T d B of all channels: (points, channels, tiles)."""
    cdef const Gather *g = &p.tiles
    cdef Py_ssize_t lanes = g.kernels.lanes, index
    cdef Py_ssize_t width = (tiles.n_pixels + lanes - 1) // lanes * lanes
    cdef const char *x = g.x.data + group * g.x.C * g.x.sc * g.kernels.itemsize
    cdef const char *source
    cdef Chunk chunk
    cdef cn_depth_t depth
    depth.channel_stride, depth.n_taps = g.channel_stride, p.n_points
    depth.tap = g.taps.place
    for index in range(g.n_channel_chunks):
        chunk = get_chunk(g, index)
        source = load_channels(g, block, x, chunk.c, chunk.n_channels)
        depth.n_channels = chunk.n_channels
        g.kernels.winograd_input(
            transformed + chunk.c * width * g.kernels.itemsize,
            source,
            &depth,
            tiles,
            input_stride(p, width),
            p.m,
        )


cdef void multiply_filters(
    const Winograd *p, const Block *block, const cn_panel_t *tiles, Py_ssize_t first,
    char *transformed, Py_ssize_t group, Py_ssize_t part,
) noexcept nogil:
    """Multiply and transform back, MR filters at a time."""
    cdef const Gather *g = &p.tiles
    cdef Py_ssize_t MR = g.kernels.mr, NR = g.kernels.nr, lanes = g.kernels.lanes
    cdef Py_ssize_t itemsize = g.kernels.itemsize, point, panel, row, c, i
    cdef Py_ssize_t width = (tiles.n_pixels + lanes - 1) // lanes * lanes
    cdef char *sums = transformed + input_bytes(p)
    cdef cn_run_t *runs = <cn_run_t *> (sums + sums_bytes(p))
    cdef cn_tile_t product, result
    cdef cn_segment_t whole
    cdef cn_panel_t columns
    measure_runs(p, block, tiles, first, runs)
    whole.len, whole.in_, whole.out = width, 0, 0
    columns.segment, columns.n_segments, columns.n_pixels = &whole, 1, width
    columns.joined = True
    product.panel, product.bias = &columns, NULL
    product.n_rows, product.row_stride, product.col_stride = MR, NR, 1
    result.panel, result.row_stride, result.col_stride = tiles, p.y.sc, p.y.sw
    result.accumulate, result.addend, result.bias = p.accumulate, p.addend, NULL
    result.clip, result.low, result.high = p.clip, p.low, p.high
    product.clip, product.addend = False, 0
    for panel in range(
        part * p.n_panels // p.n_parts, (part + 1) * p.n_panels // p.n_parts
    ):
        for point in range(p.n_points):
            product.y = sums + point * MR * NR * itemsize
            for i in range((g.x.C + SUM_LENGTH - 1) // SUM_LENGTH):
                c = i * SUM_LENGTH
                product.depth, product.accumulate = min(SUM_LENGTH, g.x.C - c), c > 0
                product.a = packed_filters(p, group, panel, point) + c * MR * itemsize
                product.b = transformed + itemsize * (
                    point * input_stride(p, width) + c * width
                )
                g.kernels.gemm_tile(&product)
        row = panel * MR
        result.n_rows = min(MR, p.R - row)
        result.y = p.y.data + (group * p.R + row) * p.y.sc * itemsize
        if p.bias != NULL:
            result.bias = p.bias + (group * p.R + row) * itemsize
        g.kernels.winograd_output(&result, sums, MR * NR, runs, p.y.sh, p.m)


cdef void measure_runs(
    const Winograd *p, const Block *block, const cn_panel_t *tiles, Py_ssize_t first,
    cn_run_t *runs,
) noexcept nogil:
    """How many lines and columns of each segment's pixels lie inside the image."""
    cdef Py_ssize_t row = block.first_row, col = first % block.n_cols, i, end
    for i in range(tiles.n_segments):
        end = block.first_col + col + tiles.segment[i].len
        runs[i].n_lines = min(p.m, p.y.H - row % p.tiles.y.H * p.m)
        runs[i].n_cols = tiles.segment[i].len * p.m
        runs[i].n_cols -= max(0, end * p.m - p.y.W)
        row, col = row + 1, 0
