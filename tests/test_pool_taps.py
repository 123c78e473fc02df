# SPDX-License-Identifier: MIT
"""Pooling by windows of few taps, which registers hold, in rows of any width."""

import numpy as np
import pytest
from cases import DTYPES
from numpy.testing import assert_allclose, assert_array_equal
from tolerance import tolerance

from convnet import reference
from convnet.functional import (
    avg_pool2d,
    avg_pool2d_grad,
    max_pool2d,
    max_pool2d_grad,
)

pytestmark = pytest.mark.usefixtures("isa")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

FEW_TAPS = {
    "2, 2": (2, 2, 0),
    "2, 2, padded": (2, 2, 1),
    "3, 2": (3, 2, 0),
    "3, 2, padded": (3, 2, ((0, 1), (1, 1))),
    "2, 1": (2, 1, ((1, 0), (0, 1))),
    "3, 1": (3, 1, 1),
    "(2, 3), 1": ((2, 3), 1, ((1, 1), (2, 2))),
    "(1, 2), 2": ((1, 2), 2, 0),
}
every_window = pytest.mark.parametrize("window", FEW_TAPS)
# Rows of less than a vector of windows, of one, of two and a bit, and of many.
WIDTHS = (3, 7, 14, 17, 31, 33, 37, 64, 65, 101)


def few_taps(name, width):
    """Return the options of a window, and the shape of images of an odd height."""
    kernel, stride, padding = FEW_TAPS[name]
    given = {"kernel_size": kernel, "stride": stride, "padding": padding}
    return given, (2, 3, 12 if padding == 0 else 11, width)


@every_window
@every_dtype
def test_few_taps_in_rows_of_every_width(rng, window, dtype):
    for width in WIDTHS:
        given, shape = few_taps(window, width)
        x = rng.integers(-3, 4, shape).astype(dtype)
        y, indices = reference.max_pool2d(x, **given, return_indices=True)
        results = max_pool2d(x, **given, return_indices=True)
        assert_array_equal(results[0], y)
        assert_array_equal(results[1], indices)
        assert_array_equal(max_pool2d(x, **given), y)
        gy = rng.integers(-9, 10, y.shape).astype(dtype)
        gx = max_pool2d_grad(gy, indices, shape, **given)
        assert_array_equal(gx, reference.max_pool2d_grad(gy, indices, shape, **given))
        given["divisor_override"] = 1
        sums = reference.avg_pool2d(x, **given)
        assert_array_equal(avg_pool2d(x, **given), sums)
        gx = avg_pool2d_grad(gy, shape, **given)
        assert_array_equal(gx, reference.avg_pool2d_grad(gy, shape, **given))


@every_window
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_few_taps_of_nothing_but(window, value):
    # Windows whose first pixels are padding name the first one that is not.
    for width in WIDTHS:
        given, shape = few_taps(window, width)
        x = np.full(shape, value, np.float32)
        y, indices = reference.max_pool2d(x, **given, return_indices=True)
        results = max_pool2d(x, **given, return_indices=True)
        assert_array_equal(results[0], y)
        assert_array_equal(results[1], indices)
        assert_array_equal(max_pool2d(x, **given), y)


@every_window
@every_dtype
@pytest.mark.parametrize("wrong", ["before", "after", "right", "far", "negative"])
def test_few_taps_refuse_a_wrong_index_anywhere(rng, window, dtype, wrong):
    given, shape = few_taps(window, 37)
    x = rng.standard_normal(shape).astype(dtype)
    y, indices = max_pool2d(x, **given, return_indices=True)
    max_pool2d_grad(y, indices, shape, **given, num_threads=2)
    place = tuple(rng.integers(indices.shape))
    indices[place] = {
        "before": indices[place] - 5 * 37,
        "after": indices[place] + 5 * 37,
        "right": indices[place] + 3,
        "far": indices[place] + 2**32,
        "negative": -1,
    }[wrong]
    with pytest.raises(ValueError, match="indices must lie in their windows"):
        max_pool2d_grad(y, indices, shape, **given)


@every_dtype
@pytest.mark.parametrize("width", [5, 37])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_index_beside_the_image_is_refused(dtype, width, stride):
    # The last window ends in padding, where the next row would go on.
    shape = (1, 2, 6, width)
    given = {
        "kernel_size": (1, 3),
        "stride": (2, stride),
        "padding": ((0, 0), (1, 1)),
    }
    y, indices = max_pool2d(np.ones(shape, dtype), **given, return_indices=True)
    indices[0, 1, 0, -1] = width
    with pytest.raises(ValueError, match="indices must lie in their windows"):
        max_pool2d_grad(y, indices, shape, **given)


@every_dtype
@pytest.mark.parametrize("shape", [(1, 2, 64, 61), (2, 3, 7, 14), (1, 5, 8, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_nothing_beyond_the_image_is_read_or_written(rng, dtype, shape, stride):
    # Around the images lie NaN, and around the results what is somebody else's.
    n, c, height, width = shape
    around = np.full((n, c, height + 2, width + 2), np.nan, dtype)
    x = around[:, :, 1:-1, 1:-1]
    x[...] = rng.integers(-9, 10, shape)
    given = {"kernel_size": 3, "stride": stride, "padding": 1}
    y = reference.max_pool2d(x, **given)
    for pool, expected in (
        (max_pool2d, y),
        (avg_pool2d, reference.avg_pool2d(x, **given)),
    ):
        into = np.full((n, c, y.shape[2], y.shape[3] + 5), 77, dtype)
        pool(x, **given, out=into[..., 2:-3])
        assert_allclose(into[..., 2:-3], expected, 1e-6)
        assert_array_equal(into[..., :2], 77)
        assert_array_equal(into[..., -3:], 77)
    into = np.full((n, c, height, width + 5), 77, dtype)
    avg_pool2d_grad(y, shape, **given, out=into[..., 2:-3])
    expected = reference.avg_pool2d_grad(y, shape, **given)
    assert_allclose(into[..., 2:-3], expected, rtol=0, atol=tolerance(dtype, 9, 9))
    assert_array_equal(into[..., :2], 77)
    assert_array_equal(into[..., -3:], 77)
