# SPDX-License-Identifier: MIT
"""Memory of results: blocks of dead arrays are used again, those of living never."""

import gc
import os
import sys
import threading

import numpy as np
import pytest

import convnet
from convnet import _results

try:
    from numpy._core.multiarray import get_handler_name
except ImportError:  # before NumPy 2
    from numpy.core.multiarray import get_handler_name

SHAPE = 3, 5, 131, 127  # of floats: beyond the size from which blocks are kept
FLOAT = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def fresh_cache():
    """Begin with nothing that waits, and leave the default limit."""
    convnet.set_result_cache(0)
    convnet.set_result_cache(2**28)
    yield
    convnet.set_result_cache(0)
    convnet.set_result_cache(2**28)


def address(array):
    return array.__array_interface__["data"][0]


def test_a_dead_arrays_memory_is_used_again():
    first = _results.empty(SHAPE, FLOAT)
    place = address(first)
    del first
    assert address(_results.empty(SHAPE, FLOAT)) == place


@pytest.mark.parametrize(
    "keep", [lambda a: a, lambda a: a[1:, ::2, :, ::-1], memoryview]
)
def test_memory_that_somebody_holds_is_not(keep):
    array = _results.empty(SHAPE, FLOAT)
    array[...] = 7
    held, place = keep(array), address(array)
    del array
    others = [_results.empty(SHAPE, FLOAT) for _ in range(5)]
    for other in others:
        assert address(other) != place
        other[...] = 1
    assert np.all(np.asarray(held) == 7)


def test_results_of_calls_are_never_written_again(rng):
    x = rng.standard_normal((2, 3, 131, 127), np.float32)
    w = rng.standard_normal((5, 3, 3, 1), np.float32)
    right = convnet.conv2d(x, w)
    kept = [convnet.conv2d(x, w) for _ in range(3)]
    views = [convnet.conv2d(x, w)[:, 1:] for _ in range(3)]
    for i in range(5):
        convnet.conv2d(x + i, w)
    for y in kept:
        np.testing.assert_array_equal(y, right)
    for y in views:
        np.testing.assert_array_equal(y, right[:, 1:])


def test_results_are_arrays_like_any_other():
    array = _results.empty(SHAPE, FLOAT)
    assert array.flags.owndata
    assert array.flags.c_contiguous
    assert array.base is None
    assert (array.shape, array.dtype) == (SHAPE, FLOAT)
    assert address(array) % 64 == 0
    array[...] = np.arange(array.size).reshape(SHAPE)
    copy = array.copy()
    array.resize((2 * array.size,), refcheck=False)
    np.testing.assert_array_equal(array[: copy.size], copy.ravel())
    array.resize((7,), refcheck=False)
    np.testing.assert_array_equal(array, copy.ravel()[:7])


def test_other_peoples_arrays_are_not_allocated_here():
    before = get_handler_name()
    array = _results.empty(SHAPE, FLOAT)
    assert get_handler_name(array) == "convnet"
    assert get_handler_name() == before
    assert get_handler_name(np.empty(SHAPE)) == before


def test_a_block_is_not_spent_on_much_smaller_arrays():
    large = _results.empty((2**20,), FLOAT)
    place = address(large)
    del large
    small = _results.empty((2**18,), FLOAT)
    assert abs(address(small) - place) >= small.nbytes


def test_the_limit_bounds_what_waits():
    convnet.set_result_cache(3 * 2**20)
    arrays = [_results.empty((2**18,), FLOAT) for _ in range(4)]  # 1 MB each
    places = [address(array) for array in arrays]
    while arrays:
        del arrays[0]
    again = [_results.empty((2**18,), FLOAT) for _ in range(2)]
    # The oldest were freed, or never waited; the newest two fit with their headers.
    assert {address(array) for array in again} <= set(places[1:])


def test_nothing_waits_without_a_cache():
    convnet.set_result_cache(0)
    held = [_results.empty(SHAPE, FLOAT)]
    place = address(held[0])
    blocker = _results.empty(SHAPE, FLOAT)
    held.clear()
    assert blocker.flags.owndata
    convnet.set_result_cache(2**28)
    other = _results.empty(SHAPE, FLOAT)
    # malloc may hand out the same pages again, but at another line of the page.
    assert address(other) != place


@pytest.mark.parametrize(
    ("limit", "error"),
    [(-1, ValueError), (2**80, ValueError), (1.5, TypeError), ("1 MB", TypeError)],
)
def test_a_limit_is_a_number_of_bytes(limit, error):
    with pytest.raises(error, match=f"n_bytes must be .*{limit}"):
        convnet.set_result_cache(limit)


def test_many_threads_take_and_give_back():
    failures = []

    def work(value):
        for i in range(200):
            array = _results.empty((2**16 + 64 * (i % 7),), FLOAT)
            array[...] = value
            if not np.all(array == value):
                failures.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat_over_many_shapes(rng):
    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def some_calls(n):
        for _ in range(n):
            N, C, OC = rng.integers(1, 7, 3)
            H, W = rng.integers(30, 120, 2)
            x = rng.standard_normal((N, C, H, W), np.float32)
            w = rng.standard_normal((OC, C, 3, 3), np.float32)
            y = convnet.conv2d(x, w)
            convnet.conv2d_grad_input(y, w, x.shape)
            convnet.conv2d_grad_weight(y, x, w.shape)

    convnet.set_result_cache(2**24)
    some_calls(300)
    before = resident()
    some_calls(700)
    assert resident() - before < 2**25
