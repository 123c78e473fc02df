# SPDX-License-Identifier: MIT
"""Random calls, nonsense included, end as in the reference or in a clean exception.

Calls that make sense must give what the reference gives, or be refused by both. Where
an argument is nonsense, an exception of a documented type is right as well. To run many
calls on each instruction set:

    CONVNET_RANDOM_CALLS=100000 python -m pytest tests/test_random_calls.py
"""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from tolerance import tolerance

from convnet import functional, reference

CONVS = [name for name in functional.__all__ if "conv" in name]
POOLS = [name for name in functional.__all__ if "pool" in name]
CALLS = int(os.environ.get("CONVNET_RANDOM_CALLS", "500"))
CLEAN = TypeError, ValueError, MemoryError

NONSENSE = st.sampled_from(
    [
        *(None, True, False, -1, 0, 1.0, 2.5, float("nan"), float("inf"), 1j, b"1"),
        *("", "same", "NHWC", "half", [], (), (1,), (1, 2, 3), (-1, 2), (0, 0)),
        *((1.0, 2), ((1, 2), 3), ((1, 2), (3,)), [[1, 2], [3, -4]], {}, {1}, object),
        *(2**31 - 1, 2**31, 2**63, 10**30, np.int8(-3), np.float32(2)),
        *(np.zeros(0), np.zeros((2, 3)), np.ones((1, 2, 3, 5), complex), np.array("x")),
        *(np.ones((2, 1, 3, 2), np.float16), np.array(None), np.ones((1, 2, 3, 1, 2))),
    ]
)
SIZE, STEP = st.integers(1, 9), st.integers(1, 4)
KERNEL = st.tuples(st.integers(1, 5), st.integers(1, 5))
PADDING = st.one_of(
    st.just(0),
    st.integers(0, 4),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2),
    st.sampled_from(["valid", "same", "same_lower", "full"]),
)
DTYPE = st.sampled_from(["f4", "f4", "f8", "u1", "i4", ">f4", "?"])


def pair(number):
    return st.one_of(number, st.tuples(number, number))


@st.composite
def arrays(draw, shape):
    """Draw an array of small whole numbers, which floats add exactly, in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    low, high = draw(st.sampled_from([(0, 2), (-9, 9)]))
    dtype = np.dtype(draw(DTYPE))
    if dtype.kind == "u":  # which would make large numbers of negative ones
        low = 0
    array = rng.integers(low, high, shape).astype(dtype)
    order = draw(st.sampled_from(["C", "C", "F", "backward", "spread", "part"]))
    if order == "F":
        return np.asfortranarray(array)
    if order == "backward" and array.ndim:
        return array[::-1].copy()[::-1]
    if order == "part":
        return np.pad(array, 1)[(slice(1, -1),) * array.ndim]
    return np.repeat(array, 2, axis=-1)[..., ::2] if order == "spread" else array


@st.composite
def conv_calls(draw):
    """Draw a convolution or one of its gradients, by name and arguments."""
    name = draw(st.sampled_from(CONVS))
    N, G = draw(st.sampled_from([1, 2, 3, 0])), draw(st.sampled_from([1, 1, 2, 3]))
    IC, OC = G * draw(st.integers(0, 3)), G * draw(st.integers(1, 4))
    image, kernel = (draw(SIZE), draw(SIZE)), draw(KERNEL)
    options = {
        "stride": draw(pair(STEP)),
        "padding": draw(PADDING),
        "dilation": draw(pair(STEP)),
    }
    single, layout = draw(st.booleans()), draw(st.sampled_from(["NCHW", "NHWC"]))
    x_shape, w_shape = (N, IC, *image), (OC, IC // G, *kernel)
    try:
        zeros = np.zeros(x_shape), np.zeros(w_shape)
        output = reference.conv2d(*zeros, groups=G, **options).shape[2:]
    except ValueError:
        output = 1, 2
    options |= {"groups": G, "layout": layout}
    x_shape = user_shape(x_shape, layout, single)
    y_shape = user_shape((N, OC, *output), layout, single)
    if name == "conv2d":
        untied = user_shape((1, OC, *output), layout, True)
        bias = draw(st.sampled_from([None, (OC,), untied]))
        options |= {
            "x": draw(arrays(x_shape)),
            "weight": draw(arrays(w_shape)),
            "bias": bias if bias is None else draw(arrays(bias)),
        }
    elif name == "conv2d_grad_bias":
        options = {"layout": layout, "untied": draw(st.booleans())}
    elif name == "conv2d_grad_input":
        options |= {"weight": draw(arrays(w_shape)), "x_shape": x_shape}
    else:
        options |= {"x": draw(arrays(x_shape)), "weight_shape": w_shape}
    if name != "conv2d":
        options["grad_y"] = draw(arrays(y_shape))
    return name, options


@st.composite
def pool_calls(draw):
    """Draw a pooling or the gradient of one, by name and arguments."""
    name = draw(st.sampled_from(POOLS))
    shape = draw(st.sampled_from([1, 2, 3, 0])), draw(st.integers(0, 3))
    shape = (*shape, draw(SIZE), draw(SIZE))
    single, layout = draw(st.booleans()), draw(st.sampled_from(["NCHW", "NHWC"]))
    if name == "global_avg_pool2d":
        x = draw(arrays(user_shape(shape, layout, single)))
        return name, {"x": x, "layout": layout}
    options = {
        "kernel_size": draw(pair(st.integers(1, 5))),
        "stride": draw(st.one_of(st.none(), pair(STEP))),
        "padding": draw(PADDING),
        "ceil_mode": draw(st.booleans()),
    }
    if "max" in name:
        options["dilation"] = draw(pair(STEP))
    try:
        images = np.random.default_rng(draw(st.integers(0, 9))).integers(-3, 3, shape)
        pool = reference.max_pool2d(images, **options, return_indices=True)
        output, indices = pool[0].shape, pool[1]
    except ValueError:
        output = indices = None
    if "avg" in name:
        options["count_include_pad"] = draw(st.booleans())
        options["divisor_override"] = draw(st.one_of(st.none(), STEP))
    return name, options | draw(
        pool_arrays(name, shape, output, indices, layout, single)
    )


@st.composite
def pool_arrays(draw, name, shape, output, indices, layout, single):
    """Draw the arguments of a pooling that depend on the layout."""
    x_shape = user_shape(shape, layout, single)
    if "grad" not in name:
        return {"x": draw(arrays(x_shape)), "layout": layout}
    y_shape = output or (*shape[:2], 1, 2)
    grad_y = draw(arrays(user_shape(y_shape, layout, single)))
    options = {"grad_y": grad_y, "x_shape": x_shape, "layout": layout}
    if name == "max_pool2d_grad":
        if indices is None or draw(st.integers(0, 9)) == 0:
            indices = np.full(y_shape, draw(st.integers(-2, 9)))
        options["indices"] = user_array(indices, layout, single)
    return options


def user_shape(shape, layout, single):
    N, C, H, W = shape
    shape = (N, H, W, C) if layout == "NHWC" else shape
    return shape[1:] if single else shape


def user_array(array, layout, single):
    array = array.transpose(0, 2, 3, 1) if layout == "NHWC" else array
    if single:
        return array[0] if len(array) else np.zeros(array.shape[1:], array.dtype)
    return array


@st.composite
def calls(draw):
    """Draw a call, and whether one of its arguments is nonsense."""
    name, options = draw(st.one_of(conv_calls(), pool_calls()))
    options["num_threads"] = draw(st.sampled_from([None, 1, 2, 3]))
    spoiled = draw(st.integers(0, 4)) == 0
    if spoiled:
        options[draw(st.sampled_from(sorted(options)))] = draw(NONSENSE)
    return name, options, spoiled


def outcome(module, call):
    """Return the arrays that a call returns, or the exception that it raises."""
    name, options, _ = call
    try:
        result = getattr(module, name)(**options)
    except CLEAN as error:
        return error
    return result if isinstance(result, tuple) else (result,)


@given(array=arrays((3, 5)))
def test_drawn_numbers_are_small_enough_for_exact_sums(array):
    assert np.abs(array.astype(float)).max() <= 9


FAR_TAPS = {"padding": "same", "dilation": 2**31 - 1, "x_shape": (1, 0, 1, 1)}
FAR_TAPS |= {
    "weight": np.zeros((1, 0, 2, 2), "f4"),
    "grad_y": np.ones((1, 1, 1, 1), "f4"),
}


@pytest.mark.usefixtures("isa")
@settings(max_examples=CALLS)
@given(call=calls())
@example(call=("conv2d_grad_input", FAR_TAPS, True))
def test_random_calls_agree_with_the_reference(call):
    actual = outcome(functional, call)
    refused = isinstance(actual, Exception)
    if refused and call[2]:
        return
    expected = outcome(reference, call)
    if call[2] and isinstance(expected, MemoryError):
        return  # it pads images for real, by any nonsense: there is no judge
    assert refused == isinstance(expected, Exception), (actual, expected)
    if not refused:
        for one, other in zip(actual, expected, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            # All sums are of whole numbers; only averages round.
            atol = tolerance(one.dtype, 25, 9) if "avg" in call[0] else 0
            assert_allclose(one, other, rtol=0, atol=atol)
