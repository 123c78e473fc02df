# SPDX-License-Identifier: MIT
#
# What a pooling call does with which planes.

from convnet._kernels cimport cn_kernels_t, cn_pool_t
from convnet._pool_operations cimport operation_t
from convnet._turning cimport PlaneArray

cdef struct Pooling:
    const cn_kernels_t *kernels
    cn_pool_t window
    PlaneArray x, y, index
    operation_t operation
    bint backward, scatters         # scatters: the gradient of maxima
    bint all_right                  # cleared by any task whose operation fails
    Py_ssize_t *n_given             # windows that gave, of each thread
    Py_ssize_t n_channels, groups   # planes that count as one; such groups of an image
    Py_ssize_t plane_rows, n_rows, task_rows    # of a plane, of all planes, of a task
    bint turned
    Py_ssize_t block_rows           # of turned planes
    char *workspaces
    Py_ssize_t workspace_bytes      # one for each thread, with slabs of x, y and index
    Py_ssize_t slab_bytes[3]

# Decide which planes go together, and whether they are turned for it.
cdef void group_planes(Pooling *p) noexcept nogil
