# SPDX-License-Identifier: MIT
#
# Depthwise operands by vectors of channels: blocks of rows of pixels, and slabs of the
# planes that their taps read, turned, so that channels lie side by side.

from convnet._kernels cimport cn_kernels_t
from convnet._operands cimport Image, Steps
from convnet._planes cimport Axis
from convnet._turning cimport PlaneArray

cdef struct TurnedPlanes:
    const cn_kernels_t *kernels
    PlaneArray x, y                 # what taps read; the pixels that windows belong to
    Axis rows, cols                 # of taps
    Py_ssize_t step_h, step_w
    Py_ssize_t SH, SW               # pixels of y for each that a phase has
    Py_ssize_t lanes, n_groups      # channels of a group, and such groups
    Py_ssize_t n_rows, n_cols       # of a phase
    Py_ssize_t block_rows, n_blocks
    Py_ssize_t slab_rows, pitch     # pixels of a slab
    bint flat, y_in_place           # x is one long row; vectors of y are in y itself
    Py_ssize_t *place               # in a slab, of each pixel of a flat x
    Py_ssize_t x_bytes, y_bytes     # of slabs

# Whether G planes of x, by one row of the product each, are better turned than summed
# plane by plane; where no other reason decides, if planes waste `least` times as many
# lanes as groups of channels do.
cdef bint are_better_turned(
    const cn_kernels_t *kernels, const Image *x, const Image *y, Py_ssize_t G,
    Steps steps, bint gradient, double least,
) noexcept

# Taps of the convolution or, with `gradient`, of the phases of its input gradient.
cdef void add_taps(TurnedPlanes *p, Steps steps, bint gradient) noexcept nogil

# Cut rows into blocks, from the shapes alone, when operands and taps are known. Then
# tell where pixels go, with memory for so many numbers.
cdef void plan_blocks(TurnedPlanes *p) noexcept nogil
cdef Py_ssize_t count_places(const TurnedPlanes *p) noexcept nogil
cdef void place_pixels(TurnedPlanes *p, Py_ssize_t *memory) noexcept nogil

# Operations of a packed product that take as long as T taps of each pixel and the
# turning, which is more where strides leave few pixels.
cdef double count_work(const TurnedPlanes *p, Py_ssize_t T) noexcept nogil

# Before a task's first slab, or `again` before another one.
cdef void clear_slab(const TurnedPlanes *p, char *slab, bint again) noexcept nogil

# The slab for rows of phases from `first` on, of `count` channels from c on; `row` has
# room for as many numbers as a slab has rows.
cdef void load_slab(
    const TurnedPlanes *p, Py_ssize_t n, Py_ssize_t c, Py_ssize_t count,
    Py_ssize_t first, char *slab, Py_ssize_t *row,
) noexcept nogil

cdef Py_ssize_t pad_page(Py_ssize_t n) noexcept nogil
