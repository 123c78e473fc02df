# SPDX-License-Identifier: MIT
"""Batch normalization: sums over all pixels of a channel, and what is made of them.

Arrays are contiguous, (images, channels, pixels); where channels come last, of one
pixel each. Channels of many pixels are a task each; those that lie side by side are
summed together, in parts whose number depends on the shape alone.
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
    cdef double *sums = <double *> total.data
    describe(&p, a, C, pixels, norm)
    p.b, p.center = b.data, <const double *> center.data
    p.total, p.n_parts = sums, 1
    cdef double work = ELEMENT_WORK * p.N * C * pixels
    if pixels > 1:
        run_tasks(channel_task, &p, C, num_threads, work)
        return
    p.n_parts = max(1, min(MOST_PARTS, p.N * C // PIECE))
    p.total = <double *> take_scratch(p.n_parts * 2 * C * sizeof(double))
    try:
        run_tasks(part_task, &p, p.n_parts, num_threads, work)
        add_parts(&p, sums)
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
    p.norm, p.norm_size = NULL, 0
    if norm is not None:
        p.norm, p.norm_size = norm.data, norm.size // max(1, C) * norm.itemsize


cdef void channel_task(void *ctx, Py_ssize_t c, int worker) noexcept nogil:
    cdef const Norm *p = <const Norm *> ctx
    cdef double[2] center
    cdef double[2] total
    cdef Py_ssize_t n, place
    cdef const char *norm = p.norm
    if norm != NULL:
        norm += c * p.norm_size
    center[0], center[1] = p.center[c], p.center[p.C + c]
    total[0] = total[1] = 0
    for n in range(p.N):
        place = (n * p.C + c) * p.pixels * p.kernels.itemsize
        p.kernels.norm_sums(
            total, p.a + place, p.b + place, center, p.pixels, 1, norm
        )
    p.total[c], p.total[p.C + c] = total[0], total[1]


cdef void part_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Sum all channels, which lie side by side, over a part of the pixels."""
    cdef const Norm *p = <const Norm *> ctx
    cdef Py_ssize_t first = i * p.N // p.n_parts, end = (i + 1) * p.N // p.n_parts
    cdef Py_ssize_t place = first * p.C * p.kernels.itemsize
    cdef double *total = p.total + i * 2 * p.C
    memset(total, 0, 2 * p.C * sizeof(double))
    p.kernels.norm_sums(
        total, p.a + place, p.b + place, p.center, end - first, p.C, p.norm
    )


cdef void add_parts(const Norm *p, double *sums) noexcept nogil:
    cdef Py_ssize_t i, part
    for i in range(2 * p.C):
        sums[i] = 0
        for part in range(p.n_parts):
            sums[i] += p.total[part * 2 * p.C + i]


cdef int run_pieces(Norm *p, int num_threads) except -1:
    """Write y, some planes or pixels at a time."""
    cdef double work = ELEMENT_WORK * p.N * p.C * p.pixels
    p.n_parts = max(1, p.N * p.C * p.pixels // PIECE)
    return run_tasks(piece_task, p, p.n_parts, num_threads, work)


cdef void piece_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef const Norm *p = <const Norm *> ctx
    cdef Py_ssize_t n = p.N if p.pixels == 1 else p.N * p.C
    cdef Py_ssize_t plane = i * n // p.n_parts, end = (i + 1) * n // p.n_parts
    if p.pixels == 1:
        write_y(p, plane * p.C, end - plane, p.C, p.norm)
        return
    while plane < end:
        write_y(p, plane * p.pixels, p.pixels, 1, p.norm + plane % p.C * p.norm_size)
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
