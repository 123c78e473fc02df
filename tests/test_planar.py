# SPDX-License-Identifier: MIT
"""Convolutions of few channels a group: depthwise, grouped, thin; all three passes."""

import numpy as np
import pytest
from cases import (
    LAYOUTS,
    direct_passes,
    exact_passes,
    from_layout,
    operands,
    shape_in,
    to_layout,
)
from numpy.testing import assert_array_equal
from tolerance import tolerance

import convnet
from convnet import reference
from convnet._kernels import available_isas
from convnet.functional.conv import Extras, convolve

# name: (shape of x, shape of weight, options). Rows and columns end tiles everywhere.
CALLS = {
    "3x3": ((2, 19, 14, 14), (19, 1, 3, 3), {"padding": 1, "groups": 19}),
    "narrow": ((2, 37, 7, 7), (37, 1, 3, 3), {"padding": 1, "groups": 37}),
    "one row": ((1, 5, 1, 67), (5, 1, 1, 7), {"padding": (0, 3), "groups": 5}),
    "one column": ((2, 5, 61, 1), (5, 1, 4, 1), {"groups": 5}),
    "one column, strided": (
        (2, 7, 12, 1),
        (7, 1, 3, 2),
        {"stride": 2, "padding": (4, 2), "groups": 7},
    ),
    # Rows of more than a vector are read where they lie.
    "in place": ((3, 7, 20, 23), (7, 1, 3, 3), {"padding": 1, "groups": 7}),
    "in place, 5 taps": ((2, 3, 33, 37), (3, 1, 5, 4), {"padding": 2, "groups": 3}),
    "in place, far beyond": ((2, 3, 5, 19), (3, 1, 4, 3), {"padding": 6, "groups": 3}),
    "in place, strided": (
        (3, 5, 19, 41),
        (5, 1, 3, 3),
        {"stride": 2, "padding": (2, 1), "groups": 5},
    ),
    "1x1, a group each": ((2, 5, 9, 35), (5, 1, 1, 1), {"groups": 5}),
    "in place, two filters": (
        (2, 5, 17, 26),
        (10, 1, 2, 3),
        {"padding": 1, "groups": 5},
    ),
    "in place, two channels": (
        (2, 10, 17, 26),
        (5, 2, 3, 2),
        {"padding": 1, "groups": 5},
    ),
    "several blocks": ((1, 3, 95, 113), (3, 1, 5, 3), {"padding": 2, "groups": 3}),
    "wide": ((1, 2, 9, 1049), (2, 1, 3, 5), {"padding": (1, 2), "groups": 2}),
    "6 taps": ((1, 3, 17, 31), (3, 1, 6, 2), {"groups": 3}),
    "7 taps": ((1, 3, 17, 31), (3, 1, 7, 7), {"padding": 3, "groups": 3}),
    "11 taps": ((1, 3, 23, 31), (3, 1, 11, 9), {"padding": 5, "groups": 3}),
    "stride 2": (
        (2, 5, 29, 57),
        (5, 1, 3, 3),
        {"stride": 2, "padding": 1, "groups": 5},
    ),
    "stride 2, 7 taps": (
        (1, 3, 31, 26),
        (3, 1, 7, 5),
        {"stride": 2, "padding": (3, 2), "groups": 3},
    ),
    "stride 3 x 4": (
        (1, 5, 23, 47),
        (5, 1, 2, 5),
        {"stride": (3, 4), "padding": (0, 2), "groups": 5},
    ),
    "stride 1 x 2": ((1, 3, 16, 35), (3, 1, 3, 4), {"stride": (1, 2), "groups": 3}),
    "stride 2 x 1": ((1, 3, 16, 35), (3, 1, 3, 4), {"stride": (2, 1), "groups": 3}),
    "dilation": (
        (1, 3, 27, 21),
        (3, 1, 3, 3),
        {"dilation": (3, 2), "padding": (3, 2), "groups": 3},
    ),
    "stride and dilation": (
        (1, 3, 27, 31),
        (3, 1, 3, 4),
        {"stride": (2, 3), "dilation": (3, 2), "padding": 4, "groups": 3},
    ),
    # Many channels, whose vectors are better filled than those of pixels.
    "17 columns, 45 channels": (
        (2, 45, 9, 17),
        (45, 1, 3, 5),
        {"padding": (1, 2), "groups": 45},
    ),
    "7 columns, 7 taps": ((3, 33, 7, 6), (33, 1, 7, 7), {"padding": 3, "groups": 33}),
    "one row, 16 channels": ((2, 16, 1, 7), (16, 1, 1, 4), {"groups": 16}),
    "few pixels, 47 channels": ((2, 47, 3, 2), (47, 1, 2, 2), {"groups": 47}),
    "strided, 37 channels": (
        (2, 37, 15, 13),
        (37, 1, 3, 4),
        {"stride": (2, 1), "padding": (1, 2), "groups": 37},
    ),
    "stride 3 x 4, 32 channels": (
        (1, 32, 23, 47),
        (32, 1, 2, 5),
        {"stride": (3, 4), "padding": (0, 2), "groups": 32},
    ),
    "dilated, several blocks, 16 channels": (
        (1, 16, 61, 67),
        (16, 1, 3, 3),
        {"padding": (2, 3), "dilation": (2, 3), "groups": 16},
    ),
    "11 taps, 20 channels": (
        (1, 20, 14, 9),
        (20, 1, 11, 9),
        {"padding": 4, "groups": 20},
    ),
    "far beyond, 19 channels": (
        (2, 19, 5, 6),
        (19, 1, 4, 3),
        {"padding": 6, "groups": 19},
    ),
    "9 taps, 12 rows, 18 channels": (
        (1, 18, 12, 7),
        (18, 1, 9, 3),
        {"padding": (4, 1), "groups": 18},
    ),
    "stride 2, 7 taps, 16 channels": (
        (2, 16, 21, 15),
        (16, 1, 7, 5),
        {"stride": 2, "padding": 3, "groups": 16},
    ),
    "several parts, 16 channels": (
        (9, 16, 56, 33),
        (16, 1, 3, 3),
        {"stride": 2, "padding": 1, "groups": 16},
    ),
    "multiplier": ((2, 5, 13, 18), (15, 1, 3, 3), {"padding": 1, "groups": 5}),
    "grouped": ((2, 12, 15, 29), (12, 4, 3, 3), {"padding": 1, "groups": 3}),
    "grouped, strided": (
        (1, 12, 15, 29),
        (20, 3, 3, 3),
        {"stride": 2, "padding": 1, "groups": 4},
    ),
    "thin": ((3, 1, 28, 28), (6, 1, 5, 5), {"padding": 2}),
    "few outputs": ((1, 23, 15, 29), (3, 23, 3, 3), {"padding": 1}),
    # Results that share pixels, two or three at a time; bands of seven and four rows.
    "three outputs, in place": ((2, 9, 17, 50), (3, 9, 3, 4), {"padding": (1, 2)}),
    "four outputs, in place": ((1, 7, 26, 31), (4, 7, 5, 5), {"padding": 2}),
    "three outputs of 7 taps": ((1, 9, 16, 33), (3, 9, 7, 7), {"padding": 3}),
    "groups of 5 by 6, in place": (
        (2, 12, 24, 19),
        (10, 6, 3, 2),
        {"padding": (3, 1), "groups": 2},
    ),
    "many channels, in place": ((1, 70, 9, 261), (2, 70, 3, 3), {"padding": (1, 0)}),
    # Rows of taps are columns of the weights' gradient, with a step and without.
    "taps joined": ((2, 6, 14, 13), (17, 6, 5, 5), {"padding": (1, 2)}),
    "taps joined, grouped": (
        (2, 16, 15, 31),
        (18, 8, 3, 4),
        {"stride": (2, 3), "padding": (0, 3), "groups": 2},
    ),
    "taps joined, a wide plane": ((1, 7, 5, 283), (9, 7, 2, 3), {}),
    "taps that read padding alone": (
        (1, 8, 6, 3),
        (9, 8, 3, 9),
        {"padding": (1, 5)},
    ),
    # A tap, and few channels on one side: products of planes, or of parts of them.
    "1x1, few outputs": ((3, 37, 15, 29), (3, 37, 1, 1), {}),
    "1x1, few inputs": ((2, 2, 61, 83), (19, 2, 1, 1), {}),
    "1x1, many short planes": ((90, 17, 7, 7), (4, 17, 1, 1), {}),
    "1x1, eight inputs": ((2, 8, 41, 27), (19, 8, 1, 1), {}),
    "1x1, groups of 6 by 12": ((1, 24, 20, 23), (48, 6, 1, 1), {"groups": 4}),
    "1x1, grouped": ((1, 12, 13, 17), (20, 3, 1, 1), {"groups": 4}),
}
every_call = pytest.mark.parametrize("name", CALLS)


def named(rng, name, dtype=np.float32):
    """Return x, weight, grad_y and the options of a named call."""
    x_shape, w_shape, options = CALLS[name]
    return *operands(rng, x_shape, w_shape, options, dtype), options


@every_call
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_the_reference(name, dtype, layout, isa, rng):
    x, w, grad_y, options = named(rng, name, dtype)
    taps = w[0, 0].size
    terms = w[0].size, w.shape[0] // options.get("groups", 1) * taps, grad_y[:, 0].size
    results = direct_passes(x, w, grad_y, options, layout)
    for result, exact, n in zip(
        results, exact_passes(x, w, grad_y, options), terms, strict=True
    ):
        assert result.dtype == dtype
        assert np.max(np.abs(result - exact)) < tolerance(dtype, n, np.sqrt(n))


@every_call
def test_views_and_threads_give_the_same_bits(name, isa, rng):
    x, w, grad_y, options = named(rng, name)
    expected = direct_passes(x, w, grad_y, options, num_threads=1)
    spaced = [np.full((*a.shape[:3], 2 * a.shape[3]), np.nan) for a in (x, grad_y)]
    spaced = [a.astype(np.float32)[..., ::-2] for a in spaced]
    for view, array in zip(spaced, (x, grad_y), strict=True):
        view[...] = array
    grad_w = convnet.conv2d_grad_weight(
        spaced[1], spaced[0], w.shape, **options, algorithm="direct"
    )
    if name.startswith("1x1, "):  # products of planes want runs of memory
        n = grad_y[:, 0].size
        assert np.max(abs(grad_w - expected[2])) < tolerance(np.float32, n, np.sqrt(n))
        grad_w = expected[2]
    for results in (
        direct_passes(x, w, grad_y, options, num_threads=2),
        direct_passes(x, w, grad_y, options, num_threads=5),
        direct_passes(x[:, :, ::-1][:, :, ::-1], w, grad_y, options),
        (
            convnet.conv2d(spaced[0], w, **options, algorithm="direct"),
            convnet.conv2d_grad_input(
                spaced[1], w, x.shape, **options, algorithm="direct"
            ),
            grad_w,
        ),
    ):
        for result, right in zip(results, expected, strict=True):
            assert_array_equal(result, right)
    # Weight gradients of other layouts may be summed in other chains.
    turned = direct_passes(x, w, grad_y, options, "NHWC")
    for result, right in zip(turned[:2], expected[:2], strict=True):
        assert_array_equal(result, right)


@every_call
def test_an_infinity_reaches_what_sees_it_and_no_more(name, isa, rng):
    # Vectors reach beyond the ends of rows: nothing there may be multiplied and kept.
    x, w, grad_y, options = named(rng, name)
    x[0, 0, -1, -1] = grad_y[-1, -1, 0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        results = direct_passes(x, w, grad_y, options)
        exact = exact_passes(x, w, grad_y, options)
    for result, right in zip(results, exact, strict=True):
        assert_array_equal(np.isfinite(result), np.isfinite(right))


@every_call
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_but_the_result_is_written(name, layout, isa, rng):
    x, w, grad_y, options = named(rng, name)
    for result, run in zip(
        direct_passes(x, w, grad_y, options, layout)[:2],
        (
            lambda out: convnet.conv2d(
                to_layout(x, layout), w, out=out, layout=layout, **options
            ),
            lambda out: convnet.conv2d_grad_input(
                to_layout(grad_y, layout),
                w,
                shape_in(x.shape, layout),
                out=out,
                layout=layout,
                **options,
            ),
        ),
        strict=True,
    ):
        whole = np.full((*result.shape[:2], *(n + 3 for n in result.shape[2:])), 7.0)
        whole = whole.astype(np.float32)
        if layout == "NHWC":
            whole = np.ascontiguousarray(whole.transpose(0, 2, 3, 1))
            inside = whole[:, 1:-2, 2:-1]
        else:
            inside = whole[:, :, 1:-2, 2:-1]
        run(inside)
        expected = whole.copy()
        inside[...] = 7
        assert_array_equal(from_layout(expected, layout)[:, :, 1:-2, 2:-1], result)
        assert (whole == 7).all()
        expected_border = from_layout(expected, layout).copy()
        expected_border[:, :, 1:-2, 2:-1] = 7
        assert (expected_border == 7).all()


@every_call
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bias_residual_and_clip(name, layout, isa, rng):
    x, w, _, options = named(rng, name)
    bias = rng.standard_normal(w.shape[0]).astype(np.float32)
    steps = tuple(
        options.get(key, default)
        for key, default in (
            ("stride", 1),
            ("padding", 0),
            ("dilation", 1),
            ("groups", 1),
        )
    )
    exact = reference.conv2d(x.astype(float), w.astype(float), **options)
    residual = rng.standard_normal(exact.shape).astype(np.float32)
    exact = np.clip(exact + bias[:, None, None] + residual, -0.5, 2.5)
    # Strides as those of the result, and others, which must be copied.
    spaced = np.repeat(to_layout(residual, layout), 2, -1)[..., ::2]
    for added in to_layout(residual, layout), spaced:
        extras = Extras(residual=added, clip=(-0.5, 2.5))
        y = convolve(
            to_layout(x, layout),
            w,
            bias,
            steps,
            layout,
            algorithm="direct",
            extras=extras,
        )
        n = w[0].size
        error = np.abs(from_layout(y, layout) - exact)
        assert np.max(error) < tolerance(np.float32, n, np.sqrt(n) + 3)
        untied = np.broadcast_to(bias[:, None, None], exact.shape[1:])
        tied = convolve(x, w, bias, steps, algorithm="direct")
        y = convolve(to_layout(x, layout), w, to_layout(untied, layout), steps, layout)
        assert np.max(np.abs(from_layout(y, layout) - tied)) < tolerance(
            np.float32, n, np.sqrt(n) + 3
        )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", [14, 17, 35, 50])
def test_infinities_reach_no_other_window(stride, width, isa, rng):
    x = rng.standard_normal((2, 6, 9, width)).astype(np.float32)
    w = rng.standard_normal((6, 1, 3, 3)).astype(np.float32)
    x[0, 2, 3, width // 2], x[1, 5, 8, width - 1], w[4, 0, 0, 0] = (
        np.inf,
        np.nan,
        np.inf,
    )
    how = {"stride": stride, "padding": 1, "groups": 6}
    with np.errstate(invalid="ignore"):
        right = reference.conv2d(x, w, **how)
    y = convnet.conv2d(x, w, **how)
    assert_array_equal(np.isnan(y), np.isnan(right))
    assert_array_equal(np.isinf(y), np.isinf(right))


def test_scratch_is_bounded():
    plans = [
        convnet.explain((n, c, 112, 112), (c, 1, 7, 7), padding=3, groups=c)
        for n, c in ((1, 96), (64, 96), (1, 960))
    ]
    one, many, wide = (plan.scratch_bytes for plan in plans)
    assert one == many < wide < 2**20
    # The weights in order, in whole pages.
    assert wide - one <= (960 - 96) * 7 * 7 * 4 + 4096
    for kind in "forward", "grad_input", "grad_weight":
        for layout in LAYOUTS:
            plan = convnet.explain(
                shape_in((2, 62, 9, 5000), layout),
                (31, 2, 3, 3),
                stride=(2, 1),
                groups=31,
                kind=kind,
                layout=layout,
            )
            assert plan.scratch_bytes < 8 * 2**20


@pytest.mark.parametrize("isa", available_isas()[1:], indirect=True)
def test_few_results_need_no_copy_of_many_channels(isa):
    few, many = (
        convnet.explain((2, n, 61, 67), (3, n, 3, 3), padding=1) for n in (9, 90)
    )
    assert few.algorithm == many.algorithm == "direct"
    # The weights in order, and where they lie.
    assert many.scratch_bytes - few.scratch_bytes <= (90 - 9) * 3 * 9 * 16 + 4096


def test_long_sums_round_like_short_ones(isa, rng):
    # Sums of a lane go to a total now and then: one chain would be 3,000 products long.
    x = rng.standard_normal((3, 2, 120, 131)).astype(np.float32)
    grad_y = rng.standard_normal(x.shape).astype(np.float32)
    options = {"padding": 1, "groups": 2}
    exact = reference.conv2d_grad_weight(
        grad_y.astype(float), x.astype(float), (2, 1, 3, 3), **options
    )
    grad_w = convnet.conv2d_grad_weight(grad_y, x, (2, 1, 3, 3), **options)
    size = np.sqrt(np.mean(exact**2))
    assert np.sqrt(np.mean((grad_w - exact) ** 2)) < 8e-7 * size
