# SPDX-License-Identifier: MIT
"""A block's pixels as panels: see ``_packed_pixels.pxd``."""

from convnet._ahead cimport look_at, look_at_runs, look_nowhere
from convnet._blocks cimport (
    BLOCK_PANELS, KC, MAX_PANELS, MAX_PIXELS, Block, Chunk, Gather, cut_panel, padded,
)
from convnet._kernels cimport CN_NO_ROW, cn_depth_t, cn_panel_t, cn_segment_t
from convnet._product cimport Operands, Product, is_one_panel

# Panels of pixels that are packed together fill so much of L2. One of many taps that
# fills half of L1 stays there alone.
cdef Py_ssize_t PIXEL_BYTES = 192 * 1024
cdef Py_ssize_t HALF_L1 = 24 * 1024
# An image that L2 does not hold, and elements that a tile may fetch of it.
cdef Py_ssize_t LARGE_IMAGE = 1024 * 1024, LONG_RUN = 4096
# A panel's pixels of several taps are fetched so early, out of L2.
cdef Py_ssize_t CHANNELS_AHEAD = 4


cdef Py_ssize_t pixel_panel_bytes(const Gather *g, Py_ssize_t depth) noexcept nogil:
    return depth * g.kernels.nr * g.kernels.itemsize


cdef Py_ssize_t pixels_bytes(const Gather *g) noexcept nogil:
    return max(pixel_panel_bytes(g, g.chunk_channels * g.chunk_taps), PIXEL_BYTES)


cdef Py_ssize_t block_panels(const Gather *g) noexcept nogil:
    """Panels of pixels in a block: more where the reduction, and so each, is short."""
    cdef Py_ssize_t n_bytes = pixel_panel_bytes(g, min(g.x.C * g.taps.n, KC))
    cdef Py_ssize_t most = min(MAX_PANELS, MAX_PIXELS // g.kernels.nr)
    return min(max(PIXEL_BYTES // max(n_bytes, 1), BLOCK_PANELS), most)


cdef Py_ssize_t pack_panels(
    const Product *p, const Block *block, const char *source, Operands *some,
    Py_ssize_t first,
) noexcept nogil:
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t n_pixels = block.n_rows * block.n_cols, most = MAX_PANELS, n
    cdef cn_segment_t *segment = block.segment
    if not p.unpacked:
        most = min(max(PIXEL_BYTES // max(some.panel_bytes, 1), 1), most)
        if p.streamed or (g.taps.n > 1 and some.panel_bytes > HALF_L1):
            most = 1
    some.n = 0
    while some.n < most and first < n_pixels:
        n = panel_pixels(p, block, first)
        cut_panel(g, block, first, n, segment, &some.columns[some.n])
        place_panel(p, source, some)
        segment += some.columns[some.n].n_segments
        some.n += 1
        first += n
    if g.direct and not p.streamed:
        look_behind_pixels(p, block, source, some, first)
    return first


cdef inline void look_behind_pixels(
    const Product *p, const Block *block, const char *source, Operands *some,
    Py_ssize_t pixel,
) noexcept nogil:
    """Let tiles fetch as many pixels as they use: those from `pixel` on.

    Behind a block's last ones come those of the next chunk, or of the next block.
    """
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t place, n = some.n * g.kernels.nr
    look_nowhere(&some.ahead)
    if g.taps.n != 1 or g.pixel_stride != 1:
        return
    if pixel < block.n_rows * block.n_cols:
        place = block.row_in[pixel // block.n_cols] + pixel % block.n_cols
        look_at(g, source, place, n, &some.ahead)
    else:
        look_behind_chunk(p, block, source, some, n)


cdef void look_behind_chunk(
    const Product *p, const Block *block, const char *source, Operands *some,
    Py_ssize_t n,
) noexcept nogil:
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t place
    look_nowhere(&some.ahead)
    if some.chunk.c + some.chunk.n_channels < g.x.C:
        place = some.chunk.n_channels * g.channel_stride + block.row_in[0]
    elif some.next != NULL:
        place = some.next.row_in[0] - some.chunk.c * g.channel_stride
    else:
        return
    look_at(g, source, place, n, &some.ahead)


cdef bint are_slabs_fetched(const Product *p) noexcept nogil:
    cdef const Gather *g = &p.pixels
    return (
        not g.direct
        and g.taps.n > 1
        and p.phases == NULL
        and g.x.sw == 1
        and g.x.sh == g.x.W
        and g.x.C * g.x.H * g.x.W * g.kernels.itemsize >= LARGE_IMAGE
    )


cdef void look_behind_slab(
    const Product *p, const Block *block, const char *x, Operands *some
) noexcept nogil:
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t c = some.chunk.c + some.chunk.n_channels, first = 0, last, n
    look_nowhere(&some.ahead)
    if c >= g.x.C:
        c, block = 0, some.next
    if block == NULL:
        return
    last = block.n_slab_rows - 1
    while first < last and block.slab_row[first] == CN_NO_ROW:
        first += 1
    while first < last and block.slab_row[last] == CN_NO_ROW:
        last -= 1
    if block.slab_row[first] == CN_NO_ROW:
        return
    n = block.slab_row[last] - block.slab_row[first] + g.x.W
    if 0 < n <= LONG_RUN:
        look_at_runs(
            g, x, c * g.x.sc + block.slab_row[first], n,
            min(g.chunk_channels, g.x.C - c), &some.ahead,
        )


cdef inline void place_panel(
    const Product *p, const char *source, Operands *some
) noexcept nogil:
    """Where tiles find the last panel of pixels: packed, or where they lie."""
    cdef const Gather *g = &p.pixels
    cdef const cn_panel_t *panel = &some.columns[some.n]
    cdef Py_ssize_t itemsize = g.kernels.itemsize
    some.pixels[some.n] = some.packed + some.n * some.panel_bytes
    some.unread[some.n] = NULL
    if some.chunk.depth == 0:
        return                      # no source: nothing will be read
    if p.unpacked:
        some.pixels[some.n] = source + panel.segment.in_ * itemsize
    elif is_read_by_tile(p, panel, some, source):
        some.unread[some.n] = source + (panel.segment.in_ + g.taps.place[0]) * itemsize
    else:
        pack_pixels(p, source, some)


cdef inline bint is_read_by_tile(
    const Product *p, const cn_panel_t *panel, const Operands *some, const char *source
) noexcept nogil:
    """Whether the first tile can read a panel where it lies: a run, at one tap.

    It packs a full panel meanwhile, unless no other one is to come.
    """
    cdef const Gather *g = &p.pixels
    if g.taps.n > 1 or g.pixel_stride > 1 or p.phases != NULL or panel.n_segments > 1:
        return False
    if panel.n_pixels == g.kernels.nr and p.R >= g.kernels.mr:
        return True
    return is_one_panel(some) and (
        panel.n_pixels % g.kernels.lanes == 0
        or (g.direct and is_readable(g, panel, some.chunk, source))
    )


cdef inline Py_ssize_t panel_pixels(
    const Product *p, const Block *block, Py_ssize_t first
) noexcept nogil:
    """How many pixels the panel has that begins at pixel `first` of a block."""
    cdef Py_ssize_t NR = p.pixels.kernels.nr, n = block.n_cols, panels
    if not p.unpacked:
        return min(NR, block.n_rows * n - first)
    # Panels that are read in place end with a row; all of a row have as many vectors.
    panels = (n + NR - 1) // NR
    return min(padded(p.pixels.kernels, (n + panels - 1) // panels), n - first % n)


cdef inline void pack_pixels(
    const Product *p, const char *source, Operands *some
) noexcept nogil:
    """Pack the last panel of pixels; with phases, tap by tap."""
    cdef const Gather *g = &p.pixels
    cdef const cn_panel_t *panel = &some.columns[some.n]
    cdef char *packed = some.packed + some.n * some.panel_bytes
    cdef Py_ssize_t t
    cdef cn_depth_t depth
    depth.n_channels, depth.channel_stride = some.chunk.n_channels, g.channel_stride
    depth.n_taps, depth.tap = some.chunk.n_taps, g.taps.place + some.chunk.t
    depth.ahead = 0
    if g.taps.n > 1:
        depth.ahead = CHANNELS_AHEAD * g.channel_stride
    elif g.direct and g.pixel_stride == 1:
        depth.ahead = g.kernels.nr
    if g.direct:
        some.columns[some.n].readable = is_readable(g, panel, some.chunk, source)
    if p.phases == NULL:
        g.kernels.pack_pixels(packed, source, &depth, panel)
        return
    depth.n_taps = 1
    for t in range(g.taps.n):
        depth.tap = g.taps.place + t
        g.kernels.pack_pixels(packed, source, &depth, panel)
        packed += (
            depth.n_channels * padded(g.kernels, panel.n_pixels) * g.kernels.itemsize
        )


cdef inline bint is_readable(
    const Gather *g, const cn_panel_t *panel, Chunk chunk, const char *source
) noexcept nogil:
    """Whether vectors may be read from all pixels of a panel of the image itself.

    Segments must follow each other in memory, and what is behind the last one be there.
    """
    cdef Py_ssize_t s, end
    cdef const cn_segment_t *last = panel.segment
    if g.x.sh < 0:
        return False
    for s in range(1, panel.n_segments):
        if panel.segment[s].in_ < last.in_ + last.len * panel.step:
            return False
        last = panel.segment + s
    end = last.len + padded(g.kernels, panel.n_pixels) - panel.n_pixels
    end = last.in_ + end * panel.step
    end += (g.dh_min + g.span_h - 1) * g.x.sh + g.dw_min + g.span_w - 1
    end += max(0, (chunk.n_channels - 1) * g.channel_stride)
    return source + end * g.kernels.itemsize <= <const char *> g.x_row.end
