# SPDX-License-Identifier: MIT
"""Dense convolution, gradient with respect to the weights.

    grad_w[r, c, t] = sum over n, i, j of
                      grad_y[n, r, i, j] * x[gathered by c, t, n, i, j]

Pixels are the reduction here. Where there are channels enough, a block's slab of x is
turned, channels last, so that a tap's columns of the product lie in it side by side;
with few channels, columns of all taps are gathered from a planar slab. A 1x1 kernel
sees x and grad_y alike: the one of fewer channels is turned, or with very few neither
(``_weight_dots.pyx``).

Tasks own tiles of grad_w (rows by chunks of channels and taps) and walk over all pixels
in order; where that gives too few tasks, the pixels are split into parts whose number
depends on the shape alone, each with a sum of its own, and the parts are added in
order. So the bits never depend on the number of threads.
"""

cimport numpy as cnp

from convnet._blocks cimport (
    BLOCK_PANELS, KC, SLAB_BYTES, Block, Chunk, Gather, block_bytes, cut_panel,
    get_chunk, load_channels, open_block, outline, padded, place_block, plan_gather,
    require_slab,
)
from convnet._depthwise_weight cimport is_weight_depthwise, run_depthwise_weight
from convnet._estimates cimport tap_by_tap_share
from convnet._kernels cimport (
    SLICE_WORK, Flushing, active_kernels, cn_depth_t, cn_kernels_t, cn_panel_t,
    cn_row_t, cn_tile_t, flush_denormals, give_back, plain_tile, run_tasks,
    take_scratch,
)
from convnet._operands cimport (
    Steps, add_parts, add_tap, describe_array, describe_rows, end_seeing, first_seeing,
    place_tap_arrays, take_tap_memory,
)
from convnet._planar_weight cimport is_weight_planar, run_planar_weight
from convnet._results import empty
from convnet._tap_by_tap cimport are_finite
from convnet._weight_columns cimport (
    gathered_bytes, multiply_gathered, multiply_turned,
)
from convnet._weight_dots cimport is_weight_dots, run_weight_dots
from convnet._weight_plan cimport (
    WeightGradient, is_better_swapped, is_better_turned, joins_taps, needs_turning,
    plan_tasks, product_cycles, reads_in_place, workspace_bytes,
)

cnp.import_array()

# Channels of a turned slab, at least: three panels of columns.
cdef Py_ssize_t TURNED_CHANNELS = 144


def grad_weight(
    cnp.ndarray grad_y,
    cnp.ndarray x,
    cnp.ndarray grad_w,
    Steps steps,
    Py_ssize_t groups,
    int num_threads,
    list plans=None,
):
    """Write the gradient with respect to the weights to `grad_w`.

    With a list as `plans`, nothing is computed: what would be is appended to it.
    """
    cdef Flushing _flushing = flush_denormals(grad_w.itemsize)
    cdef WeightGradient p
    cdef Gather *g = &p.pixels
    cdef Py_ssize_t KW = steps.KW, T = steps.KH * KW, turned = 0, joined = 1, t
    g.kernels = active_kernels(<int> x.itemsize)
    g.step_h, g.step_w = steps.SH, steps.SW
    p.grad_w = <char *> cnp.PyArray_DATA(grad_w)
    p.G, p.R, p.T = groups, grad_w.shape[0] // groups, T
    p.C, p.swapped = grad_w.shape[1], False
    describe(&p, grad_y, x)
    cdef cn_row_t rows = describe_rows(grad_y)
    if tap_by_tap_share(p.R, p.C, g.y.N, g.y.H, g.y.W, steps, False) < 1 and (
        plans is not None or are_finite(grad_y, None)
    ):
        grad_tap_by_tap(grad_y, x, grad_w, steps, groups, num_threads, plans)
        return
    if is_weight_depthwise(g, &p.grad_y, groups, p.R, p.C, steps):
        run_depthwise_weight(
            g, &p.grad_y, rows, p.grad_w, groups, steps, num_threads, plans
        )
        return
    if is_weight_dots(g, &p.grad_y, p.R, p.C, steps):
        run_weight_dots(
            g, &p.grad_y, p.grad_w, groups, p.R, p.C, num_threads, plans
        )
        return
    if is_weight_planar(g, &p.grad_y, p.R, p.C, steps, product_cycles(&p, steps)):
        run_planar_weight(
            g, &p.grad_y, <const char *> rows.begin, <const char *> rows.end, p.grad_w,
            groups, p.R, steps, num_threads, plans,
        )
        return
    if is_better_swapped(&p):
        p.swapped, p.R, p.C = True, p.C, p.R
        describe(&p, x, grad_y)
    cdef Py_ssize_t *memory = take_tap_memory(T)
    try:
        place_tap_arrays(&g.taps, memory, T)
        for t in range(T):
            add_tap(
                &g.taps, t // KW * steps.DH - steps.PT, t % KW * steps.DW - steps.PL, t
            )
        if joins_taps(&p, steps):
            turned, joined = p.C, KW
        elif is_better_turned(&p):
            turned = max(TURNED_CHANNELS, KC // T)
        plan_gather(
            g,
            False,
            turned,
            joined,
            BLOCK_PANELS * g.kernels.nr,
            KC,
            SLAB_BYTES,
        )
        require_slab(g)
        run_weight_gradient(&p, num_threads, plans)
    finally:
        give_back(memory)


cdef int grad_tap_by_tap(
    cnp.ndarray grad_y, cnp.ndarray x, cnp.ndarray grad_w, Steps steps,
    Py_ssize_t groups, int num_threads, list plans,
) except -1:
    """The gradient of each tap alone: of a 1x1 kernel that sees what the tap does."""
    cdef const cn_kernels_t *kernels = active_kernels(<int> grad_w.itemsize)
    cdef Py_ssize_t OC = grad_w.shape[0], IC = grad_w.shape[1], row
    cdef Py_ssize_t KH = steps.KH, KW = steps.KW, size = OC * IC
    # Vectors are read from the last sum on.
    cdef cnp.ndarray parts = empty((KH * KW * size + kernels.lanes,), grad_w.dtype)
    one = Steps((1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
    for t in range(KH * KW):
        i, h = pixels_of_tap(t // KW, steps.DH, steps.PT, x.shape[2], grad_y.shape[2])
        j, w = pixels_of_tap(t % KW, steps.DW, steps.PL, x.shape[3], grad_y.shape[3])
        part = parts[t * size : (t + 1) * size].reshape(OC, IC, 1, 1)
        if plans is None:
            part[...] = 0
        if h.start < h.stop and w.start < w.stop:
            grad_weight(
                grad_y[:, :, h, w], x[:, :, i, j], part, one, groups, num_threads, plans
            )
    if plans is not None:
        for plan in plans:
            plan["scratch_bytes"] += parts.nbytes
        return 0
    for row in range(OC):
        kernels.turn_taps(
            <char *> cnp.PyArray_DATA(grad_w) + row * IC * KH * KW * kernels.itemsize,
            <char *> cnp.PyArray_DATA(parts) + row * IC * kernels.itemsize,
            IC, KH * KW, size, 1, 1, 0,
        )
    return 0


cdef tuple pixels_of_tap(
    Py_ssize_t k, Py_ssize_t dilation, Py_ssize_t padding, Py_ssize_t n_in,
    Py_ssize_t n_out,
):
    """Slices along an axis: pixels that tap k reads, and those of the windows there."""
    cdef Py_ssize_t d = k * dilation - padding
    cdef Py_ssize_t first = first_seeing(d), end = end_seeing(d, n_in, n_out)
    return slice(first + d, end + d), slice(first, end)


cdef void describe(WeightGradient *p, cnp.ndarray grad_y, cnp.ndarray x) noexcept:
    cdef Gather *g = &p.pixels
    g.x, g.x_row, p.grad_y = describe_array(x), describe_rows(x), describe_array(grad_y)
    g.x.C = p.C
    # Segments carry offsets into grad_y: the product's "output pixels" are its pixels.
    g.y = p.grad_y


cdef int run_weight_gradient(
    WeightGradient *p, int num_threads, list plans
) except -1:
    cdef Gather *g = &p.pixels
    cdef Py_ssize_t tasks, longest, sums_bytes = 0
    cdef double work = 2.0 * p.G * p.R * p.C * p.T * g.y.N * g.y.H * g.y.W
    cdef char *scratch
    p.in_place = reads_in_place(p)
    plan_tasks(p, num_threads)
    tasks = p.n_parts * p.G * p.n_chunks * p.n_row_tasks
    num_threads = <int> min(num_threads, tasks)
    p.workspace_bytes = workspace_bytes(p)
    if p.n_parts > 1 or needs_turning(p):
        sums_bytes = p.n_parts * p.part_size + g.kernels.lanes
        sums_bytes = (sums_bytes * g.kernels.itemsize + 4095) // 4096 * 4096
    if plans is not None:
        plans.append(outline(g, tasks, sums_bytes + num_threads * p.workspace_bytes))
        return 0
    scratch = <char *> take_scratch(sums_bytes + num_threads * p.workspace_bytes)
    p.sums = scratch if sums_bytes > 0 else p.grad_w
    p.workspaces = scratch + sums_bytes
    # Tasks are few and may be long: they go on in rounds, between which an interrupt
    # may end the call.
    longest = (p.n_blocks + p.n_parts - 1) // p.n_parts
    p.n_now = max(1, <Py_ssize_t> (p.n_blocks * min(1.0, SLICE_WORK / work)))
    try:
        p.first = 0
        while p.first < longest:
            run_tasks(weight_task, p, tasks, num_threads, work * p.n_now / p.n_blocks)
            p.first += p.n_now
        if needs_turning(p):
            tasks = p.G * p.R
            if p.swapped:
                tasks = p.G * padded(g.kernels, p.C) // g.kernels.lanes
            run_tasks(
                swap_task if p.swapped else turn_task, p, tasks, num_threads,
                20.0 * p.n_parts * p.part_size,
            )
        elif p.n_parts > 1:
            add_parts(g.kernels, p.grad_w, p.sums, p.n_parts, p.part_size)
    finally:
        give_back(scratch)
    return 0


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
    cdef char *packed
    cdef const char *source
    cdef const char *x = g.x.data + group * g.x.C * g.x.sc * g.kernels.itemsize
    cdef cn_panel_t pixels
    cdef cn_tile_t tile = plain_tile()
    cdef Block block
    place_block(g, &block, memory)
    memory += block_bytes(g)
    packed = memory + gathered_bytes(g)
    for index in range(begin + p.first, min(begin + p.first + p.n_now, end)):
        open_block(g, &block, index)
        source = load_channels(g, &block, x, chunk.c, chunk.n_channels)
        cut_panel(g, &block, 0, block.n_rows * block.n_cols, block.segment, &pixels)
        prepare_rows(p, &tile, &pixels, packed, group, part, row_task)
        tile.accumulate, tile.far = index > begin, True
        if g.turned:
            multiply_turned(g, &tile, chunk, source, &pixels, p.tap_size)
        else:
            multiply_gathered(g, &tile, chunk, source, &pixels, memory)


cdef void prepare_rows(
    const WeightGradient *p, cn_tile_t *tile, const cn_panel_t *pixels, char *packed,
    Py_ssize_t group, Py_ssize_t part, Py_ssize_t row_task,
) noexcept nogil:
    """Find or pack a task's rows of grad_y, and where the sums of the first one go."""
    cdef Py_ssize_t MR = p.pixels.kernels.mr, first_row = row_task * p.task_panels * MR
    cdef Py_ssize_t first = part * p.part_size + group * p.group_size
    tile.n_rows = min(p.task_panels * MR, p.R - first_row)
    first += first_row * p.row_size
    tile.y = p.sums + first * p.pixels.kernels.itemsize
    tile.row_stride, tile.col_stride = p.row_size, 1
    if p.in_place:
        tile.a = find_row(p, group, first_row)
        tile.a_row_stride = p.grad_y.sc
        tile.a_panel_stride = MR * p.grad_y.sc
        return
    tile.a, tile.a_stride, tile.a_panel_stride = packed, MR, MR * pixels.n_pixels
    pack_grad_rows(p, pixels, packed, group, first_row, first_row + tile.n_rows)


cdef inline const char *find_row(
    const WeightGradient *p, Py_ssize_t group, Py_ssize_t row
) noexcept nogil:
    """Where a row (output channel) of grad_y begins."""
    cdef Py_ssize_t place = (group * p.R + row) * p.grad_y.sc
    return p.grad_y.data + place * p.pixels.kernels.itemsize


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
    run.ahead = 0
    for panel in range((end_row - first_row + MR - 1) // MR):
        row = first_row + panel * MR
        grad_y = find_row(p, group, row)
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


cdef void turn_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Row i of grad_w: the sum of its parts, taps last."""
    cdef WeightGradient *p = <WeightGradient *> ctx
    cdef Py_ssize_t itemsize = p.pixels.kernels.itemsize
    p.pixels.kernels.turn_taps(
        p.grad_w + i * p.C * p.T * itemsize,
        p.sums + (i // p.R * p.group_size + i % p.R * p.row_size) * itemsize,
        p.C,
        p.T,
        p.tap_size,
        p.pixels.joined,
        p.n_parts,
        p.part_size,
    )


cdef void swap_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """A vector of rows of grad_w, which are the columns of sums that were swapped."""
    cdef WeightGradient *p = <WeightGradient *> ctx
    cdef Py_ssize_t itemsize = p.pixels.kernels.itemsize
    cdef Py_ssize_t lanes = p.pixels.kernels.lanes, n = (p.C + lanes - 1) // lanes
    cdef Py_ssize_t group = i // n, first = i % n * lanes
    p.pixels.kernels.turn_taps(
        p.grad_w + (group * p.C + first) * p.R * itemsize,
        p.sums + (group * p.group_size + first) * itemsize,
        min(lanes, p.C - first),
        p.R,
        p.row_size,
        1,
        p.n_parts,
        p.part_size,
    )
