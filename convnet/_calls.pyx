# SPDX-License-Identifier: MIT
"""What follows from the shapes and options of a call, found once and remembered.

To check the arguments of a small convolution takes longer than to compute it, and
training makes the same calls again and again.
"""

cimport cython
cimport numpy as cnp

from convnet._kernels cimport active_kernels

cnp.import_array()

cdef enum:
    SLOTS = 256                     # of a function's answers
    MOST_AXES = 4                   # of arrays in calls that are remembered
    MOST_ARRAYS = 3


# All that an answer may depend on beside the options.
cdef struct Key:
    Py_ssize_t n
    # The kernels in use; of each array the number of its axes, and its sizes.
    Py_ssize_t number[1 + MOST_ARRAYS * (1 + MOST_AXES)]


@cython.auto_pickle(False)
cdef class Answer:
    cdef Key key
    cdef tuple options
    cdef object answer


@cython.auto_pickle(False)
cdef class Remembered:
    """A function from shapes and options to what they mean, which keeps its answers.

    ``call(values, options)`` makes arrays of one float type of the values, and returns
    them with ``check(shapes, dtype, *options)``, whose answer may depend on these and
    on the instruction set alone. Options are integers, strings,
    None, True or False, and tuples of them; others make an answer for this call only.
    """

    cdef object as_floats, check
    cdef list answers

    def __init__(self, as_floats, check):
        self.as_floats, self.check, self.answers = as_floats, check, [None] * SLOTS

    def __call__(self, tuple values not None, tuple options not None):
        cdef tuple arrays = values if are_floats(values) else self.as_floats(values)
        cdef Answer known
        cdef Key key
        cdef size_t slot
        if not describe_arrays(arrays, &key):
            return arrays, self.answer(arrays, options)
        slot = hash_options(options, hash_key(&key)) % SLOTS
        known = self.answers[slot]
        if known is None or not (
            same_keys(&known.key, &key) and same_options(known.options, options)
        ):
            known = Answer()
            known.key, known.options = key, options
            known.answer = self.answer(arrays, options)
            self.answers[slot] = known
        return arrays, known.answer

    cdef object answer(self, tuple arrays, tuple options):
        shapes = tuple([array.shape for array in arrays])
        return self.check(shapes, arrays[0].dtype, *options)


cpdef bint are_floats(tuple values) noexcept:
    """Whether all are plain arrays of the same float type."""
    cdef int type_num = -1
    for value in values:
        if type(value) is not cnp.ndarray or not cnp.PyArray_ISBEHAVED_RO(value):
            return False
        if type_num < 0:
            type_num = cnp.PyArray_TYPE(value)
            if type_num != cnp.NPY_FLOAT and type_num != cnp.NPY_DOUBLE:
                return False
        elif cnp.PyArray_TYPE(value) != type_num:
            return False
    return True


cdef bint describe_arrays(tuple arrays, Key *key) noexcept:
    """Set the key; whether the arrays are so few, and with so few axes, that it can."""
    cdef int i, axes
    cdef cnp.ndarray array
    if len(arrays) > MOST_ARRAYS:
        return False
    key.n = 1
    key.number[0] = <Py_ssize_t> active_kernels(cnp.PyArray_ITEMSIZE(arrays[0]))
    for array in arrays:
        axes = cnp.PyArray_NDIM(array)
        if axes > MOST_AXES:
            return False
        key.number[key.n] = axes
        key.n += 1
        for i in range(axes):
            key.number[key.n] = cnp.PyArray_DIM(array, i)
            key.n += 1
    return True


cdef inline size_t mix(size_t hashed, size_t number) noexcept nogil:
    """One step of the FNV-1a hash, with a number in place of a byte."""
    hashed = (hashed ^ number) * <size_t> 1099511628211
    return hashed ^ (hashed >> 29)


cdef size_t hash_key(const Key *key) noexcept nogil:
    cdef size_t hashed = 0
    cdef Py_ssize_t i
    for i in range(key.n):
        hashed = mix(hashed, <size_t> key.number[i])
    return hashed


cdef bint same_keys(const Key *one, const Key *other) noexcept nogil:
    cdef Py_ssize_t i
    if one.n != other.n:
        return False
    for i in range(one.n):
        if one.number[i] != other.number[i]:
            return False
    return True


cdef size_t hash_options(tuple options, size_t hashed) noexcept:
    """Mix the options in: numbers and strings by value, others by their address."""
    cdef object option
    for option in options:
        if type(option) is tuple:
            hashed = hash_options(<tuple> option, hashed)
        elif type(option) is int or type(option) is str:
            hashed = mix(hashed, <size_t> hash(option))
        else:
            hashed = mix(hashed, <size_t> <void *> option)
    return hashed


cdef bint same_options(tuple one, tuple other) noexcept:
    """Whether options are equal and of the same types: True is no stride, though 1."""
    cdef Py_ssize_t i
    cdef object a, b
    if len(one) != len(other):
        return False
    for i in range(len(one)):
        a, b = one[i], other[i]
        if type(a) is not type(b):
            return False
        if type(a) is tuple:
            if not same_options(<tuple> a, <tuple> b):
                return False
        elif type(a) is int or type(a) is str:
            if a is not b and a != b:
                return False
        elif a is not None and a is not True and a is not False or a is not b:
            return False
    return True
