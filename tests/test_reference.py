# SPDX-License-Identifier: MIT
"""The reference against SciPy, worked examples, plain loops and finite differences."""

import itertools

import numpy as np
import pytest
from cases import CONV, LAYOUTS, POOL, from_layout, shape_in, to_layout
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal
from tolerance import tolerance

from convnet import reference
from convnet._geometry import pool_window

SMALL = [name for name in CONV if not name.startswith("many")]
IMAGE = np.array([[1.0, 6, 2], [5, 3, 1], [7, 0, 4]])
KERNEL = np.array([[1.0, 2], [-1, 0]])


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("valid", [[8, 7], [4, 5]]),
        (
            "full",
            [[0, -1, -6, -2], [2, 8, 7, 1], [10, 4, 5, -3], [14, 7, 8, 4]],
        ),
        # The extra row and column are at the end, or at the start.
        ("same", [[8, 7, 1], [4, 5, -3], [7, 8, 4]]),
        ("same_lower", [[0, -1, -6], [2, 8, 7], [10, 4, 5]]),
    ],
)
def test_conv2d_worked_example(padding, expected):
    y = reference.conv2d(IMAGE[None], KERNEL[None, None], padding=padding)
    assert_array_equal(y, [expected])


def test_gradients_worked_example():
    # y = 1*a + 10*b for neighbours a, b of a row; the loss weighs y by (1, 100).
    x, w = np.array([[[3.0, 5, 7]]]), np.array([[[[1.0, 10]]]])
    gy = np.array([[[1.0, 100]]])
    assert_array_equal(reference.conv2d(x, w), [[[53, 75]]])
    assert_array_equal(
        reference.conv2d_grad_input(gy, w, x.shape), [[[1, 10 + 100, 1000]]]
    )
    assert_array_equal(
        reference.conv2d_grad_weight(gy, x, w.shape), [[[[3 + 500, 5 + 700]]]]
    )
    assert_array_equal(reference.conv2d_grad_bias(gy), [101])
    assert_array_equal(reference.conv2d_grad_bias(gy, untied=True), gy)


@pytest.mark.parametrize("mode", ["valid", "full"])
@pytest.mark.parametrize("groups", [1, 2])
def test_conv2d_sums_scipy_over_channels(rng, mode, groups):
    x, w = (
        rng.standard_normal((2, 4, 11, 7)),
        rng.standard_normal((6, 4 // groups, 3, 5)),
    )
    y = reference.conv2d(x, w, padding=mode, groups=groups)
    for n, oc in itertools.product(range(2), range(6)):
        first = oc // (6 // groups) * (4 // groups)
        expected = sum(
            signal.correlate2d(x[n, first + ic], w[oc, ic], mode)
            for ic in range(4 // groups)
        )
        assert_allclose(y[n, oc], expected, atol=tolerance(float, 60, 8))


@pytest.mark.parametrize("case", SMALL)
def test_conv2d_is_its_formula(rng, case):
    x_shape, w_shape, options = CONV[case]
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    y = reference.conv2d(x, w, **options)
    for n, oc in ((0, 0), (len(x) - 1, len(w) - 1)):
        expected = plain_conv2d(x[n], w[oc], oc, len(w), y.shape[2:], **options)
        assert_allclose(y[n, oc], expected, atol=tolerance(float, w[0].size, 20))


def plain_conv2d(x, w, oc, OC, output, stride=1, padding=0, dilation=1, groups=1):
    """Compute one channel of one image by plain loops over the formula."""
    (IC, IH, IW), (_, KH, KW) = x.shape, w.shape
    (SH, SW), (DH, DW) = np.broadcast_to(stride, 2), np.broadcast_to(dilation, 2)
    total_h = (output[0] - 1) * SH + DH * (KH - 1) + 1 - IH
    total_w = (output[1] - 1) * SW + DW * (KW - 1) + 1 - IW
    PT, PL = {
        "valid": (0, 0),
        "same": (max(0, total_h) // 2, max(0, total_w) // 2),
        "same_lower": (-(-max(0, total_h) // 2), -(-max(0, total_w) // 2)),
        "full": (DH * (KH - 1), DW * (KW - 1)),
    }.get(padding) or np.broadcast_to(np.array(padding).T, (2, 2))[0]
    first = oc // (OC // groups) * (IC // groups)
    y = np.zeros(output)
    for oh, ow, ic, kh, kw in np.ndindex(*output, *w.shape):
        ih, iw = oh * SH + kh * DH - PT, ow * SW + kw * DW - PL
        if 0 <= ih < IH and 0 <= iw < IW:
            y[oh, ow] += w[ic, kh, kw] * x[first + ic, ih, iw]
    return y


@pytest.mark.parametrize("case", SMALL)
def test_gradients_are_adjoints(rng, case):
    # The result is linear in x and in w: this is the whole definition of a gradient.
    x_shape, w_shape, options = CONV[case]
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    y = reference.conv2d(x, w, **options)
    gy = rng.standard_normal(y.shape)
    gx = reference.conv2d_grad_input(gy, w, x_shape, **options)
    gw = reference.conv2d_grad_weight(gy, x, w_shape, **options)
    assert (gx.shape, gw.shape) == (x_shape, w_shape)
    terms = y.size * w[0].size
    atol = tolerance(float, terms, terms**0.5)
    assert_allclose([np.vdot(gx, x), np.vdot(gw, w)], np.vdot(gy, y), atol=atol)


@pytest.mark.parametrize("case", POOL)
@pytest.mark.parametrize("divisor", [{}, {"count_include_pad": False}])
def test_pooling_is_its_formula(rng, case, divisor):
    shape, kernel, options = POOL[case]
    x = rng.integers(-3, 4, shape).astype(float)
    y, indices = reference.max_pool2d(x, kernel, **options, return_indices=True)
    means = reference.avg_pool2d(x, kernel, **options, **divisor)
    N, C, _, IW = shape
    for oh, ow, rows, columns, count in plain_windows(shape, kernel, y.shape, options):
        if divisor:
            count = len(rows) * len(columns)
        window = x[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        flat = window.reshape(N, C, -1)
        assert_array_equal(y[:, :, oh, ow], flat.max(axis=2))
        ih, iw = np.divmod(flat.argmax(axis=2), len(columns))
        assert_array_equal(indices[:, :, oh, ow], (ih + rows[0]) * IW + iw + columns[0])
        assert_allclose(means[:, :, oh, ow], flat.sum(axis=2) / count, atol=1e-14)


def plain_windows(shape, kernel, y_shape, options):
    """Yield the pixels of each window in the image, and how many with padding."""
    arguments = {"stride": None, "padding": 0, "ceil_mode": False, **options}
    window = pool_window(shape[2:], kernel, **arguments)
    assert window.output == y_shape[2:]
    (KH, KW), (SH, SW), (PT, PL, PB, PR) = window[:3]
    IH, IW = shape[2:]
    for oh, ow in np.ndindex(*window.output):
        top, left = oh * SH - PT, ow * SW - PL
        rows = [ih for ih in range(top, top + KH) if 0 <= ih < IH]
        columns = [iw for iw in range(left, left + KW) if 0 <= iw < IW]
        height = min(top + KH, IH + PB) - top
        width = min(left + KW, IW + PR) - left
        yield oh, ow, rows, columns, height * width


@pytest.mark.parametrize("case", POOL)
def test_pooling_gradients_are_finite_differences(rng, case):
    shape, kernel, options = POOL[case]
    # Pixels a whole step apart: no difference of 1/4 makes another one the maximum.
    x = rng.permutation(np.prod(shape)).reshape(shape).astype(float)
    y, indices = reference.max_pool2d(x, kernel, **options, return_indices=True)
    gy = rng.standard_normal(y.shape)
    gradients = (
        (
            reference.max_pool2d,
            reference.max_pool2d_grad(gy, indices, shape, kernel, **options),
        ),
        (
            reference.avg_pool2d,
            reference.avg_pool2d_grad(gy, shape, kernel, **options),
        ),
    )
    for pool, gradient in gradients:
        for position in rng.choice(x.size, 17):
            step = np.zeros(x.size)
            step[position] = 0.25
            step = step.reshape(shape)
            difference = pool(x + step, kernel, **options) - pool(
                x - step, kernel, **options
            )
            atol = tolerance(float, x.size, 10)
            slope = 2 * np.vdot(gy, difference)
            assert_allclose(gradient.flat[position], slope, rtol=0, atol=atol)


def test_max_pool_worked_example():
    x = np.array([[[1.0, 3, 2, 4], [5, 6, 1, 2], [7, 2, 8, 0], [1, 4, 3, 9]]])
    y, indices = reference.max_pool2d(x, 2, return_indices=True)
    assert_array_equal(y, [[[6, 4], [7, 9]]])
    assert_array_equal(indices, [[[5, 3], [8, 15]]])


def test_max_pool_ties_nan_and_infinity():
    nan, inf = np.nan, np.inf
    x = np.array([[[2, 2, nan, 7, -inf, -inf], [1, 2, nan, inf, -inf, -inf]]])
    y, indices = reference.max_pool2d(x, (2, 3), 1, return_indices=True)
    assert_array_equal(y, [[[nan, nan, nan, inf]]])
    assert_array_equal(indices, [[[8, 8, 8, 9]]])
    y, indices = reference.max_pool2d(x, 2, 2, return_indices=True)
    assert_array_equal(y, [[[2, nan, -inf]]])
    assert_array_equal(indices, [[[0, 8, 4]]])


def test_max_pool_padding_never_wins():
    x = np.full((1, 3, 2), -5.0)
    y, indices = reference.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert_array_equal(y, [[[-5], [-5]]])
    assert_array_equal(indices, [[[0], [2]]])


def test_avg_pool_divisors():
    # One row of 4 pixels, padded by 1, in windows of 3 and steps of 3: the last window
    # has pixels 2, 3 and the padding; with steps of 4, in ceil mode, it hangs over.
    x = np.array([[[4.0, 8, 6, 2]]])
    options = {"kernel_size": (1, 3), "padding": (0, 1)}

    def means(**more):
        return reference.avg_pool2d(x, **options, **more)[0, 0].tolist()

    assert means(stride=3) == [4, 8 / 3]
    assert means(stride=3, count_include_pad=False) == [6, 4]
    assert means(stride=3, divisor_override=2) == [6, 4]
    assert means(stride=4, ceil_mode=True) == [4, 1]
    assert means(stride=4, ceil_mode=True, count_include_pad=False) == [6, 2]


def test_global_avg_pool_is_the_mean(rng):
    x = rng.standard_normal((2, 3, 5, 7))
    y = reference.global_avg_pool2d(x)
    assert_allclose(y, x.mean(axis=(2, 3), keepdims=True), atol=1e-14)


def test_global_avg_pool_sums_in_double():
    # 90300 times 24 bits: exact in double, and wrong by 1e-4 in float.
    x = np.full((1, 300, 301), 0.1, np.float32)
    assert_array_equal(reference.global_avg_pool2d(x), x[:, :1, :1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_single_images_are_views_of_the_same(rng, layout):
    x_shape, w_shape, options = CONV["everything"]
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    y = reference.conv2d(x, w, **options)
    b = rng.standard_normal(y.shape[1:])
    options = {**options, "layout": layout}
    result = reference.conv2d(to_layout(x, layout), w, to_layout(b, layout), **options)
    assert_array_equal(from_layout(result, layout), y + b)
    one = reference.conv2d(to_layout(x[1], layout), w, **options)
    assert_array_equal(from_layout(one, layout), y[1])
    gx = reference.conv2d_grad_input(
        to_layout(y[1], layout), w, shape_in(x_shape[1:], layout), **options
    )
    assert gx.shape == shape_in(x_shape[1:], layout)


@pytest.mark.parametrize("dtype", [np.float16, complex, object, "longdouble"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match="cannot compute"):
        reference.conv2d(np.ones((1, 3, 2)), np.ones((1, 1, 2, 1), dtype))


@pytest.mark.parametrize(("groups", "error"), [(1, ValueError), (True, TypeError)])
def test_groups_that_do_not_fit_are_refused(groups, error):
    # One channel would broadcast over three without an error from NumPy.
    x, w = np.ones((2, 3, 7, 5)), np.ones((4, 1, 2, 3))
    with pytest.raises(error, match="groups"):
        reference.conv2d(x, w, groups=groups)
    with pytest.raises(error, match="groups"):
        reference.conv2d_grad_input(np.ones((2, 4, 6, 3)), w, x.shape, groups=groups)


def test_out_takes_the_result(rng):
    x, w = rng.standard_normal((2, 3, 7, 5)), rng.standard_normal((4, 3, 2, 3))
    y = reference.conv2d(x, w)
    out = np.full_like(y, np.nan)
    assert reference.conv2d(x, w, out=out) is out
    assert_array_equal(out, y)
