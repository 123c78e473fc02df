# SPDX-License-Identifier: MIT
#
# Blocking of Winograd's products.

from convnet._winograd_product cimport Winograd

cdef enum:
    RUN_PANELS = 2                  # of a run whose input does not stay in L2
    # Channels that are added up in one go: sums of sums round less than one long sum,
    # and the transforms enlarge what is lost.
    SUM_LENGTH = 128

# Choose the tiles of a run and the filters that are multiplied with it at once, from
# the shapes; `kept` are weights that are transformed before the call.
cdef void plan_runs(Winograd *p, Py_ssize_t num_threads, bint kept) noexcept nogil
