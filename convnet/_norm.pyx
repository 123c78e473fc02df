# SPDX-License-Identifier: MIT
"""Batch normalization: sums over all pixels of a channel, and what is made of them.

Arrays are contiguous, (images, channels, pixels); where channels come last, of one
pixel each. Tasks are runs of memory, whose number depends on the shape alone; or, in
training, whole channels, which are read once from memory and again from the cache.
"""

cimport numpy as cnp

from libc.math cimport sqrt
from libc.string cimport memset

from convnet._kernels cimport (
    active_kernels, cn_kernels_t, cn_task_t, give_back, run_tasks, take_scratch,
)

cnp.import_array()

# An element takes as long as so many operations of a convolution; elements of a piece,
# and the most parts of a sum.
cdef double ELEMENT_WORK = 8.0
cdef Py_ssize_t PIECE = 32 * 1024, MOST_PARTS = 64
# Bytes that are read again from the cache.
cdef Py_ssize_t CACHED_BYTES = 1024 * 1024

cdef enum:
    MOST_CHANNELS = 8               # of a task


cdef struct Norm:
    const cn_kernels_t *kernels
    Py_ssize_t N, C, pixels
    const char *a
    const char *b
    char *y
    bint backward
    # Mean, scale, shift and, backward, slope and offset: of each channel side by side,
    # or where channels lie so, of all channels.
    const char *norm
    Py_ssize_t norm_size
    bint clip
    const double *center            # (2, C)
    double *total                   # (n_parts, 2, C)
    Py_ssize_t n_parts
    const double *affine            # (2, C)
    double eps
    Py_ssize_t at_once              # channels of a task


# A channel in work: what its sums are about, the sums, and coefficients; these for
# arrays of floats as well.
cdef struct Channel:
    double[2] center
    double[2] total
    double[5] norm
    float[5] narrow

ctypedef Channel[MOST_CHANNELS] Channels


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
    p.b, p.clip, p.center = b.data, norm is not None, <const double *> center.data
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
    p.y, p.clip = y.data, clip
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
    p.b, p.y, p.clip, p.backward = x.data, grad_x.data, clip, True
    run_pieces(&p, num_threads)


def normalize_batch(
    cnp.ndarray x, cnp.ndarray y, Py_ssize_t C, Py_ssize_t pixels, cnp.ndarray affine,
    double eps, cnp.ndarray moments, bint clip, int num_threads,
):
    """Normalize each channel by its own mean and variance, which go to `moments`.

    `affine`, of weight and bias, and `moments` are (2, C), of doubles.
    """
    cdef Norm p
    describe(&p, x, C, pixels, None)
    p.y, p.clip, p.eps = y.data, clip, eps
    p.affine, p.total = <const double *> affine.data, <double *> moments.data
    run_channels(&p, channels_task, x.nbytes, num_threads)


def normalize_batch_grad(
    cnp.ndarray grad_y, cnp.ndarray x, cnp.ndarray grad_x, Py_ssize_t C,
    Py_ssize_t pixels, cnp.ndarray norm, cnp.ndarray affine, cnp.ndarray total,
    bint clip, int num_threads,
):
    """Write the gradient of `normalize_batch`; and to `total` those of bias and weight.

    `norm` is mean, weight * scale and bias, as it was forward; `affine`, of mean and
    scale, and `total` are (2, C), of doubles.
    """
    cdef Norm p
    describe(&p, grad_y, C, pixels, norm)
    p.b, p.y, p.clip, p.backward = x.data, grad_x.data, clip, True
    p.affine, p.total = <const double *> affine.data, <double *> total.data
    run_channels(&p, channels_grad_task, 2 * x.nbytes, num_threads)


cdef void describe(
    Norm *p, cnp.ndarray a, Py_ssize_t C, Py_ssize_t pixels, cnp.ndarray norm
) noexcept:
    p.kernels = active_kernels(cnp.PyArray_ITEMSIZE(a))
    p.a, p.C, p.pixels = a.data, C, pixels
    p.b, p.backward = a.data, False
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
    cdef double[2] center, own
    cdef Py_ssize_t c
    memset(total, 0, 2 * p.C * sizeof(double))
    if p.pixels == 1:
        p.kernels.norm_sums(
            total, at(p, p.a, plane * p.C), at(p, p.b, plane * p.C), p.center,
            end - plane, p.C, p.norm,
        )
        return
    while plane < end:
        c = plane % p.C
        center[0], center[1] = p.center[c], p.center[p.C + c]
        own[0] = own[1] = 0
        sum_plane(p, own, center, plane)
        total[c] += own[0]
        total[p.C + c] += own[1]
        plane += 1


cdef inline void sum_plane(
    const Norm *p, double *own, const double *center, Py_ssize_t plane
) noexcept nogil:
    """Add a plane's sums to those of its channel."""
    cdef Py_ssize_t place = plane * p.pixels
    p.kernels.norm_sums(
        own, at(p, p.a, place), at(p, p.b, place), center, p.pixels, 1,
        norm_of(p, plane % p.C) if p.clip else NULL,
    )


cdef int run_channels(
    Norm *p, cn_task_t task, Py_ssize_t n_bytes, int num_threads
) except -1:
    """Run tasks of as many channels as a cache holds; neighbours are fetched ahead."""
    p.at_once = CACHED_BYTES * p.C // max(1, n_bytes)
    p.at_once = max(1, min(p.at_once, MOST_CHANNELS, p.C // MOST_CHANNELS))
    return run_tasks(
        task, p, (p.C + p.at_once - 1) // p.at_once, num_threads, 2 * work_of(p)
    )


cdef void channels_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Normalize some channels by their own means and variances."""
    cdef const Norm *p = <const Norm *> ctx
    cdef Channels channels
    cdef Channel *channel
    cdef double count = <double> p.N * p.pixels
    cdef Py_ssize_t c, first = i * p.at_once, end = min(first + p.at_once, p.C)
    for c in range(first, end):
        # About one of the pixels, sums of squares lose less than about zero.
        channel = &channels[c - first]
        channel.center[0] = channel.center[1] = element(p, p.a, c * p.pixels)
        channel.norm[3] = channel.norm[4] = 0
    sum_channels(p, channels, first, end)
    for c in range(first, end):
        channel = &channels[c - first]
        p.total[c] = channel.center[0] + channel.total[0] / count
        p.total[p.C + c] = max(
            channel.total[1] / count - (channel.total[0] / count) ** 2, 0
        )
        channel.norm[0], channel.norm[2] = p.total[c], p.affine[p.C + c]
        channel.norm[1] = p.affine[c] * (1 / sqrt(p.total[p.C + c] + p.eps))
    write_channels(p, channels, first, end)


cdef void channels_grad_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Sum some channels' gradients of weight and bias, then write that of x."""
    cdef const Norm *p = <const Norm *> ctx
    cdef Channels channels
    cdef Channel *channel
    cdef double scale, share
    cdef Py_ssize_t c, first = i * p.at_once, end = min(first + p.at_once, p.C)
    for c in range(first, end):
        channels[c - first].center[0], channels[c - first].center[1] = 0, p.affine[c]
    sum_channels(p, channels, first, end)
    for c in range(first, end):
        channel, scale = &channels[c - first], p.affine[p.C + c]
        p.total[c], p.total[p.C + c] = channel.total[0], channel.total[1] * scale
        channel.norm[0] = element(p, p.norm, 3 * c)
        channel.norm[1] = element(p, p.norm, 3 * c + 1)
        channel.norm[2] = element(p, p.norm, 3 * c + 2)
        share = channel.norm[1] / (<double> p.N * p.pixels)
        channel.norm[3] = -share * scale * p.total[p.C + c]
        channel.norm[4] = -share * p.total[c]
    write_channels(p, channels, first, end)


cdef void sum_channels(
    const Norm *p, Channel *channels, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """Sum channels [first, end), in the order of memory."""
    cdef Py_ssize_t n, c
    for c in range(end - first):
        channels[c].total[0] = channels[c].total[1] = 0
    for n in range(p.N):
        for c in range(first, end):
            sum_plane(
                p, channels[c - first].total, channels[c - first].center, n * p.C + c
            )


cdef void write_channels(
    const Norm *p, Channel *channels, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """Write channels, the last image first: it was read last."""
    cdef Py_ssize_t n, c
    cdef int k
    cdef const char *norm
    for c in range(end - first):
        for k in range(5):
            channels[c].narrow[k] = <float> channels[c].norm[k]
    for n in range(p.N - 1, -1, -1):
        for c in range(first, end):
            norm = <const char *> channels[c - first].norm
            if p.kernels.itemsize == 4:
                norm = <const char *> channels[c - first].narrow
            write_y(p, (n * p.C + c) * p.pixels, p.pixels, 1, norm)


cdef inline double element(
    const Norm *p, const char *array, Py_ssize_t place
) noexcept nogil:
    if p.kernels.itemsize == 4:
        return (<const float *> array)[place]
    return (<const double *> array)[place]


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
    if not p.backward:
        p.kernels.normalize(p.y + place, p.a + place, norm, n, C, p.clip)
    else:
        p.kernels.normalize_grad(
            p.y + place, p.a + place, p.b + place, norm, n, C, p.clip
        )
