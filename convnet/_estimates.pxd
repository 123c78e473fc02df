# SPDX-License-Identifier: MIT
#
# What direct convolutions of few channels take, by the ways that they can go: for the
# drivers, and for the model that compares algorithms. Cycles are those of a vector of
# pixels: of convolutions for each channel and tap, of gradients of weights for all; and
# by windows, of all together.

from convnet._operands cimport Steps

cpdef double planar_cycles(
    Py_ssize_t R, Py_ssize_t W, Py_ssize_t taps, Py_ssize_t lanes
)
cpdef double packed_cycles(Py_ssize_t R, Py_ssize_t taps, Py_ssize_t mr)
cpdef double unpacked_cycles(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t W, Py_ssize_t taps, Py_ssize_t lanes
)
cpdef double run_cycles(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t W, Py_ssize_t taps, Py_ssize_t lanes,
    Py_ssize_t mr,
)
cpdef double tap_by_tap_share(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t N, Py_ssize_t H, Py_ssize_t W, Steps steps,
    bint gradient,
)
cpdef double window_cycles(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t N, Py_ssize_t H, Py_ssize_t W, Steps steps,
    Py_ssize_t lanes,
)
cpdef bint are_few(
    Py_ssize_t n_tiles, int points, Py_ssize_t KH, Py_ssize_t KW, int step, int mr
) noexcept nogil
cpdef double planar_weight_cycles(
    Py_ssize_t R, Py_ssize_t C, Py_ssize_t W, Steps steps, Py_ssize_t lanes
)
cpdef double joined_weight_cycles(
    Py_ssize_t R, Py_ssize_t C, Steps steps, Py_ssize_t lanes, Py_ssize_t mr
)
cdef double packed_weight_cycles(
    Py_ssize_t R, Py_ssize_t C, Steps steps, Py_ssize_t lanes, Py_ssize_t mr
)

# Whether the gradient of 1x1 weights, few of rows or channels, goes plane by plane.
cdef bint suits_dots(Py_ssize_t few, Py_ssize_t size, Py_ssize_t lanes) noexcept
