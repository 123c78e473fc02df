# SPDX-License-Identifier: MIT
#
# What drivers take arrays and kernels to be: images of any strides, taps, and what is
# done to sums at the end.

cimport numpy as cnp

from convnet._kernels cimport cn_kernels_t, cn_row_t

# Pixel (oh*SH + kh*DH - PT, ow*SW + kw*DW - PL) is under tap (kh, kw) of a window.
cdef class Steps:
    cdef readonly Py_ssize_t KH, KW, SH, SW, PT, PL, PB, PR, DH, DW

# An (N, C, H, W) array: strides in elements, of either sign.
cdef struct Image:
    char *data
    Py_ssize_t N, C, H, W
    Py_ssize_t sn, sc, sh, sw

# The taps of a convolution, row by row: tap t reads displacement (dh, dw) and weight
# offset w, and lies at `place` in the slab (or in x). `phase` lists the column phases
# that taps read. Arrays of as many elements as there are taps.
cdef struct Taps:
    Py_ssize_t n
    bint together                   # never in different chunks
    Py_ssize_t *dh
    Py_ssize_t *dw
    Py_ssize_t *w
    Py_ssize_t *place
    Py_ssize_t *phase

cdef enum:
    TAP_ARRAYS = 5

# Along an axis: of n_out pixels, a tap d pixels further on reads one of n_in at those
# in [first_seeing, end_seeing).
cdef inline Py_ssize_t first_seeing(Py_ssize_t d) noexcept nogil:
    return max(0, -d)

cdef inline Py_ssize_t end_seeing(
    Py_ssize_t d, Py_ssize_t n_in, Py_ssize_t n_out
) noexcept nogil:
    return max(first_seeing(d), min(n_out, n_in - d))

cdef Image describe_array(cnp.ndarray array) noexcept

# Whether a plane is one run of memory, row after row.
cdef inline bint is_flat(const Image *image) noexcept nogil:
    return image.sw == 1 and (image.sh == image.W or image.H == 1)

# The rows of such an array, which must not be empty, and the memory that it lies in.
cdef cn_row_t describe_rows(cnp.ndarray array) noexcept

# What becomes of sums before they are stored in y: bias[r] is added to those of row r,
# and, when accumulating, what lies `addend` elements from them; then they are kept
# between low and high.
cdef struct Finish:
    const char *bias                # of all groups' rows, or NULL
    bint accumulate, clip
    Py_ssize_t addend
    double low, high

cdef Finish no_finish() noexcept

# From a bias, contiguous and one for each row, or of y's shape without images; a
# residual of y's shape; a pair (low, high). None is nothing. What tiles cannot add from
# where it lies is copied to y.
cdef Finish describe_finish(
    cnp.ndarray y, cnp.ndarray bias, cnp.ndarray residual, clip
) except *

# Make room for n taps in n * TAP_ARRAYS numbers that the caller owns; then add them.
cdef Py_ssize_t *take_tap_memory(Py_ssize_t n) except NULL
cdef void place_tap_arrays(Taps *taps, Py_ssize_t *memory, Py_ssize_t n) noexcept nogil
cdef void add_tap(
    Taps *taps, Py_ssize_t dh, Py_ssize_t dw, Py_ssize_t w
) noexcept nogil

# y = the sum, in order, of n_parts parts of `size` elements each, one after another.
cdef void add_parts(
    const cn_kernels_t *kernels, char *y, const char *parts, Py_ssize_t n_parts,
    Py_ssize_t size,
) noexcept nogil
