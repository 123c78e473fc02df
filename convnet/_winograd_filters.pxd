# SPDX-License-Identifier: MIT
#
# U, the transformed filters of Winograd's algorithm: (groups, folds, points, channels,
# panels of MR rows), all of it or the part that is in work.

from convnet._winograd_product cimport Winograd

# Folds [first_fold, ...) of a group, channels [first_channel, first_channel +
# n_channels), in memory of their own.
cdef struct Filters:
    char *data
    Py_ssize_t first_fold, first_channel, n_channels

# Bytes of so many folds of so many channels.
cdef Py_ssize_t filter_bytes(
    const Winograd *p, Py_ssize_t n_folds, Py_ssize_t n_channels
) noexcept nogil

# All of U: its bytes, its transformation, and a group's part of it.
cdef Py_ssize_t packed_bytes(const Winograd *p) noexcept nogil
cdef int transform_weights(Winograd *p, int num_threads) except -1
cdef Filters packed_filters(const Winograd *p, Py_ssize_t group) noexcept nogil

# Transform one fold of a group, those channels that `filters` holds.
cdef void transform_fold(
    const Winograd *p, const Filters *filters, Py_ssize_t group, Py_ssize_t fold
) noexcept nogil

# A fold's rows at one point, from the first channel on.
cdef char *find_filters(
    const Winograd *p, const Filters *filters, Py_ssize_t fold, Py_ssize_t point
) noexcept nogil
