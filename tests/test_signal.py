# SPDX-License-Identifier: MIT
"""convolve2d and correlate2d against those of SciPy: values, dtypes and errors."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tolerance import tolerance

from convnet import signal

NAMES = "convolve2d", "correlate2d"
MODES = "full", "same", "valid"
BOUNDARIES = "fill", "wrap", "symm"
# Every number type that SciPy takes, with two that only work together with others.
DTYPES = "bBhHiIlLqQfdgFDG"
every_name = pytest.mark.parametrize("name", NAMES)


def outcome(module, name, *arguments):
    """Return the result of a call, or the type of its error."""
    try:
        return getattr(module, name)(*arguments)
    except (TypeError, ValueError) as error:
        return type(error)


def assert_as_scipy(name, in1, in2, *arguments):
    expected = outcome(scipy.signal, name, in1, in2, *arguments)
    actual = outcome(signal, name, in1, in2, *arguments)
    if isinstance(expected, type):
        assert actual is expected
        return
    assert actual.dtype == expected.dtype
    if expected.dtype.kind in "iu":
        assert_array_equal(actual, expected)
    else:
        terms = min(np.size(in1), np.size(in2))
        scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=1))
        atol = tolerance(expected.dtype, terms, scale * terms)
        assert_allclose(actual, expected, rtol=0, atol=atol)


def matrices(rng, dtype1, dtype2, shape1=(7, 5), shape2=(4, 3), largest=100):
    """Return two random matrices, complex ones with imaginary parts."""
    result = []
    for dtype, shape in (dtype1, shape1), (dtype2, shape2):
        low = 0 if np.dtype(dtype).kind in "ub" else -largest
        numbers = rng.integers(low, largest, shape).astype(dtype)
        if numbers.dtype.kind == "c":
            numbers += 1j * rng.integers(-largest, largest, shape)
        result.append(numbers)
    return result


@every_name
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dtype", ["f", "d", "l", "B", "D"])
@pytest.mark.parametrize(
    ("shape1", "shape2"),
    [
        ((7, 11), (3, 5)),
        ((7, 11), (2, 4)),
        ((3, 2), (7, 5)),
        ((2, 7), (5, 3)),
        ((1, 3), (11, 13)),
        ((5, 7), (5, 7)),
    ],
)
def test_modes_and_boundaries(rng, name, mode, boundary, dtype, shape1, shape2):
    in1, in2 = matrices(rng, dtype, dtype, shape1, shape2)
    assert_as_scipy(name, in1, in2, mode, boundary, 3)


@every_name
@pytest.mark.parametrize("dtype1", [*DTYPES, "?", "e", "O"])
def test_dtypes(rng, name, dtype1):
    for dtype2 in [*DTYPES, "?", "e", "O"]:
        assert_as_scipy(name, *matrices(rng, dtype1, dtype2), "same", "wrap")


@every_name
@pytest.mark.parametrize("dtype", "bBhHiIlL")
def test_integers_wrap_around(rng, name, dtype):
    # The sums pass every bound: of the dtype, of float32 and of float64.
    top = np.iinfo(dtype).max
    in1 = rng.integers(top // 2, top, (7, 5), dtype)
    in2 = rng.integers(top // 2, top, (3, 4), dtype)
    assert_as_scipy(name, in1, in2)
    assert_as_scipy(name, -in1, in2, "same", "symm")


@every_name
@pytest.mark.parametrize("bits", [22, 23, 24, 51, 52, 53, 61])
def test_integers_are_exact_at_the_limits_of_floats(name, bits):
    # Odd sums just below and above the whole numbers that floats can hold.
    in1 = np.array([[2**bits - 1, 1, -(2**bits), 1 - 2**bits, 2]])
    assert_as_scipy(name, in1, np.array([[1, 1, 1]]))


@every_name
def test_long_double_stays_long(name):
    in1 = np.array([[1, 2**-60, 1]], np.longdouble)
    assert_as_scipy(name, in1, np.array([[1, 1]]))


@every_name
def test_denormals_are_kept(name):
    for dtype in np.float32, np.float64:
        tiny = np.finfo(dtype).smallest_subnormal
        y = getattr(signal, name)(np.array([[tiny, 5 * tiny]]), np.ones((1, 2), dtype))
        assert_array_equal(y, np.array([[tiny, 6 * tiny, 5 * tiny]]))


FILLVALUES = (
    *(0, 7, -3, 1.75, 300, 2**40, 2**63, True, 2 + 1j, np.int64(300), np.float64(2.5)),
    *(None, float("nan"), float("inf"), "3", "1.5", "seven", b"3", object(), {}, ()),
    *([4], [[4]], [1, 2], (2.5,), np.array(5), np.array([5], "B"), np.array([2.5])),
)


@every_name
@pytest.mark.parametrize("fillvalue", FILLVALUES, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("dtype", "BlfdD")
@pytest.mark.filterwarnings("ignore:Casting complex:numpy.exceptions.ComplexWarning")
@pytest.mark.filterwarnings("ignore:.* encountered in cast:RuntimeWarning")
def test_fillvalues(rng, name, fillvalue, dtype):
    for boundary in "fill", "wrap":
        in1, in2 = matrices(rng, dtype, dtype, (3, 5), (2, 3))
        assert_as_scipy(name, in1, in2, "full", boundary, fillvalue)


A, B = [[1, 2, 3], [4, 5, 6]], [[1, 2]]


@every_name
@pytest.mark.parametrize(
    "arguments",
    [
        (A, B, "some"),
        (A, B, None),
        (A, B, ["full"]),
        (A, B, "full", "mirror"),
        (A, B, "full", None),
        (A, B, "full", ["fill"]),
        (A, B, "full", "reflect"),
        (A, [[1], [2], [3]], "valid"),
        (A[0], B),
        (A, 3),
        ([A], [B]),
        ([[1, 2], [3]], B),
        ([["a", "b"]], B),
        ([["a", "b"]], [["c"]]),
        (np.array([[1, 2]], "M8[s]"), B),
    ],
    ids=repr,
)
def test_errors(name, arguments):
    expected = outcome(scipy.signal, name, *arguments)
    assert outcome(signal, name, *arguments) is expected
    assert issubclass(expected, (TypeError, ValueError))


@every_name
@pytest.mark.parametrize("boundary", ["pad", "circular", "symmetric"])
def test_other_names_of_boundaries(rng, name, boundary):
    assert_as_scipy(name, *matrices(rng, "d", "d"), "same", boundary, 2)


@every_name
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape1", "shape2"),
    [((0, 3), (2, 1)), ((2, 3), (0, 1)), ((2, 3), (0, 0)), ((0, 0), (0, 2))],
)
def test_empty_matrices(name, mode, shape1, shape2):
    for dtype, fillvalue in (float, 3), (int, 0), (complex, 0):
        in1, in2 = np.ones(shape1, dtype), np.ones(shape2, dtype)
        assert_as_scipy(name, in1, in2, mode, "fill", fillvalue)


@every_name
def test_empty_matrix_has_no_wrapped_boundary(name):
    # SciPy divides by zero here and ends the process.
    with pytest.raises(ValueError, match="empty axis"):
        getattr(signal, name)(np.ones((0, 3)), np.ones((2, 1)), "full", "wrap")


@every_name
def test_any_memory_order(rng, name):
    in1, in2 = matrices(rng, "d", "d", (9, 11), (3, 4))
    in1.flags.writeable = in2.flags.writeable = False
    assert_as_scipy(name, in1.T[::-2], in2.T[:, ::-1], "same")
    assert_as_scipy(name, in1.astype(">f8"), in2.astype(">c16"), "same", "symm")


def test_correlation_conjugates_the_kernel():
    assert_array_equal(signal.correlate2d([[1j]], [[1j]]), [[1]])
    assert_array_equal(signal.convolve2d([[1j]], [[1j]]), [[-1]])


@given(data=st.data())
def test_random_calls_are_as_scipy(data):
    name = data.draw(st.sampled_from(NAMES))
    dtypes = data.draw(st.tuples(*[st.sampled_from(DTYPES)] * 2))
    shapes = data.draw(st.tuples(*[st.tuples(*[st.integers(1, 9)] * 2)] * 2))
    largest = data.draw(st.sampled_from([3, 100, 2**20]))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    assert_as_scipy(
        name,
        *matrices(rng, *dtypes, *shapes, largest),
        data.draw(st.sampled_from(MODES)),
        data.draw(st.sampled_from(BOUNDARIES)),
        data.draw(st.integers(0, 100)),
    )


def test_scipy_is_not_imported():
    code = "import sys, convnet.signal; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
