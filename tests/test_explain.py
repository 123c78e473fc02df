# SPDX-License-Identifier: MIT
"""explain(): what it says must be what the call does."""

import re

import numpy as np
import pytest

import convnet
from convnet import explain

X, W = (2, 6, 17, 13), (8, 3, 3, 5)
OPTIONS = {"stride": (2, 1), "padding": (1, 2), "groups": 2}


@pytest.mark.parametrize("kind", ["forward", "grad_input", "grad_weight"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_explain_counts_the_operations(kind, dtype):
    plan = explain(X, W, **OPTIONS, kind=kind, dtype=dtype)
    assert plan.algorithm == "direct"
    assert plan.flops == plan.useful_flops == 2 * 2 * 8 * 3 * 3 * 5 * 9 * 13
    assert plan.candidates[0].scratch_bytes == plan.scratch_bytes > 0


def test_explain_of_both_layouts_counts_the_same():
    N, C, H, Wd = X
    planar = explain(X, W, **OPTIONS)
    last = explain((N, H, Wd, C), W, **OPTIONS, layout="NHWC")
    assert planar.flops == last.flops


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize(("channels", "in_place"), [(3, True), (13, True), (64, False)])
def test_few_channels_of_1x1_weights_go_plane_by_plane(channels, in_place):
    x, w = (2, channels, 37, 41), (70, channels, 1, 1)
    plan = explain(x, w, kind="grad_weight")
    assert plan.candidates[0].reason.endswith("read in place") == in_place


def test_explain_does_not_take_the_memory_that_it_talks_about():
    plan = explain((1 << 20, 64, 512, 512), (64, 64, 3, 3), padding=1)
    assert plan.scratch_bytes < 1 << 26


@pytest.mark.parametrize("kind", ["forward", "grad_input", "grad_weight"])
def test_scratch_does_not_grow_with_the_batch(kind):
    scratch = [
        explain((N, 31, 29, 37), (41, 31, 3, 3), padding=1, kind=kind).scratch_bytes
        for N in (64, 4096)
    ]
    assert scratch[0] == scratch[1]


@pytest.mark.parametrize("kind", ["forward", "grad_input", "grad_weight"])
def test_error_bound_holds(kind, rng):
    x = rng.standard_normal((3, 37, 13, 17)).astype(np.float32)
    w = rng.standard_normal((5, 37, 3, 7)).astype(np.float32)
    y = convnet.conv2d(x, w)
    arguments = {
        "forward": (convnet.conv2d, convnet.reference.conv2d, (x, w)),
        "grad_input": (
            convnet.conv2d_grad_input,
            convnet.reference.conv2d_grad_input,
            (y, w, x.shape),
        ),
        "grad_weight": (
            convnet.conv2d_grad_weight,
            convnet.reference.conv2d_grad_weight,
            (y, x, w.shape),
        ),
    }
    fast, slow, given = arguments[kind]
    exact = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in given]
    sizes = [abs(a) if isinstance(a, np.ndarray) else a for a in exact]
    error = abs(fast(*given) - slow(*exact)) / slow(*sizes)
    bound = explain(x.shape, w.shape, kind=kind).error_bound
    assert 0 < error.max() < bound < 1e-3


def test_error_bound_counts_every_block_of_a_weight_gradient():
    # Blocks are added to the sum one by one, whatever their size.
    plan = explain((2, 8, 3000, 290), (4, 8, 3, 3), padding=1, kind="grad_weight")
    direct = next(c for c in plan.candidates if c.algorithm == "direct")
    blocks = int(re.search(r"of (\d+) blocks", direct.reason)[1])
    assert direct.error_bound > blocks * np.finfo(np.float32).eps / 2


@pytest.mark.parametrize("kind", ["forward", "grad_input", "grad_weight"])
def test_explain_refuses_what_no_memory_holds(kind):
    with pytest.raises(MemoryError, match="no memory"):
        explain(
            (1, 1, 1, 1),
            (1, 1, 2**30, 2**29),
            padding=(2**30 - 1, 2**29 - 1),
            kind=kind,
        )


def test_explain_of_windows_that_meet_no_pixel():
    plan = explain((1, 1, 1, 1), (1, 1, 2, 1), (9, 1), 3, 4, kind="grad_input")
    assert plan.scratch_bytes == 0


def test_print_shows_the_chosen_candidate():
    text = str(explain(X, W, **OPTIONS))
    assert "forward of 2 x 6x17x13 float32" in text
    assert "* direct" in text


def test_explain_without_work_is_empty():
    plan = explain((0, 3, 7, 5), (4, 3, 3, 2))
    assert (plan.flops, plan.scratch_bytes, plan.error_bound) == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"kind": "backward"}, ValueError, "kind"),
        ({"layout": "CHWN"}, ValueError, "layout"),
        ({"dtype": np.float16}, TypeError, "float16"),
        ({"groups": 5}, ValueError, "15 input channels"),
        ({"padding": -1}, ValueError, "padding"),
    ],
)
def test_explain_nonsense(arguments, error, match):
    with pytest.raises(error, match=match):
        explain(X, W, **{"groups": 2, **arguments})
