# SPDX-License-Identifier: MIT
"""How weight gradients are cut into tasks: see ``_weight_plan.pxd``."""

from convnet._blocks cimport ENOUGH_TASKS, Gather, block_bytes, padded
from convnet._estimates cimport joined_weight_cycles, packed_weight_cycles
from convnet._kernels cimport cn_kernels_t
from convnet._operands cimport Image, Steps
from convnet._weight_columns cimport gathered_bytes

# Bytes of grad_y at a block of a task, for which x is turned or gathered once.
cdef Py_ssize_t TASK_BYTES = 640 * 1024
# Rows of a task, at least, where threads want more tasks; and as many rows' products
# take as long as to turn or gather x for them.
cdef Py_ssize_t FEW_ROWS = 32, TURNING_ROWS = 10
# Pixels that are turned in the time that eight parts of a sum take.
cdef double CHEAP_SUM = 14
# Cycles to gather a pixel for a column, and to turn a sum back, beside what is done in
# either case.
cdef double GATHERING = 0.4, TURNING_BACK = 1.6
# Pixels that are turned in the time that the sum of a swapped product takes.
cdef double SWAPPING = 4


cdef bint is_better_turned(const WeightGradient *p) noexcept nogil:
    """Whether turning a slab is cheaper than gathering columns of all taps.

    The sums of several taps must be turned back, and each tap's channels fill vectors
    of their own: both cost more, the more rows there are.
    """
    cdef Py_ssize_t lanes = p.pixels.kernels.lanes
    cdef double empty = padded(p.pixels.kernels, p.C) - p.C
    cdef double n_pixels = <double> p.grad_y.N * p.grad_y.H * p.grad_y.W
    if p.C < lanes or p.T == 1:
        return p.C >= lanes
    return p.R * (empty / (2 * lanes * p.C) + TURNING_BACK / n_pixels) < GATHERING


cdef bint joins_taps(const WeightGradient *p, Steps steps) noexcept:
    """Whether rows of taps are joined in a turned slab, as few channels are.

    None of the taps may read nothing but padding.
    """
    return (
        joined_cycles(p, steps) < packed_cycles(p, steps)
        and (p.grad_y.W - 1) * steps.SW >= steps.PL
        and steps.KW - 1 - steps.PL < p.pixels.x.W
    )


cdef double product_cycles(const WeightGradient *p, Steps steps) noexcept:
    return joined_cycles(p, steps) if joins_taps(p, steps) else packed_cycles(p, steps)


cdef inline double joined_cycles(const WeightGradient *p, Steps steps) noexcept:
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    return joined_weight_cycles(p.R, p.C, steps, kernels.lanes, kernels.mr)


cdef inline double packed_cycles(const WeightGradient *p, Steps steps) noexcept:
    cdef const cn_kernels_t *kernels = p.pixels.kernels
    return packed_weight_cycles(p.R, p.C, steps, kernels.lanes, kernels.mr)


cdef bint is_better_swapped(const WeightGradient *p) noexcept nogil:
    """Whether each pixel of grad_y meets one of x, which has more channels to turn.

    The sums must be turned back, though; and rows of x be such as `reads_in_place`
    wants, or they would be packed.
    """
    cdef const Image *x = &p.pixels.x
    cdef const Image *grad_y = &p.grad_y
    cdef double saved = <double> x.N * x.H * x.W * (p.C - p.R)
    return (
        p.T == 1
        and saved > SWAPPING * p.R * p.C
        and p.pixels.step_h == p.pixels.step_w == 1
        and x.H == grad_y.H
        and x.W == grad_y.W
        and p.pixels.kernels.lanes < p.R < p.C
        and x.sw == 1
        and x.sc != 0
    )


cdef bint reads_in_place(const WeightGradient *p) noexcept nogil:
    """Whether tiles can read grad_y: a row of it is a stream, and used at once.

    A single vector of columns is for three panels of rows, too many streams.
    """
    cdef Py_ssize_t columns = p.C * (p.pixels.joined if p.pixels.turned else p.T)
    return (
        p.grad_y.sw == 1 and p.grad_y.sc != 0 and columns > p.pixels.kernels.lanes
    )


cdef void plan_tasks(WeightGradient *p, int num_threads) noexcept nogil:
    """Choose parts by the shape alone, and rows of a task for the threads as well.

    Parts cost sums, tasks of few rows turn x again: what is cheaper is there for
    threads.
    """
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t tasks, most, MR = g.kernels.mr
    cdef Py_ssize_t panel_bytes = g.rows * g.cols * MR * g.kernels.itemsize
    cdef Py_ssize_t n_pixels = p.grad_y.N * p.grad_y.H * p.grad_y.W
    p.n_chunks = g.n_channel_chunks * g.n_tap_chunks
    p.n_blocks = g.n_row_blocks * g.n_col_blocks
    p.n_panels = (p.R + MR - 1) // MR
    p.task_panels = min(p.n_panels, max(1, TASK_BYTES // panel_bytes))
    tasks = most = p.G * p.n_chunks
    if n_pixels < CHEAP_SUM * p.R * p.T:
        most *= (p.R + FEW_ROWS - 1) // FEW_ROWS
    else:
        most *= (p.n_panels + p.task_panels - 1) // p.task_panels
    p.n_parts = min(p.n_blocks, (ENOUGH_TASKS + most - 1) // most)
    p.task_panels = share_rows(
        p.n_panels * MR, MR, p.task_panels * MR, tasks * p.n_parts, TURNING_ROWS,
        num_threads,
    ) // MR
    p.n_row_tasks = (p.n_panels + p.task_panels - 1) // p.task_panels
    p.row_size = p.C * p.T
    p.tap_size, p.group_size = 0, p.R * p.row_size
    if needs_turning(p):
        p.row_size = padded(g.kernels, p.C * g.joined)
        # Not at a power of two: all taps would share cache sets.
        p.tap_size = p.R * p.row_size + g.kernels.lanes
        p.group_size = p.T // g.joined * p.tap_size
    p.part_size = p.G * p.group_size


cdef Py_ssize_t share_rows(
    Py_ssize_t n, Py_ssize_t unit, Py_ssize_t most, Py_ssize_t n_tasks,
    Py_ssize_t more, int num_threads,
) noexcept nogil:
    cdef Py_ssize_t shares = (n + most - 1) // most, rows = most, load
    cdef Py_ssize_t least = 0, best = most, end = shares + 2 * num_threads
    while shares < end and rows > unit:
        rows = ((n + shares - 1) // shares + unit - 1) // unit * unit
        load = (n_tasks * ((n + rows - 1) // rows) + num_threads - 1) // num_threads
        load *= rows + more
        if least == 0 or load < least:
            least, best = load, rows
        shares += 1
    return best


cdef Py_ssize_t workspace_bytes(const WeightGradient *p) noexcept nogil:
    """Bytes of one thread: block, gathered pixels, grad_y unless read in place."""
    cdef const Gather *g = &p.pixels
    cdef Py_ssize_t rows = p.task_panels * g.kernels.mr * g.rows * g.cols
    if p.in_place:
        rows = 0
    return (
        block_bytes(g) + gathered_bytes(g) + rows * g.kernels.itemsize + 4095
    ) // 4096 * 4096
