# SPDX-License-Identifier: MIT
#
# What the drivers see of the compiled C: the table, tasks and scratch memory.
# `_kernels` is the one extension that links the C objects; drivers cimport from it.

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

cdef extern from "convnet.h" nogil:
    const Py_ssize_t CN_NO_ROW
    const int CN_MOST_SHIFT
    enum:
        CN_MAX_POINTS
        CN_FEW_TILES

    ctypedef struct cn_depth_t:
        Py_ssize_t n_channels, channel_stride, n_taps
        const Py_ssize_t *tap
        Py_ssize_t ahead, tap_pitch

    ctypedef struct cn_segment_t:
        Py_ssize_t len
        Py_ssize_t in_ "in"
        Py_ssize_t out

    ctypedef struct cn_panel_t:
        const cn_segment_t *segment
        Py_ssize_t n_segments, n_pixels, step
        int readable, joined

    ctypedef struct cn_row_t:
        Py_ssize_t IW, col_stride
        const void *begin
        const void *end

    ctypedef struct cn_slab_t:
        Py_ssize_t n_channels, x_channel_stride, channel_stride
        Py_ssize_t n_rows
        const Py_ssize_t *row
        cn_row_t x
        Py_ssize_t first_col
        Py_ssize_t step, n_cols, n_phases
        const Py_ssize_t *phase
        Py_ssize_t pixel_stride

    ctypedef struct cn_tile_t:
        const cn_segment_t *steps
        Py_ssize_t n_steps
        const void *a
        const void *b
        const void *bias
        void *copy
        const void *next
        void *y
        Py_ssize_t n_rows, a_stride, a_row_stride, a_panel_stride, b_stride
        Py_ssize_t row_stride, col_stride
        Py_ssize_t next_stride, next_panel_stride
        const cn_panel_t *panel
        Py_ssize_t n_panels, b_panel_stride
        int accumulate, clip, far
        Py_ssize_t addend
        double low, high

    ctypedef struct cn_weave_t:
        Py_ssize_t n_rows, row_stride, x_row_stride
        Py_ssize_t n, col_stride
        Py_ssize_t ways, row_ways, part_stride
        const Py_ssize_t *part
        int accumulate

    ctypedef struct cn_planar_t:
        Py_ssize_t n_results, share, x_stride, y_stride
        Py_ssize_t n_columns
        const Py_ssize_t *column
        Py_ssize_t n_taps, tap_stride, row_stride
        Py_ssize_t n_rows, n_cols
        const void *next[2]
        Py_ssize_t n_next[2]

    ctypedef struct cn_in_place_t:
        Py_ssize_t IH, IW, row_stride
        Py_ssize_t n_channels, channel_stride
        Py_ssize_t step
        Py_ssize_t first_row, first_col
        Py_ssize_t n_shifts
        const Py_ssize_t *shift
        Py_ssize_t least_shift, most_shift

    ctypedef struct cn_strip_t:
        Py_ssize_t n_tiles
        Py_ssize_t row[24]
        Py_ssize_t first_col, out, n_lines, n_cols, skip_lines, skip_cols

    ctypedef struct cn_tiles_t:
        const cn_strip_t *strip
        Py_ssize_t n_strips, n_tiles
        int n, m, step, ways, n_copies, pieces_w
        Py_ssize_t n_channels, channel_stride, IW

    ctypedef struct cn_points_t:
        Py_ssize_t channel, row, col

    ctypedef struct cn_filters_t:
        Py_ssize_t n_rows, row_stride, n_channels, channel_stride
        Py_ssize_t KH, KW
        int n, r, step, ways, pieces_h, pieces_w, flip
        const void *end

    ctypedef struct cn_seen_t:
        Py_ssize_t phase, first, begin, end

    ctypedef struct cn_windows_t:
        Py_ssize_t OW, tap_stride, KH, KW, SH, SW, H, W, sh, sw, line_pitch
        const cn_seen_t *rows
        const cn_seen_t *cols

    ctypedef struct cn_depthwise_t:
        Py_ssize_t n_rows, n_cols
        Py_ssize_t y_row, y_col, x_row, x_col
        Py_ssize_t n_taps
        const Py_ssize_t *tap
        const Py_ssize_t *weight
        Py_ssize_t n_column, tap_row
        int clip
        double low, high
        const void *next[2]
        Py_ssize_t n_next[2]

    ctypedef struct cn_kernel_t:
        Py_ssize_t KH, KW, tap_row, tap_col

    ctypedef struct cn_pool_t:
        Py_ssize_t n_planes
        Py_ssize_t IH, IW, x_row_stride, x_col_stride, x_channel_stride
        Py_ssize_t y_channel_stride, index_channel_stride
        Py_ssize_t OH, OW, y_row_stride, y_col_stride
        Py_ssize_t index_row_stride, index_col_stride
        Py_ssize_t KH, KW, SH, SW, PT, PL, PB, PR, DH, DW
        Py_ssize_t divisor
        int count_include_pad
        const void *x_end
        const void *y_end
        const void *index_end
        const void *reach

    ctypedef struct cn_plane_t:
        Py_ssize_t n_rows, n_cols, row_stride, col_stride

    ctypedef struct cn_adam_t:
        double beta1, beta2, lr, unbias, eps, decay, keep

    ctypedef struct cn_kernels_t:
        const char *isa
        int itemsize, lanes, mr, nr
        void (*fill_slab)(void *, const void *, const cn_slab_t *) noexcept nogil
        void (*turn_slab)(void *, const void *, const cn_slab_t *) noexcept nogil
        void (*pack_rows)(
            void *, const void *, Py_ssize_t, Py_ssize_t, const cn_depth_t *
        ) noexcept nogil
        void (*pack_pixels)(
            void *, const void *, const cn_depth_t *, const cn_panel_t *
        ) noexcept nogil
        void (*pack_taps)(
            void *, const void *, const Py_ssize_t *, Py_ssize_t, const cn_panel_t *
        ) noexcept nogil
        void (*turn_taps)(
            void *, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
            Py_ssize_t, Py_ssize_t,
        ) noexcept nogil
        void (*gemm_tile)(const cn_tile_t *) noexcept nogil
        void (*runs_tile)(const cn_tile_t *, Py_ssize_t) noexcept nogil
        double (*fma_chain)(Py_ssize_t) noexcept nogil
        void (*fetch_rows)(const void *, const cn_weave_t *) noexcept nogil
        void (*weave_rows)(void *, const void *, const cn_weave_t *) noexcept nogil
        void (*add_windows)(
            void *, void *, const void *, const cn_windows_t *
        ) noexcept nogil
        void (*planar_sum)(
            const cn_tile_t *, const void *, const void *, const cn_planar_t *
        ) noexcept nogil
        int (*sums_in_place)(Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*planar_in_place)(
            const cn_tile_t *, const void *, const void *, const cn_planar_t *,
            const cn_in_place_t *,
        ) noexcept nogil
        void (*planar_grad)(
            void *, Py_ssize_t, const void *, const void *, Py_ssize_t, Py_ssize_t,
            const cn_row_t *, const cn_planar_t *,
        ) noexcept nogil
        void (*sum_lanes)(
            void *, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
        ) noexcept nogil
        void (*gather)(
            void *, const void *, const Py_ssize_t *, Py_ssize_t, Py_ssize_t, Py_ssize_t
        ) noexcept nogil
        void (*scatter)(
            void *, const void *, const Py_ssize_t *, Py_ssize_t
        ) noexcept nogil
        void (*turn_plane)(
            void *, const void *, Py_ssize_t, const Py_ssize_t *, const cn_slab_t *
        ) noexcept nogil
        void (*depthwise_sum)(
            void *, const void *, const void *, const void *, const cn_depthwise_t *
        ) noexcept nogil
        void (*depthwise_grad)(
            void *, const void *, const void *, const cn_depthwise_t *,
            const cn_kernel_t *
        ) noexcept nogil
        void (*winograd_input)(
            void *, const void *, const cn_tiles_t *, const cn_points_t *
        ) noexcept nogil
        void (*winograd_sums)(void *, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*winograd_output)(
            const cn_tile_t *, const void *, Py_ssize_t, const cn_tiles_t *, Py_ssize_t
        ) noexcept nogil
        void (*winograd_filters)(
            void *, const void *, const cn_filters_t *, Py_ssize_t, Py_ssize_t
        ) noexcept nogil
        void (*winograd_few)(
            void *, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, const void *,
            const cn_filters_t *,
        ) noexcept nogil
        void (*turn_few)(void *, const void *, const cn_filters_t *) noexcept nogil
        void (*winograd_pixels)(
            void *, const void *, const cn_panel_t *, const Py_ssize_t *, Py_ssize_t,
            Py_ssize_t, Py_ssize_t, Py_ssize_t, int, int, int,
        ) noexcept nogil
        void (*winograd_turn)(
            void *, Py_ssize_t, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
            Py_ssize_t, const cn_filters_t *, Py_ssize_t,
        ) noexcept nogil
        double (*sum_plane)(const void *, const cn_plane_t *) noexcept nogil
        void (*sum_channels)(
            double *, const void *, const cn_plane_t *, Py_ssize_t
        ) noexcept nogil
        void (*mean_planes)(
            void *, Py_ssize_t, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double
        ) noexcept nogil
        void (*max_planes)(
            void *, Py_ssize_t, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
        ) noexcept nogil
        void (*spread_planes)(
            void *, Py_ssize_t, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double
        ) noexcept nogil
        void (*add_plane)(
            void *, const cn_plane_t *, const void *, const cn_plane_t *, int
        ) noexcept nogil
        void (*dot_rows)(
            void *, Py_ssize_t, const void *, Py_ssize_t, Py_ssize_t, const void *,
            Py_ssize_t, Py_ssize_t, Py_ssize_t,
        ) noexcept nogil
        void (*rectify)(void *, const void *, Py_ssize_t) noexcept nogil
        void (*rectify_grad)(
            void *, const void *, const void *, Py_ssize_t
        ) noexcept nogil
        void (*norm_sums)(
            double *, const void *, const void *, const double *, Py_ssize_t,
            Py_ssize_t, const void *,
        ) noexcept nogil
        void (*normalize)(
            void *, const void *, const void *, Py_ssize_t, Py_ssize_t, int
        ) noexcept nogil
        void (*normalize_grad)(
            void *, const void *, const void *, const void *, Py_ssize_t, Py_ssize_t,
            int,
        ) noexcept nogil
        void (*sgd_step)(
            void *, void *, const void *, Py_ssize_t, double, double, double, int
        ) noexcept nogil
        void (*adam_step)(
            void *, void *, void *, const void *, Py_ssize_t, const cn_adam_t *
        ) noexcept nogil
        void (*max_pool)(
            void *, int64_t *, const void *, const cn_pool_t *, Py_ssize_t, Py_ssize_t,
            Py_ssize_t,
        ) noexcept nogil
        Py_ssize_t (*list_reach)(void *, const cn_pool_t *) noexcept nogil
        Py_ssize_t (*max_pool_grad)(
            void *, const void *, const int64_t *, const cn_pool_t *, Py_ssize_t,
            Py_ssize_t, Py_ssize_t,
        ) noexcept nogil
        void (*avg_pool)(
            void *, const void *, const cn_pool_t *, Py_ssize_t, Py_ssize_t, Py_ssize_t
        ) noexcept nogil
        bint (*counts_windows)(const cn_pool_t *, Py_ssize_t) noexcept nogil
        int (*pools_columns)(const cn_pool_t *, int) noexcept nogil
        void (*avg_pool_grad)(
            void *, const void *, const cn_pool_t *, Py_ssize_t, Py_ssize_t, Py_ssize_t
        ) noexcept nogil

    ctypedef void (*cn_task_t)(void *, Py_ssize_t, int) noexcept nogil

    int cn_isa_count()
    const char *cn_isa_name(int level)
    int cn_isa_supported(int level)
    const cn_kernels_t *cn_kernels(int level, int itemsize)
    uint64_t cn_float_mode()
    void cn_set_float_mode(uint64_t mode)
    uint64_t cn_flushing(uint64_t mode)
    void cn_parallel_for(cn_task_t task, void *ctx, Py_ssize_t n, int n_threads)

# The kernels in use for an item size of 4 (float32) or 8 (float64).
cdef const cn_kernels_t *active_kernels(int itemsize) noexcept nogil

# A tile that does nothing but multiply packed operands, until it is told to.
cdef inline cn_tile_t plain_tile() noexcept nogil:
    cdef cn_tile_t tile
    memset(&tile, 0, sizeof(tile))
    tile.n_panels = 1
    return tile

# Operations below which waking a worker costs more than it brings: 30 microseconds at
# the 130 a nanosecond of two mid-sized cores.  And those between two looks at pending
# signals: 10 ms of one thread, or 200 without vectors.
cdef enum:
    SERIAL_WORK = 4000000
    SLICE_WORK = 2000000000

# Run n tasks that cost `work` floating-point operations together; small work stays on
# the calling thread.  Takes and gives back the GIL's absence; KeyboardInterrupt and
# whatever else a signal handler raises ends the call between two slices of tasks. Each
# thread meets neighbours, one after another: memory that two of them share, or that the
# hardware fetches behind one for the next, should not go to another core. Tasks that
# are not alike are handed out in turns, `in_order`.
cdef int run_tasks(
    cn_task_t task, void *ctx, Py_ssize_t n, int n_threads, double work,
    bint in_order=*
) except -1

# The task of n that is the i-th to be handed out.
cdef inline Py_ssize_t near_task(
    Py_ssize_t i, Py_ssize_t n, Py_ssize_t num_threads
) noexcept nogil:
    cdef Py_ssize_t share = n // num_threads
    if i >= share * num_threads:
        return i
    return i % num_threads * share + i // num_threads


# While it lives, denormals count as zero in what this thread and its tasks compute; the
# mode that was before returns with the end of the function that holds it.
cdef class Flushing:
    cdef uint64_t before

# For float alone, and not where denormals are to be kept.
cdef Flushing flush_denormals(Py_ssize_t itemsize, bint keep=*)

# Memory to be freed with `free`, which begins on a page; NULL when there is none. Much
# of it comes in huge pages, where the system has them.
cdef void *allocate_pages(Py_ssize_t n_bytes) noexcept

# Page-aligned memory for one call, with the GIL held; MemoryError with the number of
# bytes when there is none.
cdef void *take_scratch(Py_ssize_t n_bytes) except NULL
cdef void give_back(void *scratch) noexcept

# Weights as an algorithm wants them, kept by whoever owns the dict for later calls: by
# algorithm, ISA level and item size.
cdef class Packing:
    cdef char *data

cdef Packing find_packing(dict packings, str name, int itemsize)
cdef int keep_packing(
    dict packings, str name, int itemsize, Packing packing
) except -1
