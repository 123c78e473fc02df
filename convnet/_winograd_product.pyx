# SPDX-License-Identifier: MIT
"""The products of Winograd's algorithm: see ``_winograd_product.pxd``.

A task takes a run of tiles of m x m output pixels, one or two panels of them, and
transforms all of their channels. Then, for some filters after the other, it multiplies
point by point and transforms back: what is transformed stays in the cache until it is
used up, or is read for many filters at once.
"""

from convnet._blocks cimport padded
from convnet._kernels cimport (
    Packing, cn_panel_t, cn_segment_t, cn_strip_t, cn_tile_t, cn_tiles_t, find_packing,
    give_back, keep_packing, plain_tile, run_tasks, take_scratch,
)
from convnet._winograd_few cimport multiply_few
from convnet._winograd_filters cimport (
    Filters, filter_bytes, find_filters, packed_bytes, packed_filters,
    transform_fold, transform_weights,
)
from convnet._winograd_plan cimport RUN_PANELS, SUM_LENGTH, plan_runs
from convnet._winograd_tiles cimport (
    input_bytes, input_stride, planes_bytes, strips_bytes, transform_input,
)

cdef enum:
    FEW_TILES = 4                   # whose products are not worth a vector
    # Bytes of a group's that stay in L2, or which hardware fetches in time.
    CACHED_FILTERS = 1024 * 1024


# A run in work: its tiles, and its thread's memory, panel by panel; and the filters.
cdef struct Run:
    Py_ssize_t group, n_panels
    Filters filters
    cn_tiles_t tiles[RUN_PANELS]
    char *strips
    char *input
    char *sums

# The products of a panel of tiles: what they share, and where they lie.
cdef struct Products:
    Py_ssize_t n_tiles, width
    bint turned
    const char *input               # of the first point; sums likewise
    char *sums
    cn_segment_t columns
    cn_panel_t panel
    cn_tile_t tile


cdef int run_winograd(
    Winograd *p, int num_threads, list plans, dict packings
) except -1:
    cdef Py_ssize_t packed = 0, n_tasks
    cdef double work
    cdef str name
    cdef int itemsize = p.kernels.itemsize
    cdef Packing kept
    cdef char *scratch
    plan_runs(p, num_threads, packings is not None)
    # Images of other sizes may want filters in other folds.
    name = "winograd_few" if p.few else f"winograd{p.n - 2}_{p.fold}"
    kept = find_packing(packings, name, itemsize)
    n_tasks = p.G * p.n_runs * p.n_parts
    if packings is None and p.slice_channels == 0 and not p.few:
        packed = packed_bytes(p)
    num_threads = <int> min(num_threads, n_tasks)
    p.workspace_bytes = workspace_bytes(p)
    if plans is not None:
        plans.append({"scratch_bytes": packed + num_threads * p.workspace_bytes})
        return 0
    scratch = <char *> take_scratch(packed + num_threads * p.workspace_bytes)
    p.packed, p.workspaces = scratch if packed > 0 else NULL, scratch + packed
    work = 2.0 * p.G * p.R * p.C * p.n_points * p.n_tile_panels * p.width
    try:
        if packed > 0:
            transform_weights(p, num_threads)
        elif packings is not None and kept is None:
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


cdef Py_ssize_t workspace_bytes(const Winograd *p) noexcept nogil:
    """Bytes of one thread: strips, transformed input, sums, planes; in whole pages."""
    cdef Py_ssize_t n = strips_bytes(p) + input_bytes(p) + sums_bytes(p)
    n = p.run_panels * n + planes_bytes(p)
    if p.slice_channels > 0:
        n += filter_bytes(p, p.folds_at_once, p.slice_channels)
    return (n + 4095) // 4096 * 4096


cdef inline Py_ssize_t sums_stride(const Winograd *p) noexcept nogil:
    return p.folds_at_once * p.fold * p.kernels.mr * p.width + p.kernels.lanes


cdef inline Py_ssize_t sums_bytes(const Winograd *p) noexcept nogil:
    return p.n_points * sums_stride(p) * p.kernels.itemsize


cdef void tile_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """One run of tiles of one group, by all of its filters or a part of them."""
    cdef Winograd *p = <Winograd *> ctx
    cdef Py_ssize_t part = i % p.n_parts, run = i // p.n_parts % p.n_runs
    cdef Py_ssize_t first = run * p.n_tile_panels // p.n_runs, panel
    cdef Py_ssize_t fold = part * p.n_folds // p.n_parts
    cdef Py_ssize_t end = (part + 1) * p.n_folds // p.n_parts
    cdef char *planes
    cdef Run r
    r.group = i // p.n_parts // p.n_runs
    r.n_panels = (run + 1) * p.n_tile_panels // p.n_runs - first
    r.strips = p.workspaces + worker * p.workspace_bytes
    r.input = r.strips + p.run_panels * strips_bytes(p)
    r.sums = r.input + p.run_panels * input_bytes(p)
    planes = r.sums + p.run_panels * sums_bytes(p)
    r.filters = packed_filters(p, r.group)
    if p.slice_channels > 0:
        r.filters.data = planes + planes_bytes(p)
    for panel in range(r.n_panels):
        r.tiles[panel].strip = <cn_strip_t *> (r.strips + panel * strips_bytes(p))
        transform_input(
            p,
            r.input + panel * input_bytes(p),
            planes,
            r.group,
            (first + panel) * p.width,
            &r.tiles[panel],
        )
    while fold < end:
        multiply_folds(p, &r, fold, min(fold + p.folds_at_once, end))
        fold += p.folds_at_once


cdef void multiply_folds(
    const Winograd *p, Run *run, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """Multiply a run by folds [first, end) of filters and transform back."""
    cdef Py_ssize_t panel, itemsize = p.kernels.itemsize
    cdef Py_ssize_t row = first * p.fold * p.kernels.mr
    cdef Py_ssize_t channel = (run.group * p.R + row) // (p.ways * p.ways)
    cdef cn_tile_t result
    if p.few:
        multiply_few(p, run.group, run.input, run.sums, sums_stride(p), first, end)
    elif p.slice_channels == 0:
        multiply_points(p, run, first, end)
    else:
        multiply_slices(p, run, first, end)
    result.row_stride, result.col_stride = p.y.sc, p.y.sw * p.DW
    result.accumulate, result.addend = p.finish.accumulate, p.finish.addend
    result.clip, result.low, result.high = p.finish.clip, p.finish.low, p.finish.high
    result.n_rows = min(end * p.fold * p.kernels.mr, p.R) - row
    result.y = p.y.data + channel * p.y.sc * itemsize
    result.bias = NULL
    if p.finish.bias != NULL:
        result.bias = p.finish.bias + channel * itemsize
    for panel in range(run.n_panels):
        if is_turned(p, run, panel):
            turn_sums(p, run, panel, end - first)
        p.kernels.winograd_output(
            &result,
            run.sums + panel * sums_bytes(p),
            sums_stride(p),
            &run.tiles[panel],
            p.y.sh * p.DH,
        )


cdef void multiply_slices(
    const Winograd *p, Run *run, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """Transform some channels of the filters and multiply, in turns."""
    cdef Py_ssize_t c = 0, fold
    run.filters.first_fold = first
    while c < p.C:
        run.filters.first_channel = c
        run.filters.n_channels = min(p.slice_channels, p.C - c)
        for fold in range(first, end):
            transform_fold(p, &run.filters, run.group, fold)
        multiply_points(p, run, first, end)
        c += p.slice_channels


cdef void multiply_points(
    const Winograd *p, const Run *run, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """Multiply a run by folds [first, end) of filters, those channels that are there.

    A point's input is used for all of these filters, its weights for all of the run's
    tiles, before the next point's turn.
    """
    cdef Py_ssize_t point, fold, panel
    cdef Products products[RUN_PANELS]
    cdef const char *next
    for panel in range(run.n_panels):
        describe_products(p, run, panel, &products[panel])
    for point in range(p.n_points):
        for fold in range(first, end):
            next = next_filters(p, run, first, end, fold, point)
            for panel in range(run.n_panels):
                next = multiply_point(
                    p, run, &products[panel], fold, fold - first, point, next
                )


cdef inline const char *next_filters(
    const Winograd *p, const Run *run, Py_ssize_t first, Py_ssize_t end,
    Py_ssize_t fold, Py_ssize_t point,
) noexcept nogil:
    """Whose turn it is after a fold's at a point; NULL if they are in the cache."""
    if p.slice_channels > 0 or filter_bytes(p, p.n_folds, p.C) <= CACHED_FILTERS:
        return NULL
    fold += 1
    if fold == end:
        fold, point = first, point + 1
    if point == p.n_points:
        fold, point = min(end, p.n_folds - 1), 0
    return find_filters(p, &run.filters, fold, point)


cdef inline void describe_products(
    const Winograd *p, const Run *run, Py_ssize_t panel, Products *products
) noexcept nogil:
    """What all products of a panel of tiles share.

    Where few tiles meet filters that are in the cache, tiles are the rows of the
    product: its vectors are full, and a broadcast a tile costs little.
    """
    cdef Py_ssize_t MR = p.kernels.mr, pitch = p.fold * MR
    cdef Py_ssize_t n_tiles = run.tiles[panel].n_tiles
    cdef Py_ssize_t width = padded(p.kernels, n_tiles)
    cdef cn_tile_t *tile = &products.tile
    products.n_tiles, products.width = n_tiles, width
    products.turned = is_turned(p, run, panel)
    products.input = run.input + panel * input_bytes(p) + (
        run.filters.first_channel * width * p.kernels.itemsize
    )
    products.sums = run.sums + panel * sums_bytes(p)
    products.columns.in_ = products.columns.out = 0
    products.panel.segment, products.panel.n_segments = &products.columns, 1
    products.panel.joined = True
    tile[0] = plain_tile()
    tile.panel, tile.col_stride = &products.panel, 1
    tile.next_stride = 128 // p.kernels.itemsize
    if products.turned:
        tile.row_stride, tile.a_stride, tile.b_stride = pitch, width, pitch
    else:
        products.columns.len = width if n_tiles > FEW_TILES else n_tiles
        products.panel.n_pixels = products.columns.len
        tile.row_stride = tile.b_stride = width
        tile.a_stride, tile.a_panel_stride = pitch, MR


cdef inline const char *multiply_point(
    const Winograd *p, const Run *run, Products *products, Py_ssize_t fold,
    Py_ssize_t place, Py_ssize_t point, const char *next,
) noexcept nogil:
    """The products of one point, fold and panel of tiles, summed over channels.

    Returns what the next ones may fetch.
    """
    cdef Py_ssize_t itemsize = p.kernels.itemsize, MR = p.kernels.mr
    cdef Py_ssize_t width = products.width, pitch = p.fold * MR, i = 0
    cdef Py_ssize_t n_rows = min(pitch, (p.n_panels - fold * p.fold) * MR)
    cdef char *sums = products.sums + itemsize * (
        point * sums_stride(p) + place * pitch * width
    )
    cdef const char *input = products.input + (
        point * input_stride(p, width) * itemsize
    )
    cdef const char *filters = find_filters(p, &run.filters, fold, point)
    cdef cn_tile_t *tile = &products.tile
    tile.next = next
    if products.turned:
        products.columns.len = products.panel.n_pixels = padded(p.kernels, n_rows)
        while i < products.n_tiles:
            tile.y = sums + i * pitch * itemsize
            tile.a, tile.b = input + i * itemsize, filters
            tile.n_rows = MR
            while tile.n_rows // 2 >= products.n_tiles - i:
                tile.n_rows //= 2
            add_channels(p, run, tile)
            i += MR
        return NULL
    tile.y, tile.n_rows = sums, n_rows
    tile.a, tile.b = filters, input
    add_channels(p, run, tile)
    return <const char *> tile.next


cdef inline bint is_turned(
    const Winograd *p, const Run *run, Py_ssize_t panel
) noexcept nogil:
    """Whether tiles are the rows of a panel's products, and filters the columns.

    Filters that stream in are better read once; a few would leave most of the columns
    empty.
    """
    return p.few or (
        (p.slice_channels > 0 or panel > 0)
        and run.tiles[panel].n_tiles <= p.kernels.lanes
        and p.R > 2 * p.kernels.lanes
        and p.fold * p.kernels.mr == p.kernels.nr
    )


cdef inline void add_channels(
    const Winograd *p, const Run *run, cn_tile_t *product
) noexcept nogil:
    """Multiply those channels whose filters are there, in sums of bounded length."""
    cdef Py_ssize_t itemsize = p.kernels.itemsize, left = run.filters.n_channels
    # Each panel of rows fetches a line in two steps.
    cdef Py_ssize_t lines = (product.n_rows + p.kernels.mr - 1) // p.kernels.mr * 32
    cdef cn_segment_t steps
    steps.in_, product.steps, product.n_steps = 0, &steps, 1
    product.accumulate = run.filters.first_channel > 0
    while left > 0:
        steps.len = min(SUM_LENGTH, left)
        p.kernels.gemm_tile(product)
        product.accumulate = True
        product.a = <const char *> product.a + steps.len * product.a_stride * itemsize
        product.b = <const char *> product.b + steps.len * product.b_stride * itemsize
        if product.next != NULL:
            product.next = <const char *> product.next + steps.len * lines
        left -= steps.len


cdef inline void turn_sums(
    const Winograd *p, const Run *run, Py_ssize_t panel, Py_ssize_t n_folds
) noexcept nogil:
    """Sums whose rows are tiles: let the filters be rows, as in others."""
    cdef Py_ssize_t point, place, itemsize = p.kernels.itemsize
    cdef Py_ssize_t filters = p.fold * p.kernels.mr
    cdef char *sums = run.sums + panel * sums_bytes(p)
    for point in range(p.n_points):
        for place in range(n_folds):
            p.kernels.winograd_sums(
                sums + itemsize * (
                    point * sums_stride(p) + place * filters * p.kernels.lanes
                ),
                filters,
                run.tiles[panel].n_tiles,
            )
