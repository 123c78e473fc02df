# SPDX-License-Identifier: MIT
"""Owner of the compiled C: the kernels in use, tasks on threads, scratch memory."""

cimport cython

from libc.stdlib cimport free
from posix.stdlib cimport posix_memalign
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from cpython.exc cimport PyErr_CheckSignals

import os

cdef extern from *:
    """
    #if defined(__clang__)
    #define CN_COMPILER "Clang " __clang_version__
    #else
    #define CN_COMPILER "GCC " __VERSION__
    #endif
    """
    const char *CN_COMPILER

cdef extern from *:
    """
    #include <sys/mman.h>
    #if defined(MADV_HUGEPAGE)
    #define CN_ADVISE_HUGE(memory, n) madvise(memory, n, MADV_HUGEPAGE)
    #else
    #define CN_ADVISE_HUGE(memory, n) 0
    #endif
    """
    int CN_ADVISE_HUGE(void *memory, size_t n) noexcept nogil

cdef int active_level = 0


cdef const cn_kernels_t *active_kernels(int itemsize) noexcept nogil:
    return cn_kernels(active_level, itemsize)


cdef int run_tasks(
    cn_task_t task, void *ctx, Py_ssize_t n, int n_threads, double work,
    bint in_order=False
) except -1:
    cdef Slice part
    cdef Py_ssize_t n_slices = 1 + <Py_ssize_t> min(work / SLICE_WORK, 1e9)
    cdef Py_ssize_t per_slice = max((n + n_slices - 1) // n_slices, n_threads)
    if work < SERIAL_WORK:
        n_threads = 1
    part.task, part.ctx, part.first = task, ctx, 0
    part.n_threads = 1 if in_order else n_threads
    while part.first < n:
        part.n = min(per_slice, n - part.first)
        with nogil:
            cn_parallel_for(slice_task, &part, part.n, n_threads)
        part.first += per_slice
        PyErr_CheckSignals()
    return 0


cdef struct Slice:
    cn_task_t task
    void *ctx
    Py_ssize_t first, n, n_threads


cdef void slice_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    cdef Slice *part = <Slice *> ctx
    i = near_task(i, part.n, part.n_threads)
    part.task(part.ctx, part.first + i, worker)


@cython.auto_pickle(False)
@cython.freelist(8)
cdef class Flushing:
    """The floating-point mode to return to."""

    def __cinit__(self):
        self.before = cn_float_mode()

    def __dealloc__(self):
        cn_set_float_mode(self.before)


cdef Flushing flush_denormals(Py_ssize_t itemsize, bint keep=False):
    cdef Flushing flushing = Flushing()
    if itemsize == sizeof(float) and not keep:
        cn_set_float_mode(cn_flushing(flushing.before))
    return flushing


# Scratch memory that waits for its next call: memory fresh from the system costs a page
# fault every 4 KB, which is more than the arithmetic of a small layer. Two blocks of at
# most 64 MB are kept, the largest that came back. Only touched with the GIL held.
cdef enum:
    N_KEPT = 2
    LARGEST_KEPT = 64 * 1024 * 1024
    HEADER = 4096                   # holds a block's size; data begin on a page

    HUGE_PAGE = 2 * 1024 * 1024

cdef char *kept[N_KEPT]


cdef void *allocate_pages(Py_ssize_t n_bytes) noexcept:
    cdef void *memory = NULL
    cdef Py_ssize_t page = HUGE_PAGE if n_bytes >= HUGE_PAGE else HEADER
    if posix_memalign(&memory, page, max(n_bytes, 1)) != 0:
        return NULL
    if n_bytes >= HUGE_PAGE:
        CN_ADVISE_HUGE(memory, n_bytes)
    return memory


cdef void *allocate(Py_ssize_t n_bytes) except NULL:
    cdef void *memory = allocate_pages(n_bytes)
    if memory == NULL:
        raise MemoryError(f"no memory for {n_bytes} bytes of scratch")
    return memory


cdef inline Py_ssize_t *block_size(char *block) noexcept:
    return <Py_ssize_t *> (block - HEADER)


cdef void *take_scratch(Py_ssize_t n_bytes) except NULL:
    cdef char *block
    cdef int i
    if not 0 <= n_bytes <= 1 << 60:
        raise MemoryError("no memory for so much scratch")
    for i in range(N_KEPT):
        block = kept[i]
        if block != NULL and block_size(block)[0] >= n_bytes:
            kept[i] = NULL
            return block
    n_bytes += HEADER
    if n_bytes > HUGE_PAGE // 8:
        # Whole huge pages: transforms write to more pages than a core keeps in mind.
        n_bytes = (n_bytes + HUGE_PAGE - 1) // HUGE_PAGE * HUGE_PAGE
    block = <char *> allocate(n_bytes) + HEADER
    block_size(block)[0] = n_bytes - HEADER
    return block


cdef void give_back(void *scratch) noexcept:
    """Keep the block in place of the smallest one kept, or free it."""
    cdef char *block = <char *> scratch
    cdef char *other
    cdef int i
    if block_size(block)[0] > LARGEST_KEPT:
        free(block - HEADER)
        return
    for i in range(N_KEPT):
        other = kept[i]
        if other == NULL or block_size(other)[0] < block_size(block)[0]:
            kept[i], block = block, other
        if block == NULL:
            return
    free(block - HEADER)


@cython.auto_pickle(False)
cdef class Packing:
    """Memory for packed weights that outlive a call, beginning on a page."""

    def __cinit__(self, Py_ssize_t n_bytes):
        self.data = <char *> allocate(n_bytes)

    def __dealloc__(self):
        free(self.data)


cdef Packing find_packing(dict packings, str name, int itemsize):
    return None if packings is None else packings.get((name, active_level, itemsize))


cdef int keep_packing(
    dict packings, str name, int itemsize, Packing packing
) except -1:
    packings[name, active_level, itemsize] = packing
    return 0


def available_isas():
    """Return the names of the ISA levels that this machine runs, the fastest last."""
    return tuple(
        cn_isa_name(level).decode()
        for level in range(cn_isa_count())
        if cn_isa_supported(level)
    )


def get_isa():
    """Return the name of the ISA level whose kernels are in use."""
    return cn_isa_name(active_level).decode()


def set_isa(name):
    """Use the kernels of one ISA level, for the whole process.

    Parameters
    ----------
    name : {"scalar", "avx2", "avx512", "auto"}
        ``"auto"`` is the fastest level that the machine has. ``"scalar"`` is portable
        C, compiled for the oldest CPU of the platform.

    Raises
    ------
    ValueError
        If there is no such level, or this machine cannot run it.
    """
    global active_level
    available = available_isas()
    if name == "auto":
        name = available[len(available) - 1]
    if name not in available:
        raise ValueError(
            f"ISA level {name!r} is not one of this machine's: {', '.join(available)}"
        )
    for level in range(cn_isa_count()):
        if cn_isa_name(level).decode() == name:
            active_level = level


def compiler():
    """Return the name and version of the compiler that built the kernels."""
    return CN_COMPILER.decode()


def tile_shape(itemsize):
    """Return (rows, columns, lanes) of the register tile for an item size in bytes."""
    kernels = active_kernels(itemsize)
    return kernels.mr, kernels.nr, kernels.lanes


def fma_peak(double seconds=0.05, int itemsize=4):
    """Measure this thread's peak rate of fused multiply-adds.

    Parameters
    ----------
    seconds : float
        How long to measure; the fastest of many short runs counts.
    itemsize : {4, 8}
        Bytes of an element: float32 or float64.

    Returns
    -------
    float
        GFLOP/s of one thread with the ISA level in use.
    """
    cdef const cn_kernels_t *kernels = active_kernels(itemsize)
    cdef Py_ssize_t n_steps = 20000
    cdef double flops = 2.0 * kernels.mr * kernels.nr * n_steps
    cdef double end = now() + seconds, start, best = 1e30
    with nogil:
        while True:
            start = now()
            kernels.fma_chain(n_steps)
            best = min(best, now() - start)
            if now() > end:
                break
    return flops / best / 1e9


cdef double now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <double> t.tv_sec + 1e-9 * <double> t.tv_nsec


try:
    set_isa(os.environ.get("CONVNET_ISA") or "auto")
except ValueError as error:
    raise ValueError(f"CONVNET_ISA: {error}") from None
