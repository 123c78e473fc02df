# SPDX-License-Identifier: MIT
"""Winograd's algorithms: right at every size, as exact as docs/numerics.md says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tolerance import BOUNDS, errors

import convnet
from convnet import nn, reference
from convnet._algorithm import ALLOWED, Product, choose, estimates
from convnet._geometry import conv_window

WINOGRAD = ["winograd2", "winograd4"]


def operands(rng, N, IC, OC, IH, IW, groups=1, dtype=np.float32):
    """Return images and weights of standard normal numbers."""
    x = rng.standard_normal((N, groups * IC, IH, IW)).astype(dtype)
    return x, rng.standard_normal((groups * OC, IC, 3, 3)).astype(dtype)


@pytest.mark.parametrize("algorithm", WINOGRAD)
@given(
    sizes=st.tuples(*[st.integers(1, n) for n in (3, 9, 19, 30, 37)]),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    groups=st.integers(1, 2),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_size_agrees_with_the_reference(
    algorithm, isa, sizes, pads, groups, channels_last, seed
):
    rng = np.random.default_rng(seed)
    x, w = operands(rng, *sizes, groups)
    PT, PB, PL, PR = pads
    if x.shape[2] + PT + PB < 3 or x.shape[3] + PL + PR < 3:
        return
    options = {"padding": ((PT, PB), (PL, PR)), "groups": groups}
    bias = rng.standard_normal(w.shape[0]).astype(np.float32)
    layout = "NHWC" if channels_last else "NCHW"
    order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    back = np.argsort(order)
    given_x = np.ascontiguousarray(x.transpose(order))
    y = convnet.conv2d(
        given_x, w, bias, **options, layout=layout, algorithm=algorithm
    ).transpose(back)
    exact = reference.conv2d(*(a.astype(float) for a in (x, w, bias)), **options)
    scale = 3 * np.sqrt(9 * w.shape[1]) + 1
    assert abs(y - exact).max() < 2e-5 * scale
    grad_y = rng.standard_normal(y.shape).astype(np.float32)
    grad_x = convnet.conv2d_grad_input(
        np.ascontiguousarray(grad_y.transpose(order)),
        w,
        given_x.shape,
        **options,
        layout=layout,
        algorithm=algorithm,
    ).transpose(back)
    exact = reference.conv2d_grad_input(
        grad_y.astype(float), w.astype(float), x.shape, **options
    )
    scale = 3 * np.sqrt(9 * w.shape[0] // groups) + 1
    assert abs(grad_x - exact).max() < 2e-5 * scale
    grad_w = convnet.conv2d_grad_weight(
        np.ascontiguousarray(grad_y.transpose(order)),
        given_x,
        w.shape,
        **options,
        layout=layout,
        algorithm=algorithm,
    )
    exact = reference.conv2d_grad_weight(
        grad_y.astype(float), x.astype(float), w.shape, **options
    )
    scale = 3 * np.sqrt(grad_y[:, 0].size) + 1
    assert abs(grad_w - exact).max() < 2e-5 * scale


@pytest.mark.parametrize("algorithm", WINOGRAD)
@pytest.mark.parametrize("size", [(7, 7), (8, 8), (13, 14), (17, 30), (5, 231)])
def test_views_and_layouts_give_the_same_bits(algorithm, size, isa, rng):
    # Rows of pixels that are no neighbours in memory are copied; tiles see the same.
    x, w = operands(rng, 3, 19, 21, *size)
    y = convnet.conv2d(x, w, padding=1, algorithm=algorithm)
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    turned = convnet.conv2d(
        channels_last, w, padding=1, algorithm=algorithm, layout="NHWC"
    )
    assert (turned.transpose(0, 3, 1, 2) == y).all()
    spaced = np.full((*x.shape[:3], 2 * x.shape[3]), np.nan, np.float32)
    spaced[..., ::-2] = x
    for view in (spaced[..., ::-2], channels_last.transpose(0, 3, 1, 2)):
        assert (convnet.conv2d(view, w, padding=1, algorithm=algorithm) == y).all()
    row = np.broadcast_to(x[:1, :, :1], x.shape)
    exact = convnet.conv2d(row.copy(), w, padding=1, algorithm=algorithm)
    assert (convnet.conv2d(row, w, padding=1, algorithm=algorithm) == exact).all()


@pytest.mark.parametrize("algorithm", WINOGRAD)
def test_a_narrow_last_strip_of_a_wide_image(algorithm, isa, rng):
    # Wide images are cut into strips, here of all widths that the last one may have.
    x, w = operands(rng, 1, 3, 2, 9, 1210)
    for width in range(1180, 1211):
        y = convnet.conv2d(x[..., :width], w, algorithm=algorithm)
        exact = convnet.conv2d(x[..., :width], w, algorithm="direct")
        assert abs(y - exact).max() < 1e-4


@pytest.mark.parametrize("algorithm", WINOGRAD)
@pytest.mark.parametrize("tiles", [(2, 31, 57), (1, 25, 27)])
def test_many_channels_do_not_stay_in_the_cache(algorithm, tiles, isa, rng):
    # Runs of several panels, and more filters than are multiplied at once; the second
    # image ends in one tile of its own.
    N, H, W = tiles
    x, w = operands(rng, N, 307, 131, H, W)
    y = convnet.conv2d(x, w, padding=1, algorithm=algorithm, num_threads=1)
    right = convnet.conv2d(x.astype(float), w.astype(float), padding=1)
    assert np.max(np.abs(y - right)) < 4e-5 * np.sqrt(np.mean(right**2))
    for n in 2, 5:
        again = convnet.conv2d(x, w, padding=1, algorithm=algorithm, num_threads=n)
        assert np.array_equal(y, again)


@pytest.mark.parametrize("algorithm", BOUNDS)
@pytest.mark.parametrize("channels", [64, 512])
def test_errors_stay_below_the_published_bounds(algorithm, channels, isa, rng):
    x, w = operands(rng, 1, channels, 24, 18, 22)
    exact = reference.conv2d(x.astype(float), w.astype(float), padding=1)
    y = convnet.conv2d(x, w, padding=1, algorithm=algorithm)
    relative, worst = errors(y, exact)
    assert relative < BOUNDS[algorithm][0]
    assert worst < BOUNDS[algorithm][1]


@pytest.mark.parametrize("algorithm", BOUNDS)
@pytest.mark.parametrize("pixels", [(1, 14, 18), (3, 86, 95)])
def test_errors_of_weight_gradients_stay_below_them_too(algorithm, pixels, isa, rng):
    N, H, W = pixels
    x = rng.standard_normal((N, 24, H, W)).astype(np.float32)
    grad_y = rng.standard_normal((N, 20, H, W)).astype(np.float32)
    given = (20, 24, 3, 3), 1, 1
    exact = convnet.conv2d_grad_weight(grad_y.astype(float), x.astype(float), *given)
    grad_w = convnet.conv2d_grad_weight(grad_y, x, *given, algorithm=algorithm)
    relative, worst = errors(grad_w, exact)
    assert relative < BOUNDS[algorithm][0]
    assert worst < BOUNDS[algorithm][1]


@pytest.mark.parametrize("algorithm", WINOGRAD)
def test_float64_is_as_exact_as_float64(algorithm, isa, rng):
    x, w = operands(rng, 2, 37, 11, 13, 17, dtype=np.float64)
    y = convnet.conv2d(x, w, algorithm=algorithm)
    assert errors(y, reference.conv2d(x, w))[1] < 1e-13


@pytest.mark.parametrize("algorithm", WINOGRAD)
@pytest.mark.parametrize("size", [(3, 5), (6, 4), (13, 7), (14, 16), (11, 58)])
def test_a_few_tiles_are_as_exact_as_many(algorithm, size, isa, rng):
    # From one tile to more than a vector of them, in floats and in doubles.
    for dtype, bound in (np.float64, 1e-13), (np.float32, 2e-5):
        x, w = operands(rng, 1, 67, 23, *size, dtype=dtype)
        exact = reference.conv2d(x.astype(float), w.astype(float))
        y = convnet.conv2d(x, w, algorithm=algorithm)
        assert errors(y, exact)[1] < bound


@pytest.mark.parametrize("algorithm", WINOGRAD)
@pytest.mark.parametrize("sizes", [(3, 31, 29, 23, 41), (2, 19, 83, 17, 29)])
def test_same_bits_for_any_thread_count(algorithm, sizes, isa, rng):
    x, w = operands(rng, *sizes)
    y = convnet.conv2d(x, w)
    for call in (
        lambda **how: convnet.conv2d(x, w, **how),
        lambda **how: convnet.conv2d_grad_input(y, w, x.shape, **how),
        lambda **how: convnet.conv2d_grad_weight(y, x, w.shape, **how),
    ):
        expected = call(algorithm=algorithm, num_threads=1)
        for n in 2, 5:
            result = call(algorithm=algorithm, num_threads=n)
            assert np.array_equal(result, expected)


@pytest.mark.parametrize("algorithm", WINOGRAD)
def test_untied_bias_and_out(algorithm, rng):
    x, w = operands(rng, 2, 5, 7, 11, 18)
    bias = rng.standard_normal((7, 9, 16)).astype(np.float32)
    out = np.empty((2, 7, 9, 16), np.float32)
    assert convnet.conv2d(x, w, bias, algorithm=algorithm, out=out) is out
    exact = reference.conv2d(*(a.astype(float) for a in (x, w, bias)))
    assert errors(out, exact)[1] < 2e-5


WINDOW = conv_window((56, 54), (3, 3), padding=1)
PRODUCT = Product(1, 64, 96, 1, 56, 54)


def test_strict_policy_leaves_out_the_larger_tiles(rng):
    assert "winograd4" not in ALLOWED["strict"]
    float32 = np.dtype(np.float32)
    assert choose(PRODUCT, WINDOW, float32, "auto", None) == "winograd4"
    assert choose(PRODUCT, WINDOW, float32, "auto", "strict") == "winograd2"
    assert choose(PRODUCT, WINDOW, np.dtype(float), "auto", None) == "direct"
    x, w = operands(rng, 1, 96, 64, 56, 54)
    strict = convnet.conv2d(x, w, padding=1, precision="strict")
    forced = convnet.conv2d(x, w, padding=1, algorithm="winograd2")
    assert np.array_equal(strict, forced)


def test_set_precision_is_for_calls_that_name_none(rng):
    float32 = np.dtype(np.float32)
    x, w = operands(rng, 1, 96, 64, 56, 54)
    loose = convnet.conv2d(x, w, padding=1, precision="default")
    convnet.set_precision("strict")
    try:
        assert choose(PRODUCT, WINDOW, float32, "auto", None) == "winograd2"
        assert choose(PRODUCT, WINDOW, float32, "auto", "default") == "winograd4"
        plan = convnet.explain(x.shape, w.shape, padding=1)
        assert plan.algorithm == "winograd2"
        assert [c.algorithm for c in plan.candidates] == ["winograd2", "direct"]
        strict = convnet.conv2d(x, w, padding=1, precision="strict")
        assert np.array_equal(convnet.conv2d(x, w, padding=1), strict)
        forced = convnet.conv2d(x, w, padding=1, algorithm="winograd4")
        assert np.array_equal(forced, loose)
    finally:
        convnet.set_precision("default")
    assert np.array_equal(convnet.conv2d(x, w, padding=1), loose)


@pytest.mark.parametrize(
    ("name", "error"), [("high", ValueError), ("", ValueError), (None, TypeError)]
)
def test_set_precision_says_no(name, error):
    with pytest.raises(error, match=f"name .*{name!r}"):
        convnet.set_precision(name)


def test_small_and_thin_calls_are_direct():
    float32 = np.dtype(np.float32)
    small = Product(1, 4, 4, 1, 9, 11)
    assert choose(small, WINDOW, float32, "auto", None) == "direct"
    depthwise = Product(256, 1, 1, 8, 56, 54)
    assert choose(depthwise, WINDOW, float32, "auto", None) == "direct"


@pytest.mark.parametrize("kind", ["forward", "grad_weight"])
def test_explain_lists_what_the_model_estimates(kind):
    plan = convnet.explain((1, 96, 56, 54), (64, 96, 3, 3), padding=1, kind=kind)
    costs = estimates(PRODUCT, WINDOW, kind=kind)
    assert plan.algorithm == "winograd4"
    assert plan.algorithm == min(costs, key=costs.get)
    assert {c.algorithm: c.cycles for c in plan.candidates} == costs
    assert all(c.scratch_bytes > 0 for c in plan.candidates)


# 49 tiles are three vectors and one tile more, which shares a run with them: in one run
# of all, in several, and for so few or odd filters that tiles are no rows.
@pytest.mark.parametrize(("N", "OC"), [(1, 40), (1, 33), (1, 20), (2, 70), (9, 35)])
def test_tiles_left_over(isa, rng, N, OC):
    x, weight = operands(rng, N, 5, OC, 28, 26)
    exact = reference.conv2d(x.astype(np.float64), weight.astype(np.float64), padding=1)
    results = [
        convnet.conv2d(x, weight, padding=1, algorithm="winograd4", num_threads=n)
        for n in (1, 2, 5)
    ]
    assert np.less(errors(results[0], exact), BOUNDS["winograd4"]).all()
    assert all((result == results[0]).all() for result in results)


@pytest.mark.parametrize("N", [1, 3])
def test_tiles_left_over_with_weights_that_are_kept(isa, rng, N):
    x, weight = operands(rng, N, 64, 40, 28, 28)
    layer = nn.Conv2d(64, 40, 3, padding=1, bias=False)
    layer.weight.value[...] = weight
    assert convnet.explain(x.shape, weight.shape, padding=1).algorithm == "winograd4"
    kept = layer.prepare()(x)
    exact = reference.conv2d(x.astype(np.float64), weight.astype(np.float64), padding=1)
    assert np.less(errors(kept, exact), BOUNDS["winograd4"]).all()
    assert (kept == convnet.conv2d(x, weight, padding=1, algorithm="winograd4")).all()
