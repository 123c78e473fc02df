# SPDX-License-Identifier: MIT
"""The products of Winograd's algorithm: see ``_winograd_product.pxd``.

A task takes a run of tiles of m x m output pixels, one or two panels of them, and
transforms all of their channels. Then, for some filters after the other, it multiplies
point by point and transforms back: what is transformed stays in the cache until it is
used up, or is read for many filters at once.
"""

from convnet._kernels cimport (
    CN_NO_ROW, Packing, cn_panel_t, cn_segment_t, cn_strip_t, cn_tile_t, cn_tiles_t,
    find_packing, give_back, keep_packing, run_tasks, take_scratch,
)

# Bytes of one run's transformed input, and of the sums that are in work: both stay in
# L2 where channels are few. The input of many lies in L3, so more filters share it.
cdef Py_ssize_t MAX_INPUT_BYTES = 8 * 1024 * 1024
cdef Py_ssize_t CACHED_BYTES = 1024 * 1024
# Channels that are added up in one go: sums of sums round less than one long sum, and
# the transforms enlarge what is lost.
cdef Py_ssize_t SUM_LENGTH = 128

cdef enum:
    FOLD = 3                        # panels of filters that lie side by side in U
    RUN_PANELS = 2                  # of a run whose input does not stay in L2
    FEW_TILES = 4                   # whose products are not worth a vector


# A run in work: its tiles, and its thread's memory, panel by panel.
cdef struct Run:
    Py_ssize_t group, n_panels
    cn_tiles_t tiles[RUN_PANELS]
    char *strips
    char *input
    char *sums


cdef int run_winograd(
    Winograd *p, int num_threads, list plans, dict packings
) except -1:
    cdef Py_ssize_t packed = 0, n_tasks
    cdef double work
    cdef str name = f"winograd{p.m}"
    cdef int itemsize = p.kernels.itemsize
    cdef Packing kept = find_packing(packings, name, itemsize)
    cdef char *scratch
    plan_runs(p, num_threads)
    n_tasks = p.G * p.n_runs * p.n_parts
    if packings is None:
        packed = packed_bytes(p)
    num_threads = <int> min(num_threads, n_tasks)
    p.workspace_bytes = workspace_bytes(p)
    if plans is not None:
        plans.append({"scratch_bytes": packed + num_threads * p.workspace_bytes})
        return 0
    scratch = <char *> take_scratch(packed + num_threads * p.workspace_bytes)
    p.packed, p.workspaces = scratch, scratch + packed
    work = 2.0 * p.G * p.R * p.x.C * p.n_points * p.n_tile_panels * p.width
    try:
        if packings is None:
            transform_weights(p, num_threads)
        elif kept is None:
            kept = Packing(packed_bytes(p))
            p.packed = kept.data
            transform_weights(p, num_threads)
            keep_packing(packings, name, itemsize, kept)
        if kept is not None:
            p.packed = kept.data
        run_tasks(tile_task, p, n_tasks, num_threads, work)
    finally:
        give_back(scratch)
    return 0


cdef int transform_weights(Winograd *p, int num_threads) except -1:
    cdef double work = 10.0 * packed_bytes(p) / p.kernels.itemsize
    run_tasks(weight_task, p, p.G * p.n_folds, num_threads, work)
    return 0


cdef void plan_runs(Winograd *p, Py_ssize_t num_threads) noexcept nogil:
    """Choose the tiles of a run and the filters that are multiplied with it at once.

    Each run reads all weights, and each pass of filters reads the run's input: where
    the input does not stay in L2, both are large.
    """
    cdef Py_ssize_t lanes = p.kernels.lanes, widest = p.kernels.nr // lanes, most
    cdef Py_ssize_t vectors = (p.y.N * p.TH * p.TW + lanes - 1) // lanes
    cdef Py_ssize_t vector_bytes = p.n_points * p.x.C * lanes * p.kernels.itemsize
    p.n_panels = (p.R + p.kernels.mr - 1) // p.kernels.mr
    p.n_folds = (p.n_panels + FOLD - 1) // FOLD
    widest = max(1, min(widest, MAX_INPUT_BYTES // vector_bytes))
    most = 1 if widest * vector_bytes <= CACHED_BYTES else RUN_PANELS
    most = max(1, min(most, MAX_INPUT_BYTES // (widest * vector_bytes)))
    cut_runs(p, vectors, widest, most, 1)
    if num_threads > 1 and p.G * p.n_runs < 4 * num_threads:
        share_runs(p, vectors, widest, most, num_threads)
    p.n_parts = 1
    if p.G * p.n_runs < num_threads:
        p.n_parts = min(num_threads, p.n_folds)
    choose_folds(p, p.run_panels * p.width // lanes * vector_bytes)


cdef void choose_folds(Winograd *p, Py_ssize_t input_bytes) noexcept nogil:
    """Choose the folds whose sums the cache holds, beside an input that it holds."""
    cdef Py_ssize_t room = CACHED_BYTES, fold
    if input_bytes <= CACHED_BYTES:
        room -= input_bytes
    fold = p.run_panels * p.n_points * FOLD * p.kernels.mr * p.width
    p.folds_at_once = min(p.n_folds, max(1, room // (fold * p.kernels.itemsize)))


cdef void cut_runs(
    Winograd *p, Py_ssize_t vectors, Py_ssize_t width, Py_ssize_t most,
    Py_ssize_t multiple,
) noexcept nogil:
    """Cut tiles into panels of `width` vectors, and those into runs."""
    p.width = width * p.kernels.lanes
    p.n_tile_panels = (vectors + width - 1) // width
    p.n_runs = (p.n_tile_panels + most - 1) // most
    p.n_runs = (p.n_runs + multiple - 1) // multiple * multiple
    p.n_runs = max(1, min(p.n_runs, p.n_tile_panels))
    p.run_panels = (p.n_tile_panels + p.n_runs - 1) // p.n_runs


cdef void share_runs(
    Winograd *p, Py_ssize_t vectors, Py_ssize_t widest, Py_ssize_t most,
    Py_ssize_t num_threads,
) noexcept nogil:
    """Cut few tiles so that all threads have as many; the results are the same."""
    cdef Py_ssize_t width, best_width = widest
    cdef double load, least = 1e300
    for width in range(widest, 0, -1):
        cut_runs(p, vectors, width, most, num_threads)
        load = (p.n_runs + num_threads - 1) // num_threads * p.run_panels * width
        # Narrow panels have short chains of multiply-adds.
        load *= 1 + 0.08 * (widest - width)
        if load < least:
            least, best_width = load, width
    cut_runs(p, vectors, best_width, most, num_threads)


# U is (groups, folds, points, channels, FOLD panels of MR rows): one stream of memory
# for all points of a fold. From point to point there is one vector more than needed: at
# a power of two apart, a transform would write all points to the same few cache sets.
cdef inline Py_ssize_t filters_stride(const Winograd *p) noexcept nogil:
    return p.x.C * FOLD * p.kernels.mr + p.kernels.lanes


cdef Py_ssize_t packed_bytes(const Winograd *p) noexcept nogil:
    cdef Py_ssize_t n = p.G * p.n_folds * p.n_points * filters_stride(p)
    return (n * p.kernels.itemsize + 4095) // 4096 * 4096


cdef inline Py_ssize_t strips_bytes(const Winograd *p) noexcept nogil:
    """Of one panel, which may begin and end inside a row of tiles."""
    cdef Py_ssize_t n = min(p.width, (p.width + p.TW - 2) // p.TW + 1)
    return (n * sizeof(cn_strip_t) + 63) // 64 * 64


cdef Py_ssize_t workspace_bytes(const Winograd *p) noexcept nogil:
    """Bytes of one thread: transformed input, sums and strips, in whole pages."""
    cdef Py_ssize_t n = strips_bytes(p) + input_bytes(p) + sums_bytes(p)
    return (p.run_panels * n + 4095) // 4096 * 4096


cdef inline Py_ssize_t input_stride(const Winograd *p, Py_ssize_t width) noexcept nogil:
    return p.x.C * width + p.kernels.lanes


cdef inline Py_ssize_t input_bytes(const Winograd *p) noexcept nogil:
    return p.n_points * input_stride(p, p.width) * p.kernels.itemsize


cdef inline Py_ssize_t sums_stride(const Winograd *p) noexcept nogil:
    return p.folds_at_once * FOLD * p.kernels.mr * p.width + p.kernels.lanes


cdef inline Py_ssize_t sums_bytes(const Winograd *p) noexcept nogil:
    return p.n_points * sums_stride(p) * p.kernels.itemsize


cdef inline char *packed_filters(
    const Winograd *p, Py_ssize_t group, Py_ssize_t panel, Py_ssize_t point
) noexcept nogil:
    cdef Py_ssize_t fold = group * p.n_folds + panel // FOLD
    cdef Py_ssize_t first = (fold * p.n_points + point) * filters_stride(p)
    return p.packed + (first + panel % FOLD * p.kernels.mr) * p.kernels.itemsize


cdef void weight_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Transform fold i % n_folds of group i // n_folds, some channels at a time.

    Its panels share lines of U, which are complete before they leave the cache.
    """
    cdef Winograd *p = <Winograd *> ctx
    cdef Py_ssize_t group = i // p.n_folds, first = i % p.n_folds * FOLD, panel, row, c
    cdef Py_ssize_t itemsize = p.kernels.itemsize, step = 16, at
    for c in range((p.x.C + step - 1) // step):
        for panel in range(first, min(first + FOLD, p.n_panels)):
            row = panel * p.kernels.mr
            at = group * p.group_stride + row * p.row_stride
            p.kernels.winograd_weight(
                packed_filters(p, group, panel, 0)
                + c * step * FOLD * p.kernels.mr * itemsize,
                p.weight + (at + c * step * p.channel_stride) * itemsize,
                min(p.kernels.mr, p.R - row),
                p.row_stride,
                min(step, p.x.C - c * step),
                p.channel_stride,
                p.flip,
                FOLD * p.kernels.mr,
                filters_stride(p),
                p.m,
            )


cdef void tile_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """One run of tiles of one group, by all of its filters or a part of them."""
    cdef Winograd *p = <Winograd *> ctx
    cdef Py_ssize_t part = i % p.n_parts, run = i // p.n_parts % p.n_runs
    cdef Py_ssize_t first = run * p.n_tile_panels // p.n_runs, panel
    cdef Py_ssize_t fold = part * p.n_folds // p.n_parts
    cdef Py_ssize_t end = (part + 1) * p.n_folds // p.n_parts
    cdef Run r
    r.group = i // p.n_parts // p.n_runs
    r.n_panels = (run + 1) * p.n_tile_panels // p.n_runs - first
    r.strips = p.workspaces + worker * p.workspace_bytes
    r.input = r.strips + p.run_panels * strips_bytes(p)
    r.sums = r.input + p.run_panels * input_bytes(p)
    for panel in range(r.n_panels):
        transform_input(p, &r, panel, (first + panel) * p.width)
    while fold < end:
        multiply_folds(p, &r, fold, min(fold + p.folds_at_once, end))
        fold += p.folds_at_once


cdef void transform_input(
    const Winograd *p, Run *run, Py_ssize_t panel, Py_ssize_t first
) noexcept nogil:
    """Transform all channels of a run's panel, whose first tile is number `first`."""
    cdef Py_ssize_t end = min(first + p.width, p.y.N * p.TH * p.TW)
    cdef cn_tiles_t *tiles = &run.tiles[panel]
    cut_strips(
        p, first, end, <cn_strip_t *> (run.strips + panel * strips_bytes(p)), tiles
    )
    p.kernels.winograd_input(
        run.input + panel * input_bytes(p),
        p.x.data + run.group * p.x.C * p.x.sc * p.kernels.itemsize,
        tiles,
        input_stride(p, whole_vectors(p, end - first)),
    )


cdef inline Py_ssize_t whole_vectors(const Winograd *p, Py_ssize_t n) noexcept nogil:
    return (n + p.kernels.lanes - 1) // p.kernels.lanes * p.kernels.lanes


cdef void cut_strips(
    const Winograd *p, Py_ssize_t first, Py_ssize_t end, cn_strip_t *strip,
    cn_tiles_t *tiles,
) noexcept nogil:
    """Cut tiles [first, end) into strips of neighbours in one row of tiles."""
    cdef Py_ssize_t n, i, j, h, ih
    tiles.strip, tiles.n_strips, tiles.n_tiles, tiles.m = strip, 0, end - first, p.m
    tiles.n_channels, tiles.channel_stride = p.x.C, p.x.sc
    tiles.row = p.x_row
    while first < end:
        n, i, j = first // (p.TH * p.TW), first // p.TW % p.TH, first % p.TW
        strip.n_tiles = min(p.TW - j, end - first)
        strip.first_col = j * p.m + p.dw
        for h in range(p.m + 2):
            ih = i * p.m + p.dh + h
            strip.row[h] = n * p.x.sn + ih * p.x.sh if 0 <= ih < p.x.H else CN_NO_ROW
        strip.out = n * p.y.sn + i * p.m * p.y.sh + j * p.m * p.y.sw
        strip.n_lines = min(p.m, p.y.H - i * p.m)
        strip.n_cols = min(strip.n_tiles * p.m, p.y.W - j * p.m)
        first += strip.n_tiles
        tiles.n_strips += 1
        strip += 1


cdef void multiply_folds(
    const Winograd *p, const Run *run, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """Multiply a run by folds [first, end) of filters and transform back.

    A point's input is used for all of these filters, its weights for all of the run's
    tiles, before the next point's turn.
    """
    cdef Py_ssize_t point, fold, panel, row = first * FOLD * p.kernels.mr
    cdef Py_ssize_t itemsize = p.kernels.itemsize
    cdef const char *next
    cdef cn_tile_t result
    for point in range(p.n_points):
        for fold in range(first, end):
            next = next_filters(p, run.group, first, end, fold, point)
            for panel in range(run.n_panels):
                next = multiply_point(p, run, panel, fold, fold - first, point, next)
    result.row_stride, result.col_stride = p.y.sc, p.y.sw
    result.accumulate, result.addend, result.bias = p.accumulate, p.addend, NULL
    result.clip, result.low, result.high = p.clip, p.low, p.high
    result.n_rows = min(end * FOLD * p.kernels.mr, p.R) - row
    result.y = p.y.data + (run.group * p.R + row) * p.y.sc * itemsize
    if p.bias != NULL:
        result.bias = p.bias + (run.group * p.R + row) * itemsize
    for panel in range(run.n_panels):
        p.kernels.winograd_output(
            &result,
            run.sums + panel * sums_bytes(p),
            sums_stride(p),
            &run.tiles[panel],
            p.y.sh,
        )


cdef inline const char *next_filters(
    const Winograd *p, Py_ssize_t group, Py_ssize_t first, Py_ssize_t end,
    Py_ssize_t fold, Py_ssize_t point,
) noexcept nogil:
    """Whose turn it is after a fold's at a point."""
    fold += 1
    if fold == end:
        fold, point = first, point + 1
    if point == p.n_points:
        fold, point = min(end, p.n_folds - 1), 0
    return packed_filters(p, group, fold * FOLD, point)


cdef const char *multiply_point(
    const Winograd *p, const Run *run, Py_ssize_t tile_panel, Py_ssize_t fold,
    Py_ssize_t place, Py_ssize_t point, const char *next,
) noexcept nogil:
    """The products of one point, fold and panel of tiles, summed over channels."""
    cdef Py_ssize_t itemsize = p.kernels.itemsize, MR = p.kernels.mr, i, c
    cdef Py_ssize_t n_tiles = run.tiles[tile_panel].n_tiles
    cdef Py_ssize_t width = whole_vectors(p, n_tiles), panel = fold * FOLD
    cdef Py_ssize_t at_once = FOLD if width == p.kernels.lanes else 1
    cdef Py_ssize_t end = min(panel + FOLD, p.n_panels)
    cdef char *sums = run.sums + tile_panel * sums_bytes(p) + itemsize * (
        point * sums_stride(p) + place * FOLD * MR * width
    )
    cdef const char *input = run.input + tile_panel * input_bytes(p) + itemsize * (
        point * input_stride(p, width)
    )
    cdef cn_tile_t product
    cdef cn_segment_t steps, columns
    cdef cn_panel_t tiles
    steps.in_, product.steps, product.n_steps = 0, &steps, 1
    columns.len, columns.in_, columns.out = n_tiles, 0, 0
    if n_tiles > FEW_TILES:
        columns.len = width
    tiles.segment, tiles.n_segments, tiles.n_pixels = &columns, 1, columns.len
    tiles.joined = True
    product.panel, product.bias, product.clip, product.addend = &tiles, NULL, False, 0
    product.far = False
    product.row_stride, product.col_stride = width, 1
    product.a_stride, product.a_panel_stride, product.b_stride = FOLD * MR, MR, width
    while panel < end:
        product.n_rows = min(end - panel, at_once) * MR
        product.y = sums + panel % FOLD * MR * width * itemsize
        for i in range((p.x.C + SUM_LENGTH - 1) // SUM_LENGTH):
            c = i * SUM_LENGTH
            steps.len, product.accumulate = min(SUM_LENGTH, p.x.C - c), c > 0
            product.a = itemsize * c * FOLD * MR + packed_filters(
                p, run.group, panel, point
            )
            product.b = input + itemsize * c * width
            product.next, product.next_stride = next, 64 // itemsize
            p.kernels.gemm_tile(&product)
            next += steps.len * 64 * (1 + (at_once > 1))
        panel += at_once
    return next
