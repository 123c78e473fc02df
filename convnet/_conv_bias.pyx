# SPDX-License-Identifier: MIT
"""Convolution, gradient with respect to the bias: sums of grad_y, in double."""

cimport numpy as cnp

from libc.string cimport memset

from convnet._kernels cimport (
    Flushing, active_kernels, cn_kernels_t, cn_plane_t, flush_denormals, give_back,
    run_tasks, take_scratch,
)
from convnet._operands cimport Image, describe_array

cnp.import_array()


cdef struct BiasGradient:
    const cn_kernels_t *kernels
    Image grad_y, grad_b            # a tied bias has one pixel
    Py_ssize_t n_parts
    double *sums                    # (n_parts, C)


# A batch is summed in the order of memory, in so many parts, unless a part would have
# fewer elements than this.
cdef Py_ssize_t MAX_BIAS_PARTS = 64
cdef Py_ssize_t PART_ELEMENTS = 1 << 16


def grad_bias(cnp.ndarray grad_y, grad_b, int num_threads):
    """Write the gradient of the bias to `grad_b`, of shape (OC,) or (OC, OH, OW)."""
    cdef Flushing _flushing = flush_denormals(grad_y.itemsize)
    cdef BiasGradient p
    cdef bint untied = grad_b.ndim == 3
    # Memory is the limit: an element takes as long as eight multiply-adds.
    cdef Py_ssize_t n_elements = cnp.PyArray_SIZE(grad_y)
    cdef double work = 8.0 * n_elements
    p.kernels = active_kernels(<int> grad_y.itemsize)
    p.grad_y = describe_array(grad_y)
    p.grad_b = describe_array(grad_b.reshape(1, *(*grad_b.shape, 1, 1)[:3]))
    if untied:
        if p.grad_y.sc == 1 and p.grad_y.C >= p.kernels.lanes:
            # Channels last: inner loops run over what lies side by side.
            swap_channels(&p.grad_y)
            swap_channels(&p.grad_b)
        run_tasks(untied_bias_task, &p, p.grad_y.C, num_threads, work)
        return
    p.n_parts = min(MAX_BIAS_PARTS, 1 + n_elements // PART_ELEMENTS)
    p.sums = <double *> take_scratch(p.n_parts * p.grad_y.C * sizeof(double))
    try:
        if p.grad_y.sc == 1:
            run_tasks(rows_task, &p, p.n_parts, num_threads, work)
        else:
            run_tasks(planes_task, &p, p.n_parts, num_threads, work)
        add_bias_parts(&p)
    finally:
        give_back(p.sums)


cdef void swap_channels(Image *image) noexcept nogil:
    """Call columns channels and channels columns."""
    image.C, image.W = image.W, image.C
    image.sc, image.sw = image.sw, image.sc


cdef inline char *bias_at(const BiasGradient *p, Py_ssize_t i) noexcept nogil:
    return p.grad_b.data + i * p.grad_b.sc * p.kernels.itemsize


cdef inline void store_bias(
    const BiasGradient *p, Py_ssize_t i, double total
) noexcept nogil:
    if p.kernels.itemsize == 4:
        (<float *> bias_at(p, i))[0] = <float> total
    else:
        (<double *> bias_at(p, i))[0] = total


cdef inline cn_plane_t pixels_of(const Image *image) noexcept nogil:
    cdef cn_plane_t plane
    plane.n_rows, plane.n_cols = image.H, image.W
    plane.row_stride, plane.col_stride = image.sh, image.sw
    return plane


cdef void untied_bias_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Sum one channel over the batch alone."""
    cdef BiasGradient *p = <BiasGradient *> ctx
    cdef const Image *y = &p.grad_y
    cdef cn_plane_t pixels = pixels_of(y), biases = pixels_of(&p.grad_b)
    cdef Py_ssize_t n
    for n in range(y.N):
        p.kernels.add_plane(
            bias_at(p, i),
            &biases,
            y.data + (n * y.sn + i * y.sc) * p.kernels.itemsize,
            &pixels,
            n > 0,
        )


cdef void planes_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Sum one part of the planes (n, c), each into its channel."""
    cdef BiasGradient *p = <BiasGradient *> ctx
    cdef const Image *y = &p.grad_y
    cdef cn_plane_t pixels = pixels_of(y)
    cdef Py_ssize_t n_planes = y.N * y.C, plane
    cdef double *sums = p.sums + i * y.C
    memset(sums, 0, y.C * sizeof(double))
    for plane in range(i * n_planes // p.n_parts, (i + 1) * n_planes // p.n_parts):
        sums[plane % y.C] += p.kernels.sum_plane(
            y.data + (plane // y.C * y.sn + plane % y.C * y.sc) * p.kernels.itemsize,
            &pixels,
        )


cdef void rows_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Sum all channels, which lie side by side, over one part of the rows (n, h)."""
    cdef BiasGradient *p = <BiasGradient *> ctx
    cdef const Image *y = &p.grad_y
    cdef cn_plane_t pixels = pixels_of(y)
    cdef Py_ssize_t n_rows = y.N * y.H, row
    cdef double *sums = p.sums + i * y.C
    memset(sums, 0, y.C * sizeof(double))
    pixels.n_rows = 1
    for row in range(i * n_rows // p.n_parts, (i + 1) * n_rows // p.n_parts):
        p.kernels.sum_channels(
            sums,
            y.data + (row // y.H * y.sn + row % y.H * y.sh) * p.kernels.itemsize,
            &pixels,
            y.C,
        )


cdef void add_bias_parts(const BiasGradient *p) noexcept nogil:
    """grad_b = the parts' sums, added in order."""
    cdef Py_ssize_t C = p.grad_y.C, c, part
    cdef double total
    for c in range(C):
        total = 0
        for part in range(p.n_parts):
            total += p.sums[part * C + c]
        store_bias(p, c, total)
