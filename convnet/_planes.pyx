# SPDX-License-Identifier: MIT
"""Slabs for products that go plane by plane: see ``_planes.pxd``."""

from convnet._kernels cimport (
    CN_MOST_SHIFT, CN_NO_ROW, cn_in_place_t, cn_slab_t,
)
from convnet._operands cimport Steps

# Bytes of a slab: half an L1, with the result that is written beside it.
cdef Py_ssize_t SLAB_BYTES = 16 * 1024
cdef Py_ssize_t MAX_COLUMNS = 512
# Rows of a kernel's tiles; a slab has enough for one of the smallest.
cdef Py_ssize_t TALL = 7, FLAT = 4
# Rows of a product, and channels, that are read in place row after row.
cdef Py_ssize_t MOST_ALONE = 2
# Rows and columns that taps may span.
cdef Py_ssize_t MAX_SPAN = 128
# Terms of a sum, and elements of the slab that a tile needs.
cdef Py_ssize_t MAX_TERMS = 4096, MAX_SLAB = 64 * 1024
# Operations that take as long as to move a pixel.
cdef double PIXEL_WORK = 35


cdef bint are_small_windows(Py_ssize_t C, Steps steps) noexcept:
    return (
        max(steps.SH, steps.SW) <= MAX_STEP
        and max(steps.KH, steps.KW) <= MAX_TAPS
        and (steps.KH - 1) * steps.DH < MAX_SPAN
        and (steps.KW - 1) * steps.DW < MAX_SPAN
        and C * steps.KH * steps.KW <= MAX_TERMS
    )


cdef bint fits_planes(Py_ssize_t C, Py_ssize_t W, Steps steps) noexcept:
    cdef Py_ssize_t rows, cols
    if not are_small_windows(C, steps):
        return False
    rows = (steps.KH - 1) * steps.DH + TALL * steps.SH
    cols = (steps.KW - 1) * steps.DW + min(W, MAX_COLUMNS) * steps.SW
    return C * rows * cols <= MAX_SLAB


cdef void add_windows(
    Axis *axis, Py_ssize_t K, Py_ssize_t dilation, Py_ssize_t padding
) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(K):
        axis.k[k], axis.d[k] = k, k * dilation - padding
    axis.n_phases, axis.first[0], axis.first[1] = 1, 0, K
    measure(axis)


cdef void add_phases(
    Axis *axis, Py_ssize_t K, Py_ssize_t stride, Py_ssize_t dilation, Py_ssize_t padding
) noexcept nogil:
    """Pixel stride * i + phase is under tap k of window i + d."""
    cdef Py_ssize_t phase, k, n = 0
    axis.n_phases = stride
    for phase in range(stride):
        axis.first[phase] = n
        for k in range(K - 1, -1, -1):
            if (phase + padding - k * dilation) % stride == 0:
                axis.k[n] = k
                axis.d[n] = (phase + padding - k * dilation) // stride
                n += 1
    axis.first[stride] = n
    measure(axis)


cdef void measure(Axis *axis) noexcept nogil:
    cdef Py_ssize_t t, phase, high = axis.d[0]
    axis.low, axis.apart = high, 1
    for t in range(axis.first[axis.n_phases]):
        axis.low, high = min(axis.low, axis.d[t]), max(high, axis.d[t])
    axis.span = high - axis.low + 1
    for phase in range(axis.n_phases):
        t = axis.first[phase]
        if axis.first[phase + 1] - t > 1:
            axis.apart = axis.d[t + 1] - axis.d[t]


cdef void plan_planes(Planes *p, Py_ssize_t n_parts) noexcept nogil:
    cdef Py_ssize_t lanes = p.kernels.lanes, row_bytes, rows
    p.n_col_blocks = (p.y.W + MAX_COLUMNS - 1) // MAX_COLUMNS
    p.block_cols = (p.y.W + p.n_col_blocks - 1) // p.n_col_blocks
    if p.n_col_blocks > 1:
        p.block_cols = (p.block_cols + lanes - 1) // lanes * lanes
        p.n_col_blocks = (p.y.W + p.block_cols - 1) // p.block_cols
    p.n_cols = p.block_cols + (p.cols.span - 1) // p.step_w
    p.n_cols = (p.n_cols + lanes - 1) // lanes * lanes
    p.row_pitch = p.n_cols * p.step_w
    row_bytes = p.row_pitch * p.x.C
    if p.in_place:
        row_bytes = max(row_bytes, p.block_cols * n_parts)
    row_bytes *= p.kernels.itemsize
    rows = max(0, SLAB_BYTES // row_bytes - p.rows.span) // p.step_h + 1
    # Whole tiles, of as many rows in each block.
    rows = max(TALL, rows // TALL * TALL)
    p.n_row_blocks = (p.y.H + rows - 1) // rows
    rows = (p.y.H + p.n_row_blocks - 1) // p.n_row_blocks
    p.block_rows = min(p.y.H, (rows + TALL - 1) // TALL * TALL)
    p.n_row_blocks = (p.y.H + p.block_rows - 1) // p.block_rows
    p.slab_rows = (max(p.block_rows, FLAT) - 1) * p.step_h + p.rows.span
    p.channel_stride = p.slab_rows * p.row_pitch + lanes
    p.slab_groups = max(1, SLAB_BYTES // (row_bytes * p.slab_rows))
    if p.x.sw != 1:
        # Channels that come last are brought in by whole vectors of them.
        p.slab_groups = max(p.slab_groups, (lanes + p.x.C - 1) // p.x.C)


cdef inline Py_ssize_t lines_bytes(const Planes *p) noexcept nogil:
    return (p.slab_rows * sizeof(Py_ssize_t) + 63) // 64 * 64


cdef Py_ssize_t slab_bytes(const Planes *p) noexcept nogil:
    if p.in_place:
        return 0
    # A vector may be read from, and written to, the last pixel.
    cdef Py_ssize_t n = p.slab_groups * p.x.C * p.channel_stride
    n = (n + p.kernels.lanes) * p.kernels.itemsize
    return lines_bytes(p) + (n + 63) // 64 * 64


cdef double moving_work(const Planes *p, Py_ssize_t R) noexcept nogil:
    cdef double pixels = <double> p.x.C * p.x.H * p.x.W
    pixels += <double> R * p.y.H * p.y.W
    return PIXEL_WORK * p.y.N * p.G * pixels


cdef inline Py_ssize_t count_batches(const Planes *p) noexcept nogil:
    return (p.G + p.slab_groups - 1) // p.slab_groups


cdef Py_ssize_t count_blocks(const Planes *p) noexcept nogil:
    return p.y.N * count_batches(p) * p.n_row_blocks * p.n_col_blocks


cdef PlaneBlock get_block(const Planes *p, Py_ssize_t index) noexcept nogil:
    cdef PlaneBlock block
    block.first_col = index % p.n_col_blocks * p.block_cols
    index = index // p.n_col_blocks
    block.first_row = index % p.n_row_blocks * p.block_rows
    index = index // p.n_row_blocks
    block.group = index % count_batches(p) * p.slab_groups
    block.n = index // count_batches(p)
    block.n_groups = min(p.slab_groups, p.G - block.group)
    block.n_rows = min(p.block_rows, p.y.H - block.first_row)
    block.n_cols = min(p.block_cols, p.y.W - block.first_col)
    return block


cdef const char *find_x(const Planes *p, const PlaneBlock *block) noexcept nogil:
    return p.x.data + (
        block.n * p.x.sn + block.group * p.x.C * p.x.sc
    ) * p.kernels.itemsize


cdef void fetch_block(
    const Planes *p, const PlaneBlock *block, cn_planar_t *sums
) noexcept nogil:
    """What lies together: the lines of a plane, and of all if they are whole planes."""
    cdef Py_ssize_t first = max(0, block.first_row * p.step_h + p.rows.low)
    cdef Py_ssize_t end = (block.first_row + block.n_rows - 1) * p.step_h
    cdef Py_ssize_t n
    end = min(p.x.H, end + p.rows.low + p.rows.span)
    if p.x.sw != 1 or p.x.sh != p.x.W or end <= first:
        return
    n = (end - first) * p.x.sh
    if p.x.sc == p.x.H * p.x.sh and p.n_row_blocks == 1:
        n += (block.n_groups * p.x.C - 1) * p.x.sc
    sums.next[0] = find_x(p, block) + first * p.x.sh * p.kernels.itemsize
    sums.n_next[0] = n * p.kernels.itemsize


cdef char *load_block(
    const Planes *p, const PlaneBlock *block, char *memory
) noexcept nogil:
    cdef Py_ssize_t *line = <Py_ssize_t *> memory
    cdef Py_ssize_t i, ih
    cdef cn_slab_t slab
    cdef Py_ssize_t phase[MAX_STEP]
    slab.n_rows = (max(block.n_rows, FLAT) - 1) * p.step_h + p.rows.span
    for i in range(slab.n_rows):
        ih = block.first_row * p.step_h + p.rows.low + i
        line[i] = ih * p.x.sh if 0 <= ih < p.x.H else CN_NO_ROW
    for i in range(p.step_w):
        phase[i] = i
    memory += lines_bytes(p)
    slab.n_channels = block.n_groups * p.x.C
    slab.x_channel_stride, slab.channel_stride = p.x.sc, p.channel_stride
    slab.x, slab.row = p.x_row, line
    slab.first_col, slab.step = block.first_col * p.step_w + p.cols.low, p.step_w
    slab.n_cols, slab.n_phases, slab.phase = p.n_cols, p.step_w, phase
    slab.pixel_stride = 1
    p.kernels.fill_slab(memory, find_x(p, block), &slab)
    return memory


cdef Py_ssize_t place_columns(
    const Planes *p, Py_ssize_t a, Py_ssize_t b, Py_ssize_t channel_stride,
    Py_ssize_t KW, cn_planar_t *sums, Py_ssize_t *column, Py_ssize_t *offset,
) noexcept nogil:
    cdef Py_ssize_t c, q, k, d, n = 0, first = p.rows.first[a]
    cdef Py_ssize_t n_taps = p.rows.first[a + 1] - first
    sums.n_columns, sums.column, sums.n_taps = 0, column, n_taps
    sums.tap_stride = p.rows.apart * p.row_pitch
    sums.row_stride = p.step_h * p.row_pitch
    if n_taps == 0:
        return 0
    for c in range(p.x.C):
        for q in range(p.cols.first[b], p.cols.first[b + 1]):
            d = p.cols.d[q] - p.cols.low
            column[sums.n_columns] = (
                c * p.channel_stride
                + (p.rows.d[first] - p.rows.low) * p.row_pitch
                + d % p.step_w * p.n_cols
                + d // p.step_w
            )
            sums.n_columns += 1
            for k in range(first, first + n_taps):
                offset[n] = c * channel_stride + p.rows.k[k] * KW + p.cols.k[q]
                n += 1
    return n


cdef bint suit_in_place(const Planes *p, Py_ssize_t R) noexcept nogil:
    """Taps in a column are neighbours, and for so many there is a kernel.

    Slabs are better where rows of the product would read pixels one after another, and
    for narrow planes, all of whose vectors reach beyond the image.
    """
    cdef Py_ssize_t phase, n, shared, taps = p.rows.first[p.rows.n_phases]
    if p.step_h != p.step_w or p.rows.apart != 1:
        return False
    if p.step_h > 1 and (R > 1 or taps > 3):
        return False
    if p.y.W <= p.kernels.lanes and (
        p.rows.n_phases > 1 or 4 * p.y.W <= 3 * p.kernels.lanes
    ):
        return False
    if p.cols.low <= -CN_MOST_SHIFT or p.cols.low + p.cols.span > CN_MOST_SHIFT:
        return False
    for phase in range(p.rows.n_phases):
        n = p.rows.first[phase + 1] - p.rows.first[phase]
        shared = p.kernels.sums_in_place(n, p.step_h) if n > 0 else R
        if shared == 0 or (shared == 1 and R > 1 and max(R, p.x.C) > MOST_ALONE):
            return False
    return True


cdef Py_ssize_t place_windows(
    const Planes *p, Py_ssize_t a, Py_ssize_t b, Py_ssize_t channel_stride,
    Py_ssize_t KW, cn_planar_t *sums, cn_in_place_t *windows, Py_ssize_t *column,
    Py_ssize_t *offset,
) noexcept nogil:
    cdef Py_ssize_t first = p.cols.first[b], end = p.cols.first[b + 1], t
    cdef Py_ssize_t n = place_columns(
        p, a, b, channel_stride, KW, sums, column, offset
    )
    windows.IH, windows.IW, windows.row_stride = p.x.H, p.x.W, p.x.sh
    windows.n_channels, windows.channel_stride = p.x.C, p.x.sc
    windows.step, windows.n_shifts = p.step_h, end - first
    windows.shift = p.cols.d + first
    windows.least_shift = windows.most_shift = p.cols.d[first]
    for t in range(first, end):
        windows.least_shift = min(windows.least_shift, p.cols.d[t])
        windows.most_shift = max(windows.most_shift, p.cols.d[t])
    return n


cdef void place_block(
    const Planes *p, const PlaneBlock *block, Py_ssize_t a, cn_in_place_t *windows
) noexcept nogil:
    windows.first_row = block.first_row * p.step_h + p.rows.d[p.rows.first[a]]
    windows.first_col = block.first_col * p.step_w


cdef dict outline_planes(
    const Planes *p, Py_ssize_t n_tasks, Py_ssize_t scratch_bytes
):
    return {
        "tasks": n_tasks,
        "scratch_bytes": scratch_bytes,
        "block": (p.block_rows, p.block_cols),
        "blocks": count_blocks(p),
        "chunk": p.x.C * p.rows.first[p.rows.n_phases] * p.cols.first[p.cols.n_phases],
        "chunks": 1,
        "in_place": p.in_place,
    }
