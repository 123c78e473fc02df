// SPDX-License-Identifier: MIT
/* The only header that Cython sees: the kernel table, ISA selection and the thread
 * pool.
 *
 * A kernel knows arithmetic and strides; it knows nothing of Python, threads or memory
 * allocation.  One row of the table holds every kernel for one ISA and one element
 * type; data travel as `void *`, so that a driver written once serves every row.
 * Unless a name ends in `_bytes`, strides and offsets count elements. */
#ifndef CONVNET_H
#define CONVNET_H

#include <stddef.h>
#include <stdint.h>

/* The reduction index k = (c, t) of a product: n_channels channels of n_taps taps.
 * Element k lies at c * channel_stride + tap[t] from the start of the operand. */
typedef struct {
    ptrdiff_t n_channels, channel_stride;
    ptrdiff_t n_taps;
    const ptrdiff_t *tap;
    ptrdiff_t ahead;     /* how far away lies what is to be fetched early; 0: none */
    ptrdiff_t tap_pitch; /* of rows that are packed tap by tap; 0: by channels */
} cn_depth_t;

/* A run of neighbouring output pixels: `len` pixels that start at offset `in` of the
 * gathered operand and at offset `out` of the result. */
typedef struct {
    ptrdiff_t len, in, out;
} cn_segment_t;

/* Up to NR output pixels, cut into segments; together they fill one GEMM panel.
 * `step` is how far apart neighbours lie in the operand, `readable` says that as many
 * of them as a vector has lanes may be read from any pixel on; `joined` that every
 * segment's `out` continues the one before, at any column stride.
 */
typedef struct {
    const cn_segment_t *segment;
    ptrdiff_t n_segments;
    ptrdiff_t n_pixels, step;
    int readable, joined;
} cn_panel_t;

#define CN_NO_ROW PTRDIFF_MIN

/* Rows of images: IW columns, beside which are zeros. */
typedef struct {
    ptrdiff_t IW, col_stride;
    const void *begin, *end; /* memory that may be read */
} cn_row_t;

/* A zero-padded, planar copy of some rows of some channels:
 *   slab[c, r, f, j] = x[c * x_channel_stride + row[r] + iw * x.col_stride]
 * with iw = first_col + j * step + phase[f]; zero where row[r] is CN_NO_ROW or iw is
 * outside [0, IW).  (Row offsets of arrays with negative strides may be negative.)
 * Splitting the columns into phases gives strided convolutions unit-stride reads;
 * phases rise and lie in [0, step).  Turned, channels come last, pixel_stride apart. */
typedef struct {
    ptrdiff_t n_channels, x_channel_stride, channel_stride;
    ptrdiff_t n_rows;
    const ptrdiff_t *row;
    cn_row_t x;
    ptrdiff_t first_col;
    ptrdiff_t step, n_cols, n_phases;
    const ptrdiff_t *phase;
    ptrdiff_t pixel_stride; /* of a turned slab */
} cn_slab_t;

/* One register tile: y[r, p] = bias[r] + sum over k of a[k, r] * b[k, p]; when
 * accumulating, plus what lies `addend` elements from y[r, p] (0: y itself); kept
 * between low and high where `clip` is set (NaN stays). */
typedef struct {
    const cn_segment_t
            *steps;    /* the reduction, in runs: `len` steps of b from `in` on */
    ptrdiff_t n_steps; /* number of runs; a goes on from run to run */
    const void *a;     /* element (k, r) at k * a_stride + r; with more than MR
                          rows, panels of MR lie a_panel_stride apart.  Or in place,
                          where a_row_stride is not zero: at step i of a run, that of
                          row r at out + i + r * a_row_stride */
    const void *b;     /* rows of columns b_stride apart, whole vectors each; those of
                          the next panel are b_panel_stride further */
    const void *bias;  /* (n_rows,) or NULL */
    void *copy;        /* where b is copied to as it is read, a row after another, and
                          its next columns are fetched; or NULL */
    const void *next;  /* what will be read soon, or NULL: four steps fetch two
                          neighbouring lines of a place, and places are next_stride
                          apart; or of rows in place what the next MR of them read at
                          this one's steps.  A hint, which floats by AVX2 and AVX-512
                          take */
    void *y;           /* row r, segment s, pixel j at
                          r * row_stride + out_s + j * col_stride */
    ptrdiff_t n_rows, a_stride, a_row_stride, a_panel_stride, b_stride;
    ptrdiff_t row_stride, col_stride;
    ptrdiff_t next_stride, next_panel_stride; /* of the next panel of columns */
    /* Where the columns go: `out`, `len` and `joined`; n_panels of as many vectors. */
    const cn_panel_t *panel;
    ptrdiff_t n_panels, b_panel_stride;
    int accumulate, clip;
    int far; /* y has left the core's own cache: AVX-512 fetches it meanwhile */
    ptrdiff_t addend;
    double low, high;
} cn_tile_t;

/* Rows of pixels that come from `ways` phases, `row_ways` of them in turn from others:
 * pixels of phase (a, b) are part[a * ways + b] of x, or zero where that is negative.
 */
typedef struct {
    ptrdiff_t n_rows, row_stride, x_row_stride;
    ptrdiff_t n, col_stride; /* pixels of a row */
    ptrdiff_t ways, row_ways, part_stride;
    const ptrdiff_t *part; /* (row_ways, ways), or NULL where all is zero */
    int accumulate;
} cn_weave_t;

/* Columns of taps over the planes of a slab: tap k of column q, for row r of the
 * result, is read at column[q] + k * tap_stride + r * row_stride.  There are n_results
 * planes of results, y_stride apart; `share` of them in turn have the same x, and the
 * next ones that x_stride further. */
typedef struct {
    ptrdiff_t n_results, share, x_stride, y_stride;
    ptrdiff_t n_columns;
    const ptrdiff_t *column;
    ptrdiff_t n_taps, tap_stride, row_stride;
    ptrdiff_t n_rows, n_cols; /* of the result */
    const void *next[2];      /* what will be read soon: n_next bytes are fetched */
    ptrdiff_t n_next[2];
} cn_planar_t;

/* Where windows lie that are read in place: see planar_in_place. */
typedef struct {
    ptrdiff_t IH, IW, row_stride; /* of x */
    ptrdiff_t n_channels, channel_stride;
    ptrdiff_t step; /* from window to window, in both directions */
    ptrdiff_t first_row, first_col;
    ptrdiff_t n_shifts;
    const ptrdiff_t *shift; /* in columns, less than CN_MOST_SHIFT to either side */
    ptrdiff_t least_shift, most_shift;
} cn_in_place_t;

enum { CN_MOST_SHIFT = 128 };

/* Winograd's algorithm F(m, r): on each axis, m outputs of a filter of r taps come from
 * n = m + r - 1 inputs, which are multiplied at n points.
 *
 * With stride, the pixels of each phase are an image of their own, whose filter has the
 * taps that meet them: step * step channels forward, and ways * ways rows backward.
 * Filters of more taps are cut into pieces of r * r, each a channel of its own. */
enum { CN_MAX_POINTS = 6, CN_MAX_STEP = 4, CN_MAX_WAYS = 2 };
/* Columns between the first and the last piece, times the steps. */
enum { CN_MAX_REACH = 16 };
/* So few tiles that filters are transformed while they are multiplied. */
enum { CN_FEW_TILES = 4 };

/* A strip: neighbouring tiles, each of n * step by n * step inputs, and of m * ways by
 * m * ways outputs. */
typedef struct {
    ptrdiff_t n_tiles;
    /* Where its rows of inputs lie, or CN_NO_ROW. */
    ptrdiff_t row[CN_MAX_POINTS * CN_MAX_STEP];
    ptrdiff_t first_col; /* of the inputs; may lie outside the image */
    ptrdiff_t out;       /* where its first output goes, or would go */
    /* Outputs that lie inside the image: [skip_lines, n_lines) by [skip_cols, n_cols).
     */
    ptrdiff_t n_lines, n_cols, skip_lines, skip_cols;
} cn_strip_t;

/* Some strips of tiles, and the images that their inputs are cut from. */
typedef struct {
    const cn_strip_t *strip;
    ptrdiff_t n_strips, n_tiles;
    int n, m, step, ways;
    int n_copies; /* channels of the product for each of the images: pieces, phases */
    int pieces_w; /* of a filter, in a row */
    ptrdiff_t n_channels, channel_stride;
    ptrdiff_t IW; /* pixels of a row, neighbours in memory */
} cn_tiles_t;

/* Where a channel's transformed tiles go: how far apart channels are, and points that
 * lie below one another, or side by side. */
typedef struct {
    ptrdiff_t channel, row, col;
} cn_points_t;

/* Filters of KH x KW taps, which a flip turns by 180 degrees: n_rows of n_channels;
 * where their phases are r x r filters, of channels (step) or of rows (ways; n_rows
 * counts those), or have pieces_h x pieces_w pieces of so many taps.  Memory may be
 * read up to `end`. */
typedef struct {
    ptrdiff_t n_rows, row_stride, n_channels, channel_stride;
    ptrdiff_t KH, KW;
    int n, r, step, ways, pieces_h, pieces_w, flip;
    const void *end;
} cn_filters_t;

/* A tap of windows along one axis: window i sees pixel step * (i + first) + phase of an
 * image; those in [begin, end) are inside. */
typedef struct {
    ptrdiff_t phase, first, begin, end;
} cn_seen_t;

/* Windows of KH x KW taps, OW in a row, tap_stride from a tap to the next, of an image
 * of H x W pixels, sh and sw apart: windows are SH and SW steps apart. The phases of a
 * row of pixels are put together line_pitch apart, in whole vectors. */
typedef struct {
    ptrdiff_t OW, tap_stride, KH, KW, SH, SW, H, W, sh, sw, line_pitch;
    const cn_seen_t *rows, *cols; /* (KH,), (KW,) */
} cn_windows_t;

/* Depthwise sums over pixels whose channels lie side by side.  Strides in elements, of
 * y and x: x has pixel (i, j)'s taps at i * x_row + j * x_col + tap[t]. */
typedef struct {
    ptrdiff_t n_rows, n_cols;
    ptrdiff_t y_row, y_col, x_row, x_col;
    ptrdiff_t n_taps;
    const ptrdiff_t *tap, *weight; /* where a tap's pixels lie, and its weights */
    ptrdiff_t n_column, tap_row; /* taps below one another go together, so far apart */
    int clip;
    double low, high;
    const void
            *next[2]; /* what will be read or written soon: n_next bytes are fetched */
    ptrdiff_t n_next[2];
} cn_depthwise_t;

/* The taps of a kernel, and how far they lie from each other. */
typedef struct {
    ptrdiff_t KH, KW, tap_row, tap_col;
} cn_kernel_t;

/* One channel plane of a pooling call, or several as one high plane, which only indices
 * tell apart.  Strides in elements. */
typedef struct {
    ptrdiff_t n_planes;
    ptrdiff_t IH, IW, x_row_stride, x_col_stride, x_channel_stride;
    ptrdiff_t OH, OW, y_row_stride, y_col_stride;
    ptrdiff_t y_channel_stride, index_channel_stride; /* 1: side by side */
    ptrdiff_t index_row_stride, index_col_stride;
    ptrdiff_t KH, KW, SH, SW, PT, PL, PB, PR, DH, DW;
    ptrdiff_t divisor; /* averages: 0 = count the window's elements */
    int count_include_pad;
    const void *x_end, *y_end, *index_end; /* memory that may be read ends there */
    const void *reach; /* of narrow planes, what list_reach found; or NULL */
} cn_pool_t;

/* A plane of any strides, for element-wise work and sums. */
typedef struct {
    ptrdiff_t n_rows, n_cols, row_stride, col_stride;
} cn_plane_t;

/* The factors of a step of Adam. */
typedef struct {
    double beta1, beta2, lr, unbias, eps, decay, keep;
} cn_adam_t;

typedef struct {
    const char *isa;
    int itemsize, lanes, mr, nr;
#define CN_OP(result, name, args) result(*name) args;
#include "cn_ops.inc"
#undef CN_OP
} cn_kernels_t;

/* ISA levels from the most portable to the fastest. */
int cn_isa_count(void);
const char *cn_isa_name(int level);
int cn_isa_supported(int level);

/* The table row of a level for an item size of 4 (float) or 8 (double). */
const cn_kernels_t *cn_kernels(int level, int itemsize);

/* The calling thread's floating-point mode, and the same with denormals as zero. */
uint64_t cn_float_mode(void);
void cn_set_float_mode(uint64_t mode);
uint64_t cn_flushing(uint64_t mode);

/* Run task(ctx, i, worker) for every i in [0, n) on up to n_threads threads, one of
 * them the caller's.  `worker` is below n_threads and no two tasks that run at the same
 * time share it: it names their scratch memory.  The order of tasks is not defined.
 * They all run in the caller's floating-point mode.  A pool that is busy (another
 * thread, or a task of its own) makes the call serial. */
typedef void (*cn_task_t)(void *ctx, ptrdiff_t i, int worker);
void cn_parallel_for(cn_task_t task, void *ctx, ptrdiff_t n, int n_threads);

#endif
