# SPDX-License-Identifier: MIT
"""Weights as panels of rows, packed slice by slice: see ``_packed_weights.pxd``."""

from convnet._blocks cimport Gather
from convnet._kernels cimport SERIAL_WORK, cn_depth_t, run_tasks
from convnet._product cimport Product

# Packed weights beyond this are made slice by slice: the panels of pixels, which are
# packed again for each slice, cost little beside so many rows.
cdef Py_ssize_t MAX_PACKED_BYTES = 16 * 1024 * 1024
# With few blocks of pixels weights are used up at once: slices of one chunk then stay
# in the cache between packing and use.
cdef Py_ssize_t FEW_BLOCKS = 4
cdef Py_ssize_t CACHED_BYTES = 1280 * 1024


cdef void choose_slices(
    Product *p, Py_ssize_t panels, Py_ssize_t num_threads, double work
) noexcept nogil:
    """How many panels of how many chunks are packed at a time.

    Slices too small for threads would be packed by all of them, and used by one.
    """
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t most = MAX_PACKED_BYTES
    cdef Py_ssize_t few = 1 if p.streamed else FEW_BLOCKS
    cdef bint sliced = num_threads == 1 or work >= SERIAL_WORK * g.n_channel_chunks
    if g.n_row_blocks * g.n_col_blocks <= few and g.n_tap_chunks == 1 and sliced:
        p.n_chunks, most = 1, CACHED_BYTES
    p.n_panels = min(panels, max(1, most // panel_bytes(p) // p.G))


cdef int pack_weights(Product *p, int num_threads) except -1:
    cdef Py_ssize_t T = max(p.n_taps, 1), n_tasks
    # Packing a weight takes about as long as 100 operations of the products.
    cdef double work = 100.0 * p.G * p.n_panels * panel_bytes(p) / 4
    # Lines of memory that one panel has read serve the next ones, or the next channels.
    p.pack_channels = 16 if p.row_stride < p.channel_stride else max(16, 256 // T)
    n_tasks = slice_chunks(p) * chunk_tasks(p)
    run_tasks(pack_task, p, p.G * n_tasks, num_threads, work)
    return 0


cdef inline Py_ssize_t slice_chunks(const Product *p) noexcept nogil:
    """Chunks of channels of the slice in work."""
    cdef Py_ssize_t chunk = p.pixels.chunk_channels
    return (slice_channels(p) + chunk - 1) // chunk


cdef inline Py_ssize_t chunk_tasks(const Product *p) noexcept nogil:
    return (p.pixels.chunk_channels + p.pack_channels - 1) // p.pack_channels


cdef inline Py_ssize_t slice_channels(const Product *p) noexcept nogil:
    """Input channels of the slice in work: all, or those of its chunks."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t first = p.first_chunk // g.n_tap_chunks * g.chunk_channels
    cdef Py_ssize_t n = p.n_chunks // g.n_tap_chunks * g.chunk_channels
    return min(n, g.x.C - first)


cdef Py_ssize_t panel_bytes(const Product *p) noexcept nogil:
    """Bytes of a panel of packed rows; a vector more keeps panels off the same sets."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t n = p.n_chunks // g.n_tap_chunks * g.chunk_channels
    cdef Py_ssize_t depth = min(n, g.x.C) * p.n_taps
    return (depth * g.kernels.mr + g.kernels.lanes) * g.kernels.itemsize


cdef Py_ssize_t packed_bytes(const Product *p) noexcept nogil:
    return (p.G * p.n_panels * panel_bytes(p) + 4095) // 4096 * 4096


cdef char *packed_rows(
    const Product *p, Py_ssize_t group, Py_ssize_t panel, Py_ssize_t k
) noexcept nogil:
    """A panel's rows from step k of the reduction on."""
    cdef const Gather *g = &p.pixels
    k -= p.first_chunk // g.n_tap_chunks * g.chunk_channels * p.n_taps
    return (
        p.packed
        + (group * p.n_panels + panel) * panel_bytes(p)
        + k * g.kernels.mr * g.kernels.itemsize
    )


cdef void pack_task(void *ctx, Py_ssize_t i, int worker) noexcept nogil:
    """Pack some channels of a chunk of a group, all panels in work."""
    cdef Product *p = <Product *> ctx
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t per_chunk = chunk_tasks(p), per_group = slice_chunks(p) * per_chunk
    cdef Py_ssize_t group = i // per_group, first, panel, row, place
    cdef Py_ssize_t chunk = i % per_group // per_chunk * g.chunk_channels
    cdef Py_ssize_t n = min(g.chunk_channels, slice_channels(p) - chunk)
    cdef Py_ssize_t c = i % per_chunk * p.pack_channels
    cdef cn_depth_t depth
    depth.n_channels = min(p.pack_channels, n - c)
    if depth.n_channels <= 0:
        return                      # of a last chunk, which is shorter
    chunk += p.first_chunk // g.n_tap_chunks * g.chunk_channels
    first = group * p.group_stride + (chunk + c) * p.channel_stride
    depth.channel_stride = p.channel_stride
    depth.n_taps, depth.tap, depth.ahead = p.n_taps, p.tap, 0
    # A chunk's channels follow each other with all of their taps, or tap by tap.
    depth.tap_pitch, place = 0, c * p.n_taps
    if g.taps.together:
        depth.tap_pitch, place = n * g.kernels.mr, c
    if p.row_stride < p.channel_stride:
        # Each channel is a stream of memory, more than the hardware follows.
        depth.ahead = g.kernels.mr * p.row_stride * max(4, 16 // max(p.n_taps, 1))
    for panel in range(p.n_panels):
        row = (p.first_panel + panel) * g.kernels.mr
        g.kernels.pack_rows(
            packed_rows(p, group, panel, chunk * p.n_taps + place),
            p.weight + (first + row * p.row_stride) * g.kernels.itemsize,
            min(g.kernels.mr, p.R - row),
            p.row_stride,
            &depth,
        )
