# SPDX-License-Identifier: MIT
"""Which planes a pooling call takes together: see ``_pool_plan.pxd``.

Where channels lie side by side in all arrays, those of an image count as one plane.
Planes for which columns are not the best, and those whose columns lie apart, are
turned: a vector's lanes of them side by side in scratch memory.
"""

from libc.stdint cimport int64_t

from convnet._kernels cimport cn_pool_t
from convnet._turning cimport are_even, join_images, next_plane

cdef enum:
    # Planes of one window each that go together, and pixels of them: a thread's share.
    SINGLE_PLANES = 256
    SINGLE_PIXELS = 32768
    SMALL_PLANE = 1024              # pixels of planes that take turns, eight at a time
    PLANES_TOGETHER = 8
    SLAB_BYTES = 128 * 1024         # of turned planes; at most, where a row needs more:
    MOST_SLAB_BYTES = 1024 * 1024
    NARROW = 48                     # bytes of a row of windows that overlap

# Windows that see a pixel, of which more are better joined in turned planes.
cdef double MANY_WINDOWS = 36, MANY_GIVERS = 9


cdef void group_planes(Pooling *p) noexcept nogil:
    cdef Py_ssize_t lanes = p.kernels.lanes
    p.turned, p.n_channels, p.workspace_bytes = False, 1, 0
    p.window.x_channel_stride = p.x.image.sc
    p.window.y_channel_stride = p.window.index_channel_stride = 1
    if follow_each_other(p):
        join_planes(p)
    elif p.x.image.sc == p.y.image.sc == p.index.image.sc == 1 and p.x.image.C >= lanes:
        p.n_channels = p.x.image.C
    elif is_better_turned(p) and fit_slabs(p):
        join_even(p)
        p.turned, p.n_channels = True, lanes
    else:
        join_even(p)
        p.window.x_channel_stride = p.x.image.sc
        if p.scatters and p.window.OH * p.window.OW == 1:
            if p.y.image.sc == p.index.image.sc == 1:
                p.n_channels = SINGLE_PIXELS // max(1, p.window.IH * p.window.IW)
                p.n_channels = max(1, min(p.x.image.C, SINGLE_PLANES, p.n_channels))
        elif p.scatters and are_small(p):
            p.n_channels = min(p.x.image.C, PLANES_TOGETHER)
            p.window.y_channel_stride = p.y.image.sc
            p.window.index_channel_stride = p.index.image.sc
    p.groups = (p.x.image.C + p.n_channels - 1) // p.n_channels


cdef bint are_small(const Pooling *p) noexcept nogil:
    """Whether several whole planes give in turns what their windows have.

    Windows that overlap often name the same pixel.
    """
    cdef const cn_pool_t *w = &p.window
    return (
        w.IH * w.IW <= SMALL_PLANE
        and ((w.KH - 1) * w.DH >= w.SH or (w.KW - 1) * w.DW >= w.SW)
        and w.x_col_stride == w.y_col_stride == w.index_col_stride == 1
        and p.y.image.sc != 1
        and p.index.image.sc != 1
        and not p.kernels.counts_windows(w, 1)
    )


cdef bint follow_each_other(const Pooling *p) noexcept nogil:
    """Whether all planes are one high plane: its windows are theirs, row by row."""
    cdef const cn_pool_t *w = &p.window
    return (
        (not p.backward or gathers(p))
        and w.PT == 0 and w.IH == w.OH * w.SH and (w.KH - 1) * w.DH < w.SH
        and next_plane(&p.x) == w.IH * w.x_row_stride and are_even(&p.x)
        and next_plane(&p.y) == w.OH * w.y_row_stride and are_even(&p.y)
        and next_plane(&p.index) == w.OH * w.index_row_stride and are_even(&p.index)
    )


cdef bint gathers(const Pooling *p) noexcept nogil:
    """Whether pixels of a plane look for windows of few taps."""
    if p.scatters:
        return p.kernels.counts_windows(&p.window, 1)
    return p.kernels.pools_columns(&p.window, True) == 2


cdef void join_planes(Pooling *p) noexcept nogil:
    cdef Py_ssize_t n_planes = p.x.image.N * p.x.image.C
    p.x.image.N = p.x.image.C = p.y.image.N = p.y.image.C = 1
    p.window.n_planes = n_planes
    p.window.IH *= n_planes
    p.window.OH *= n_planes
    p.plane_rows *= n_planes


cdef void join_even(Pooling *p) noexcept nogil:
    """Make one image of all where their planes are equally far apart."""
    if are_even(&p.x) and are_even(&p.y) and are_even(&p.index):
        join_images(&p.x)
        join_images(&p.y)
        join_images(&p.index)


cdef bint is_better_turned(const Pooling *p) noexcept nogil:
    """Whether windows of a row fill half a vector at most, or are not for vectors.

    Lines of columns hold windows of many taps. Planes that fill all lanes are turned in
    less time than that takes if they are narrow, or a pixel meets many windows.
    """
    cdef const cn_pool_t *w = &p.window
    cdef Py_ssize_t lanes = p.kernels.lanes, n_planes = p.x.image.C, n_bytes
    cdef double windows = (<double> w.KH * w.KW) / (<double> w.SH * w.SW)
    cdef int by_columns = p.kernels.pools_columns(w, p.backward)
    if p.scatters:
        return False                    # indices would be turned, too
    if 2 * w.OW <= lanes and w.IW <= 2 * lanes or by_columns == 0:
        return True
    if are_even(&p.x) and are_even(&p.y):
        n_planes *= p.x.image.N
    if n_planes < lanes or p.index.image.data != NULL:
        return False
    if by_columns == 2:
        n_bytes = w.OW * p.kernels.itemsize * (1 if w.KW > w.SW else 2)
        return not p.backward and n_bytes <= NARROW
    if p.backward:
        return w.IW <= 2 * lanes or w.SW > 2 or windows > MANY_GIVERS
    return w.IW <= 2 * lanes or windows > MANY_WINDOWS


cdef bint fit_slabs(Pooling *p) noexcept nogil:
    """Cut planes into blocks whose slabs a thread can have."""
    p.block_rows = p.plane_rows
    while size_slabs(p) > SLAB_BYTES and p.block_rows > 1:
        p.block_rows = (p.block_rows + 1) // 2
    if p.workspace_bytes > MOST_SLAB_BYTES:
        p.workspace_bytes = 0
    return p.workspace_bytes > 0


cdef Py_ssize_t size_slabs(Pooling *p) noexcept nogil:
    """Set the bytes of a block's slabs: rows of the result, and what they need."""
    cdef const cn_pool_t *w = &p.window
    cdef double x_rows = p.block_rows, y_rows = p.block_rows, pixel
    if p.backward:
        y_rows = min(w.OH, (x_rows + (w.KH - 1.0) * w.DH) / w.SH + 2)
    else:
        x_rows = min(w.IH, (y_rows - 1) * w.SH + (w.KH - 1.0) * w.DH + 1)
    pixel = p.kernels.lanes * p.kernels.itemsize
    p.slab_bytes[0] = pad_bytes(x_rows * w.IW * pixel)
    p.slab_bytes[1] = pad_bytes(y_rows * w.OW * pixel)
    p.slab_bytes[2] = 0
    if p.index.image.data != NULL:
        p.slab_bytes[2] = pad_bytes(y_rows * w.OW * p.kernels.lanes * sizeof(int64_t))
    p.workspace_bytes = p.slab_bytes[0] + p.slab_bytes[1] + p.slab_bytes[2]
    p.workspace_bytes += pad_bytes(max(x_rows, y_rows) * sizeof(Py_ssize_t))
    return p.workspace_bytes


cdef Py_ssize_t pad_bytes(double n) noexcept nogil:
    return (<Py_ssize_t> min(n, 1e15) // 64 + 1) * 64
