# SPDX-License-Identifier: MIT
"""Images of a few pixels by many channels, where weights are what takes the time."""

import re

import numpy as np
import pytest
from cases import LAYOUTS, direct_passes, exact_passes, from_layout, operands, to_layout
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from tolerance import BOUNDS, errors, tolerance

import convnet
from convnet import reference
from convnet._algorithm import Product, estimates
from convnet._geometry import conv_window
from convnet.functional.conv import Extras, convolve

pytestmark = pytest.mark.usefixtures("isa")

# Shapes of x and of the weight, then stride, padding and dilation: calls whose input
# gradient adds up windows.
CALLS = {
    "3x3, stride 2": ((1, 19, 7, 9), (97, 19, 3, 3), 2, 1, 1),
    "1x1, stride 2": ((1, 35, 8, 5), (130, 35, 1, 1), 2, 0, 1),
    "phases without taps": ((2, 11, 7, 11), (101, 11, 2, 1), (3, 4), 0, 1),
    "rows beyond a vector": ((1, 5, 3, 61), (151, 5, 3, 5), (2, 2), (1, 2), 1),
    "unit stride": ((2, 13, 4, 5), (140, 13, 5, 5), 1, 2, 1),
    "dilation": ((3, 11, 7, 5), (300, 11, 3, 2), (1, 2), (2, 1), (2, 3)),
    "no pixel of some rows": ((1, 9, 13, 4), (120, 9, 2, 2), (5, 3), (1, 1), 1),
}
OPTIONS = "stride", "padding", "dilation"
every_call = pytest.mark.parametrize("name", CALLS)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def named(rng, name, dtype=np.float32):
    """Return x, weight and grad_y of a named call, and its options."""
    x_shape, w_shape, *steps = CALLS[name]
    options = dict(zip(OPTIONS, steps, strict=True))
    return *operands(rng, x_shape, w_shape, options, dtype), options


@every_call
def test_windows_are_added_up(name):
    x_shape, (OC, *w_shape), *steps = CALLS[name]
    options = dict(zip(OPTIONS, steps, strict=True))

    def adds_windows(filters):
        shape = filters, *w_shape
        plan = convnet.explain(x_shape, shape, **options, kind="grad_input")
        direct = next(c for c in plan.candidates if c.algorithm == "direct")
        sizes = re.search(r"(\d+) blocks of (\d+) x (\d+)", direct.reason).groups()
        blocks, rows, cols = map(int, sizes)
        # The columns of that product are channels by taps.
        return rows == 1 and blocks * cols >= np.prod(w_shape)

    assert adds_windows(OC)
    assert not adds_windows(9)  # weights of few filters are better packed


@every_call
@every_layout
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_windows_agree_with_the_reference(name, layout, dtype, rng):
    x, w, grad_y, options = named(rng, name, dtype)
    _, grad_x, _ = direct_passes(x, w, grad_y, options, layout)
    _, exact, _ = exact_passes(x, w, grad_y, options)
    n = w.shape[0] * w[0, 0].size
    assert grad_x.dtype == dtype
    assert np.max(np.abs(grad_x - exact)) < tolerance(dtype, n, np.sqrt(n))


@every_call
def test_windows_have_the_same_bits_for_any_threads_and_views(name, rng):
    x, w, grad_y, options = named(rng, name)
    how = {**options, "algorithm": "direct"}
    expected = convnet.conv2d_grad_input(grad_y, w, x.shape, **how, num_threads=1)
    mirrored = grad_y[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1]
    for threads in 2, 5:
        for given_y in grad_y, mirrored, np.asfortranarray(grad_y):
            result = convnet.conv2d_grad_input(
                given_y, w, x.shape, **how, num_threads=threads
            )
            assert_array_equal(result, expected)


def test_windows_leave_what_they_do_not_see(rng):
    x, w, grad_y, options = named(rng, "no pixel of some rows")
    grad_y[:] = np.inf
    out = np.full_like(x, np.nan)
    seen = convnet.conv2d_grad_input(grad_y, w, x.shape, **options, out=out)
    assert seen is out
    ones = np.ones_like(grad_y)
    unseen = reference.conv2d_grad_input(ones, abs(w), x.shape, **options)
    assert (unseen == 0).any()
    assert_array_equal(seen == 0, unseen == 0)


# Up to four tiles of 4 x 4 pixels, of one image or of several, with dilation as well.
@given(
    sizes=st.tuples(*[st.integers(1, n) for n in (2, 21, 53, 9, 9)]),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    groups=st.integers(1, 2),
    dilation=st.sampled_from([1, 1, 2]),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_few_tiles_agree_with_the_reference(
    sizes, pads, groups, dilation, layout, dtype, seed
):
    rng = np.random.default_rng(seed)
    N, IC, OC, H, W = sizes
    if min(H + 2 * pads[0], W + 2 * pads[1]) < 2 * dilation + 1:
        return
    options = {"padding": pads, "groups": groups, "dilation": dilation}
    x = rng.standard_normal((N, groups * IC, H, W)).astype(dtype)
    w = rng.standard_normal((groups * OC, IC, 3, 3)).astype(dtype)
    grad_y = rng.standard_normal(reference.conv2d(x, w, **options).shape).astype(dtype)
    how = {**options, "algorithm": "winograd4", "layout": layout}
    given_x, given_y = to_layout(x, layout), to_layout(grad_y, layout)
    y = from_layout(convnet.conv2d(given_x, w, **how), layout)
    grad_x = convnet.conv2d_grad_input(given_y, w, given_x.shape, **how)
    exact, exact_grad, _ = exact_passes(x, w, grad_y, options)
    for result, right, terms in (
        (y, exact, 9 * IC),
        (from_layout(grad_x, layout), exact_grad, 9 * OC),
    ):
        # Of single numbers the transforms' errors are no share of an rms.
        most = 8 * tolerance(dtype, terms, np.sqrt(terms))
        assert np.max(np.abs(result - right), initial=0) < most


@pytest.mark.parametrize("OC", [8, 40, 97])
def test_few_tiles_by_weights_that_are_kept(OC, rng):
    x = rng.standard_normal((1, 64, 7, 8)).astype(np.float32)
    w = rng.standard_normal((OC, 64, 3, 3)).astype(np.float32)
    exact = reference.conv2d(x.astype(float), w.astype(float), padding=1)
    expected = convnet.conv2d(x, w, padding=1, algorithm="winograd4", num_threads=1)
    assert np.less(errors(expected, exact), BOUNDS["winograd4"]).all()
    keeping = Extras(packings={})
    for threads in 1, 2, 5:
        for extras in Extras(), keeping:
            how = {"num_threads": threads, "algorithm": "winograd4", "extras": extras}
            assert_array_equal(convolve(x, w, None, (1, 1, 1, 1), **how), expected)
    assert keeping.packings


def test_few_tiles_are_chosen_where_no_cache_holds_the_weights(isa):
    window = conv_window((7, 7), (3, 3), 1, 1, 1)
    costs = estimates(Product(1, 512, 512, 1, 7, 7), window)
    # 16 registers hold too few sums; without vectors all take as long.
    assert (min(costs, key=costs.get) == "winograd4") == (isa != "avx2")
    assert (
        convnet.get_isa() != "avx512" or costs["winograd2"] > 1.2 * costs["winograd4"]
    )
