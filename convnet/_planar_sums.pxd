# SPDX-License-Identifier: MIT
#
# Sums over the planes of a slab, forward and input gradient, and where they go.

from convnet._kernels cimport cn_in_place_t, cn_planar_t
from convnet._operands cimport Image
from convnet._planes cimport MAX_STEP, PlaneBlock, Planes
from convnet._product cimport Product

cdef struct PlanarProduct:
    Planes planes
    Image y                         # the result
    Py_ssize_t SH, SW               # its pixels for each of the planes'
    const Product *product
    cn_planar_t sums[MAX_STEP * MAX_STEP]           # of each phase
    cn_in_place_t windows[MAX_STEP * MAX_STEP]
    Py_ssize_t *offset[MAX_STEP * MAX_STEP]         # of its weights
    Py_ssize_t n_weights[MAX_STEP * MAX_STEP]
    Py_ssize_t n_blocks, task_blocks
    # Sums of phases, and those that go to pixels apart, are parts: for each row of the
    # product SH * SW of them, some rows of pixels each.
    bint in_parts
    Py_ssize_t part_pitch, part_size
    char *weights                   # phase by phase, in the order of their taps
    char *workspaces
    Py_ssize_t workspace_bytes

# Bring a group's weights into that order, all phases.
cdef void load_weights(const PlanarProduct *p, Py_ssize_t group) noexcept nogil

# All rows of the product at a block's pixels, from its slab: to the result as they are,
# or through memory for parts. `sums` tells what is fetched meanwhile.
cdef void sum_windows(
    const PlanarProduct *p, const PlaneBlock *block, const char *slab,
    cn_planar_t *sums,
) noexcept nogil
cdef void sum_parts(
    const PlanarProduct *p, const PlaneBlock *block, const char *slab, char *parts,
    cn_planar_t *sums,
) noexcept nogil

# Where a block's pixels begin in a row of the product, counted over all groups.
cdef char *find_y(
    const PlanarProduct *p, const PlaneBlock *block, Py_ssize_t row
) noexcept nogil
