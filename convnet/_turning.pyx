# SPDX-License-Identifier: MIT
"""Arrays plane by plane, and turned: see ``_turning.pxd``."""

cimport numpy as cnp

from libc.string cimport memset

from convnet._kernels cimport active_kernels, cn_plane_t, cn_slab_t
from convnet._operands cimport describe_array, describe_rows

cnp.import_array()


cdef PlaneArray describe_planes(cnp.ndarray array) noexcept:
    cdef PlaneArray p
    p.kernels = active_kernels(<int> array.itemsize)
    p.image, p.row = describe_array(array), describe_rows(array)
    return p


cdef Py_ssize_t next_plane(const PlaneArray *p) noexcept nogil:
    return p.image.sn if p.image.C == 1 else p.image.sc


cdef bint are_even(const PlaneArray *p) noexcept nogil:
    cdef const Image *image = &p.image
    return image.data == NULL or image.N == 1 or image.C == 1 or (
        image.sn == image.C * image.sc
    )


cdef void join_images(PlaneArray *p) noexcept nogil:
    p.image.sc = next_plane(p)
    p.image.C *= p.image.N
    p.image.N = 1


cdef char *find_plane(const PlaneArray *p, Py_ssize_t n, Py_ssize_t c) noexcept nogil:
    if p.image.data == NULL:
        return NULL
    return p.image.data + p.kernels.itemsize * (n * p.image.sn + c * p.image.sc)


cdef cn_slab_t describe_slab(Py_ssize_t count) noexcept nogil:
    """Get a slab of whole rows, with nothing beside them."""
    cdef cn_slab_t s
    memset(&s, 0, sizeof(s))
    s.n_channels, s.step, s.n_phases = count, 1, 1
    return s


cdef void turn_in(
    const PlaneArray *p, const char *plane, char *slab, Py_ssize_t first,
    Py_ssize_t end, Py_ssize_t count, Py_ssize_t pitch, Py_ssize_t *row,
) noexcept nogil:
    cdef cn_slab_t s = describe_slab(count)
    cdef const Image *image = &p.image
    cdef Py_ssize_t r, pixels = (end - first) * image.W
    if count < pitch:                   # products of what lies there may take long
        memset(slab, 0, pixels * pitch * p.kernels.itemsize)
    s.phase = &s.first_col              # 0
    s.x_channel_stride, s.x, s.pixel_stride = image.sc, p.row, pitch
    s.n_rows, s.row = end - first, row
    for r in range(first, end):
        row[r - first] = r * image.sh
    if image.sh == image.W * image.sw:  # as one long row
        s.n_rows, s.x.IW = 1, image.W * (end - first)
    s.n_cols = s.x.IW
    p.kernels.turn_slab(slab, plane, &s)


cdef void turn_out(
    const PlaneArray *p, char *plane, const char *slab, Py_ssize_t first,
    Py_ssize_t end, Py_ssize_t count, Py_ssize_t pitch, Py_ssize_t *row,
) noexcept nogil:
    cdef cn_slab_t s = describe_slab(count)
    cdef const Image *image = &p.image
    cdef cn_plane_t from_plane, to_plane
    cdef Py_ssize_t c, itemsize = p.kernels.itemsize
    plane += first * image.sh * itemsize
    if image.sh == image.W and image.sw == 1:
        s.phase = &s.first_col          # 0
        s.x_channel_stride, s.channel_stride = 1, image.sc
        s.x.IW = s.n_cols = image.W * (end - first)
        s.x.col_stride, s.n_rows, s.row = pitch, 1, row
        row[0] = 0
        p.kernels.fill_slab(plane, slab, &s)
        return
    to_plane.n_rows, to_plane.n_cols = end - first, image.W
    to_plane.row_stride, to_plane.col_stride = image.sh, image.sw
    from_plane.row_stride, from_plane.col_stride = image.W * pitch, pitch
    for c in range(count):
        p.kernels.add_plane(
            plane + c * image.sc * itemsize, &to_plane, slab + c * itemsize,
            &from_plane, False,
        )
