# SPDX-License-Identifier: MIT
#
# Blocking of a gather-product, shared by the convolution drivers.
#
# All dense passes are one operation on strided arrays, for each group:
#
#   y[n, r, i, j] = sum over c, t of
#                   w[r, c, t] * x[n, c, i*step_h + dh[t], j*step_w + dw[t]]
#
# A Gather is the pixel side of it: which pixels of x the output pixels (n, i, j) read,
# how the output is cut into blocks, and how a block's slab of x is laid out.

from convnet._kernels cimport cn_kernels_t, cn_panel_t, cn_row_t, cn_segment_t
from convnet._operands cimport Image, Taps

cdef struct Gather:
    const cn_kernels_t *kernels
    Image x                         # all groups; C is the channels of one group
    cn_row_t x_row
    Image y                         # the output pixels: N, H, W and their strides
    Py_ssize_t step_h, step_w
    Taps taps
    # Blocks: `rows` rows of the merged (n, i) index by `cols` columns.
    Py_ssize_t rows, cols, n_row_blocks, n_col_blocks
    # Chunks of the reduction: channels by taps, at most max_depth together; more where
    # so many taps must stay together.
    Py_ssize_t max_depth
    Py_ssize_t chunk_channels, n_channel_chunks, chunk_taps, n_tap_chunks
    # The slab; `direct` reads x itself where it already looks like one.
    # Pixels are pixel_stride elements apart: one, or those of a turned slab, whose
    # channels come last, at most so many of them; or x's own columns are stepped over.
    # A slab has columns of x phase by phase, slab_step of them in turn, and those of
    # neighbouring outputs are `apart`. In a turned one so many taps of a row may be
    # `joined`: then columns lie as in x, of their channels alone, and taps' channels
    # follow each other.
    bint direct, banded, too_large
    Py_ssize_t turned, joined, slab_step, apart, pixel_stride, max_slab_bytes
    Py_ssize_t dh_min, dw_min, span_h, span_w, row_step, n_phases, n_cols, row_pitch
    Py_ssize_t n_tap_rows, max_slab_rows, channel_stride

# One block in work: its place, its rows, and its thread's memory.
cdef struct Block:
    Py_ssize_t first_row, n_rows, first_col, n_cols
    Py_ssize_t n_slab_rows
    Py_ssize_t *slab_row            # where each slab row begins in x, or CN_NO_ROW
    Py_ssize_t *row_in              # slab offset of each output row
    Py_ssize_t *row_out             # y offset of each output row
    cn_segment_t *segment
    char *slab

# Chunk `index` of the reduction: channels [c, c + n_channels), taps [t, t + n_taps); it
# begins at step k of the whole reduction.
cdef struct Chunk:
    Py_ssize_t c, n_channels, t, n_taps, k, depth

# Decide blocks of at most so many pixels, chunks and slab, from the shapes
# alone (never from the threads); or take the blocks of a gather at the same pixels.
cdef void plan_gather(
    Gather *g, bint allow_direct, Py_ssize_t turned, Py_ssize_t joined,
    Py_ssize_t max_pixels, Py_ssize_t max_depth, Py_ssize_t max_slab_bytes,
) noexcept nogil
cdef void plan_gather_like(
    Gather *g, const Gather *other, Py_ssize_t turned
) noexcept nogil

# The vectors of pixels that blocks of so many rows take, of all n_rows.
cdef double all_vectors(
    const Gather *g, Py_ssize_t n_rows, Py_ssize_t rows
) noexcept nogil

cdef enum:
    # Panels of pixels in a block: those that are usual, and those of short reductions,
    # whose results are written in runs of up to so many pixels.
    BLOCK_PANELS = 12
    MAX_PANELS = 48
    MAX_PIXELS = 1152
    # Bytes of a slab: half an L2 of 1 MB, with its panel.
    SLAB_BYTES = 384 * 1024
    # Length of the reduction that AVX-512's packed panels hold at most, and columns of
    # a weight gradient. KC * 48 floats are 110 KB: they come from L2 at a rate that the
    # multiply-adds hide.
    KC = 576

# Elements that so many pixels take in a panel: whole vectors. (Lanes are a power of
# two; tiles ask for this, and a division takes as long as a step of theirs.)
cdef inline Py_ssize_t padded(const cn_kernels_t *kernels, Py_ssize_t n) noexcept nogil:
    return (n + kernels.lanes - 1) & -(<Py_ssize_t> kernels.lanes)

# Elements from plane to plane of so many: whole lines, and no multiple of a page, for
# planes must not share cache sets.
cdef inline Py_ssize_t odd_lines(Py_ssize_t n) noexcept nogil:
    return ((n + 15) // 16 | 1) * 16

# Fewer tasks of a weight gradient than this, and its pixels are split into parts.
cdef enum:
    ENOUGH_TASKS = 8

# MemoryError if a slab's size does not fit into 64 bits.
cdef int require_slab(const Gather *g) except -1
cdef Chunk get_chunk(const Gather *g, Py_ssize_t index) noexcept nogil
cdef Py_ssize_t block_bytes(const Gather *g) noexcept nogil
cdef Py_ssize_t index_bytes(const Gather *g) noexcept nogil
cdef void place_block(const Gather *g, Block *block, char *memory) noexcept nogil

# Turn to block `index`; then bring in channels [c, c + n) of a group's x, and cut runs
# of output pixels into segments. Panels may keep theirs side by side: there are at most
# as many as a block has rows and panels.
cdef void open_block(const Gather *g, Block *block, Py_ssize_t index) noexcept nogil
cdef const char *load_channels(
    const Gather *g, const Block *block, const char *x, Py_ssize_t c, Py_ssize_t n
) noexcept nogil
cdef void cut_panel(
    const Gather *g, const Block *block, Py_ssize_t first, Py_ssize_t n,
    cn_segment_t *segment, cn_panel_t *panel,
) noexcept nogil

# What explain() shows of a plan: a dict of plain numbers.
cdef dict outline(const Gather *g, Py_ssize_t n_tasks, Py_ssize_t scratch_bytes)
