# SPDX-License-Identifier: MIT
#
# A block's pixels as panels of columns, packed or read in place.

from convnet._blocks cimport Block, Gather
from convnet._product cimport Operands, Product

# Panels of pixels in a block; bytes of one, and of all that a thread has packed.
cdef Py_ssize_t block_panels(const Gather *g) noexcept nogil
cdef Py_ssize_t pixel_panel_bytes(const Gather *g, Py_ssize_t depth) noexcept nogil
cdef Py_ssize_t pixels_bytes(const Gather *g) noexcept nogil

# Cut a block's pixels from `first` on into panels, as many as L2 holds beside the rest,
# so that rows of y are written in long runs, which the hardware sees coming. Pack them;
# return the first pixel that is left.
cdef Py_ssize_t pack_panels(
    const Product *p, const Block *block, const char *source, Operands *some,
    Py_ssize_t first,
) noexcept nogil

# Let tiles fetch the first n pixels of the next chunk, or of the next block.
cdef void look_behind_chunk(
    const Product *p, const Block *block, const char *source, Operands *some,
    Py_ssize_t n,
) noexcept nogil

# Whether rows that slabs are filled from follow each other and lie far away; let tiles
# fetch those of the next slab, a channel each, from the group's x.
cdef bint are_slabs_fetched(const Product *p) noexcept nogil
cdef void look_behind_slab(
    const Product *p, const Block *block, const char *x, Operands *some
) noexcept nogil
