# SPDX-License-Identifier: MIT
"""What every public array function promises, whatever it computes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import DTYPES, LAYOUTS, shape_in, to_layout
from numpy.testing import assert_allclose, assert_array_equal
from tolerance import tolerance

from convnet import functional, reference

pytestmark = pytest.mark.usefixtures("isa")
every_function = pytest.mark.parametrize("name", functional.__all__)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

CONV = {"stride": (2, 1), "padding": ((1, 2), (3, 0)), "dilation": (1, 2), "groups": 3}
POOL = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 1), "ceil_mode": True}
SHAPES = (3, 6, 11, 7), (9, 2, 3, 4)
# Large enough for several threads, and for several blocks in each.
LARGE = (5, 12, 83, 71), (39, 4, 3, 4)


class Call:
    """One call of a public function: arrays to pass, and options."""

    def __init__(self, name, rng, dtype=np.float32, layout="NCHW", shapes=SHAPES):
        def random(shape):
            return rng.standard_normal(shape).astype(dtype)

        self.name, (x_shape, w_shape) = name, shapes
        x, w = random(x_shape), random(w_shape)
        if name.startswith("conv2d"):
            self.options = {**CONV, "layout": layout}
            gy = random(reference.conv2d(x, w, **CONV).shape)
        else:
            self.options = {**POOL, "layout": layout}
            y, indices = reference.max_pool2d(x, **POOL, return_indices=True)
            gy, indices = random(y.shape), to_layout(indices, layout)
        x, gy = to_layout(x, layout), to_layout(gy, layout)
        if name == "conv2d":
            self.arrays = {"x": x, "weight": w, "bias": random(len(w))}
        elif name == "conv2d_grad_input":
            self.arrays = {"grad_y": gy, "weight": w}
        elif name == "conv2d_grad_weight":
            self.arrays = {"grad_y": gy, "x": x}
            self.options["weight_shape"] = w.shape
        elif name == "max_pool2d_grad":
            self.arrays = {"grad_y": gy, "indices": indices}
        elif name in ("avg_pool2d_grad", "conv2d_grad_bias"):
            self.arrays = {"grad_y": gy}
        else:
            self.arrays = {"x": x}
        if name in ("conv2d_grad_input", "max_pool2d_grad", "avg_pool2d_grad"):
            self.options["x_shape"] = shape_in(x_shape, layout)
        if name in ("conv2d_grad_bias", "global_avg_pool2d"):
            self.options = {"layout": layout}

    def __call__(self, **changes):
        """Return the result, with some arguments changed."""
        function = getattr(functional, self.name)
        return function(**{**self.arrays, **self.options, **changes})


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def backward(array):
    """Return equal values behind negative strides on all axes."""
    everything = (slice(None, None, -1),) * array.ndim
    return array[everything].copy()[everything]


def spread(array):
    """Return equal values with gaps between them."""
    wide = np.full([2 * size + 1 for size in array.shape], 77, array.dtype)
    inner = (slice(1, None, 2),) * array.ndim
    wide[inner] = array
    return wide[inner]


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    view = memory.view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


def byte_swapped(array):
    return array.astype(array.dtype.newbyteorder())


MEMORY = {
    function.__name__: function
    for function in (
        read_only,
        np.asfortranarray,
        backward,
        spread,
        unaligned,
        byte_swapped,
    )
}


@every_function
@every_layout
@every_dtype
@pytest.mark.parametrize("order", MEMORY)
def test_inputs_of_any_memory_order_are_accepted(rng, name, layout, dtype, order):
    call = Call(name, rng, dtype, layout)
    expected = call()
    arrays = {key: MEMORY[order](array) for key, array in call.arrays.items()}
    result = call(**arrays)
    assert result.dtype == dtype
    assert result.flags.c_contiguous
    atol = tolerance(dtype, 3 * 9 * 77, 50)
    assert_allclose(result, expected, rtol=0, atol=atol)


@every_function
@every_layout
def test_inputs_are_not_modified(rng, name, layout):
    call = Call(name, rng, layout=layout)
    copies = {key: array.copy() for key, array in call.arrays.items()}
    call()
    for key, array in call.arrays.items():
        assert_array_equal(array, copies[key])


@every_function
@every_layout
@every_dtype
def test_out_takes_the_result(rng, name, layout, dtype):
    call = Call(name, rng, dtype, layout)
    expected = call()
    out = np.full_like(expected, np.nan)
    assert call(out=out) is out
    assert_array_equal(out, expected)
    for out in spread(expected), backward(expected), np.asfortranarray(expected):
        out[...] = np.nan
        assert call(out=out) is out
        assert_allclose(out, expected, rtol=0, atol=tolerance(dtype, 2079, 50))


@every_function
def test_out_writes_nothing_between_its_elements(rng, name):
    call = Call(name, rng)
    expected = call()
    out = spread(expected)
    call(out=out)
    assert np.count_nonzero(out.base == 77) == out.base.size - out.size


@every_function
def test_out_that_does_not_fit_is_refused(rng, name):
    call = Call(name, rng)
    result = call()
    for error, message, out in (
        (TypeError, "ndarray, got list", result.tolist()),
        (ValueError, "must have the shape", result[..., :-1].copy()),
        (ValueError, "must have the shape", result[None].copy()),
        (ValueError, "float64", result.astype(float)),
        (ValueError, "dtype", byte_swapped(result)),
        (ValueError, "writable", read_only(result)),
        (ValueError, "aligned", unaligned(result)),
    ):
        before = np.array(out)
        with pytest.raises(error, match=message):
            call(out=out)
        assert_array_equal(out, before)


@every_function
def test_out_that_overlaps_an_input_is_refused(rng, name):
    call = Call(name, rng)
    size = call().size
    for key, array in call.arrays.items():
        memory = np.zeros(max(size, array.size) + 8, np.float64)
        inside = memory.view(array.dtype)[: array.size].reshape(array.shape)
        inside[...] = array
        out = memory.view(np.float32)[3 : 3 + size].reshape(call().shape)
        with pytest.raises(ValueError, match="share memory"):
            call(**{key: inside}, out=out)
        assert_array_equal(inside, array)


# What threads share beside blocks and rows: row phases, weights packed by pieces,
# slices of weights, parts of planes that are turned.
SHARED = {
    "patches": ("conv2d_grad_input", (1, 3, 96, 112), (97, 3, 16, 16), {"stride": 16}),
    "phases of several chunks": (
        "conv2d_grad_input",
        (1, 2, 61, 62),
        (401, 2, 4, 3),
        {"stride": (4, 2)},
    ),
    "few pixels, several chunks": (
        "conv2d_grad_input",
        (1, 48, 7, 9),
        (131, 48, 5, 3),
        {"padding": (2, 1)},
    ),
    "strided planes": (
        "conv2d_grad_weight",
        (9, 19, 61, 83),
        (19, 1, 3, 3),
        {"stride": 3, "groups": 19},
    ),
    "strided planes, few": (
        "conv2d_grad_weight",
        (9, 16, 71, 91),
        (16, 1, 3, 3),
        {"stride": 2, "groups": 16},
    ),
    "equal rows": (
        "conv2d",
        (1, 24, 55, 57),
        (40, 24, 3, 3),
        {"stride": 2, "padding": 1},
    ),
    "filters of two blocks": (
        "conv2d",
        (1, 70, 33, 35),
        (136, 70, 3, 3),
        {"stride": 2, "padding": 1},
    ),
    "a few rows": ("conv2d_grad_weight", (9, 37, 31, 43), (3, 37, 1, 1), {}),
    "a few columns": ("conv2d_grad_weight", (9, 11, 43, 31), (45, 11, 1, 1), {}),
    "some columns": ("conv2d_grad_weight", (3, 14, 43, 31), (290, 14, 1, 1), {}),
}


@pytest.mark.parametrize("name", SHARED)
@every_dtype
def test_same_bits_however_threads_share(rng, name, dtype):
    function, x_shape, w_shape, options = SHARED[name]
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape))
    grad_y = functional.conv2d(x, w, **options)
    # The terms of a sum: channels or filters and taps, or pixels.
    arrays, terms = {
        "conv2d": ((x, w), w[0].size),
        "conv2d_grad_input": ((grad_y, w, x.shape), w[:, 0].size),
        "conv2d_grad_weight": ((grad_y, x, w.shape), grad_y[:, 0].size),
    }[function]
    run, judge = getattr(functional, function), getattr(reference, function)
    expected = run(*arrays, **options, num_threads=1)
    exact = judge(*(np.asarray(a, float) for a in arrays[:2]), *arrays[2:], **options)
    bound = tolerance(dtype, terms, np.max(np.abs(exact)))
    assert np.max(np.abs(expected - exact)) < bound
    for num_threads in 2, 3, 5:
        result = run(*arrays, **options, num_threads=num_threads)
        assert_array_equal(result, expected)


def test_out_between_the_elements_of_an_input_is_accepted(rng):
    x = rng.standard_normal((2, 3, 7, 10)).astype(np.float32)
    expected = functional.max_pool2d(x[..., ::2], 1)
    functional.max_pool2d(x[..., ::2], 1, out=x[..., 1::2])
    assert_array_equal(x[..., 1::2], expected)


@every_function
@every_layout
@every_dtype
def test_same_bits_for_any_number_of_threads(rng, name, layout, dtype):
    call = Call(name, rng, dtype, layout, LARGE)
    expected = call(num_threads=1)
    for num_threads in 2, 3, 7:
        assert_array_equal(call(num_threads=num_threads), expected)


@every_function
def test_results_do_not_share_memory(rng, name):
    first, second = Call(name, rng), Call(name, rng)
    results = [first(), second()]
    copies = [result.copy() for result in results]
    for _ in range(5):
        results.append(second())
    assert_array_equal(results[0], copies[0])
    assert_array_equal(results[1], copies[1])
    for i, result in enumerate(results):
        assert not any(np.shares_memory(result, other) for other in results[:i])


@every_function
def test_calls_from_many_python_threads(rng, name):
    calls = [Call(name, rng, shapes=LARGE) for _ in range(3)]
    expected = [call() for call in calls]
    with ThreadPoolExecutor(6) as pool:
        futures = [(i % 3, pool.submit(calls[i % 3])) for i in range(24)]
        for i, future in futures:
            assert_array_equal(future.result(), expected[i])


@every_function
@every_layout
def test_no_images_give_an_empty_or_zero_result(rng, name, layout):
    call = Call(name, rng, layout=layout)
    changes = {
        key: array[:0]
        for key, array in call.arrays.items()
        if key not in ("weight", "bias")
    }
    if "x_shape" in call.options:
        changes["x_shape"] = (0, *call.options["x_shape"][1:])
    expected = call()
    result = call(**changes)
    assert result.dtype == np.float32
    if name in ("conv2d_grad_weight", "conv2d_grad_bias"):
        assert_array_equal(result, np.zeros_like(expected))
    else:
        assert result.shape == (0, *expected.shape[1:])


@every_layout
def test_no_input_channels_give_the_bias(rng, layout):
    x = np.ones(shape_in((2, 0, 11, 7), layout), np.float32)
    w = np.ones((5, 0, 3, 2), np.float32)
    bias = rng.standard_normal(5).astype(np.float32)
    untied = rng.standard_normal(shape_in((5, 9, 6), layout)).astype(np.float32)
    y = functional.conv2d(x, w, layout=layout)
    assert_array_equal(y, np.zeros(shape_in((2, 5, 9, 6), layout)))
    channels = bias if layout == "NHWC" else bias[:, None, None]
    assert_array_equal(functional.conv2d(x, w, bias, layout=layout), y + channels)
    assert_array_equal(functional.conv2d(x, w, untied, layout=layout), y + untied)
    gx = functional.conv2d_grad_input(y, w, x.shape, layout=layout)
    assert gx.shape == x.shape
    assert functional.conv2d_grad_weight(y, x, w.shape, layout=layout).shape == w.shape


def test_no_output_channels_give_zero_gradients(rng):
    x = rng.standard_normal((2, 3, 11, 7))
    w = np.ones((0, 3, 3, 2))
    y = functional.conv2d(x, w)
    assert y.shape == (2, 0, 9, 6)
    assert_array_equal(functional.conv2d_grad_input(y, w, x.shape), np.zeros(x.shape))
    assert functional.conv2d_grad_weight(y, x, w.shape).shape == w.shape
    assert functional.conv2d_grad_bias(y).shape == (0,)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_no_channels_give_an_empty_pooling(name):
    for shape in (2, 0, 7, 5), (0, 7, 5):
        result = getattr(functional, name)(np.ones(shape), (3, 2))
        assert result.shape == (*shape[:-2], 2, 2)


def test_images_without_pixels_are_their_padding():
    x, w = np.ones((2, 3, 0, 5), np.float32), np.ones((4, 3, 3, 2), np.float32)
    y = functional.conv2d(x, w, np.full(4, 7, np.float32), padding=(2, 0))
    assert_array_equal(y, np.full((2, 4, 2, 4), 7))
    gx = functional.conv2d_grad_input(y, w, x.shape, padding=(2, 0))
    assert gx.shape == x.shape
    gw = functional.conv2d_grad_weight(y, x, w.shape, padding=(2, 0))
    assert_array_equal(gw, np.zeros(w.shape))
    with pytest.raises(ValueError, match="wholly in the padding"):
        functional.max_pool2d(x, (3, 2), padding=(2, 0))


def test_calls_may_write_between_each_others_pixels(rng):
    x = rng.standard_normal((1, 3, 37, 211), np.float32)
    weights = [rng.standard_normal((5, 3, 3, 3), np.float32) for _ in range(2)]
    right = [functional.conv2d(x, w, algorithm="direct") for w in weights]
    both = np.zeros((*right[0].shape[:3], 2 * right[0].shape[3]), np.float32)
    outs = both[..., ::2], both[..., 1::2]

    def write(i):
        for sign in [1, -1] * 200:
            how = {"out": outs[i], "num_threads": 1, "algorithm": "direct"}
            functional.conv2d(sign * x, weights[i], **how)
            if not np.array_equal(outs[i], sign * right[i]):
                return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(write, range(2)))
