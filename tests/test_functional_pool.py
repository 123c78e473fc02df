# SPDX-License-Identifier: MIT
"""Pooling and its gradients against the reference, on every instruction set."""

import numpy as np
import pytest
from cases import DTYPES, LAYOUTS, POOL, from_layout, shape_in, to_layout
from numpy.testing import assert_allclose, assert_array_equal
from tolerance import tolerance

from convnet import reference
from convnet.functional import (
    avg_pool2d,
    avg_pool2d_grad,
    global_avg_pool2d,
    max_pool2d,
    max_pool2d_grad,
)

pytestmark = pytest.mark.usefixtures("isa")
every_case = pytest.mark.parametrize("case", POOL)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
DIVISORS = (
    {},
    {"count_include_pad": False},
    {"divisor_override": 7},
    {"divisor_override": 3, "count_include_pad": False},
)


def few_values(rng, shape, dtype):
    """Return random numbers with many ties, infinities and NaN."""
    values = np.array([-np.inf, -2, 0, 0, 1, 1, np.inf, np.nan], dtype)
    return rng.choice(values, shape)


@every_case
@every_layout
@every_dtype
@pytest.mark.parametrize("values", ["normal", "few"])
def test_max_pool_is_the_reference(rng, case, layout, dtype, values):
    shape, kernel, options = POOL[case]
    if values == "few":
        x = few_values(rng, shape, dtype)
    else:
        x = rng.standard_normal(shape).astype(dtype)
    expected = reference.max_pool2d(x, kernel, **options, return_indices=True)
    images = to_layout(x, layout)
    results = max_pool2d(images, kernel, **options, return_indices=True, layout=layout)
    assert [array.dtype for array in results] == [dtype, np.int64]
    for actual, wanted in zip(results, expected, strict=True):
        assert actual.flags.c_contiguous
        assert_array_equal(from_layout(actual, layout), wanted)
    without_indices = max_pool2d(images, kernel, **options, layout=layout)
    assert_array_equal(without_indices, results[0])


@every_layout
@every_dtype
def test_dilated_max_pool_is_the_reference(rng, layout, dtype):
    x = few_values(rng, (2, 3, 13, 11), dtype)
    options = {
        "stride": (1, 2),
        "padding": ((4, 1), (0, 3)),
        "dilation": (2, 3),
        "ceil_mode": True,
        "return_indices": True,
    }
    expected = reference.max_pool2d(x, (3, 2), **options)
    results = max_pool2d(to_layout(x, layout), (3, 2), **options, layout=layout)
    for actual, wanted in zip(results, expected, strict=True):
        assert_array_equal(from_layout(actual, layout), wanted)
    gy = rng.standard_normal(expected[0].shape).astype(dtype)
    del options["return_indices"]
    gx = max_pool2d_grad(
        to_layout(gy, layout),
        results[1],
        shape_in(x.shape, layout),
        (3, 2),
        **options,
        layout=layout,
    )
    wanted = reference.max_pool2d_grad(gy, expected[1], x.shape, (3, 2), **options)
    atol = tolerance(dtype, 6, 6)
    assert_allclose(from_layout(gx, layout), wanted, rtol=0, atol=atol)


@every_case
@every_layout
@every_dtype
def test_max_pool_grad_is_the_reference(rng, case, layout, dtype):
    shape, kernel, options = POOL[case]
    # Small integers: ties for the windows, and exact sums for the gradient.
    x = rng.integers(-2, 3, shape).astype(dtype)
    y, indices = reference.max_pool2d(x, kernel, **options, return_indices=True)
    gy = rng.integers(-9, 10, y.shape).astype(dtype)
    gx = max_pool2d_grad(
        to_layout(gy, layout),
        to_layout(indices, layout),
        shape_in(shape, layout),
        kernel,
        **options,
        layout=layout,
    )
    assert gx.dtype == dtype
    expected = reference.max_pool2d_grad(gy, indices, shape, kernel, **options)
    assert_array_equal(from_layout(gx, layout), expected)


@pytest.mark.parametrize("index", [-1, 1, 4, 7, 16, 35, 2**40, -(2**63)])
def test_max_pool_grad_refuses_an_index_outside_its_window(index):
    gy, out = np.ones((1, 1, 2, 3)), np.full((1, 1, 5, 7), 7.0)
    indices = np.array([[[[0, 3, 4], [14, 17, 18]]]])
    max_pool2d_grad(gy, indices, (1, 1, 5, 7), 2)
    indices[0, 0, 0, 1] = index
    with pytest.raises(ValueError, match="indices must lie in their windows"):
        max_pool2d_grad(gy, indices, (1, 1, 5, 7), 2, out=out)
    assert_array_equal(out, 7)


@every_dtype
@pytest.mark.parametrize("stray", [-4, -1, -7, 60, 62, 2**33 + 1, -(2**40)])
def test_max_pool_grad_refuses_an_index_in_the_padding(dtype, stray, isa, rng):
    # Rows and columns of the first windows, and of the last, lie beyond the image.
    x = rng.standard_normal((2, 3, 12, 5)).astype(dtype)
    windows = (2, 4), (4, 1), ((1, 1), (1, 2))
    y, indices = max_pool2d(x, *windows, return_indices=True)
    max_pool2d_grad(y, indices, x.shape, *windows)
    for place in (1, 2, 0, 0), (0, 0, -1, -1):
        wrong = indices.copy()
        wrong[place] = stray
        with pytest.raises(ValueError, match="indices must lie in their windows"):
            max_pool2d_grad(y, wrong, x.shape, *windows)


def test_max_pool_grad_refuses_an_index_between_dilated_taps():
    gy, indices = np.ones((1, 1, 1, 1)), np.array([[[[1]]]])
    with pytest.raises(ValueError, match="indices must lie in their windows"):
        max_pool2d_grad(gy, indices, (1, 1, 1, 3), (1, 2), dilation=2)


@every_case
@every_layout
@every_dtype
@pytest.mark.parametrize("divisor", DIVISORS)
def test_avg_pool_is_the_reference(rng, case, layout, dtype, divisor):
    shape, kernel, options = POOL[case]
    x = rng.standard_normal(shape).astype(dtype)
    options = {**options, **divisor}
    y = avg_pool2d(to_layout(x, layout), kernel, **options, layout=layout)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    expected = reference.avg_pool2d(x.astype(float), kernel, **options)
    atol = tolerance(dtype, np.prod(kernel), 5)
    assert_allclose(from_layout(y, layout), expected, rtol=0, atol=atol)


@every_case
@every_layout
@every_dtype
@pytest.mark.parametrize("divisor", DIVISORS)
def test_avg_pool_grad_is_the_reference(rng, case, layout, dtype, divisor):
    shape, kernel, options = POOL[case]
    options = {**options, **divisor}
    y_shape = reference.avg_pool2d(np.zeros(shape), kernel, **options).shape
    gy = rng.standard_normal(y_shape).astype(dtype)
    gx = avg_pool2d_grad(
        to_layout(gy, layout),
        shape_in(shape, layout),
        kernel,
        **options,
        layout=layout,
    )
    assert gx.dtype == dtype
    expected = reference.avg_pool2d_grad(gy.astype(float), shape, kernel, **options)
    atol = tolerance(dtype, np.prod(kernel), 5)
    assert_allclose(from_layout(gx, layout), expected, rtol=0, atol=atol)


@every_case
def test_avg_pool_gradient_is_the_adjoint(rng, case):
    shape, kernel, options = POOL[case]
    x = rng.standard_normal(shape)
    y = avg_pool2d(x, kernel, **options)
    gy = rng.standard_normal(y.shape)
    gx = avg_pool2d_grad(gy, shape, kernel, **options)
    atol = tolerance(float, x.size, x.size**0.5)
    assert_allclose(np.vdot(gy, y), np.vdot(gx, x), rtol=0, atol=atol)


@every_layout
@every_dtype
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("value", [np.nan, -1, -np.inf, 7])
def test_max_pool_in_every_lane(layout, dtype, stride, value):
    # Image n has its one odd pixel in column n; two rows make ties, and zeros that
    # stood for padding would win.
    x = np.full((71, 1, 2, 71), -1, dtype)
    x[range(71), :, 1, range(71)] = value
    x[range(3, 71), :, 0, range(68)] = value
    if layout == "NHWC":  # the odd pixels of one image in channels
        x = np.moveaxis(x, 0, 1)
    options = {"kernel_size": (2, 3), "stride": stride, "padding": 1}
    expected = reference.max_pool2d(x, **options, return_indices=True)
    results = max_pool2d(
        to_layout(x, layout), **options, layout=layout, return_indices=True
    )
    for actual, wanted in zip(results, expected, strict=True):
        assert_array_equal(from_layout(actual, layout), wanted)
    y = max_pool2d(to_layout(x, layout), **options, layout=layout)
    assert_array_equal(y, results[0])


@every_layout
@every_dtype
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_runs_of_every_length(rng, layout, dtype, stride):
    # Runs of every length from less than one vector to several.
    for size in range(2, 41):
        shape = (1, size, 2, 3) if layout == "NHWC" else (1, 2, 3, stride * size)
        x = rng.integers(-99, 100, shape).astype(dtype)
        options = {"kernel_size": 2, "stride": stride, "padding": (0, 1)}
        y = avg_pool2d(to_layout(x, layout), **options, layout=layout)
        expected = reference.avg_pool2d(x, **options)
        assert_array_equal(from_layout(y, layout), expected)
        y = max_pool2d(to_layout(x, layout), **options, layout=layout)
        expected = reference.max_pool2d(x, **options)
        assert_array_equal(from_layout(y, layout), expected)


@every_layout
@every_dtype
@pytest.mark.parametrize("shape", [(1, 2, 611, 323), (61, 67, 7, 5)])
def test_large_and_many_planes_are_the_reference(rng, layout, dtype, shape):
    # A task has a part of a large plane, or many small ones; windows overlap its edges.
    x = few_values(rng, shape, dtype)
    options = {"kernel_size": (4, 3), "stride": (1, 2), "padding": ((2, 3), (1, 0))}
    y, indices = reference.max_pool2d(x, **options, return_indices=True)
    gy = rng.integers(-9, 10, y.shape).astype(dtype)
    given = {**options, "layout": layout, "num_threads": 2}
    results = max_pool2d(to_layout(x, layout), **given, return_indices=True)
    assert_array_equal(from_layout(results[0], layout), y)
    assert_array_equal(from_layout(results[1], layout), indices)
    given["x_shape"] = shape_in(shape, layout)
    gx = max_pool2d_grad(to_layout(gy, layout), results[1], **given)
    expected = reference.max_pool2d_grad(gy, indices, shape, **options)
    assert_array_equal(from_layout(gx, layout), expected)
    gx = avg_pool2d_grad(to_layout(gy, layout), divisor_override=4, **given)
    expected = reference.avg_pool2d_grad(gy, shape, divisor_override=4, **options)
    assert_array_equal(from_layout(gx, layout), expected)
    x = rng.integers(-9, 10, shape).astype(dtype)
    del given["x_shape"]
    y = avg_pool2d(to_layout(x, layout), divisor_override=4, **given)
    expected = reference.avg_pool2d(x, divisor_override=4, **options)
    assert_array_equal(from_layout(y, layout), expected)


@every_layout
@every_dtype
def test_global_avg_pool_is_the_mean(rng, layout, dtype):
    x = rng.standard_normal((3, 5, 11, 7)).astype(dtype)
    y = global_avg_pool2d(to_layout(x, layout), layout=layout)
    assert y.dtype == dtype
    assert y.shape == shape_in((3, 5, 1, 1), layout)
    expected = x.mean(axis=(2, 3), keepdims=True, dtype=float)
    atol = tolerance(dtype, 77, 1)
    assert_allclose(from_layout(y, layout), expected, rtol=0, atol=atol)
    one = global_avg_pool2d(to_layout(x[1], layout), layout=layout)
    assert_array_equal(one, y[1])


@every_layout
@pytest.mark.parametrize("shape", [(1, 300, 301), (19, 150, 301)])
def test_averages_of_large_windows_are_sums_in_double(layout, shape):
    # Up to 90300 times 24 bits: exact in double, and wrong by 1e-4 in float.
    x = to_layout(np.full(shape, 0.1, np.float32), layout)
    assert_array_equal(global_avg_pool2d(x, layout=layout), np.float32(0.1))
    y = avg_pool2d(x, (120, 101), (10, 100), layout=layout)
    assert_array_equal(y, np.float32(0.1))


@every_layout
def test_one_image_is_a_batch_of_one(rng, layout):
    x = to_layout(rng.standard_normal((2, 3, 7, 5)), layout)
    options = {"layout": layout, "padding": (1, 0)}
    y, indices = max_pool2d(x, (3, 2), **options, return_indices=True)
    one, index = max_pool2d(x[1], (3, 2), **options, return_indices=True)
    assert_array_equal(one, y[1])
    assert_array_equal(index, indices[1])
    gx = max_pool2d_grad(y, indices, x.shape, (3, 2), **options)
    one_gx = max_pool2d_grad(one, index, x[1].shape, (3, 2), **options)
    assert_array_equal(one_gx, gx[1])
    assert_array_equal(
        avg_pool2d(x[1], (3, 2), **options), avg_pool2d(x, (3, 2), **options)[1]
    )
    assert_array_equal(
        avg_pool2d_grad(one, x[1].shape, (3, 2), **options),
        avg_pool2d_grad(y, x.shape, (3, 2), **options)[1],
    )


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool, ">f8"])
def test_dtypes_promote_to_float32_or_float64(rng, pool, dtype):
    x = rng.integers(0, 2, (2, 3, 7, 5)).astype(dtype)
    y = pool(x, (3, 2))
    assert y.dtype == np.result_type(np.float32, dtype)
    assert_allclose(y, getattr(reference, pool.__name__)(x, (3, 2)), rtol=1e-6)


@every_dtype
def test_denormals_are_kept(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([[[4 * tiny, 12 * tiny, -8 * tiny, 0]]], dtype)
    assert_array_equal(max_pool2d(x, (1, 2)), [[[12 * tiny, 0]]])
    assert_array_equal(avg_pool2d(x, (1, 2)), [[[8 * tiny, -4 * tiny]]])
