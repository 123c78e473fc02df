# SPDX-License-Identifier: MIT
#
# The weight gradient's products of one block: rows of grad_y by columns of x.
#
# `rows` describes all rows of a task: where they lie, and the sums of the first.

from convnet._blocks cimport Chunk, Gather
from convnet._kernels cimport cn_panel_t, cn_tile_t

# Columns of a turned slab, tap by tap, channels side by side; the sums of a tap lie
# tap_size from those of the one before.
cdef void multiply_turned(
    const Gather *g, cn_tile_t *rows, Chunk chunk, const char *source,
    const cn_panel_t *pixels, Py_ssize_t tap_size,
) noexcept nogil

# Columns of all taps, gathered from a planar slab; and the bytes that this takes.
cdef void multiply_gathered(
    const Gather *g, cn_tile_t *rows, Chunk chunk, const char *source,
    const cn_panel_t *pixels, char *memory,
) noexcept nogil
cdef Py_ssize_t gathered_bytes(const Gather *g) noexcept nogil
