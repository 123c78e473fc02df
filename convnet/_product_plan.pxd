# SPDX-License-Identifier: MIT
#
# How a product goes about its pixels, which tasks it has, and the memory that each
# thread needs.

from convnet._blocks cimport Gather
from convnet._product cimport Product

# Packed, or read where they lie; blocks and chunks.
cdef void plan_pixels(Product *p, Py_ssize_t num_threads) noexcept

cdef void plan_tasks(Product *p, Py_ssize_t num_threads) noexcept nogil

# Bytes of a thread: all, its packed pixels, and its list of steps.
cdef Py_ssize_t workspace_bytes(const Product *p) noexcept nogil
cdef Py_ssize_t packed_pixels_bytes(const Product *p) noexcept nogil
cdef Py_ssize_t steps_bytes(const Gather *g) noexcept nogil
