# SPDX-License-Identifier: MIT
"""Tiles of Winograd's algorithm, and their inputs: see ``_winograd_tiles.pxd``.

The transform reads rows of neighbouring pixels. Images that have none (channels last, a
view with steps, or every DW-th column) are copied to planes first, those rows that a
panel needs.
"""

from convnet._blocks cimport odd_lines, padded
from convnet._kernels cimport (
    CN_FEW_TILES, CN_NO_ROW, cn_points_t, cn_slab_t, cn_strip_t, cn_tiles_t,
)
from convnet._winograd_product cimport Winograd, n_copies


cdef inline Py_ssize_t max_strips(const Winograd *p) noexcept nogil:
    """Of one panel, which may begin and end inside a row of tiles."""
    return min(p.width, (p.width + p.TW - 2) // p.TW + 1)


cdef Py_ssize_t strips_bytes(const Winograd *p) noexcept nogil:
    return (max_strips(p) * sizeof(cn_strip_t) + 63) // 64 * 64


cdef Py_ssize_t input_stride(const Winograd *p, Py_ssize_t width) noexcept nogil:
    return p.C * width + p.kernels.lanes


cdef Py_ssize_t few_stride(const Winograd *p) noexcept nogil:
    return p.C * p.n * CN_FEW_TILES + p.kernels.lanes


cdef Py_ssize_t input_bytes(const Winograd *p) noexcept nogil:
    if p.few:
        return p.n * few_stride(p) * p.kernels.itemsize
    return p.n_points * input_stride(p, p.width) * p.kernels.itemsize


cdef cn_points_t places(const Winograd *p, Py_ssize_t n_tiles) noexcept nogil:
    """Where transformed tiles go: few ones by rows of points, for each channel."""
    cdef cn_points_t points
    if p.few:
        points.row, points.col = few_stride(p), CN_FEW_TILES
        points.channel = p.n * CN_FEW_TILES
        return points
    points.channel = padded(p.kernels, n_tiles)
    points.col = input_stride(p, points.channel)
    points.row = p.n * points.col
    return points


cdef inline Py_ssize_t max_rows(const Winograd *p) noexcept nogil:
    return max_strips(p) * p.n * p.step


cdef inline bint are_planes(const Winograd *p) noexcept nogil:
    return p.x.sw == 1 and p.DW == 1


cdef inline bint goes_by_strips(const Winograd *p) noexcept nogil:
    """Whether strips are copied one by one, and not whole rows.

    A panel may be less than a row of tiles; and dilated images share no pixels.
    """
    return max_strips(p) <= 2 or p.DW > 1


cdef inline Py_ssize_t behind(const Winograd *p) noexcept nogil:
    """Columns of a phase that are seen behind those of the last tile."""
    return p.filters.pieces_w * p.filters.r - 1


cdef inline Py_ssize_t rows_bytes(const Winograd *p) noexcept nogil:
    return (max_rows(p) * sizeof(Py_ssize_t) + 63) // 64 * 64


cdef inline Py_ssize_t strip_cols(const Winograd *p, Py_ssize_t n_tiles) noexcept nogil:
    """Columns that so many neighbouring tiles see."""
    return (n_tiles * p.m + behind(p)) * p.step


cdef inline Py_ssize_t plane_stride(const Winograd *p) noexcept nogil:
    cdef Py_ssize_t n_cols = strip_cols(p, min(p.width, p.TW))
    if not goes_by_strips(p):
        n_cols = p.x.W
    elif p.DW == 1:
        n_cols = min(n_cols, p.x.W)
    return odd_lines(max_rows(p) * n_cols)


cdef Py_ssize_t planes_bytes(const Winograd *p) noexcept nogil:
    cdef Py_ssize_t n = (p.x.C * plane_stride(p) + p.kernels.lanes) * p.kernels.itemsize
    return 0 if are_planes(p) else rows_bytes(p) + (n + 63) // 64 * 64


cdef void transform_input(
    const Winograd *p, char *input, char *planes, Py_ssize_t group, Py_ssize_t first,
    cn_tiles_t *tiles,
) noexcept nogil:
    cdef Py_ssize_t end = min(first + p.width, p.n_images * p.TH * p.TW)
    cdef const char *image = p.x.data + group * p.x.C * p.x.sc * p.kernels.itemsize
    cdef cn_points_t points = places(p, end - first)
    cdef Py_ssize_t row
    cdef const char *x
    for row in range(p.filters.pieces_h):
        cut_strips(p, first, end, row * p.filters.r * p.step, tiles)
        x = image if are_planes(p) else copy_rows(p, image, planes, tiles)
        p.kernels.winograd_input(input, x, tiles, &points)
        input += n_copies(p) // p.filters.pieces_h * points.channel * p.kernels.itemsize


cdef void cut_strips(
    const Winograd *p, Py_ssize_t first, Py_ssize_t end, Py_ssize_t down,
    cn_tiles_t *tiles,
) noexcept nogil:
    """Cut tiles [first, end) into strips of neighbours in one row of tiles.

    Their inputs begin some rows farther down: where a row of the filters' pieces does.
    """
    cdef Py_ssize_t n, a, b, i, j, h, ih, size = p.m * p.step, y_size = p.m * p.ways
    cdef Py_ssize_t rows = min(p.DH, p.y.H), cols = min(p.DW, p.y.W)
    cdef cn_strip_t *strip = <cn_strip_t *> tiles.strip
    tiles.n_strips, tiles.n_tiles = 0, end - first
    tiles.n, tiles.m, tiles.step, tiles.ways = p.n, p.m, p.step, p.ways
    tiles.n_copies, tiles.pieces_w = n_copies(p), p.filters.pieces_w
    tiles.n_channels, tiles.channel_stride = p.x.C, p.x.sc
    tiles.IW = p.x.W
    while first < end:
        # Images that share rows come row by row.
        b, j = first // p.TW % cols, first % p.TW
        i = first // (p.TW * cols)
        n, a, i = i // (p.TH * rows), i // p.TH % rows, i % p.TH
        strip.n_tiles = min(p.TW - j, end - first)
        strip.first_col = j * size * p.DW + b + p.dw
        for h in range(p.n * p.step):
            ih = (i * size + down + h) * p.DH + a + p.dh
            strip.row[h] = n * p.x.sn + ih * p.x.sh if 0 <= ih < p.x.H else CN_NO_ROW
        strip.skip_lines, strip.skip_cols = p.skip_h * (i == 0), p.skip_w * (j == 0)
        i, j = i * y_size - p.skip_h, j * y_size - p.skip_w
        strip.out = n * p.y.sn + (i * p.DH + a) * p.y.sh + (j * p.DW + b) * p.y.sw
        # The last tiles of a dilated image may be empty.
        strip.n_lines = min(y_size, (p.y.H - a + p.DH - 1) // p.DH - i)
        strip.n_cols = (p.y.W - b + p.DW - 1) // p.DW - j
        strip.n_cols = max(0, min(strip.n_tiles * y_size, strip.n_cols))
        first += strip.n_tiles
        tiles.n_strips += 1
        strip += 1


cdef const char *copy_rows(
    const Winograd *p, const char *x, char *memory, cn_tiles_t *tiles
) noexcept nogil:
    """Copy the rows that strips read to planes, and let the strips read those."""
    cdef char *planes = memory + rows_bytes(p)
    cdef Py_ssize_t s = 0, at_once = tiles.n_strips, used = 0
    if goes_by_strips(p):
        at_once = 1
    while s < tiles.n_strips:
        used += copy_strips(
            p, x, <Py_ssize_t *> memory, planes, <cn_strip_t *> tiles.strip + s,
            at_once, used,
        )
        s += at_once
    tiles.channel_stride = plane_stride(p)
    if p.DW > 1:
        tiles.IW = strip_cols(p, min(p.width, p.TW))
    return planes


cdef Py_ssize_t copy_strips(
    const Winograd *p, const char *x, Py_ssize_t *row, char *planes, cn_strip_t *strip,
    Py_ssize_t n_strips, Py_ssize_t used,
) noexcept nogil:
    """Copy whole rows of strips, or a strip's part of them; return a plane's elements.

    The first `used` ones of each plane are taken. Of dilated images, padding is copied
    as well.
    """
    cdef Py_ssize_t s, h, k, n = 0, no_phase = 0, col = 0, n_cols = p.x.W, origin = 0
    cdef cn_slab_t slab
    if p.DW > 1:
        origin, n_cols = strip.first_col, strip_cols(p, strip.n_tiles)
        strip.first_col = 0
    elif goes_by_strips(p):
        col = max(0, strip.first_col)
        n_cols = min(p.x.W, strip.first_col + strip_cols(p, strip.n_tiles)) - col
    for s in range(n_strips):
        for h in range(p.n * p.step):
            if n_cols <= 0:
                strip[s].row[h] = CN_NO_ROW
            if strip[s].row[h] == CN_NO_ROW:
                continue
            # A strip begins with the rows that the one before ends with.
            k = max(0, n - (p.n - p.m) * p.step)
            while k < n and row[k] != strip[s].row[h]:
                k += 1
            row[k] = strip[s].row[h]
            n = max(n, k + 1)
            strip[s].row[h] = used + k * n_cols - col
    if n == 0:
        return 0
    slab.n_channels, slab.x_channel_stride = p.x.C, p.x.sc
    slab.channel_stride = plane_stride(p)
    slab.n_rows, slab.row, slab.x = n, row, p.x_row
    slab.first_col, slab.step, slab.n_cols = col + origin, p.DW, n_cols
    slab.n_phases, slab.phase, slab.pixel_stride = 1, &no_phase, 0
    p.kernels.fill_slab(planes + used * p.kernels.itemsize, x, &slab)
    return n * n_cols
