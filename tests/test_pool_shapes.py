# SPDX-License-Identifier: MIT
"""Pooling of planes that kernels treat each in their own way, against the reference."""

import numpy as np
import pytest
from cases import DTYPES, LAYOUTS, from_layout, shape_in, to_layout
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
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

PADDED = {"stride": 1, "padding": ((1, 0), (1, 2))}
# Wider than a line of the kernels; narrower than a vector, in groups not whole; few
# channels, which fill no vector; planes that are turned, for windows of many taps or
# far apart, with some that fill no vector of them; windows that are whole planes, or
# too large or far apart for vectors; no more windows than the next row begins with.
SHAPES = {
    "wide": ((1, 2, 3, 2503), (2, 3), PADDED),
    "whole large planes": ((2, 9, 67, 71), (67, 71), {}),
    "wide, stride 2": ((1, 2, 5, 3001), (3, 2), {"stride": 2}),
    "wide, stride 3": ((2, 1, 3, 2111), (1, 3), {"stride": (1, 3), "ceil_mode": True}),
    "wide window": ((1, 2, 3, 1511), (2, 1207), {"stride": (1, 7)}),
    "narrow": ((3, 19, 7, 5), (3, 3), PADDED),
    "narrow, stride 2": ((2, 35, 8, 7), (2, 2), {}),
    "narrow and high": ((1, 17, 1201, 3), (4, 2), {"stride": (3, 1)}),
    "many single windows": ((1, 301, 5, 3), (5, 3), {}),
    "single windows, wide": ((1, 37, 3, 83), (3, 83), {}),
    "single windows, few channels": ((3, 3, 2, 2), (2, 2), {}),
    "windows around one pixel": ((2, 19, 1, 1), (2, 2), {"stride": 1, "padding": 1}),
    "windows beside one pixel": (
        (3, 5, 1, 1),
        (1, 2),
        {"stride": 1, "padding": (0, 1)},
    ),
    "turned": ((1, 33, 13, 13), (5, 4), {"stride": 1, "padding": 2}),
    "turned, stride 2": ((3, 19, 17, 14), (6, 5), {"stride": 2, "padding": (3, 1)}),
    "turned, whole planes at each": (
        (1, 21, 13, 9),
        (13, 9),
        {"stride": 1, "padding": 4},
    ),
    "turned, apart": ((2, 18, 23, 29), (2, 4), {"stride": (3, 4), "padding": (0, 1)}),
    "turned, wide": ((1, 16, 40, 71), (9, 8), {"stride": 1, "padding": (4, 3)}),
    "turned, steps of 5": ((1, 47, 31, 67), (5, 5), {"stride": 5, "ceil_mode": True}),
    "windows over most of a row": ((1, 16, 4, 250), (2, 233), {"stride": 1}),
    "many channels": ((2, 67, 5, 6), (2, 3), PADDED),
    "few channels": ((2, 5, 9, 31), (3, 2), {"stride": 2, "padding": 1}),
    "far apart": ((1, 3, 23, 67), (2, 3), {"stride": (11, 17)}),
    "large window": ((1, 2, 47, 53), (41, 37), {"stride": (2, 3)}),
    "joined rows": ((1, 3, 41, 30), (2, 2), {}),
    "joined rows, gaps": ((1, 3, 40, 33), (2, 2), {"stride": 3}),
}
every_shape = pytest.mark.parametrize("name", SHAPES)


@pytest.mark.parametrize("image", [(1, 1), (7, 7), (5, 13), (16, 3), (31, 37)])
@pytest.mark.parametrize("divisor", [None, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_averages_of_whole_planes(image, divisor, dtype, rng):
    x = rng.standard_normal((3, 11, *image)).astype(dtype)
    n = divisor or x[0, 0].size
    grad_y = rng.standard_normal((3, 11, 1, 1)).astype(dtype)
    spaced = np.full((3, 22, *image), np.nan, dtype)
    spaced[:, ::-2] = x
    close = {"rtol": 0, "atol": tolerance(dtype, x[0, 0].size, 4)}
    for view in x, spaced[:, ::-2], x[:, :, ::-1][:, :, ::-1], x[:, :, :, ::-1]:
        y = avg_pool2d(view, image, divisor_override=divisor)
        assert_allclose(y, view.sum((2, 3), float, keepdims=True) / n, **close)
    out = np.empty_like(spaced)[:, 1::2]
    for into in None, out:
        grad_x = avg_pool2d_grad(
            grad_y, x.shape, image, divisor_override=divisor, out=into
        )
        assert_allclose(grad_x, np.broadcast_to(grad_y / n, x.shape), 1e-6)


@every_shape
@every_layout
@every_dtype
def test_max_pool(rng, name, layout, dtype):
    shape, kernel, options = SHAPES[name]
    values = np.array([-np.inf, -2, 0, 0, 1, 1, np.inf, np.nan], dtype)
    x = rng.choice(values, shape)
    no_nan = to_layout(rng.choice(values[:-1], shape), layout)
    y, indices = reference.max_pool2d(x, kernel, **options, return_indices=True)
    given = {"kernel_size": kernel, **options, "layout": layout}
    results = max_pool2d(to_layout(x, layout), **given, return_indices=True)
    assert_array_equal(from_layout(results[0], layout), y)
    assert_array_equal(from_layout(results[1], layout), indices)
    alone = max_pool2d(to_layout(x, layout), **given, num_threads=2)
    assert_array_equal(alone, results[0])
    expected = reference.max_pool2d(no_nan, **given)
    assert_array_equal(max_pool2d(no_nan, **given), expected)
    gy = rng.integers(-9, 10, y.shape).astype(dtype)
    gx = max_pool2d_grad(
        to_layout(gy, layout),
        to_layout(indices, layout),
        shape_in(shape, layout),
        **given,
        num_threads=2,
    )
    expected = reference.max_pool2d_grad(gy, indices, shape, kernel, **options)
    assert_array_equal(from_layout(gx, layout), expected)


@every_shape
@every_layout
@every_dtype
@pytest.mark.parametrize("counted", [True, False])
def test_avg_pool(rng, name, layout, dtype, counted):
    shape, kernel, options = SHAPES[name]
    options = {**options, "count_include_pad": counted}
    given = {"kernel_size": kernel, **options, "layout": layout}
    x = rng.standard_normal(shape).astype(dtype)
    y = avg_pool2d(to_layout(x, layout), **given, num_threads=2)
    assert_array_equal(y, avg_pool2d(to_layout(x, layout), **given, num_threads=1))
    expected = reference.avg_pool2d(x.astype(float), kernel, **options)
    atol = tolerance(dtype, np.prod(kernel), 5)
    assert_allclose(from_layout(y, layout), expected, rtol=0, atol=atol)
    gy = rng.standard_normal(expected.shape).astype(dtype)
    grads = [
        avg_pool2d_grad(
            to_layout(gy, layout), shape_in(shape, layout), **given, num_threads=n
        )
        for n in (1, 2)
    ]
    assert_array_equal(*grads)
    expected = reference.avg_pool2d_grad(gy.astype(float), shape, kernel, **options)
    assert_allclose(from_layout(grads[0], layout), expected, rtol=0, atol=atol)


@every_dtype
@pytest.mark.parametrize("window", [2, (1, 3), (7, 5)])
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (1, 0, 3, 2)])
def test_views_and_gaps(rng, dtype, window, axes):
    # Operands whose elements lie apart, upside down and in other orders of axes; what
    # lies between the elements of `out` belongs to somebody else.
    def place(array):
        apart = np.full([2 * size + 3 for size in np.take(array.shape, axes)], 77.0)
        view = apart.astype(array.dtype)
        inner = view[2:-1:2, 2:-1:2, 2:-1:2, -2:1:-2].transpose(np.argsort(axes))
        inner[...] = array
        return view, inner

    def check(function, expected, *operands, **options):
        whole, out = place(np.zeros_like(expected))
        outside = whole == 77
        function(*operands, **options, out=out)
        assert_array_equal(out, expected)
        assert_array_equal(whole[outside], 77)

    x = rng.integers(-99, 100, (3, 5, 14, 20)).astype(dtype)
    y, indices = reference.max_pool2d(x, window, return_indices=True)
    gy = rng.integers(-9, 10, y.shape).astype(dtype)
    gx = reference.max_pool2d_grad(gy, indices, x.shape, window)
    images, grads, places = (place(array)[1] for array in (x, gy, indices))
    check(max_pool2d, y, images, window)
    assert_array_equal(max_pool2d(images, window, return_indices=True)[1], indices)
    check(max_pool2d_grad, gx, grads, places, x.shape, window)
    options = {"divisor_override": 1}
    sums = reference.avg_pool2d(x, window, **options)
    check(avg_pool2d, sums, images, window, **options)
    gx = reference.avg_pool2d_grad(gy, x.shape, window, **options)
    check(avg_pool2d_grad, gx, grads, x.shape, window, **options)


@every_dtype
@pytest.mark.parametrize("planes", [5, 21])
@pytest.mark.parametrize("gaps", [(0, 0), (3, 0), (0, 2), (1, 4)])
def test_small_planes_whose_rows_lie_apart(rng, dtype, planes, gaps):
    # Each of eight planes in turn, and those that are left; upside down.
    x = rng.integers(-9, 10, (2, planes, 11, 7)).astype(dtype)
    window = {"kernel_size": (4, 3), "stride": (2, 1), "padding": (1, 1)}
    y, indices = reference.max_pool2d(x, **window, return_indices=True)
    gy = rng.integers(-9, 10, y.shape).astype(dtype)
    views = []
    for array, gap in zip((gy, indices), gaps, strict=True):
        wide = np.full((*y.shape[:3], y.shape[3] + gap), 99, array.dtype)
        view = wide[:, ::-1, ::-1, gap // 2 : gap // 2 + y.shape[3]]
        view[...] = array
        views.append(view)
    for num_threads in 1, 3:
        gx = max_pool2d_grad(*views, x.shape, **window, num_threads=num_threads)
        assert_array_equal(
            gx, reference.max_pool2d_grad(gy, indices, x.shape, **window)
        )
    views[1][1, planes - 1, 2, 3] = 0
    with pytest.raises(ValueError, match="indices must lie in their windows"):
        max_pool2d_grad(*views, x.shape, **window)


@every_layout
@pytest.mark.parametrize("channels", [1, 3, 16, 37])
@pytest.mark.parametrize("kernel", [(2, 3), (7, 6)])
@pytest.mark.parametrize("wrong", ["before", "after", "left", "right", "far"])
def test_a_wrong_index_is_refused_anywhere(rng, layout, channels, kernel, wrong):
    # (7, 6) is a single window; its borders are those of the plane.
    shape = (2, channels, 7, 6)
    x = rng.standard_normal(shape).astype(np.float32)
    given = {"kernel_size": kernel, "stride": 1, "layout": layout}
    y, indices = max_pool2d(to_layout(x, layout), **given, return_indices=True)
    x_shape = shape_in(shape, layout)
    max_pool2d_grad(y, indices, x_shape, **given)
    planes = from_layout(indices, layout)
    oh, ow = rng.integers(planes.shape[2]), rng.integers(planes.shape[3])
    first = 6 * oh + ow
    planes[rng.integers(2), rng.integers(channels), oh, ow] = {
        "before": first - 6,
        "after": first + 6 * kernel[0],
        "left": first - 1,
        "right": first + kernel[1] if kernel[1] < 6 else -1,
        "far": first + 2**32,
    }[wrong]
    out = np.full(x_shape, 7, np.float32)
    with pytest.raises(ValueError, match="indices must lie in their windows"):
        max_pool2d_grad(y, indices, x_shape, **given, out=out)
    assert_array_equal(out, 7)


@every_dtype
@pytest.mark.parametrize("kernel", [3, 7])
def test_averages_of_ones_are_ones(dtype, kernel):
    x = np.ones((2, 3, 21, 42), dtype)
    assert_array_equal(
        avg_pool2d(x, kernel), np.ones((2, 3, 21 // kernel, 42 // kernel))
    )


@every_dtype
def test_windows_far_larger_than_the_image(rng, dtype):
    # All of a window but its last pixel is padding, from 2^31 pixels before the image.
    most = 2**31 - 1
    x = rng.standard_normal((2, 3, 5, 40)).astype(dtype)
    for axis in (2, 3):
        kernel, padding = [1, 1], [(0, 0), (0, 0)]
        kernel[axis - 2], padding[axis - 2] = most, (most - 1, 0)
        given = {"kernel_size": tuple(kernel), "padding": tuple(padding)}
        y, indices = max_pool2d(x, **given, return_indices=True)
        assert_array_equal(y, x.take([0], axis))
        expected = np.zeros_like(x)
        np.moveaxis(expected, axis, 0)[0] = 1
        gx = max_pool2d_grad(np.ones_like(y), indices, x.shape, **given)
        assert_array_equal(gx, expected)


@every_dtype
@every_layout
@pytest.mark.parametrize("shape", [(2, 3, 12, 51), (2, 33, 9, 7)])
def test_averages_are_quotients(rng, dtype, layout, shape):
    # Sums are exact, and what they are divided by is no power of two; infinities stay.
    x = rng.integers(-(2**16), 2**16, shape).astype(dtype)
    x[0, 0, 5, 5], x[1, 1, 3, 2], x[1, 1, 3, 3] = np.inf, -np.inf, np.inf
    x[0, 1], x[0, 2] = -0.0, np.finfo(dtype).max / 16
    x = to_layout(x, layout)
    sums = avg_pool2d(x, 3, 1, divisor_override=1, layout=layout)
    y = avg_pool2d(x, 3, 1, layout=layout)
    assert_array_equal(y, sums / dtype(9))
    assert_array_equal(np.signbit(y), np.signbit(sums))
    assert np.isinf(y).any()
    assert np.isnan(y).any()


@every_dtype
@pytest.mark.parametrize("image", [(1, 1), (3, 5), (7, 7), (4, 8), (16, 17)])
def test_maxima_of_whole_planes(rng, dtype, image):
    x = rng.standard_normal((2, 19, *image)).astype(dtype)
    x[1, 2] = -np.inf
    assert_array_equal(max_pool2d(x, image), x.max((2, 3), keepdims=True))
    view = np.full((2, 38, *image), np.nan, dtype)[:, ::-2]
    view[...] = x
    assert_array_equal(max_pool2d(view, image), x.max((2, 3), keepdims=True))
    for place in range(x[0, 0].size):
        x.reshape(2, 19, -1)[0, place % 19, place] = np.nan
    assert_array_equal(max_pool2d(x, image), x.max((2, 3), keepdims=True))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("window", [(2, 2), (4, 6), (3, 2)])
def test_some_channels_of_more(rng, channels, window):
    # Planes follow each other in the whole array, but not in its slice.
    whole = rng.standard_normal((3, 5, 4, 6))
    part = whole[:, :channels]
    y, indices = max_pool2d(part, window, return_indices=True)
    for actual, expected in (
        (y, reference.max_pool2d(part, window)),
        (avg_pool2d(part, window), reference.avg_pool2d(part, window)),
    ):
        assert_allclose(actual, expected, rtol=0, atol=tolerance(float, 24, 4))
    spaced = np.zeros((3, 5, *y.shape[2:]))[:, :channels]
    spaced[...] = rng.standard_normal(y.shape)
    for grad_x, expected in (
        (
            max_pool2d_grad(spaced, indices, part.shape, window),
            reference.max_pool2d_grad(spaced, indices, part.shape, window),
        ),
        (
            avg_pool2d_grad(
                spaced, part.shape, window, out=np.empty_like(whole)[:, :channels]
            ),
            reference.avg_pool2d_grad(spaced, part.shape, window),
        ),
    ):
        assert_allclose(grad_x, expected, rtol=0, atol=tolerance(float, 4, 4))


@pytest.mark.parametrize("dilation", [(1, 2), (2, 1), 2])
def test_dilated_windows_with_as_many_taps_as_pixels(dilation, isa, rng):
    # In ceil mode they may reach beyond the plane, and skip pixels of it.
    x = rng.standard_normal((2, 3, 2, 3)).astype(np.float32)
    options = {"stride": (2, 3), "ceil_mode": True, "dilation": dilation}
    expected = reference.max_pool2d(x, (2, 3), **options)
    assert_array_equal(max_pool2d(x, (2, 3), **options), expected)
