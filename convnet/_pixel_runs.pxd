# SPDX-License-Identifier: MIT
#
# Runs of neighbouring pixels, for tiles of one vector of rows: kernels/runs.inc.

from convnet._blocks cimport Block, Gather
from convnet._kernels cimport cn_panel_t, cn_segment_t

# The length of runs that leaves least of rows of W pixels; and how many pixels whole
# runs of some length have there.
cdef Py_ssize_t best_run(Py_ssize_t W) noexcept nogil
cdef Py_ssize_t run_pixels(Py_ssize_t W, Py_ssize_t length) noexcept nogil

# Cut runs of at most `length` pixels, as many as a tile has, from a block's pixels;
# return the first pixel that is left.
cdef Py_ssize_t cut_runs(
    const Gather *g, const Block *block, Py_ssize_t first, Py_ssize_t length,
    cn_panel_t *panel,
) noexcept nogil
