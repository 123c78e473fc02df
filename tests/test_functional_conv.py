# SPDX-License-Identifier: MIT
"""Convolution and its gradients against the reference, on every instruction set."""

import inspect
import math

import numpy as np
import pytest
from cases import CONV, DTYPES, LAYOUTS, from_layout, shape_in, to_layout
from numpy.testing import assert_allclose, assert_array_equal
from tolerance import tolerance

from convnet import functional, reference
from convnet.functional import (
    conv2d,
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
)

pytestmark = pytest.mark.usefixtures("isa")
every_case = pytest.mark.parametrize("case", CONV)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def problem(rng, case, dtype):
    """Return x, weight, grad_y in NCHW and the options of a named case."""
    x_shape, w_shape, options = CONV[case]
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape))
    y_shape = reference.conv2d(x, w, **options).shape
    return x, w, rng.standard_normal(y_shape).astype(dtype), options


def assert_close(actual, expected, terms):
    """Compare sums of products of standard normal numbers."""
    atol = tolerance(actual.dtype, terms, math.sqrt(terms))
    assert_allclose(actual, expected, rtol=0, atol=atol)


def doubles(*arrays):
    return [array.astype(np.float64) for array in arrays]


@every_case
@every_layout
@every_dtype
def test_conv2d_is_the_reference(rng, case, layout, dtype):
    x, w, _, options = problem(rng, case, dtype)
    b = rng.standard_normal(len(w)).astype(dtype)
    y = conv2d(to_layout(x, layout), w, b, **options, layout=layout)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    expected = reference.conv2d(*doubles(x, w, b), **options)
    assert_close(from_layout(y, layout), expected, w[0].size + 1)


@every_case
@every_layout
@every_dtype
def test_grad_input_is_the_reference(rng, case, layout, dtype):
    x, w, gy, options = problem(rng, case, dtype)
    gx = conv2d_grad_input(
        to_layout(gy, layout), w, shape_in(x.shape, layout), **options, layout=layout
    )
    assert gx.dtype == dtype
    expected = reference.conv2d_grad_input(*doubles(gy, w), x.shape, **options)
    terms = w[:, 0].size // options.get("groups", 1)
    assert_close(from_layout(gx, layout), expected, terms)


@every_case
@every_layout
@every_dtype
def test_grad_weight_is_the_reference(rng, case, layout, dtype):
    x, w, gy, options = problem(rng, case, dtype)
    gw = conv2d_grad_weight(
        to_layout(gy, layout), to_layout(x, layout), w.shape, **options, layout=layout
    )
    assert gw.dtype == dtype
    expected = reference.conv2d_grad_weight(*doubles(gy, x), w.shape, **options)
    assert_close(gw, expected, gy[:, 0].size)


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("shape", [(7, 3, 11, 13), (3, 17, 61, 67)])
@every_layout
@every_dtype
def test_grad_bias_is_the_reference(rng, untied, shape, layout, dtype):
    gy = rng.standard_normal(shape).astype(dtype)
    gb = conv2d_grad_bias(to_layout(gy, layout), untied=untied, layout=layout)
    assert gb.dtype == dtype
    assert gb.flags.c_contiguous
    expected = reference.conv2d_grad_bias(*doubles(gy), untied=untied)
    if untied:
        gb = from_layout(gb, layout)
    assert_close(gb, expected, gy.size // gb.size)


@every_case
def test_gradients_are_adjoints(rng, case):
    # <conv(x, w), gy> = <x, grad_input(gy, w)> = <w, grad_weight(gy, x)>.
    x, w, gy, options = problem(rng, case, np.float64)
    product = np.vdot(conv2d(x, w, **options), gy)
    gx = conv2d_grad_input(gy, w, x.shape, **options)
    gw = conv2d_grad_weight(gy, x, w.shape, **options)
    terms = gy.size * w[0].size
    assert_close(np.vdot(x, gx), product, terms)
    assert_close(np.vdot(w, gw), product, terms)


@every_layout
@every_dtype
def test_untied_bias_is_added_per_position(rng, layout, dtype):
    x, w, b = (
        rng.standard_normal(shape).astype(dtype)
        for shape in ((2, 3, 11, 7), (5, 3, 3, 2), (5, 6, 8))
    )
    y = conv2d(to_layout(x, layout), w, to_layout(b, layout), (2, 1), 1, layout=layout)
    with_zeros = conv2d(to_layout(x, layout), w, None, (2, 1), 1, layout=layout)
    expected = from_layout(with_zeros, layout) + b
    assert_close(from_layout(y, layout), expected, 3 * 3 * 2 + 1)


@every_layout
def test_one_image_is_a_batch_of_one(rng, layout):
    x, w, gy, options = problem(rng, "everything", np.float32)
    x, gy = to_layout(x, layout), to_layout(gy, layout)
    options = {**options, "layout": layout}
    for one, batch in (
        (conv2d(x[1], w, **options), conv2d(x[1:2], w, **options)),
        (
            conv2d_grad_input(gy[1], w, x.shape[1:], **options),
            conv2d_grad_input(gy[1:2], w, x[1:2].shape, **options),
        ),
        (
            conv2d_grad_weight(gy[1], x[1], w.shape, **options),
            conv2d_grad_weight(gy[1:2], x[1:2], w.shape, **options)[None],
        ),
        (
            conv2d_grad_bias(gy[1], layout=layout),
            conv2d_grad_bias(gy[1:2], layout=layout)[None],
        ),
        (conv2d_grad_bias(gy[1], untied=True, layout=layout), gy[1:2]),
    ):
        assert_array_equal(one, batch[0])


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "y_dtype"),
    [
        (np.uint8, np.float32, np.float32),
        (np.float32, np.float64, np.float64),
        (np.float32, np.int16, np.float32),
        (np.int32, np.float32, np.float64),
        (np.int64, np.int64, np.float64),
        (np.int8, np.uint16, np.float32),
        (bool, bool, np.float32),
        (">f4", "<f4", np.float32),
    ],
)
def test_dtypes_promote_to_float32_or_float64(rng, x_dtype, w_dtype, y_dtype):
    x = rng.integers(0, 2, (2, 3, 7, 5)).astype(x_dtype)
    w = rng.integers(0, 2, (4, 3, 2, 3)).astype(w_dtype)
    y = conv2d(x, w)
    assert y.dtype == y_dtype
    assert y.dtype.isnative
    assert_array_equal(y, reference.conv2d(x, w))


def test_lists_are_arrays():
    y = conv2d([[[1, 2, 4], [8, 16, 32]]], [[[[1], [1]]]], [0.5])
    assert_array_equal(y, [[[9.5, 18.5, 36.5]]])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_not_finite_values_follow_ieee(rng, value):
    # Padding is zeros: an infinite weight makes NaN of them, as in SciPy.
    x, w, _, options = problem(rng, "padding", np.float32)
    x[0, 1, 3, 2] = w[2, 0, 1, 4] = value
    assert_allclose(
        conv2d(x, w, **options), reference.conv2d(x, w, **options), rtol=1e-4, atol=1e-4
    )


def test_weight_gradients_of_images_add_up(rng):
    # Enough work for several rounds of blocks, which do not divide them evenly.
    x = rng.standard_normal((3, 128, 56, 56), np.float32)
    gy = rng.standard_normal((3, 128, 28, 28), np.float32)
    options = {"weight_shape": (128, 128, 7, 7), "stride": 2, "padding": 3}
    parts = [
        conv2d_grad_weight(gy[n : n + 1], x[n : n + 1], **options) for n in range(3)
    ]
    assert_close(conv2d_grad_weight(gy, x, **options), sum(parts), 3 * 28 * 28)


def test_the_widest_of_steps():
    x, w = np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 2, 2), np.float32)
    far = {"stride": 2**30, "padding": 2**30, "dilation": 2**30}
    y = conv2d(x, w, **far)
    assert_array_equal(y, np.ones((1, 1, 2, 2)))
    gx = conv2d_grad_input(y, w, x.shape, **far)
    assert_array_equal(gx, [[[[4]]]])
    assert_array_equal(conv2d_grad_weight(y, x, w.shape, **far), np.ones(w.shape))


@pytest.mark.parametrize("algorithm", ["auto", "direct"])
@pytest.mark.parametrize("precision", [None, "default", "strict"])
def test_algorithms_and_precisions_agree(rng, algorithm, precision):
    x, w, _, options = problem(rng, "plain", np.float64)
    y = conv2d(x, w, **options, algorithm=algorithm, precision=precision)
    assert_close(y, reference.conv2d(x, w, **options), w[0].size)


@pytest.mark.parametrize("name", functional.__all__)
def test_signatures_are_those_of_the_reference(name):
    fast, slow = (
        inspect.signature(getattr(module, name), eval_str=True)
        for module in (functional, reference)
    )
    assert fast == slow


# Slabs of one phase of columns, and turned slabs of more columns than places are found
# for at once.
@pytest.mark.parametrize(
    ("IC", "OC", "IW", "K", "stride", "padding"),
    [
        (19, 21, 65, 1, 2, 0),
        (17, 24, 9, 1, 2, 0),
        (35, 24, 601, 1, 2, (0, 1)),
        (19, 21, 38, 1, (3, 2), (0, 1)),
        (40, 70, 31, (3, 1), 2, (1, 0)),
        (21, 24, 619, 3, 1, 1),
        (21, 24, 1201, 3, (1, 2), 1),
    ],
)
def test_columns_of_one_phase_and_many_columns(rng, IC, OC, IW, K, stride, padding):
    x = rng.standard_normal((2, IC, 13, IW)).astype(np.float32)
    weight = rng.standard_normal((OC, IC, *np.broadcast_to(K, 2))).astype(np.float32)
    y = conv2d(x, weight, None, stride, padding)
    wide = [a.astype(np.float64) for a in (x, weight)]
    exact = reference.conv2d(*wide, None, stride, padding)
    atol = tolerance(np.float32, weight[0].size, 30)
    assert_allclose(y, exact, rtol=0, atol=atol)
    grad = conv2d_grad_weight(y, x, weight.shape, stride, padding)
    exact = reference.conv2d_grad_weight(y, wide[0], weight.shape, stride, padding)
    atol = tolerance(np.float32, y[:, 0].size, np.abs(exact).max())
    assert_allclose(grad, exact, rtol=0, atol=atol)
    # What lies beside the columns, and memory that ends behind them, changes nothing.
    spaced = np.full((2, IC, 13, IW + 3), np.nan, np.float32)[:, ::-1, :, 1:-2]
    spaced[...] = x
    again = conv2d_grad_weight(y, spaced, weight.shape, stride, padding)
    assert (again == grad).all()


@pytest.mark.parametrize("IW", [4, 9, 61])
@pytest.mark.parametrize("turn", [1, -1])
@every_dtype
def test_every_other_column_reads_nothing_beside_the_image(rng, IW, turn, dtype):
    # An image at the end of its memory, another whose rows go on, one upside down.
    weight = rng.standard_normal((11, 7, 1, 1)).astype(dtype)
    wide = np.full((2, 7, 10, IW + 3), np.nan, dtype)
    image = wide[:, :, ::turn, 2:-1]
    image[...] = rng.standard_normal(image.shape)
    alone = np.full(image.size + 5, np.nan, dtype)[5:].reshape(image.shape)
    alone[...] = image
    exact = reference.conv2d(*doubles(image, weight), None, 2)
    for x in image, alone:
        assert_close(conv2d(x, weight, None, 2), exact, 7)
