# SPDX-License-Identifier: MIT
"""Sums over the planes of a slab: see ``_planar_sums.pxd``.

The sums of a strided input gradient's phases are woven to rows of pixels; those of
pixels that are no neighbours in memory (channels last) are put in their places at last.
"""

from libc.string cimport memset

from convnet._blocks cimport padded
from convnet._kernels cimport (
    cn_in_place_t, cn_planar_t, cn_plane_t, cn_tile_t, cn_weave_t,
)
from convnet._planes cimport MAX_STEP, PlaneBlock, find_x, place_block


cdef char *find_y(
    const PlanarProduct *p, const PlaneBlock *block, Py_ssize_t row
) noexcept nogil:
    """Where a block's pixels begin in a row of the product, counted over all groups."""
    return p.y.data + p.planes.kernels.itemsize * (
        block.n * p.y.sn
        + row * p.y.sc
        + block.first_row * p.SH * p.y.sh
        + block.first_col * p.SW * p.y.sw
    )


cdef void load_weights(const PlanarProduct *p, Py_ssize_t group) noexcept nogil:
    cdef Py_ssize_t phase
    for phase in range(p.SH * p.SW):
        p.planes.kernels.gather(
            find_weights(p, phase, group),
            p.product.weight
            + group * p.product.group_stride * p.planes.kernels.itemsize,
            p.offset[phase],
            p.n_weights[phase],
            p.product.R,
            p.product.row_stride,
        )


cdef inline char *find_weights(
    const PlanarProduct *p, Py_ssize_t phase, Py_ssize_t group
) noexcept nogil:
    cdef Py_ssize_t i, n = group * p.n_weights[phase]
    for i in range(phase):
        n += p.product.G * p.n_weights[i]
    return p.weights + n * p.product.R * p.planes.kernels.itemsize


cdef void describe_sums(
    const PlanarProduct *p, const PlaneBlock *block, Py_ssize_t phase, cn_planar_t *sums
) noexcept nogil:
    """The sums of all rows of a block."""
    cdef const cn_planar_t *taps = &p.sums[phase]
    sums.n_columns, sums.column, sums.n_taps = taps.n_columns, taps.column, taps.n_taps
    sums.tap_stride, sums.row_stride = taps.tap_stride, taps.row_stride
    sums.n_results, sums.share = block.n_groups * p.product.R, p.product.R
    sums.x_stride = p.planes.x.C
    sums.x_stride *= p.planes.x.sc if p.planes.in_place else p.planes.channel_stride


cdef void run_sums(
    const PlanarProduct *p, const PlaneBlock *block, Py_ssize_t phase,
    const cn_tile_t *tile, const char *slab, const cn_planar_t *sums,
) noexcept nogil:
    """From the block's slab, or from x."""
    cdef const char *weights = find_weights(p, phase, block.group)
    cdef cn_in_place_t windows
    if not p.planes.in_place:
        p.planes.kernels.planar_sum(tile, slab, weights, sums)
        return
    windows = p.windows[phase]
    place_block(&p.planes, block, phase // p.SW, &windows)
    p.planes.kernels.planar_in_place(
        tile, find_x(&p.planes, block), weights, sums, &windows
    )


cdef void describe_tile(
    const PlanarProduct *p, cn_tile_t *tile, Py_ssize_t group
) noexcept nogil:
    """What becomes of the sums of rows from a group's first one on."""
    memset(tile, 0, sizeof(cn_tile_t))
    tile.col_stride, tile.far = 1, not p.in_parts
    if p.product.finish.bias != NULL:
        tile.bias = p.product.finish.bias + (
            group * p.product.R * p.planes.kernels.itemsize
        )
    tile.accumulate = p.product.finish.accumulate
    tile.addend, tile.clip = p.product.finish.addend, p.product.finish.clip
    tile.low, tile.high = p.product.finish.low, p.product.finish.high


cdef void sum_windows(
    const PlanarProduct *p, const PlaneBlock *block, const char *slab,
    cn_planar_t *sums,
) noexcept nogil:
    """All rows of a block, finished, to the result."""
    cdef cn_tile_t tile
    describe_sums(p, block, 0, sums)
    sums.n_rows, sums.n_cols, sums.y_stride = block.n_rows, block.n_cols, p.y.sc
    describe_tile(p, &tile, block.group)
    tile.y, tile.row_stride = find_y(p, block, block.group * p.product.R), p.y.sh
    run_sums(p, block, 0, &tile, slab, sums)


cdef void sum_parts(
    const PlanarProduct *p, const PlaneBlock *block, const char *slab, char *parts,
    cn_planar_t *sums,
) noexcept nogil:
    """All rows of a block: their phases, then the pixels in order."""
    cdef Py_ssize_t phase, r, n_rows = block.n_groups * p.product.R
    cdef Py_ssize_t found[MAX_STEP * MAX_STEP]
    for phase in range(p.SH * p.SW):
        found[phase] = phase if p.n_weights[phase] > 0 else -1
        if found[phase] >= 0:
            sum_part(p, block, slab, parts, phase, sums)
    if p.y.sw == 1:
        for r in range(n_rows):
            weave_pixels(p, block, parts, found, r)
    else:
        for r in range(count_pixel_rows(p, block)):
            weave_channels(p, block, parts, found, n_rows, r)


cdef void sum_part(
    const PlanarProduct *p, const PlaneBlock *block, const char *slab, char *parts,
    Py_ssize_t phase, cn_planar_t *sums,
) noexcept nogil:
    """The sums of one phase, finished, but not yet where they belong."""
    cdef cn_tile_t tile
    describe_sums(p, block, phase, sums)
    sums.n_rows = min(block.n_rows, (p.y.H - phase // p.SW + p.SH - 1) // p.SH
                      - block.first_row)
    sums.n_cols = padded(p.planes.kernels, block.n_cols)
    sums.y_stride = p.SH * p.SW * p.part_size
    describe_tile(p, &tile, block.group)
    tile.y = parts + phase * p.part_size * p.planes.kernels.itemsize
    tile.row_stride = p.part_pitch
    if tile.accumulate:
        load_addends(p, block, &tile, sums.n_results)
    run_sums(p, block, phase, &tile, slab, sums)
    sums.n_next[0] = sums.n_next[1] = 0         # fetched


cdef void load_addends(
    const PlanarProduct *p, const PlaneBlock *block, cn_tile_t *tile, Py_ssize_t n
) noexcept nogil:
    """Copy what is to be added from where it lies to the parts."""
    cdef Py_ssize_t itemsize = p.planes.kernels.itemsize, r
    cdef cn_plane_t source, part
    source.n_rows, source.n_cols = block.n_rows, block.n_cols
    part = source
    source.row_stride, source.col_stride = p.y.sh, p.y.sw
    part.row_stride, part.col_stride = p.part_pitch, 1
    for r in range(n):
        p.planes.kernels.add_plane(
            <char *> tile.y + r * p.SH * p.SW * p.part_size * itemsize,
            &part,
            find_y(p, block, block.group * p.product.R + r) + tile.addend * itemsize,
            &source,
            False,
        )
    tile.addend = 0


cdef inline Py_ssize_t count_pixel_rows(
    const PlanarProduct *p, const PlaneBlock *block
) noexcept nogil:
    return min(block.n_rows * p.SH, p.y.H - block.first_row * p.SH)


cdef cn_weave_t describe_weave(
    const PlanarProduct *p, const PlaneBlock *block
) noexcept nogil:
    """Rows of pixels from their parts."""
    cdef cn_weave_t how
    how.accumulate, how.col_stride = False, p.y.sw
    how.ways, how.part_stride = p.SW, p.part_size
    how.n = min(block.n_cols * p.SW, p.y.W - block.first_col * p.SW)
    return how


cdef void weave_pixels(
    const PlanarProduct *p, const PlaneBlock *block, const char *parts,
    const Py_ssize_t *found, Py_ssize_t r,
) noexcept nogil:
    """The pixels of row r of a block, whose columns are neighbours."""
    cdef cn_weave_t how = describe_weave(p, block)
    cdef Py_ssize_t size = p.SH * p.SW * p.part_size
    how.n_rows, how.row_ways, how.part = count_pixel_rows(p, block), p.SH, found
    how.row_stride, how.x_row_stride = p.y.sh, p.part_pitch
    p.planes.kernels.weave_rows(
        find_y(p, block, block.group * p.product.R + r),
        parts + r * size * p.planes.kernels.itemsize,
        &how,
    )


cdef void weave_channels(
    const PlanarProduct *p, const PlaneBlock *block, const char *parts,
    const Py_ssize_t *found, Py_ssize_t n, Py_ssize_t i,
) noexcept nogil:
    """Pixel row i, in all n rows of a block: channels may come last."""
    cdef Py_ssize_t itemsize = p.planes.kernels.itemsize
    cdef cn_weave_t how = describe_weave(p, block)
    how.row_ways, how.part = 1, found + i % p.SH * p.SW
    how.n_rows, how.row_stride = n, p.y.sc
    how.x_row_stride = p.SH * p.SW * p.part_size
    p.planes.kernels.weave_rows(
        find_y(p, block, block.group * p.product.R) + i * p.y.sh * itemsize,
        parts + i // p.SH * p.part_pitch * itemsize,
        &how,
    )
