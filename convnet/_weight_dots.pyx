# SPDX-License-Identifier: MIT
"""Gradients of 1x1 weights as products of planes: see ``_weight_dots.pxd``.

    grad_w[r, c] = sum over n and p of grad_y[n, r, p] * x[n, c, p]

Nothing is turned, and few lanes are empty. Planes are cut into runs of pixels, of
which the cache holds those of some channels of the side that has fewer, copied to whole
lines; the others' go past them, four at a time. All pixels of a sum are one task's, in
order, so that its bits depend on no thread.
"""

from libc.string cimport memcpy, memset

from convnet._blocks cimport Gather
from convnet._estimates cimport suits_dots
from convnet._kernels cimport (
    SERIAL_WORK, cn_kernels_t, give_back, run_tasks, take_scratch,
)
from convnet._operands cimport Image, Steps, is_flat

cdef enum:
    AT_ONCE = 256                   # channels of a task, at most
    TOGETHER = 4                    # a multiple of what kernels take
    HELD = 12                       # channels of the other side in the cache,
    PASSING = 4                     # with these of the many,
    RUN_BYTES = 26 * 1024           # half an L1

# Pixels take as long as so many operations of a convolution.
cdef double PIXEL_WORK = 40.0


cdef struct WeightDots:
    const cn_kernels_t *kernels
    Image many, few                 # all groups; C is the channels of one group
    char *grad_w
    Py_ssize_t many_step, few_step          # in grad_w
    Py_ssize_t size, run                    # pixels, and those of a run
    Py_ssize_t at_once, n_tasks             # channels of a task; tasks of a group
    char *workspaces                # a task's sums, [few, at_once], and held channels
    Py_ssize_t sums_bytes, workspace_bytes


cdef bint is_weight_dots(
    const Gather *x, const Image *grad_y, Py_ssize_t R, Py_ssize_t C, Steps steps
) noexcept:
    return (
        steps.KH * steps.KW * x.step_h * x.step_w == 1
        and x.x.H == grad_y.H
        and x.x.W == grad_y.W
        and is_flat(&x.x)
        and is_flat(grad_y)
        and suits_dots(min(R, C), x.x.H * x.x.W, x.kernels.lanes)
    )


cdef int run_weight_dots(
    const Gather *x, const Image *grad_y, char *grad_w, Py_ssize_t G, Py_ssize_t R,
    Py_ssize_t C, int num_threads, list plans,
) except -1:
    cdef WeightDots p
    cdef double work
    cdef Py_ssize_t n_runs
    p.kernels, p.grad_w, p.size = x.kernels, grad_w, x.x.H * x.x.W
    if R < C:
        p.many, p.few, p.many_step, p.few_step = x.x, grad_y[0], 1, C
        p.many.C, p.few.C = C, R
    else:
        p.many, p.few, p.many_step, p.few_step = grad_y[0], x.x, C, 1
        p.many.C, p.few.C = R, C
    work = (PIXEL_WORK + 2 * p.few.C) * G * p.many.C * p.many.N * p.size
    share_channels(&p, G, 1 if work < SERIAL_WORK else num_threads)
    n_runs = cut_planes(&p)
    p.sums_bytes = (p.few.C * p.at_once * p.kernels.itemsize + 63) // 64 * 64
    p.workspace_bytes = p.sums_bytes + min(p.few.C, HELD) * held_bytes(&p)
    num_threads = <int> min(num_threads, G * p.n_tasks)
    if plans is not None:
        plans.append({
            "tasks": G * p.n_tasks,
            "scratch_bytes": num_threads * p.workspace_bytes,
            "block": (1, p.run),
            "blocks": p.many.N * n_runs,
            "chunk": 1,
            "chunks": 1,
            "in_place": True,
            # A chain of each lane, the lanes, and the runs.
            "roundings": p.run // p.kernels.lanes + p.kernels.lanes + p.many.N * n_runs,
        })
        return 0
    p.workspaces = <char *> take_scratch(num_threads * p.workspace_bytes)
    try:
        run_tasks(dots_task, &p, G * p.n_tasks, num_threads, work)
    finally:
        give_back(p.workspaces)
    return 0


cdef void share_channels(
    WeightDots *p, Py_ssize_t G, Py_ssize_t num_threads
) noexcept nogil:
    """Choose the channels of a task: many, for each task reads the few ones again.

    No sum depends on which go together.
    """
    cdef Py_ssize_t n = (G * p.many.C + num_threads - 1) // num_threads
    n = min(n, AT_ONCE)
    p.at_once = (n + TOGETHER - 1) // TOGETHER * TOGETHER
    p.n_tasks = (p.many.C + p.at_once - 1) // p.at_once


cdef Py_ssize_t cut_planes(WeightDots *p) noexcept nogil:
    """Cut planes to equal runs that the cache holds of some channels; their number."""
    cdef Py_ssize_t lanes = p.kernels.lanes, n
    cdef Py_ssize_t held = (min(p.few.C, HELD) + PASSING) * p.kernels.itemsize
    n = (p.size * held + RUN_BYTES - 1) // RUN_BYTES
    p.run = ((p.size + n - 1) // n + lanes - 1) // lanes * lanes
    return (p.size + p.run - 1) // p.run


cdef inline Py_ssize_t held_bytes(const WeightDots *p) noexcept nogil:
    """From one channel that is held to the next: an odd number of lines."""
    return (p.run * p.kernels.itemsize + 63) // 128 * 128 + 64


cdef void dots_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Some channels of a group by all of the other side."""
    cdef const WeightDots *p = <const WeightDots *> ctx
    cdef Py_ssize_t group = i // p.n_tasks, first = i % p.n_tasks * p.at_once
    cdef Py_ssize_t count = min(p.at_once, p.many.C - first), n, at, few
    cdef char *sums = p.workspaces + worker * p.workspace_bytes
    memset(sums, 0, p.sums_bytes)
    for n in range(p.many.N):
        at = 0
        while at < p.size:
            few = 0
            while few < p.few.C:
                add_run(p, sums, n, group, first, count, few, at)
                few += HELD
            at += p.run
    at = group * p.many.C * p.few.C + first * p.many_step
    for n in range(count):
        for few in range(p.few.C):
            store(
                p, at + n * p.many_step + few * p.few_step, sums, few * p.at_once + n
            )


cdef void add_run(
    const WeightDots *p, char *sums, Py_ssize_t n, Py_ssize_t group, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t few, Py_ssize_t at,
) noexcept nogil:
    """Add the products of some of the few by a run of image n, from pixel `at` on."""
    cdef Py_ssize_t n_held = min(HELD, p.few.C - few), itemsize = p.kernels.itemsize
    cdef Py_ssize_t n_pixels = min(p.run, p.size - at), stride = held_bytes(p), i
    cdef char *held = sums + p.sums_bytes
    for i in range(n_held):
        memcpy(
            held + i * stride,
            find_run(p, &p.few, n, group * p.few.C + few + i, at),
            n_pixels * itemsize,
        )
    p.kernels.dot_rows(
        sums + few * p.at_once * itemsize,
        p.at_once,
        find_run(p, &p.many, n, group * p.many.C + first, at),
        p.many.sc,
        count,
        held,
        stride // itemsize,
        n_held,
        n_pixels,
    )


cdef inline const char *find_run(
    const WeightDots *p, const Image *image, Py_ssize_t n, Py_ssize_t channel,
    Py_ssize_t pixel,
) noexcept nogil:
    return image.data + p.kernels.itemsize * (
        n * image.sn + channel * image.sc + pixel
    )


cdef inline void store(
    const WeightDots *p, Py_ssize_t place, const char *sums, Py_ssize_t i
) noexcept nogil:
    if p.kernels.itemsize == 4:
        (<float *> p.grad_w)[place] = (<const float *> sums)[i]
    else:
        (<double *> p.grad_w)[place] = (<const double *> sums)[i]
