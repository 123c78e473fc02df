# SPDX-License-Identifier: MIT
#
# Slabs of few channels, for products that go plane by plane: taps by axis, blocks of
# output pixels, and where a block's taps lie.

from convnet._kernels cimport cn_in_place_t, cn_kernels_t, cn_planar_t, cn_row_t
from convnet._operands cimport Image, Steps

cdef enum:
    MAX_TAPS = 32                   # of an axis
    MAX_STEP = 4                    # from pixel to pixel, and phases of an axis

# The taps along one axis: tap k reads displacement d. Those of a phase are neighbours
# here, `apart` from one to the next, and rise.
cdef struct Axis:
    Py_ssize_t n_phases
    Py_ssize_t first[MAX_STEP + 1]  # of each phase; the last one is their number
    Py_ssize_t k[MAX_TAPS]
    Py_ssize_t d[MAX_TAPS]
    Py_ssize_t low, span, apart

cdef struct Planes:
    const cn_kernels_t *kernels
    Image x                         # C is the channels of one group
    cn_row_t x_row
    Image y                         # the pixels that windows belong to
    Py_ssize_t step_h, step_w
    Axis rows, cols
    Py_ssize_t block_rows, block_cols, n_row_blocks, n_col_blocks
    Py_ssize_t slab_rows, n_cols, row_pitch, channel_stride
    Py_ssize_t G, slab_groups       # groups; those that a block has
    bint in_place                   # taps are read where x lies, not from a slab

# One block: its pixels, of image n and some groups.
cdef struct PlaneBlock:
    Py_ssize_t n, group, n_groups
    Py_ssize_t first_row, n_rows, first_col, n_cols

# Whether windows over C channels are small enough to go plane by plane; and whether
# their slab is, too, at W columns of the result.
cdef bint are_small_windows(Py_ssize_t C, Steps steps) noexcept
cdef bint fits_planes(Py_ssize_t C, Py_ssize_t W, Steps steps) noexcept

# The taps along an axis: of the convolution, or of the phases of its input gradient.
cdef void add_windows(
    Axis *axis, Py_ssize_t K, Py_ssize_t dilation, Py_ssize_t padding
) noexcept nogil
cdef void add_phases(
    Axis *axis, Py_ssize_t K, Py_ssize_t stride, Py_ssize_t dilation, Py_ssize_t padding
) noexcept nogil

# Whether R rows of a product need no slab, where columns are neighbours: when steps,
# rows and columns of taps are known.
cdef bint suit_in_place(const Planes *p, Py_ssize_t R) noexcept nogil

# Decide blocks and the layout of slabs, from the shapes alone; a group's sums are in so
# many parts.
cdef void plan_planes(Planes *p, Py_ssize_t n_parts) noexcept nogil
cdef Py_ssize_t slab_bytes(const Planes *p) noexcept nogil

# Operations that take as long as to bring in x and R rows of pixels, or to write those.
cdef double moving_work(const Planes *p, Py_ssize_t R) noexcept nogil

# Blocks of all groups: how many there are, and which is the one of an index: parts of a
# plane follow each other, then come other groups, then other images.
cdef Py_ssize_t count_blocks(const Planes *p) noexcept nogil
cdef PlaneBlock get_block(const Planes *p, Py_ssize_t index) noexcept nogil

# Bring a block to memory of slab_bytes; where its planes begin. And tell sums what to
# fetch for another one.
cdef char *load_block(
    const Planes *p, const PlaneBlock *block, char *memory
) noexcept nogil
cdef void fetch_block(
    const Planes *p, const PlaneBlock *block, cn_planar_t *sums
) noexcept nogil

# The columns of taps of phase (a, b) in a group's planes, and for each tap the offset
# of its weight; how many taps there are.
cdef Py_ssize_t place_columns(
    const Planes *p, Py_ssize_t a, Py_ssize_t b, Py_ssize_t channel_stride,
    Py_ssize_t KW, cn_planar_t *sums, Py_ssize_t *column, Py_ssize_t *offset,
) noexcept nogil

# The same for taps that are read in place; where their windows lie in a block.
cdef Py_ssize_t place_windows(
    const Planes *p, Py_ssize_t a, Py_ssize_t b, Py_ssize_t channel_stride,
    Py_ssize_t KW, cn_planar_t *sums, cn_in_place_t *windows, Py_ssize_t *column,
    Py_ssize_t *offset,
) noexcept nogil
cdef void place_block(
    const Planes *p, const PlaneBlock *block, Py_ssize_t a, cn_in_place_t *windows
) noexcept nogil

# Where the first plane of a block begins.
cdef const char *find_x(const Planes *p, const PlaneBlock *block) noexcept nogil

# What explain() shows of a plan.
cdef dict outline_planes(
    const Planes *p, Py_ssize_t n_tasks, Py_ssize_t scratch_bytes
)
