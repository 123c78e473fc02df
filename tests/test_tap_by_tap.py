# SPDX-License-Identifier: MIT
"""Convolutions many of whose taps read but padding: dilated, in small images."""

import numpy as np
import pytest
from cases import LAYOUTS, direct_passes, exact_passes, from_layout, operands, to_layout
from numpy.testing import assert_array_equal
from tolerance import tolerance

import convnet
from convnet import reference
from convnet.functional.conv import Extras, convolve

pytestmark = pytest.mark.usefixtures("isa")

# Shapes of x and of the weight, then padding, dilation and groups.
CALLS = {
    "a quarter of the pairs": ((1, 66, 23, 29), (67, 66, 3, 3), 15, 15, 1),
    "rows only": ((2, 65, 31, 14), (69, 65, 3, 1), (14, 0), (14, 1), 1),
    "groups": ((1, 128, 25, 24), (130, 64, 3, 3), (12, 13), (12, 13), 2),
    "more rows than x": ((1, 70, 27, 22), (64, 70, 3, 5), (14, 18), (13, 9), 1),
}
OPTIONS = "padding", "dilation", "groups"
every_call = pytest.mark.parametrize("name", CALLS)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def named(rng, name, dtype=np.float32):
    """Return x, weight and grad_y of a named call, and its options."""
    x_shape, w_shape, *steps = CALLS[name]
    options = dict(zip(OPTIONS, steps, strict=True))
    return *operands(rng, x_shape, w_shape, options, dtype), options


@every_call
def test_each_tap_is_a_product(name):
    x_shape, w_shape, *steps = CALLS[name]
    options = dict(zip(OPTIONS, steps, strict=True))
    kinds = ["forward", "grad_input", "grad_weight"]
    if name == "more rows than x":  # of which no tap sees all
        kinds = ["grad_input"]
    for kind in kinds:
        plan = convnet.explain(x_shape, w_shape, **options, kind=kind)
        direct = next(c for c in plan.candidates if c.algorithm == "direct")
        assert int(direct.reason.split()[0]) in range(2, w_shape[2] * w_shape[3] + 1)


@every_call
@every_layout
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_the_reference(name, layout, dtype, rng):
    x, w, grad_y, options = named(rng, name, dtype)
    terms = w[0].size, w.shape[0] // options["groups"] * w[0, 0].size, grad_y[:, 0].size
    results = direct_passes(x, w, grad_y, options, layout)
    for result, exact, n in zip(
        results, exact_passes(x, w, grad_y, options), terms, strict=True
    ):
        assert result.dtype == dtype
        assert np.max(np.abs(result - exact)) < tolerance(dtype, n, np.sqrt(n))


@every_call
def test_threads_give_the_same_bits(name, rng):
    arrays = named(rng, name)
    expected = direct_passes(*arrays, num_threads=1)
    for threads in 2, 5:
        for result, right in zip(
            direct_passes(*arrays, num_threads=threads), expected, strict=True
        ):
            assert_array_equal(result, right)


@every_call
@every_layout
def test_bias_residual_and_clip(name, layout, rng):
    x, w, _, options = named(rng, name)
    bias = rng.standard_normal(w.shape[0]).astype(np.float32)
    exact = reference.conv2d(*(a.astype(float) for a in (x, w, bias)), **options)
    residual = rng.standard_normal(exact.shape).astype(np.float32)
    steps = 1, *CALLS[name][2:]
    extras = Extras(residual=to_layout(residual, layout), clip=(-0.5, 2.5), packings={})
    for _ in range(2):  # with weights that are packed, and were
        y = convolve(
            to_layout(x, layout),
            w,
            bias,
            steps,
            layout,
            algorithm="direct",
            extras=extras,
        )
        error = np.abs(from_layout(y, layout) - np.clip(exact + residual, -0.5, 2.5))
        n = w[0].size
        assert np.max(error) < tolerance(np.float32, n, np.sqrt(n) + 3)


@every_call
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_meets_padding(name, value, rng):
    # Padding is zeros, of which an infinite weight, or gradient, makes NaN.
    x, w, grad_y, options = named(rng, name)
    w[3, 5, 0, 0] = grad_y[0, 3, 1, 2] = value
    y, _, grad_w = direct_passes(x, w, grad_y, options)
    with np.errstate(invalid="ignore"):
        right, _, right_w = exact_passes(x, w, grad_y, options)
    assert_array_equal(np.isnan(y), np.isnan(right))
    assert_array_equal(np.isnan(grad_w), np.isnan(right_w))
