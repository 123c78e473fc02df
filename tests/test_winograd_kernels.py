# SPDX-License-Identifier: MIT
"""Winograd's algorithm for kernels other than 3x3, and with stride, phase by phase."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tolerance import BOUNDS, errors

import convnet
from convnet import nn, reference
from convnet._algorithm import choose
from convnet._conv_call import check_conv
from convnet._tiling import find_tiling

# Kernels by stride: filters of two to five taps, or phases of a kernel that have so
# many at most, some of them fewer; and larger ones, of several pieces.
KERNELS = {
    1: [(2, 2), (3, 2), (4, 4), (5, 5), (5, 3), (6, 6), (7, 7), (3, 11), (9, 4)],
    2: [(3, 3), (4, 3), (5, 5), (6, 7), (7, 7), (9, 10), (3, 8), (11, 13)],
    4: [(5, 8), (7, 7), (11, 11), (20, 17)],
}
# Kernels by dilation, which is larger than an image of 43 x 51 at last.
DILATED = {
    (2, 2): [(3, 3), (2, 4), (7, 5)],
    (1, 3): [(3, 3)],
    (4, 1): [(5, 2)],
    (6, 5): [(4, 3)],
    (19, 24): [(3, 3)],
    (46, 54): [(2, 2)],
}
CASES = [(kernel, stride, (1, 1)) for stride in KERNELS for kernel in KERNELS[stride]]
CASES += [(kernel, 1, apart) for apart in DILATED for kernel in DILATED[apart]]


def operands(rng, N, IC, OC, size, kernel, groups=1, dtype=np.float32):
    """Return images and weights of standard normal numbers."""
    x = rng.standard_normal((N, groups * IC, *size)).astype(dtype)
    return x, rng.standard_normal((groups * OC, IC, *kernel)).astype(dtype)


def has_weight_tiles(kernel, stride, dilation):
    """Return whether weight gradients have tiles, too: for pieces of 3 to 5 taps."""
    return stride == 1 and dilation == (1, 1) and max(kernel) > 2


def double(*arrays):
    return [a.astype(np.float64) for a in arrays]


@given(
    case=st.sampled_from(CASES),
    sizes=st.tuples(*[st.integers(1, n) for n in (3, 7, 29)]),
    image=st.tuples(st.integers(1, 41), st.integers(1, 60)),
    pads=st.tuples(*[st.integers(0, 5)] * 4),
    groups=st.integers(1, 2),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_size_agrees_with_the_reference(
    isa, case, sizes, image, pads, groups, channels_last, seed
):
    (kernel, stride, dilation), (PT, PB, PL, PR) = case, pads
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    assume(image[0] + PT + PB > reach[0] and image[1] + PL + PR > reach[1])
    rng = np.random.default_rng(seed)
    x, w = operands(rng, *sizes, image, kernel, groups)
    options = {"stride": stride, "padding": ((PT, PB), (PL, PR)), "groups": groups}
    options["dilation"] = dilation
    bias = rng.standard_normal(w.shape[0]).astype(np.float32)
    order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    layout = "NHWC" if channels_last else "NCHW"
    how = {**options, "layout": layout, "algorithm": "winograd4"}
    back = np.argsort(order)
    y = convnet.conv2d(x.transpose(order), w, bias, **how).transpose(back)
    exact = reference.conv2d(*double(x, w, bias), **options)
    taps = kernel[0] * kernel[1]
    assert abs(y - exact).max() < 2e-5 * (3 * np.sqrt(taps * w.shape[1]) + 1)
    if stride > 2:
        return
    grad_y = rng.standard_normal(y.shape).astype(np.float32)
    shape = x.transpose(order).shape
    if has_weight_tiles(kernel, stride, dilation):
        given = grad_y.transpose(order), x.transpose(order)
        grad_w = convnet.conv2d_grad_weight(*given, w.shape, **how)
        exact = reference.conv2d_grad_weight(*double(grad_y, x), w.shape, **options)
        scale = 3 * np.sqrt(y[:, 0].size) + 1
        assert abs(grad_w - exact).max() < 2e-5 * scale
    grad_x = convnet.conv2d_grad_input(grad_y.transpose(order), w, shape, **how)
    exact = reference.conv2d_grad_input(*double(grad_y, w), x.shape, **options)
    scale = 3 * np.sqrt(taps * w.shape[0] // groups) + 1
    assert abs(grad_x.transpose(back) - exact).max() < 2e-5 * scale


@pytest.mark.parametrize(("kernel", "stride", "dilation"), CASES)
def test_views_layouts_and_threads_give_the_same_bits(
    kernel, stride, dilation, isa, rng
):
    x, w = operands(rng, 2, 6, 41, (43, 51), kernel)
    how = {"stride": stride, "padding": 2, "dilation": dilation}
    how["algorithm"] = "winograd4"
    y = convnet.conv2d(x, w, **how, num_threads=1)
    spaced = np.full((*x.shape[:3], 2 * x.shape[3]), np.nan, np.float32)
    spaced[..., ::-2] = x
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    for view in (spaced[..., ::-2], last.transpose(0, 3, 1, 2)):
        assert (convnet.conv2d(view, w, **how) == y).all()
    turned = convnet.conv2d(last, w, **how, layout="NHWC")
    assert (turned.transpose(0, 3, 1, 2) == y).all()
    for n in 2, 5:
        assert (convnet.conv2d(x, w, **how, num_threads=n) == y).all()
    if stride > 2:
        return
    grad_x = convnet.conv2d_grad_input(y, w, x.shape, **how, num_threads=1)
    for n in 2, 5:
        again = convnet.conv2d_grad_input(y, w, x.shape, **how, num_threads=n)
        assert (again == grad_x).all()
    grad_y = np.ascontiguousarray(y.transpose(0, 2, 3, 1))
    turned = convnet.conv2d_grad_input(grad_y, w, last.shape, **how, layout="NHWC")
    assert (turned.transpose(0, 3, 1, 2) == grad_x).all()
    if not has_weight_tiles(kernel, stride, dilation):
        return
    grad_w = convnet.conv2d_grad_weight(y, x, w.shape, **how, num_threads=1)
    for n in 2, 5:
        again = convnet.conv2d_grad_weight(y, x, w.shape, **how, num_threads=n)
        assert (again == grad_w).all()
    spaced = convnet.conv2d_grad_weight(y, spaced[..., ::-2], w.shape, **how)
    assert (spaced == grad_w).all()
    turned = convnet.conv2d_grad_weight(grad_y, last, w.shape, **how, layout="NHWC")
    assert (turned == grad_w).all()


# (Where tiles hold few pixels, outputs are smaller than what tiles add up.)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [case for case in CASES if max(case[2]) < 10]
)
@pytest.mark.parametrize("channels", [64, 512])
def test_errors_stay_below_the_published_bounds(
    kernel, stride, dilation, channels, isa, rng
):
    # The sums run over the phases of all channels.
    x, w = operands(rng, 1, channels // stride**2, 24, (48, 56), kernel)
    steps = {"stride": stride, "dilation": dilation}
    exact = convnet.conv2d(*double(x, w), **steps)
    y = convnet.conv2d(x, w, **steps, algorithm="winograd4")
    assert np.less(errors(y, exact), BOUNDS["winograd4"]).all()
    if stride > 2:
        return
    given = w, x.shape, stride, 0, dilation
    exact = convnet.conv2d_grad_input(*double(y, w), *given[1:])
    grad_x = convnet.conv2d_grad_input(y, *given, algorithm="winograd4")
    assert np.less(errors(grad_x, exact), BOUNDS["winograd4"]).all()
    if has_weight_tiles(kernel, stride, dilation):
        grad_y = rng.standard_normal(y.shape).astype(np.float32)
        exact = convnet.conv2d_grad_weight(*double(grad_y, x), w.shape)
        given = grad_y, x, w.shape
        grad_w = convnet.conv2d_grad_weight(*given, algorithm="winograd4")
        assert np.less(errors(grad_w, exact), BOUNDS["winograd4"]).all()


def test_many_channels_in_slices_and_in_several_runs(isa, rng):
    # More phases than are transformed at once, and more tiles than one run has.
    for N in 1, 3:
        x, w = operands(rng, N, 75, 70, (45, 67), (3, 3))
        exact = convnet.conv2d(*double(x, w), stride=2)
        y = convnet.conv2d(x, w, stride=2, algorithm="winograd4")
        assert np.less(errors(y, exact), BOUNDS["winograd4"]).all()
        exact = convnet.conv2d_grad_input(*double(y, w), x.shape, 2)
        grad_x = convnet.conv2d_grad_input(y, w, x.shape, 2, algorithm="winograd4")
        assert np.less(errors(grad_x, exact), BOUNDS["winograd4"]).all()


def test_a_prepared_layer_keeps_its_phases(isa, rng):
    x, w = operands(rng, 1, 3, 64, (224, 224), (7, 7))
    layer = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    layer.weight.value[...] = w
    how = {"stride": 2, "padding": 3}
    assert convnet.explain(x.shape, w.shape, **how).algorithm == "winograd4"
    y = convnet.conv2d(x, w, **how, algorithm="winograd4")
    assert (layer.prepare()(x) == y).all()
    strict = convnet.conv2d(x, w, **how, precision="strict")
    assert (strict == convnet.conv2d(x, w, **how, algorithm="direct")).all()


@pytest.mark.parametrize("kernel", [(18, 18), (2, 17), (13, 10)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
def test_tiles_see_columns_of_many_tiles_behind(kernel, dtype, algorithm, isa, rng):
    # More than a vector of tiles, where vectors are short; a few tiles, and many.
    for size in (19, 18), (21, 47):
        x, w = operands(rng, 2, 3, 7, size, kernel, dtype=dtype)
        exact = reference.conv2d(*double(x, w))
        y = convnet.conv2d(x, w, algorithm=algorithm)
        grad_x = convnet.conv2d_grad_input(y, w, x.shape, algorithm=algorithm)
        assert abs(y - exact).max() < 3e-5 * (3 * np.sqrt(w[0].size) + 1)
        exact = reference.conv2d_grad_input(*double(y, w), x.shape)
        assert abs(grad_x - exact).max() < 3e-5 * abs(exact).max()


@pytest.mark.parametrize(
    ("kind", "kernel", "options"),
    [
        ("forward", (1, 1), {}),
        ("forward", (3, 21), {}),
        ("forward", (1, 5), {}),
        ("forward", (5, 5), {"stride": (1, 2)}),
        ("forward", (5, 5), {"stride": 3}),
        ("forward", (2, 2), {"stride": 2}),
        ("forward", (5, 5), {"dilation": 2, "stride": 2}),
        ("grad_input", (7, 7), {"stride": 4}),
        ("grad_weight", (1, 5), {}),
        ("grad_weight", (2, 2), {}),
        ("grad_weight", (3, 3), {"stride": 2}),
        ("grad_weight", (3, 3), {"dilation": 2}),
    ],
)
def test_what_has_no_tiles_is_refused(kind, kernel, options):
    x, w = np.ones((1, 2, 19, 21), np.float32), np.ones((3, 2, *kernel), np.float32)
    y = convnet.conv2d(x, w, **options)
    calls = {
        "forward": lambda **how: convnet.conv2d(x, w, **how),
        "grad_input": lambda **how: convnet.conv2d_grad_input(y, w, x.shape, **how),
        "grad_weight": lambda **how: convnet.conv2d_grad_weight(y, x, w.shape, **how),
    }
    with pytest.raises(ValueError, match=f"'winograd4' has no tiles for {kind} of"):
        calls[kind](**options, algorithm="winograd4")


def test_four_points_are_for_filters_of_three_taps():
    x, w = np.ones((1, 4, 40, 41), np.float32), np.ones((5, 4, 5, 5), np.float32)
    for stride in 1, 2:
        exact = convnet.conv2d(x, w, stride=stride, algorithm="direct")
        y = convnet.conv2d(x, w, stride=stride, algorithm="winograd2")
        assert abs(y - exact).max() < 1e-3
    with pytest.raises(ValueError, match="'winograd2' has no tiles"):
        convnet.conv2d(x, w[..., :2, :2], algorithm="winograd2")


def test_phases_are_chosen_where_they_pay():
    def chosen(kind, x_shape, w_shape, *steps, dilation=1):
        steps = (*steps, dilation, 1)
        call = check_conv(kind, x_shape, w_shape, np.dtype(np.float32), steps, "NCHW")
        assert call.algorithm == choose(
            call.product, call.window, call.dtype, "auto", None, kind=kind
        )
        return call.algorithm

    stem, patch = (8, 3, 224, 224), (64, 3, 7, 7)
    assert chosen("forward", stem, patch, 2, 3) == "winograd4"
    assert chosen("grad_input", stem, patch, 2, 3) == "winograd4"
    assert chosen("grad_weight", stem, patch, 2, 3) == "direct"
    wide = (1, 64, 27, 27), (192, 64, 5, 5), 1, 2
    assert chosen("grad_weight", *wide) == "winograd4"
    assert chosen("forward", *wide) == "winograd4"
    large = (1, 64, 56, 56), (64, 64, 7, 7), 1, 3
    for kind in "forward", "grad_input", "grad_weight":
        assert chosen(kind, *large) == "winograd4"
    apart = (1, 64, 56, 56), (64, 64, 3, 3), 1, 2
    assert chosen("forward", *apart, dilation=2) == "winograd4"
    # Dilated images of three pixels and less.
    assert chosen("forward", *apart, dilation=20) == "direct"
    # A few tiles of many channels: their filters cost more than the products.
    assert chosen("forward", (1, 512, 7, 7), (512, 512, 3, 3), 2, 1) == "direct"


def test_tilings_have_the_fewest_products():
    def tiling(kernel, stride, kind="forward", algorithm="winograd4"):
        call = check_conv(
            kind,
            (1, 1, 30, 30),
            (1, 1, *kernel),
            np.dtype(np.float32),
            (stride, 0, 1, 1),
            "NCHW",
        )
        found = find_tiling(algorithm, call.window, kind)
        return (found.taps, found.pieces) if found else None

    whole = 1, 1
    sizes = [tiling((k, k), 1) for k in range(1, 6)]
    assert sizes == [None, *((r, whole) for r in (2, 3, 4, 5))]
    # F(4, 3) and F(3, 4) take fewer products for more taps than larger filters do.
    assert tiling((3, 5), 1) == (3, (1, 2))
    sizes = [tiling((k, k), 1) for k in (6, 7, 8, 9, 11)]
    assert sizes == [(3, (2, 2)), (4, (2, 2)), (4, (2, 2)), (3, (3, 3)), (4, (3, 3))]
    sizes = [tiling((k, k), 2) for k in (2, 3, 4, 5, 7, 9, 11)]
    assert sizes == [
        None, (2, whole), (2, whole), (3, whole), (4, whole), (5, whole), (3, (2, 2)),
    ]  # fmt: skip
    assert [tiling((3, 3), s) for s in (3, 4)] == [None, None]
    assert tiling((11, 11), 4) == (3, whole)
    assert tiling((11, 11), 4, "grad_input") is None
    assert [tiling((5, 5), s, "grad_weight") for s in (1, 2)] == [(5, whole), None]
    sizes = [tiling((k, k), 2, algorithm="winograd2") for k in (3, 5, 6, 7)]
    assert sizes == [None, (3, whole), (3, whole), (3, (2, 2))]
