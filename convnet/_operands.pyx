# SPDX-License-Identifier: MIT
"""Images, taps and finishes as drivers see them: see ``_operands.pxd``."""

cimport cython
cimport numpy as cnp

from convnet._kernels cimport cn_kernels_t, cn_plane_t, cn_row_t, take_scratch

cnp.import_array()


@cython.auto_pickle(False)
cdef class Steps:
    """Where the pixels of windows lie: kernel, stride, padding and dilation."""

    def __cinit__(self, kernel, stride, pads, dilation):
        self.KH, self.KW = kernel
        self.SH, self.SW = stride
        self.PT, self.PL, self.PB, self.PR = pads
        self.DH, self.DW = dilation


cdef Image describe_array(cnp.ndarray array) noexcept:
    cdef Image image
    cdef Py_ssize_t itemsize = array.itemsize
    image.data = <char *> cnp.PyArray_DATA(array)
    image.N, image.C, image.H, image.W = (
        array.shape[0], array.shape[1], array.shape[2], array.shape[3]
    )
    image.sn, image.sc = array.strides[0] // itemsize, array.strides[1] // itemsize
    image.sh, image.sw = array.strides[2] // itemsize, array.strides[3] // itemsize
    return image


cdef cn_row_t describe_rows(cnp.ndarray array) noexcept:
    cdef cn_row_t row
    cdef Py_ssize_t axis, reach
    cdef const char *begin = <const char *> cnp.PyArray_DATA(array)
    cdef const char *end = begin + <Py_ssize_t> array.itemsize
    for axis in range(array.ndim):
        reach = (array.shape[axis] - 1) * array.strides[axis]
        if reach < 0:
            begin += reach
        else:
            end += reach
    row.IW, row.col_stride = array.shape[3], array.strides[3] // array.itemsize
    row.begin, row.end = begin, end
    return row


cdef Finish no_finish() noexcept:
    cdef Finish finish
    finish.bias, finish.accumulate, finish.addend = NULL, False, 0
    finish.clip, finish.low, finish.high = False, 0, 0
    return finish


cdef Finish describe_finish(
    cnp.ndarray y, cnp.ndarray bias, cnp.ndarray residual, clip
) except *:
    cdef Finish finish = no_finish()
    if bias is not None and bias.ndim == 1:
        finish.bias = <const char *> cnp.PyArray_DATA(<cnp.ndarray> bias)
    elif bias is not None:
        y[...] = bias
        finish.accumulate = True
    if residual is not None:
        finish.addend = find_addend(y, residual)
        finish.accumulate = True
    if clip is not None:
        finish.clip, finish.low, finish.high = True, clip[0], clip[1]
    return finish


cdef Py_ssize_t find_addend(cnp.ndarray y, cnp.ndarray residual) except? -1:
    """How many elements from y a residual lies; one with other strides goes to y."""
    if (<object> y).strides != (<object> residual).strides:
        y[...] = residual
        return 0
    return (
        <Py_ssize_t> cnp.PyArray_DATA(residual) - <Py_ssize_t> cnp.PyArray_DATA(y)
    ) // <Py_ssize_t> y.itemsize


cdef Py_ssize_t *take_tap_memory(Py_ssize_t n) except NULL:
    return <Py_ssize_t *> take_scratch(
        TAP_ARRAYS * sizeof(Py_ssize_t) * min(n, 1 << 57)
    )


cdef void place_tap_arrays(Taps *taps, Py_ssize_t *memory, Py_ssize_t n) noexcept nogil:
    taps.n, taps.together = 0, False
    taps.dh, taps.dw, taps.w = memory, memory + n, memory + 2 * n
    taps.place, taps.phase = memory + 3 * n, memory + 4 * n


cdef void add_tap(
    Taps *taps, Py_ssize_t dh, Py_ssize_t dw, Py_ssize_t w
) noexcept nogil:
    taps.dh[taps.n], taps.dw[taps.n], taps.w[taps.n] = dh, dw, w
    taps.n += 1


cdef void add_parts(
    const cn_kernels_t *kernels, char *y, const char *parts, Py_ssize_t n_parts,
    Py_ssize_t size,
) noexcept nogil:
    cdef Py_ssize_t part
    cdef cn_plane_t plane
    plane.n_rows, plane.n_cols, plane.row_stride, plane.col_stride = 1, size, 0, 1
    for part in range(n_parts):
        kernels.add_plane(
            y, &plane, parts + part * size * kernels.itemsize, &plane, part > 0
        )
