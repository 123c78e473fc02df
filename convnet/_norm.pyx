# SPDX-License-Identifier: MIT
"""Batch normalization: sums over all pixels of a channel, and what is made of them.

Arrays are contiguous, (images, channels, pixels); where channels come last, of one
pixel each. Tasks are runs of memory, whose number depends on the shape alone.
"""

cimport numpy as cnp

from libc.string cimport memset

from convnet._kernels cimport (
    active_kernels, cn_kernels_t, give_back, run_tasks, take_scratch,
)

cnp.import_array()

# An element takes as long as so many operations of a convolution; elements of a piece,
# and the most parts of a sum.
cdef double ELEMENT_WORK = 8.0
cdef Py_ssize_t PIECE = 32 * 1024, MOST_PARTS = 64


cdef struct Norm:
    const cn_kernels_t *kernels
    Py_ssize_t N, C, pixels
    const char *a
    const char *b                   # NULL forward
    char *y
    # Mean, scale, shift and, backward, slope and offset: of each channel side by side,
    # or where channels lie so, of all channels.
    const char *norm
    Py_ssize_t norm_size
    bint clip
    const double *center            # (2, C)
    double *total                   # (n_parts, 2, C)
    Py_ssize_t n_parts


def sums(
    cnp.ndarray a, cnp.ndarray b, Py_ssize_t C, Py_ssize_t pixels,
    cnp.ndarray center, cnp.ndarray total, cnp.ndarray norm, int num_threads,
):
    """Write the sums of g and g * (b - center[1]), g = a - center[0], to `total`.

    `center` and `total` are (2, C), of doubles. With a `norm`, of mean, scale and
    shift, a counts as 0 where b, normalized, is not above 0.
    """
    cdef Norm p
    describe(&p, a, C, pixels, norm)
    p.b, p.center = b.data, <const double *> center.data
    p.n_parts = min(p.n_parts, MOST_PARTS)
    p.total = <double *> take_scratch(p.n_parts * 2 * C * sizeof(double))
    try:
        run_tasks(part_task, &p, p.n_parts, num_threads, work_of(&p))
        add_parts(&p, <double *> total.data)
    finally:
        give_back(p.total)


def normalize(
    cnp.ndarray x, cnp.ndarray y, Py_ssize_t C, Py_ssize_t pixels, cnp.ndarray norm,
    bint clip, int num_threads,
):
    """Write (x - mean) * scale + shift to `y`, or 0 where `clip` and below."""
    cdef Norm p
    describe(&p, x, C, pixels, norm)
    p.b, p.y, p.clip = NULL, y.data, clip
    run_pieces(&p, num_threads)


def normalize_grad(
    cnp.ndarray grad_y, cnp.ndarray x, cnp.ndarray grad_x, Py_ssize_t C,
    Py_ssize_t pixels, cnp.ndarray norm, bint clip, int num_threads,
):
    """Write grad_y * scale + (x - mean) * slope + offset to `grad_x`.

    Where `clip`, grad_y counts as 0 if x, normalized, is not above 0.
    """
    cdef Norm p
    describe(&p, grad_y, C, pixels, norm)
    p.b, p.y, p.clip = x.data, grad_x.data, clip
    run_pieces(&p, num_threads)


cdef void describe(
    Norm *p, cnp.ndarray a, Py_ssize_t C, Py_ssize_t pixels, cnp.ndarray norm
) noexcept:
    p.kernels = active_kernels(cnp.PyArray_ITEMSIZE(a))
    p.a, p.C, p.pixels = a.data, C, pixels
    p.N = cnp.PyArray_SIZE(a) // max(1, C * pixels)
    p.n_parts = max(1, p.N * C * pixels // PIECE)
    p.norm, p.norm_size = NULL, 0
    if norm is not None:
        p.norm, p.norm_size = norm.data, norm.size // max(1, C) * norm.itemsize


cdef inline double work_of(const Norm *p) noexcept nogil:
    return ELEMENT_WORK * p.N * p.C * p.pixels


cdef void part_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Sum a part of the pixels, each channel for itself."""
    cdef const Norm *p = <const Norm *> ctx
    cdef Py_ssize_t n = p.N if p.pixels == 1 else p.N * p.C
    cdef Py_ssize_t plane = i * n // p.n_parts, end = (i + 1) * n // p.n_parts
    cdef double *total = p.total + i * 2 * p.C
    memset(total, 0, 2 * p.C * sizeof(double))
    if p.pixels == 1:
        p.kernels.norm_sums(
            total, at(p, p.a, plane * p.C), at(p, p.b, plane * p.C), p.center,
            end - plane, p.C, p.norm,
        )
        return
    while plane < end:
        sum_plane(p, total, plane)
        plane += 1


cdef inline void sum_plane(
    const Norm *p, double *total, Py_ssize_t plane
) noexcept nogil:
    """Add a plane's sums to the totals of its channel."""
    cdef Py_ssize_t c = plane % p.C, place = plane * p.pixels
    cdef double[2] center
    cdef double[2] own
    center[0], center[1] = p.center[c], p.center[p.C + c]
    own[0] = own[1] = 0
    p.kernels.norm_sums(
        own, at(p, p.a, place), at(p, p.b, place), center, p.pixels, 1, norm_of(p, c)
    )
    total[c] += own[0]
    total[p.C + c] += own[1]


cdef inline const char *at(
    const Norm *p, const char *array, Py_ssize_t place
) noexcept nogil:
    return array + place * p.kernels.itemsize


cdef inline const char *norm_of(const Norm *p, Py_ssize_t c) noexcept nogil:
    if p.norm == NULL:
        return NULL
    return p.norm + c * p.norm_size


cdef void add_parts(const Norm *p, double *sums) noexcept nogil:
    cdef Py_ssize_t i, part
    for i in range(2 * p.C):
        sums[i] = 0
        for part in range(p.n_parts):
            sums[i] += p.total[part * 2 * p.C + i]


cdef int run_pieces(Norm *p, int num_threads) except -1:
    """Write y, some planes or pixels at a time."""
    return run_tasks(piece_task, p, p.n_parts, num_threads, work_of(p))


cdef void piece_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef const Norm *p = <const Norm *> ctx
    cdef Py_ssize_t n = p.N if p.pixels == 1 else p.N * p.C
    cdef Py_ssize_t plane = i * n // p.n_parts, end = (i + 1) * n // p.n_parts
    if p.pixels == 1:
        write_y(p, plane * p.C, end - plane, p.C, p.norm)
        return
    while plane < end:
        write_y(p, plane * p.pixels, p.pixels, 1, norm_of(p, plane % p.C))
        plane += 1


cdef inline void write_y(
    const Norm *p, Py_ssize_t place, Py_ssize_t n, Py_ssize_t C, const char *norm
) noexcept nogil:
    """Write n pixels of C channels from a place on."""
    place *= p.kernels.itemsize
    if p.b == NULL:
        p.kernels.normalize(p.y + place, p.a + place, norm, n, C, p.clip)
    else:
        p.kernels.normalize_grad(
            p.y + place, p.a + place, p.b + place, norm, n, C, p.clip
        )
