# SPDX-License-Identifier: MIT
"""Contracts that every layer keeps: gradients, modes, memory, one image or a batch."""

import numpy as np
import pytest
from tolerance import tolerance

from convnet import nn
from convnet.testing import gradcheck

IMAGES = (2, 6, 7, 5)
NHWC = (2, 7, 5, 6)
ROWS = (3, 30)

# Each layer with the shape of an input; a function makes a new layer for each test.
LAYERS = {
    "conv": (lambda: nn.Conv2d(6, 4, (3, 2), rng=0), IMAGES),
    "conv_strided": (
        lambda: nn.Conv2d(6, 4, (2, 3), (3, 2), ((1, 0), (0, 2)), (2, 1), rng=0),
        IMAGES,
    ),
    "conv_grouped": (lambda: nn.Conv2d(6, 4, (3, 2), groups=2, rng=0), IMAGES),
    "conv_no_bias": (lambda: nn.Conv2d(6, 4, (3, 2), bias=False, rng=0), IMAGES),
    "conv_untied": (
        lambda: nn.Conv2d(
            6, 4, (3, 2), 2, "same", bias="untied", input_size=(7, 5), rng=0
        ),
        IMAGES,
    ),
    "conv_nhwc": (lambda: nn.Conv2d(6, 4, (3, 2), layout="NHWC", rng=0), NHWC),
    "conv_untied_nhwc": (
        lambda: nn.Conv2d(
            6, 4, (3, 2), bias="untied", input_size=(7, 5), layout="NHWC", rng=0
        ),
        NHWC,
    ),
    "separable": (lambda: nn.SeparableConv2d(6, 4, (3, 2), rng=0), IMAGES),
    "linear": (lambda: nn.Linear(30, 4, rng=0), ROWS),
    "linear_no_bias": (lambda: nn.Linear(30, 4, bias=False, rng=0), ROWS),
    "linear_many_axes": (lambda: nn.Linear(5, 4, rng=0), IMAGES),
    "max_pool": (lambda: nn.MaxPool2d((3, 2), (2, 1), (1, 0)), IMAGES),
    "max_pool_dilated": (lambda: nn.MaxPool2d((2, 3), dilation=(3, 1)), IMAGES),
    "max_pool_nhwc": (lambda: nn.MaxPool2d((3, 2), layout="NHWC"), NHWC),
    "avg_pool": (
        lambda: nn.AvgPool2d((3, 2), 2, (1, 0), True, count_include_pad=False),
        IMAGES,
    ),
    "avg_pool_divisor": (
        lambda: nn.AvgPool2d((3, 2), divisor_override=7, layout="NHWC"),
        NHWC,
    ),
    "global_avg_pool": (lambda: nn.GlobalAvgPool2d(), IMAGES),
    "global_avg_pool_nhwc": (lambda: nn.GlobalAvgPool2d(layout="NHWC"), NHWC),
    "flatten": (lambda: nn.Flatten(), IMAGES),
    "reshape": (lambda: nn.Reshape((5, 3, 2)), ROWS),
    "relu": (lambda: nn.ReLU(), IMAGES),
    "leaky_relu": (lambda: nn.LeakyReLU(0.2), IMAGES),
    "sigmoid": (lambda: nn.Sigmoid(), IMAGES),
    "tanh": (lambda: nn.Tanh(), ROWS),
    "softmax": (lambda: nn.Softmax(), ROWS),
    "softmax_channels": (lambda: nn.Softmax(dim=-3), IMAGES),
    "batch_norm": (lambda: nn.BatchNorm2d(6), IMAGES),
    "batch_norm_nhwc": (lambda: nn.BatchNorm2d(6, layout="NHWC"), NHWC),
    "dropout": (lambda: nn.Dropout(0.3, rng=0), IMAGES),
    "sequential": (
        lambda: nn.Sequential(
            # A bias would have no gradient.
            nn.Conv2d(6, 4, (3, 2), bias=False, rng=0),
            nn.BatchNorm2d(4),
            nn.Sequential(nn.Tanh(), nn.AvgPool2d(2)),
            nn.Flatten(),
            nn.Linear(16, 3, rng=1),
        ),
        IMAGES,
    ),
    "residual": (
        lambda: nn.Residual(nn.Conv2d(6, 6, (3, 1), 1, (1, 0), rng=0)),
        IMAGES,
    ),
    "residual_shortcut": (
        lambda: nn.Residual(
            nn.Conv2d(6, 4, (3, 2), 2, ((1, 1), (0, 1)), rng=0),
            nn.Conv2d(6, 4, 1, 2, rng=1),
        ),
        IMAGES,
    ),
}


@pytest.fixture(params=LAYERS)
def case(request):
    """Return a layer that has never run and a random input."""
    make, shape = LAYERS[request.param]
    # Distinct values at least 0.01 apart and not 0: no kink within a difference's step.
    rng = np.random.default_rng(7)
    x = (rng.permutation(np.prod(shape)) - np.prod(shape) / 2 + 0.5) * 0.01
    return make(), x.reshape(shape).astype(np.float32)


def ones_like_output(layer, x):
    return np.ones(layer(x).shape, np.float32)


def test_gradients_match_differences(case):
    layer, x = case
    for parameter in layer.parameters():
        # Start values such as the 0 and 1 of a batch norm hide mistakes.
        noise = np.random.default_rng(1).standard_normal(parameter.value.shape)
        parameter.value += 0.1 * noise
    report = gradcheck(layer, x)
    assert report.ok, str(report)


def test_gradients_match_differences_in_eval_mode(case):
    layer, x = case
    layer(x)
    report = gradcheck(layer.eval(), x)
    assert report.ok, str(report)


def test_one_sample_is_a_batch_of_one(case):
    layer, x = case
    layer.eval()
    batch = layer(x[:1])
    one = layer(x[0])
    np.testing.assert_array_equal(one, batch[0])
    grad_y = np.ones(one.shape, np.float32)
    assert layer.backward(grad_y).shape == x[0].shape


def test_backward_needs_a_forward(case):
    layer, x = case
    if type(layer) is nn.Residual:
        layer = layer.body
    y = layer.prepare()(x)
    with pytest.raises(RuntimeError, match="forward"):
        layer.backward(np.ones_like(y))
    layer.infer(x)
    with pytest.raises(RuntimeError, match="forward"):
        layer.backward(np.ones_like(y))


def test_backward_adds_to_the_arrays_that_are_there(case):
    layer, x = case
    arrays = [(p.value, p.grad) for p in layer.parameters()]
    grad_y = ones_like_output(layer, x)
    first_x = layer.backward(grad_y)
    first = [p.grad.copy() for p in layer.parameters()]
    second_x = layer.backward(grad_y)
    np.testing.assert_array_equal(second_x, first_x)
    for parameter, once, (value, grad) in zip(
        layer.parameters(), first, arrays, strict=True
    ):
        assert parameter.value is value
        assert parameter.grad is grad
        assert np.any(once)
        np.testing.assert_array_equal(grad, once + once)
    layer.zero_grad()
    assert not any(np.any(p.grad) for p in layer.parameters())
    assert all(
        p.grad is grad for p, (_, grad) in zip(layer.parameters(), arrays, strict=True)
    )


def test_accumulate_gives_the_same_parameter_gradients(case):
    layer, x = case
    grad_y = ones_like_output(layer, x)
    layer.backward(grad_y)
    whole = [p.grad.copy() for p in layer.parameters()]
    layer.zero_grad()
    layer.accumulate(grad_y)
    for parameter, grad in zip(layer.parameters(), whole, strict=True):
        np.testing.assert_array_equal(parameter.grad, grad)


def test_wrong_gradient_shape_changes_nothing(case):
    layer, x = case
    shape = layer(x).shape
    wrong = (shape[0] + 1, *shape[1:])
    with pytest.raises(ValueError, match=r"\d, "):
        layer.backward(np.ones(wrong, np.float32))
    last = layer[-1:] if isinstance(layer, nn.Sequential) else layer
    assert not any(np.any(p.grad) for p in last.parameters())


def test_inputs_stay_as_they_are(case):
    layer, x = case
    before = x.copy()
    x.flags.writeable = False
    grad_y = ones_like_output(layer, x)
    grad_y.flags.writeable = False
    layer.backward(grad_y)
    layer.infer(x)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(grad_y, 1)


@pytest.mark.parametrize("form", ["list", "reversed", "fortran", "byte-swapped"])
def test_any_array_will_do(case, form):
    layer, x = case
    forms = {
        "list": x.tolist(),
        "reversed": x[::-1].copy()[::-1],
        "fortran": np.asfortranarray(x),
        "byte-swapped": x.astype(x.dtype.newbyteorder()),
    }
    y = layer.eval()(forms[form])
    # A list arrives in float64, where the layer's float32 weights are rounded alike.
    scale = float(np.abs(y).max())
    atol = tolerance(np.float32, 36, scale)
    np.testing.assert_allclose(y, layer(x), rtol=0, atol=atol)
    assert layer.backward(np.ones(y.shape)[::-1]).shape == x.shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_of_the_input_is_kept(case, dtype):
    layer, x = case
    y = layer(x.astype(dtype))
    assert y.dtype == dtype
    assert layer.backward(y).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float16, np.complex64, object])
def test_other_dtypes_are_refused(case, dtype):
    layer, x = case
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        layer(x.astype(dtype))


def test_eval_and_infer_agree(case):
    layer, x = case
    layer(x)
    layer.eval()
    y = layer(x)
    atol = tolerance(np.float32, 36, float(np.abs(y).max()))
    np.testing.assert_allclose(layer.infer(x), y, rtol=0, atol=atol)


def test_empty_batch(case):
    layer, x = case
    layer.eval()
    y = layer(x[:0])
    assert y.shape == (0, *layer(x).shape[1:])
    layer(x[:0])
    assert layer.backward(y).shape == (0, *x.shape[1:])
