# SPDX-License-Identifier: MIT
"""Memory of results: large arrays take blocks of arrays that have died.

Memory fresh from the system is cleared page by page at the first touch, which for a
large result takes longer than many a convolution. Such arrays are NumPy's own in every
other respect: they own their data, through a memory handler (NEP 49). A block waits
here only after its array is gone, so no array that somebody holds is written again.
"""

cimport numpy as cnp

from cpython.pycapsule cimport PyCapsule_New
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from convnet._kernels cimport allocate_pages

cnp.import_array()

cdef enum:
    # Smaller arrays are left to NumPy: its allocator recycles them.
    SMALLEST = 128 * 1024
    MAX_WAITING = 32
    MOST_AXES = 4
    LINE = 64


# What lies in the line before an array's data.
cdef struct Header:
    void *memory                    # as the system gave it
    size_t capacity                 # bytes from the data on


# The blocks that wait, the oldest first. Only touched with the GIL held.
cdef char *waiting[MAX_WAITING]
cdef int n_waiting = 0
cdef size_t waiting_bytes = 0, limit = 256 * 1024 * 1024
cdef unsigned int n_made = 0


cdef inline Header *header(void *data) noexcept:
    return <Header *> (<char *> data - LINE)


cdef void *make_block(size_t n) noexcept:
    """A new block. Each begins at another line of a page: caches tell them apart."""
    global n_made
    cdef size_t before
    cdef char *memory
    cdef char *data
    n_made += 1
    before = LINE * (1 + n_made * 11 % 61)
    n = (n + 4095) // 4096 * 4096
    memory = <char *> allocate_pages(before + n)
    if memory == NULL:
        return NULL
    data = memory + before
    header(data).memory, header(data).capacity = memory, n
    return data


cdef void *take_out(int i) noexcept:
    """Block `i` of those that wait."""
    global n_waiting, waiting_bytes
    cdef char *data = waiting[i]
    waiting_bytes -= header(data).capacity
    n_waiting -= 1
    for i in range(i, n_waiting):
        waiting[i] = waiting[i + 1]
    return data


cdef void *take(void *ctx, size_t n) noexcept:
    """The smallest block that fits, if not much is left over, or a new one."""
    cdef int i, best = -1
    cdef size_t capacity
    for i in range(n_waiting):
        capacity = header(waiting[i]).capacity
        if n <= capacity <= n + n // 4 and (
            best < 0 or capacity < header(waiting[best]).capacity
        ):
            best = i
    return make_block(n) if best < 0 else take_out(best)


cdef void drop_oldest(size_t room) noexcept:
    """Free blocks until one more of so many bytes may wait."""
    while n_waiting > 0 and (n_waiting == MAX_WAITING or waiting_bytes + room > limit):
        free(header(take_out(0)).memory)


cdef void give_back(void *ctx, void *data, size_t n) noexcept:
    """Let the block of an array that has died wait for the next one."""
    global n_waiting, waiting_bytes
    if data == NULL:
        return
    if header(data).capacity > limit:
        free(header(data).memory)
        return
    drop_oldest(header(data).capacity)
    waiting[n_waiting] = <char *> data
    n_waiting += 1
    waiting_bytes += header(data).capacity


cdef void *take_zeros(void *ctx, size_t n_elements, size_t size) noexcept:
    cdef void *data = take(ctx, n_elements * size)
    if data != NULL:
        memset(data, 0, n_elements * size)
    return data


cdef void *resize(void *ctx, void *data, size_t n) noexcept:
    """Move an array's data to a block of n bytes: `ndarray.resize`."""
    cdef void *moved
    if n <= header(data).capacity:
        return data
    moved = take(ctx, n)
    if moved != NULL:
        memcpy(moved, data, min(n, header(data).capacity))
        give_back(ctx, data, 0)
    return moved


cdef cnp.PyDataMem_Handler handler
memcpy(handler.name, b"convnet", 8)
handler.version = 1
handler.allocator.malloc = take
handler.allocator.calloc = take_zeros
handler.allocator.realloc = resize
handler.allocator.free = give_back
cdef object capsule = PyCapsule_New(&handler, b"mem_handler", NULL)


def empty(tuple shape, cnp.dtype dtype):
    """Return a new array of undefined values: `numpy.empty` for results."""
    cdef cnp.npy_intp dims[MOST_AXES]
    cdef int axis, axes = len(shape)
    cdef double n = dtype.itemsize
    cdef object before
    if axes > MOST_AXES:
        raise ValueError(f"results have at most {MOST_AXES} axes, not {axes}")
    for axis in range(axes):
        dims[axis] = shape[axis]
        n *= dims[axis]
    if n < SMALLEST:
        return cnp.PyArray_EMPTY(axes, dims, dtype.type_num, False)
    before = cnp.PyDataMem_SetHandler(capsule)
    try:
        return cnp.PyArray_EMPTY(axes, dims, dtype.type_num, False)
    finally:
        cnp.PyDataMem_SetHandler(before)


def set_limit(size_t n_bytes):
    """Let at most so many bytes wait; 0 releases all that do."""
    global limit
    limit = n_bytes
    drop_oldest(0)
