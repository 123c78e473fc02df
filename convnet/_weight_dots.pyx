# SPDX-License-Identifier: MIT
"""Gradients of 1x1 weights as products of planes: see ``_weight_dots.pxd``.

    grad_w[r, c] = sum over n and p of grad_y[n, r, p] * x[n, c, p]

A tile of such a product would be mostly empty. So the planes of the side that has more
channels are read once, in order, and meet the few of the other, which the cache holds:
some thousand pixels of some channels at a time. All pixels of a sum are one task's, in
order, so that its bits depend on no thread.
"""

from libc.string cimport memset

from convnet._blocks cimport Gather, padded
from convnet._kernels cimport SERIAL_WORK, cn_kernels_t, run_tasks
from convnet._operands cimport Image, Steps, is_flat

cdef enum:
    FEW = 4                         # channels of the other side,
    MOST = 12                       # or more, up to so many,
    PIXELS_A_SUM = 5                # where planes have so many pixels for each two
    AT_ONCE = 16                    # channels of a task, at most
    TOGETHER = 4                    # a multiple of what kernels take
    MOST_SUMS = MOST * AT_ONCE
    VECTOR_BYTES = 64               # at most
    RUN = 4096                      # pixels
    RUN_BYTES = 32 * 1024           # of the other side's planes, two thirds of an L1
    FEWEST_PIXELS = 96              # for which their lanes are worth adding up

# Pixels take as long as so many operations of a convolution.
cdef double PIXEL_WORK = 40.0


cdef struct WeightDots:
    const cn_kernels_t *kernels
    Image many, few                 # all groups; C is the channels of one group
    char *grad_w
    Py_ssize_t many_step, few_step          # in grad_w
    Py_ssize_t size, run                    # pixels, and those of a run
    Py_ssize_t at_once, n_tasks             # channels of a task; tasks of a group


cdef bint is_weight_dots(
    const Gather *x, const Image *grad_y, Py_ssize_t R, Py_ssize_t C, Steps steps
) noexcept:
    cdef Py_ssize_t few = min(R, C), size = x.x.H * x.x.W
    return (
        steps.KH * steps.KW * x.step_h * x.step_w == 1
        and 0 < few <= MOST
        and (few <= FEW or size >= PIXELS_A_SUM * few * few)
        and grad_y.N * size >= FEWEST_PIXELS
        and x.x.H == grad_y.H
        and x.x.W == grad_y.W
        and is_flat(&x.x)
        and is_flat(grad_y)
    )


cdef int run_weight_dots(
    const Gather *x, const Image *grad_y, char *grad_w, Py_ssize_t G, Py_ssize_t R,
    Py_ssize_t C, int num_threads, list plans,
) except -1:
    cdef WeightDots p
    cdef double work
    p.kernels, p.grad_w, p.size = x.kernels, grad_w, x.x.H * x.x.W
    if R < C:
        p.many, p.few, p.many_step, p.few_step = x.x, grad_y[0], 1, C
        p.many.C, p.few.C = C, R
    else:
        p.many, p.few, p.many_step, p.few_step = grad_y[0], x.x, C, 1
        p.many.C, p.few.C = R, C
    work = (PIXEL_WORK + 4 * p.few.C) * G * p.many.C * p.many.N * p.size
    share_channels(&p, G, 1 if work < SERIAL_WORK else num_threads)
    p.run = RUN
    if p.few.C > 2:
        p.run = RUN_BYTES // ((p.few.C + 4) * p.kernels.itemsize)
        p.run = p.run // p.kernels.lanes * p.kernels.lanes
    if plans is not None:
        plans.append({
            "tasks": G * p.n_tasks,
            "scratch_bytes": 0,
            "block": (1, p.run),
            "blocks": p.many.N * ((p.size + p.run - 1) // p.run),
            "chunk": 1,
            "chunks": 1,
            "in_place": True,
            # A chain of each lane, and the lanes; runs are added up in double.
            "roundings": RUN // p.kernels.lanes + p.kernels.lanes,
        })
        return 0
    return run_tasks(dots_task, &p, G * p.n_tasks, num_threads, work)


cdef void share_channels(
    WeightDots *p, Py_ssize_t G, Py_ssize_t num_threads
) noexcept nogil:
    """Choose the channels of a task: many, for each task reads the few ones again.

    Those that go together in a kernel are the same ones for any number of threads.
    """
    cdef Py_ssize_t n = (G * p.many.C + num_threads - 1) // num_threads
    n = min(n, AT_ONCE)
    p.at_once = (n + TOGETHER - 1) // TOGETHER * TOGETHER
    p.n_tasks = (p.many.C + p.at_once - 1) // p.at_once


# Sums in work: lane by lane, and in double those of the pixels before.
cdef struct Sums:
    Py_ssize_t n, n_pixels          # of the lanes
    char[MOST_SUMS * VECTOR_BYTES] lanes
    double[MOST_SUMS] added
    double[MOST_SUMS] total


cdef void dots_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Some channels of a group by all of the other side."""
    cdef const WeightDots *p = <const WeightDots *> ctx
    cdef Py_ssize_t group = i // p.n_tasks, first = i % p.n_tasks * p.at_once
    cdef Py_ssize_t count = min(p.at_once, p.many.C - first), n, at, c, r
    cdef Sums sums
    memset(&sums, 0, sizeof(sums))
    sums.n = count * p.few.C
    for n in range(p.many.N):
        at = 0
        while at < p.size:
            add_run(p, &sums, n, group, first, count, at)
            at += p.run
    add_lanes(p, &sums)
    at = group * p.many.C * p.few.C + first * p.many_step
    for c in range(count):
        for r in range(p.few.C):
            store(
                p, at + c * p.many_step + r * p.few_step, sums.total[c * p.few.C + r]
            )


cdef void add_run(
    const WeightDots *p, Sums *sums, Py_ssize_t n, Py_ssize_t group, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t at,
) noexcept nogil:
    """Add the products of pixels from `at` on of image n."""
    cdef Py_ssize_t n_pixels = min(p.run, p.size - at)
    cdef const char *few = find_run(p, &p.few, n, group * p.few.C, at)
    if sums.n_pixels + n_pixels > RUN:
        add_lanes(p, sums)
    sums.n_pixels += n_pixels
    p.kernels.dot_rows(
        sums.lanes, few, p.few.sc, p.few.C,
        find_run(p, &p.many, n, group * p.many.C + first, at), p.many.sc, count,
        n_pixels,
    )


cdef void add_lanes(const WeightDots *p, Sums *sums) noexcept nogil:
    """Add the lanes to the totals, before chains round badly, and begin anew."""
    cdef Py_ssize_t i
    p.kernels.sum_lanes(sums.added, sums.lanes, 0, 0, padded(p.kernels, sums.n))
    for i in range(sums.n):
        if p.kernels.itemsize == 4:
            sums.total[i] += (<float *> &sums.added[0])[i]
        else:
            sums.total[i] += sums.added[i]
    memset(sums.lanes, 0, sizeof(sums.lanes))
    sums.n_pixels = 0


cdef inline const char *find_run(
    const WeightDots *p, const Image *image, Py_ssize_t n, Py_ssize_t channel,
    Py_ssize_t pixel,
) noexcept nogil:
    return image.data + p.kernels.itemsize * (
        n * image.sn + channel * image.sc + pixel
    )


cdef inline void store(
    const WeightDots *p, Py_ssize_t place, double value
) noexcept nogil:
    if p.kernels.itemsize == 4:
        (<float *> p.grad_w)[place] = <float> value
    else:
        (<double *> p.grad_w)[place] = value
