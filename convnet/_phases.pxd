# SPDX-License-Identifier: MIT
#
# The multiplication of a strided input gradient: all phases of a block's pixels.

from convnet._blocks cimport Block
from convnet._product cimport Operands, Product

# Bytes that one thread needs for it; none without phases.
cdef Py_ssize_t phases_bytes(const Product *p) noexcept nogil

# Multiply packed panels of pixels, which begin at pixel `first` of the block, by some
# panels of rows.
cdef void multiply_phases(
    const Product *p, const Block *block, Operands *some, Py_ssize_t first
) noexcept nogil

# Rows of phases, which may be shared by tasks.
cdef Py_ssize_t n_phase_rows(const Product *p) noexcept nogil
