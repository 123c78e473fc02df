# SPDX-License-Identifier: MIT
"""Blocking of gather-products: see ``_blocks.pxd`` for the operation and the terms."""

from libc.string cimport memmove

from convnet._kernels cimport CN_NO_ROW, cn_panel_t, cn_segment_t, cn_slab_t

# Panels of pixels in a block, at least, however many channels there are.
cdef Py_ssize_t FEW_PANELS = 4
# Blocks of equal rows take at most so many more vectors.
cdef double EVEN = 1.01


cdef void plan_gather(
    Gather *g, bint allow_direct, Py_ssize_t turned, Py_ssize_t joined,
    Py_ssize_t max_pixels, Py_ssize_t max_depth, Py_ssize_t max_slab_bytes,
) noexcept nogil:
    join_taps(g, joined)
    measure_taps(g)
    join_rows(g)
    g.turned, g.max_depth, g.max_slab_bytes = turned, max_depth, max_slab_bytes
    g.direct = allow_direct and reads_only_inside(g)
    if not g.direct and not turned:
        max_pixels = min(max_pixels, max(slab_pixels(g), FEW_PANELS * g.kernels.nr))
    choose_blocks(g, max_pixels)
    lay_out_slab(g)


cdef void plan_gather_like(
    Gather *g, const Gather *other, Py_ssize_t turned
) noexcept nogil:
    join_taps(g, 1)
    measure_taps(g)
    g.turned, g.direct = turned, False
    g.max_depth, g.max_slab_bytes = other.max_depth, other.max_slab_bytes
    g.rows, g.cols = other.rows, other.cols
    g.n_row_blocks, g.n_col_blocks = other.n_row_blocks, other.n_col_blocks
    lay_out_slab(g)


cdef Py_ssize_t slab_pixels(const Gather *g) noexcept nogil:
    """Output pixels of which a slab holds as many channels as a panel does."""
    cdef Py_ssize_t channels = min(g.x.C, max(g.max_depth // max(g.taps.n, 1), 1))
    channels *= g.row_step * max(g.n_phases, 1) * g.kernels.itemsize
    return g.max_slab_bytes // max(channels, 1)


cdef void lay_out_slab(Gather *g) noexcept nogil:
    g.n_cols = (g.cols - 1) * g.apart + (g.span_w - 1) // g.slab_step + 1
    g.row_pitch = g.n_phases * g.n_cols
    cdef Py_ssize_t images = min(g.rows, (g.rows + g.y.H - 2) // g.y.H + 1)
    g.max_slab_rows = (g.rows - images) * g.row_step + images * g.span_h
    # Where taps lie far apart, most of those rows are between them: keep a band of rows
    # for each row of taps instead.
    g.banded = g.n_tap_rows * g.rows < g.max_slab_rows
    if g.banded:
        g.max_slab_rows = g.n_tap_rows * g.rows
    # Factors are below 2**40; their product may leave 64 bits.
    g.too_large = <double> g.max_slab_rows * g.row_pitch > 2.0 ** 40
    if g.too_large:
        g.max_slab_rows = g.row_pitch = 1
    g.channel_stride = odd_lines(g.max_slab_rows * g.row_pitch)
    g.pixel_stride = 1
    if g.direct:
        g.channel_stride, g.pixel_stride = g.x.sc, g.step_w
    choose_chunks(g)
    if g.turned:
        # Whole vectors, and no multiple of 512 bytes.
        g.pixel_stride = (g.chunk_channels + g.kernels.lanes - 1) // g.kernels.lanes
        g.pixel_stride = (g.pixel_stride | (g.pixel_stride > 7)) * g.kernels.lanes
    if g.joined > 1:
        g.pixel_stride = g.x.C
    place_taps(g)


cdef inline void join_taps(Gather *g, Py_ssize_t joined) noexcept nogil:
    """Of joined taps the slab has all columns; of others, each phase by itself."""
    g.joined, g.slab_step, g.apart = joined, g.step_w, 1
    if joined > 1:
        g.slab_step, g.apart = 1, g.step_w


cdef void measure_taps(Gather *g) noexcept nogil:
    cdef Py_ssize_t t, dh_max = 0, dw_max = 0
    cdef Py_ssize_t *dh = g.taps.dh
    cdef Py_ssize_t *dw = g.taps.dw
    g.dh_min, g.dw_min, g.n_tap_rows = 0, 0, 0
    for t in range(g.taps.n):
        dh[t] = bring_near(dh[t], g.step_h, g.y.H, g.x.H)
        dw[t] = bring_near(dw[t], g.step_w, g.y.W, g.x.W)
        if t == 0:
            g.dh_min, dh_max, g.dw_min, dw_max = dh[0], dh[0], dw[0], dw[0]
        g.n_tap_rows += begins_row(g, t)
        g.dh_min, dh_max = min(g.dh_min, dh[t]), max(dh_max, dh[t])
        g.dw_min, dw_max = min(g.dw_min, dw[t]), max(dw_max, dw[t])
    g.span_h, g.span_w = dh_max - g.dh_min + 1, dw_max - g.dw_min + 1
    # Neighbouring output rows share slab rows unless the stride jumps over the kernel.
    g.row_step = min(g.step_h, g.span_h)
    choose_phases(g)


cdef void join_rows(Gather *g) noexcept nogil:
    """Where pixels meet themselves alone (1x1), rows that go on are one long row."""
    if (
        g.taps.n == 1
        and not g.taps.together
        and g.taps.dh[0] == g.taps.dw[0] == 0
        and g.step_h == g.step_w == 1
        and g.x.H == g.y.H
        and g.x.W == g.y.W
        and g.x.sh == g.x.W * g.x.sw
        and g.y.sh == g.y.W * g.y.sw
    ):
        g.x.W = g.y.W = g.x_row.IW = g.x.H * g.x.W
        g.x.H = g.y.H = 1


cdef void choose_phases(Gather *g) noexcept nogil:
    """List the column phases that taps read, rising; all rows of taps read alike."""
    cdef Py_ssize_t t, f, i
    cdef Py_ssize_t *phase = g.taps.phase
    g.n_phases = 0
    for t in range(g.taps.n):
        if t > 0 and begins_row(g, t):
            break
        f, i = (g.taps.dw[t] - g.dw_min) % g.slab_step, g.n_phases
        while i > 0 and phase[i - 1] > f:
            i -= 1
        if i == 0 or phase[i - 1] != f:
            memmove(phase + i + 1, phase + i, (g.n_phases - i) * sizeof(Py_ssize_t))
            phase[i] = f
            g.n_phases += 1


cdef inline Py_ssize_t bring_near(
    Py_ssize_t d, Py_ssize_t step, Py_ssize_t n_out, Py_ssize_t n_in
) noexcept nogil:
    """A tap that reads nothing but padding may read any padding: the nearest behind."""
    return n_in if d >= n_in or d + (n_out - 1) * step < 0 else d


cdef inline bint begins_row(const Gather *g, Py_ssize_t t) noexcept nogil:
    """Whether tap t has another dh than the one before: taps come row by row."""
    return t == 0 or g.taps.dh[t] != g.taps.dh[t - 1]


cdef bint reads_only_inside(const Gather *g) noexcept nogil:
    """Whether x can serve as the slab: no tap reads padding, columns are neighbours.

    Of a single tap, every other column will do.
    """
    return (
        g.x.sw == 1
        and (g.step_w == 1 or (g.step_w == 2 and g.taps.n == 1))
        and g.dh_min >= 0
        and g.dw_min >= 0
        and (g.y.H - 1) * g.step_h + g.dh_min + g.span_h <= g.x.H
        and (g.y.W - 1) * g.step_w + g.dw_min + g.span_w <= g.x.W
    )


cdef void choose_blocks(Gather *g, Py_ssize_t most) noexcept nogil:
    """Cut wide images into columns, then take the row count that wastes least.

    A block of few rows reads its halo rows again and again; one whose pixels do not
    fill whole vectors computes lanes that nobody wants.
    """
    cdef Py_ssize_t NR = g.kernels.nr, lanes = g.kernels.lanes
    cdef Py_ssize_t n_rows = g.y.N * g.y.H
    # Small images are one block, others four and more: threads share blocks.
    cdef Py_ssize_t limit = min(most, max(5 * NR, n_rows * g.y.W // 4)), rows
    # Rows that share pixels with their neighbours want them in the same block.
    cdef Py_ssize_t widest = limit if g.span_h == 1 else most // 2
    cdef double score, vectors, best = -1
    g.cols = g.y.W
    if g.cols > widest and (n_rows > 1 or g.cols > limit):
        g.n_col_blocks = (g.cols + widest - 1) // widest
        g.cols = (g.cols + g.n_col_blocks - 1) // g.n_col_blocks
        if not g.turned:
            g.cols = (g.cols + NR - 1) // NR * NR
    g.n_col_blocks = (g.y.W + g.cols - 1) // g.cols
    g.rows = 1
    for rows in range(1, min(max(1, limit // g.cols), n_rows) + 1):
        vectors = all_vectors(g, n_rows, rows)
        score = <double> n_rows * g.cols / lanes / vectors
        score -= 0.05 * <double> (g.span_h - g.row_step) / (rows * g.row_step)
        if score >= best:
            best, g.rows = score, rows
    g.n_row_blocks = (n_rows + g.rows - 1) // g.rows
    # As many blocks of equal rows, for threads, if they fill vectors as well; of turned
    # slabs vectors hold channels.
    rows = (n_rows + g.n_row_blocks - 1) // g.n_row_blocks
    vectors = all_vectors(g, n_rows, g.rows)
    if g.turned or all_vectors(g, n_rows, rows) <= EVEN * vectors:
        g.rows = rows


cdef double all_vectors(
    const Gather *g, Py_ssize_t n_rows, Py_ssize_t rows
) noexcept nogil:
    """Vectors that blocks of so many rows take."""
    cdef Py_ssize_t NR = g.kernels.nr, lanes = g.kernels.lanes
    return (
        n_rows // rows * tile_vectors(rows * g.cols, NR, lanes)
        + tile_vectors(n_rows % rows * g.cols, NR, lanes)
    )


cdef inline double tile_vectors(
    Py_ssize_t n_pixels, Py_ssize_t NR, Py_ssize_t lanes
) noexcept nogil:
    """Vectors that tiles compute for so many pixels; a few at the end are cheap."""
    cdef Py_ssize_t last = n_pixels % NR
    cdef double tail = 0.2 * last if last <= 4 else (last + lanes - 1) // lanes
    return n_pixels // NR * (NR // lanes) + tail


cdef void choose_chunks(Gather *g) noexcept nogil:
    """Cut the reduction into equal chunks of at most max_depth, whole channels first.

    The channels of a turned slab are no part of the reduction.
    """
    cdef Py_ssize_t C = g.x.C, T = max(g.taps.n, 1), n, room
    g.n_tap_chunks = 1 if g.taps.together else (T + g.max_depth - 1) // g.max_depth
    g.chunk_taps = (T + g.n_tap_chunks - 1) // g.n_tap_chunks
    n = g.turned or max(g.max_depth // T, 1)
    if not g.direct:
        room = g.max_slab_bytes // (g.channel_stride * g.kernels.itemsize)
        n = min(n, max(room, 1))
    g.n_channel_chunks = (C + n - 1) // n
    g.chunk_channels = (C + g.n_channel_chunks - 1) // g.n_channel_chunks
    if g.turned:
        # Channels are columns: whole vectors of them.
        n = (g.chunk_channels + g.kernels.lanes - 1) // g.kernels.lanes
        g.chunk_channels = n * g.kernels.lanes
        g.n_channel_chunks = (C + g.chunk_channels - 1) // g.chunk_channels


cdef int require_slab(const Gather *g) except -1:
    if g.too_large and not g.direct:
        raise MemoryError("no memory for a padded copy of so many pixels")
    return 0


cdef Chunk get_chunk(const Gather *g, Py_ssize_t index) noexcept nogil:
    cdef Chunk chunk
    chunk.c = index // g.n_tap_chunks * g.chunk_channels
    chunk.t = index % g.n_tap_chunks * g.chunk_taps
    chunk.n_channels = min(g.chunk_channels, g.x.C - chunk.c)
    chunk.n_taps = min(g.chunk_taps, g.taps.n - chunk.t)
    chunk.k = chunk.c * g.taps.n + chunk.t
    chunk.depth = chunk.n_channels * chunk.n_taps
    return chunk


cdef void place_taps(Gather *g) noexcept nogil:
    cdef Py_ssize_t t, u, f, row = -g.rows
    cdef Py_ssize_t *tap = g.taps.place
    for t in range(g.taps.n):
        if g.direct:
            tap[t] = g.taps.dh[t] * g.x.sh + g.taps.dw[t]
            continue
        if not g.banded:
            row = g.taps.dh[t] - g.dh_min
        elif begins_row(g, t):
            row += g.rows
        u, f = g.taps.dw[t] - g.dw_min, 0
        while g.taps.phase[f] != u % g.slab_step:
            f += 1
        tap[t] = row * g.row_pitch + f * g.n_cols + u // g.slab_step


cdef Py_ssize_t block_bytes(const Gather *g) noexcept nogil:
    cdef Py_ssize_t slab_bytes = 0
    if not g.direct:
        # A vector may be read from the last pixel.
        slab_bytes = g.chunk_channels * g.channel_stride
        if g.turned:
            slab_bytes = g.max_slab_rows * g.row_pitch * g.pixel_stride
        slab_bytes = (slab_bytes + g.kernels.lanes) * g.kernels.itemsize
    return index_bytes(g) + (slab_bytes + 63) // 64 * 64


cdef Py_ssize_t index_bytes(const Gather *g) noexcept nogil:
    """Bytes of a block without its slab."""
    cdef Py_ssize_t n = (g.max_slab_rows + 2 * g.rows) * sizeof(Py_ssize_t)
    n += (g.rows + MAX_PANELS + 1) * sizeof(cn_segment_t)
    return (n + 63) // 64 * 64


cdef void place_block(const Gather *g, Block *block, char *memory) noexcept nogil:
    block.slab_row = <Py_ssize_t *> memory
    block.row_in = block.slab_row + g.max_slab_rows
    block.row_out = block.row_in + g.rows
    block.segment = <cn_segment_t *> (block.row_out + g.rows)
    block.slab = memory + index_bytes(g)


cdef void open_block(const Gather *g, Block *block, Py_ssize_t index) noexcept nogil:
    cdef Py_ssize_t first_row = index // g.n_col_blocks * g.rows
    cdef Py_ssize_t n_rows = min(g.rows, g.y.N * g.y.H - first_row)
    cdef Py_ssize_t r, n, i
    block.first_row, block.n_rows = first_row, n_rows
    block.first_col = index % g.n_col_blocks * g.cols
    block.n_cols = min(g.cols, g.y.W - block.first_col)
    block.n_slab_rows = 0
    for r in range(block.n_rows):
        n, i = (first_row + r) // g.y.H, (first_row + r) % g.y.H
        block.row_out[r] = n * g.y.sn + i * g.y.sh + block.first_col * g.y.sw
        if g.direct:
            block.row_in[r] = n * g.x.sn + i * g.step_h * g.x.sh
            block.row_in[r] += block.first_col * g.step_w
        elif g.banded:
            add_to_bands(g, block, r, n, i)
        else:
            add_shared_rows(g, block, r, n, i)


cdef inline Py_ssize_t find_row(
    const Gather *g, Py_ssize_t n, Py_ssize_t ih
) noexcept nogil:
    return n * g.x.sn + ih * g.x.sh if 0 <= ih < g.x.H else CN_NO_ROW


cdef void add_shared_rows(
    const Gather *g, Block *block, Py_ssize_t r, Py_ssize_t n, Py_ssize_t i
) noexcept nogil:
    """The slab rows of output row r = (n, i), but for those of the row before."""
    cdef Py_ssize_t d, at = block.n_slab_rows
    if r > 0 and i > 0:
        at -= g.span_h - g.row_step
    block.row_in[r] = at * g.row_pitch
    for d in range(block.n_slab_rows - at, g.span_h):
        block.slab_row[at + d] = find_row(g, n, i * g.step_h + g.dh_min + d)
    block.n_slab_rows = at + g.span_h


cdef void add_to_bands(
    const Gather *g, Block *block, Py_ssize_t r, Py_ssize_t n, Py_ssize_t i
) noexcept nogil:
    """The slab rows of output row r = (n, i): one in each row of taps' band."""
    cdef Py_ssize_t t, at = r
    block.row_in[r] = r * g.row_pitch
    if r == 0:
        # A block with fewer rows leaves gaps.
        block.n_slab_rows = g.max_slab_rows
        for t in range(g.max_slab_rows):
            block.slab_row[t] = CN_NO_ROW
    for t in range(g.taps.n):
        if begins_row(g, t):
            block.slab_row[at] = find_row(g, n, i * g.step_h + g.taps.dh[t])
            at += g.rows


cdef const char *load_channels(
    const Gather *g, const Block *block, const char *x, Py_ssize_t c, Py_ssize_t n
) noexcept nogil:
    cdef cn_slab_t slab
    cdef const char *first = x + c * g.x.sc * g.kernels.itemsize
    if g.direct:
        return first
    slab.n_channels, slab.channel_stride = n, g.channel_stride
    slab.x, slab.x_channel_stride = g.x_row, g.x.sc
    slab.n_rows, slab.row = block.n_slab_rows, block.slab_row
    slab.first_col = block.first_col * g.step_w + g.dw_min
    slab.step, slab.n_cols = g.slab_step, g.n_cols
    slab.n_phases, slab.phase = g.n_phases, g.taps.phase
    slab.pixel_stride = g.pixel_stride
    if g.turned:
        g.kernels.turn_slab(block.slab, first, &slab)
    else:
        g.kernels.fill_slab(block.slab, first, &slab)
    return block.slab


cdef void cut_panel(
    const Gather *g, const Block *block, Py_ssize_t first, Py_ssize_t n,
    cn_segment_t *segment, cn_panel_t *panel,
) noexcept nogil:
    """Cut pixels [first, first + n) of a block into runs; join runs that continue."""
    cdef Py_ssize_t r = first // block.n_cols, col = first % block.n_cols
    cdef Py_ssize_t left = n, length, in_, out, step = g.apart * g.pixel_stride
    cdef cn_segment_t *last = segment - 1
    cdef bint follows
    panel.joined = True
    while left > 0:
        length = min(left, block.n_cols - col)
        in_ = block.row_in[r] * (1 if g.direct else g.pixel_stride)
        in_ += col * step
        out = block.row_out[r] + col * g.y.sw
        follows = left == n or last.out + last.len * g.y.sw == out
        panel.joined = panel.joined and follows
        if left < n and follows and last.in_ + last.len * step == in_:
            last.len += length
        else:
            last += 1
            last.len, last.in_, last.out = length, in_, out
        left -= length
        r, col = r + 1, 0
    panel.segment = segment
    panel.n_segments = last - segment + 1
    panel.n_pixels, panel.step = n, step
    panel.readable = not g.direct


cdef dict outline(const Gather *g, Py_ssize_t n_tasks, Py_ssize_t scratch_bytes):
    return {
        "tasks": n_tasks,
        "scratch_bytes": scratch_bytes,
        "block": (g.rows, g.cols),
        "blocks": g.n_row_blocks * g.n_col_blocks,
        "chunk": g.chunk_channels * min(g.chunk_taps, g.taps.n),
        "chunks": g.n_channel_chunks * g.n_tap_chunks,
        "in_place": bool(g.direct),
    }
