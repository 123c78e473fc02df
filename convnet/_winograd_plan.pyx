# SPDX-License-Identifier: MIT
"""How Winograd's tiles are cut into runs and filters into folds: see the ``.pxd``."""

from convnet._estimates cimport are_few
from convnet._winograd_product cimport Winograd, n_copies

# Bytes of one run's transformed input, and of the sums that are in work: both stay in
# L2 where channels are few. The input of many lies in L3, so more filters share it.
cdef Py_ssize_t MAX_INPUT_BYTES = 8 * 1024 * 1024
cdef Py_ssize_t CACHED_BYTES = 1400 * 1024

# A vector's time grows by so much for each one that its panel lacks; and what a run
# takes to read the weights, in vectors.
cdef double NARROW = 0.15, READING = 0.3

cdef enum:
    FOLD = 3                        # panels of filters that stream past few tiles


cdef void plan_runs(Winograd *p, Py_ssize_t num_threads, bint kept) noexcept nogil:
    """Choose the tiles of a run and the filters that are multiplied with it at once.

    Each run reads all weights, and each pass of filters reads the run's input: where
    the input does not stay in L2, both are large.
    """
    cdef Py_ssize_t lanes = p.kernels.lanes, widest = p.kernels.nr // lanes, most, n
    cdef Py_ssize_t vectors = (p.n_images * p.TH * p.TW + lanes - 1) // lanes
    cdef Py_ssize_t vector_bytes = p.n_points * p.C * lanes * p.kernels.itemsize
    p.n_panels = (p.R + p.kernels.mr - 1) // p.kernels.mr
    p.few = are_few(
        p.n_images * p.TH * p.TW, p.n, p.filters.KH, p.filters.KW, p.step * p.ways,
        p.kernels.mr,
    )
    widest = 1 if p.few else max(1, min(widest, MAX_INPUT_BYTES // vector_bytes))
    most = 1 if widest * vector_bytes <= CACHED_BYTES else RUN_PANELS
    most = max(1, min(most, MAX_INPUT_BYTES // (widest * vector_bytes)))
    cut_runs(p, vectors, widest, most, 1)
    p.slice_channels, p.fold = 0, FOLD
    if not kept and p.n_runs == 1 and not p.few:
        # Transformed weights are used up at once: they need not leave the cache.
        # Of whole channels of x, that is.
        n = n_copies(p)
        p.slice_channels = min(max(n, SUM_LENGTH // n * n), p.C)
        p.fold = p.kernels.nr // p.kernels.mr
    elif num_threads > 1 and p.G * p.n_runs < 4 * num_threads:
        share_runs(p, vectors, widest, most, num_threads)
    if p.few:
        p.fold = lanes // p.kernels.mr
    elif p.run_panels > 1 or p.ways > 1:
        # Few tiles behind others are turned; phases of more channels fill vectors.
        p.fold = p.kernels.nr // p.kernels.mr
    p.n_folds = (p.n_panels + p.fold - 1) // p.fold
    p.n_parts = 1
    if p.G * p.n_runs < num_threads:
        p.n_parts = min(num_threads, p.n_folds)
    choose_folds(p, p.run_panels * p.width // lanes * vector_bytes)


cdef void choose_folds(Winograd *p, Py_ssize_t input_bytes) noexcept nogil:
    """Choose the folds that use an input at once: those whose sums the cache holds.

    One is enough where the cache holds the input, or holds slices of weights as well.
    """
    cdef Py_ssize_t fold = p.run_panels * p.n_points * p.fold * p.kernels.mr * p.width
    p.folds_at_once = 1
    if input_bytes > CACHED_BYTES and p.slice_channels == 0:
        p.folds_at_once = CACHED_BYTES // (fold * p.kernels.itemsize)
    p.folds_at_once = max(1, min(p.n_folds, p.folds_at_once))


cdef void cut_runs(
    Winograd *p, Py_ssize_t vectors, Py_ssize_t width, Py_ssize_t most,
    Py_ssize_t multiple,
) noexcept nogil:
    """Cut tiles into panels of `width` vectors, and those into runs."""
    p.width = width * p.kernels.lanes
    p.n_tile_panels = (vectors + width - 1) // width
    p.n_runs = (p.n_tile_panels + most - 1) // most
    if most == 1 and vectors % width == 1:
        p.n_runs -= 1               # a vector that is left over needs no weights anew
    p.n_runs = (p.n_runs + multiple - 1) // multiple * multiple
    p.n_runs = max(1, min(p.n_runs, p.n_tile_panels))
    p.run_panels = (p.n_tile_panels + p.n_runs - 1) // p.n_runs


cdef void share_runs(
    Winograd *p, Py_ssize_t vectors, Py_ssize_t widest, Py_ssize_t most,
    Py_ssize_t num_threads,
) noexcept nogil:
    """Cut few tiles so that all threads have as many; the results are the same."""
    cdef Py_ssize_t width, panels, best_width = widest, best_panels = most
    cdef double load, least = 1e300
    for width in range(widest, 0, -1):
        for panels in range(most, 0, -1):
            cut_runs(p, vectors, width, panels, num_threads)
            load = run_load(p, vectors, width, panels, num_threads)
            if load < least:
                least, best_width, best_panels = load, width, panels
    cut_runs(p, vectors, best_width, best_panels, num_threads)


cdef double run_load(
    const Winograd *p, Py_ssize_t vectors, Py_ssize_t width, Py_ssize_t panels,
    Py_ssize_t num_threads,
) noexcept nogil:
    """The time of the busiest thread, in vectors of tiles.

    Narrow panels have short chains of multiply-adds, and each run reads all weights.
    Where runs may have several panels, those with fewer count as the others: they read
    the weights for less.
    """
    cdef Py_ssize_t share = (p.n_runs + num_threads - 1) // num_threads, run = 0
    cdef Py_ssize_t first, end, most = 0
    if panels > 1:
        most, run = share * p.run_panels * width, p.n_runs
    while run < p.n_runs:
        first = run * p.n_tile_panels // p.n_runs
        run = min(run + share, p.n_runs)
        end = run * p.n_tile_panels // p.n_runs
        most = max(most, min(end * width, vectors) - first * width)
    return (
        most * (1 + NARROW * (p.kernels.nr // p.kernels.lanes - width))
        + READING * share
    )
