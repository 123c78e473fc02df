# SPDX-License-Identifier: MIT
"""What layers compute, against formulas written out anew."""

import math

import numpy as np
import pytest
from tolerance import tolerance

from convnet import nn, reference


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("bias", [True, False, "untied"])
def test_conv_is_the_function_with_its_parameters(rng, layout, bias):
    layer = nn.Conv2d(
        6,
        4,
        (3, 2),
        stride=(2, 1),
        padding=((1, 0), (0, 2)),
        dilation=(1, 3),
        groups=2,
        bias=bias,
        input_size=(11, 7),
        layout=layout,
        dtype=np.float64,
        rng=rng,
    )
    x = rng.standard_normal((3, 6, 11, 7) if layout == "NCHW" else (3, 11, 7, 6))
    b = layer.bias.value if layer.bias else None
    want = reference.conv2d(
        x, layer.weight.value, b, (2, 1), ((1, 0), (0, 2)), (1, 3), 2, layout=layout
    )
    atol = tolerance(np.float64, 3 * 3 * 2, np.abs(want).max())
    np.testing.assert_allclose(layer(x), want, rtol=0, atol=atol)


def test_untied_bias_has_the_shape_of_an_output():
    options = {"bias": "untied", "input_size": (11, 7), "padding": "same", "rng": 0}
    first = nn.Conv2d(3, 5, (3, 2), 2, **options)
    last = nn.Conv2d(3, 5, (3, 2), 2, layout="NHWC", **options)
    assert first.bias.value.shape == (5, 6, 4)
    assert last.bias.value.shape == (6, 4, 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_is_a_matrix_product(rng, dtype):
    layer = nn.Linear(37, 11, dtype=dtype, rng=rng)
    x = rng.standard_normal((5, 37)).astype(dtype)
    grad_y = rng.standard_normal((5, 11)).astype(dtype)
    w = layer.weight.value.astype(np.float64)
    close = {"rtol": 0, "atol": tolerance(dtype, 37, math.sqrt(37))}
    np.testing.assert_allclose(layer(x), x @ w.T + layer.bias.value, **close)
    np.testing.assert_allclose(layer.backward(grad_y), grad_y @ w, **close)
    np.testing.assert_allclose(layer.weight.grad, grad_y.T @ x, **close)
    np.testing.assert_allclose(layer.bias.grad, grad_y.sum(axis=0), **close)


def test_batch_norm_trains_on_the_batch_and_infers_from_averages(rng):
    layer = nn.BatchNorm2d(3, eps=0.125, momentum=0.25, dtype=np.float64)
    layer.weight.value = np.array([2.0, 0.5, -1.0])
    layer.bias.value = np.array([1.0, 0.0, -3.0])
    x = rng.normal(4, 3, (2, 3, 5, 7))
    mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    running_mean, running_var = 0.25 * mean, 0.75 + 0.25 * var * (70 / 69)

    def normalized(mean, var):
        y = np.empty_like(x)
        for c in range(3):
            normal = (x[:, c] - mean[c]) / math.sqrt(var[c] + 0.125)
            y[:, c] = layer.weight.value[c] * normal + layer.bias.value[c]
        return y

    close = {"rtol": 0, "atol": tolerance(np.float64, 70, 10)}
    np.testing.assert_allclose(layer(x), normalized(mean, var), **close)
    np.testing.assert_allclose(layer.running_mean, running_mean, **close)
    np.testing.assert_allclose(layer.running_var, running_var, **close)
    want = normalized(running_mean, running_var)
    np.testing.assert_allclose(layer.eval()(x), want, **close)
    np.testing.assert_allclose(layer.running_mean, running_mean, **close)


def test_batch_norm_needs_two_values_to_train():
    layer = nn.BatchNorm2d(3)
    with pytest.raises(ValueError, match=r"\(1, 3, 1, 1\)"):
        layer(np.ones((1, 3, 1, 1)))
    assert layer.eval()(np.ones((1, 3, 1, 1))).shape == (1, 3, 1, 1)


def test_max_pool_keeps_the_largest(rng):
    x = rng.standard_normal((2, 3, 7, 5))
    y = nn.MaxPool2d((3, 2))(x)
    assert y.shape == (2, 3, 2, 2)
    for oh in range(2):
        for ow in range(2):
            window = x[:, :, 3 * oh : 3 * oh + 3, 2 * ow : 2 * ow + 2]
            np.testing.assert_array_equal(y[:, :, oh, ow], window.max(axis=(2, 3)))


def test_shapes():
    x = np.arange(210.0).reshape(7, 2, 3, 5)
    rows = nn.Flatten()(x)
    np.testing.assert_array_equal(rows, np.arange(210.0).reshape(7, 30))
    np.testing.assert_array_equal(nn.Reshape((2, 3, 5))(rows), x)
    np.testing.assert_array_equal(nn.Reshape([5, 6])(x[0]).ravel(), x[0].ravel())
    np.testing.assert_array_equal(nn.Flatten()(rows), rows)
    assert nn.GlobalAvgPool2d()(x).shape == (7, 2, 1, 1)
    with pytest.raises(ValueError, match=r"\(2, 3, 5\).*\(4, 7\)"):
        nn.Reshape((4, 7))(x)


def test_activations_far_from_zero():
    x = np.array([[-1e30, -1000.0, -1e-30, 0.0, 1000.0, 1e30]], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        np.testing.assert_array_equal(nn.Sigmoid()(x), [[0, 0, 0.5, 0.5, 1, 1]])
        np.testing.assert_array_equal(nn.Softmax()(x), [[0, 0, 0, 0, 0, 1]])
        np.testing.assert_array_equal(nn.Tanh()(x)[0, [0, 1, 4, 5]], [-1, -1, 1, 1])
    # sigmoid(-20) keeps its relative precision.
    small = nn.Sigmoid()(np.array([-20.0], np.float32))
    np.testing.assert_allclose(
        small, math.exp(-20), rtol=tolerance(np.float32, 1) + math.exp(-20)
    )


def test_nan_goes_through():
    x = np.array([[1.0, np.nan, -2.0]])
    for layer in (nn.ReLU(), nn.LeakyReLU(), nn.Sigmoid(), nn.Tanh()):
        np.testing.assert_array_equal(np.isnan(layer(x)), [[False, True, False]])


def test_dropout_keeps_the_mean_and_follows_its_seed():
    x = np.ones((101, 97), np.float32)
    first, second = nn.Dropout(0.25, rng=3), nn.Dropout(0.25, rng=3)
    y = first(x)
    np.testing.assert_array_equal(y, second(x))
    assert not np.array_equal(y, first(x))
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    # Six standard deviations of the mean of so many independent values.
    assert abs(y.mean() - 1) < 6 * math.sqrt(0.25 / 0.75 / x.size)
    np.testing.assert_array_equal(nn.Dropout(0, rng=3)(x), x)
    np.testing.assert_array_equal(nn.Dropout(1, rng=3)(x), 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_start_values_follow_the_seed_in_both_precisions(dtype):
    layer = nn.Conv2d(3, 5, (3, 7), dtype=dtype, rng=0)
    same = nn.Conv2d(3, 5, (3, 7), dtype=np.float64, rng=np.random.default_rng(0))
    assert layer.weight.value.dtype == layer.bias.value.dtype == dtype
    for own, other in zip(layer.parameters(), same.parameters(), strict=True):
        np.testing.assert_array_equal(own.value, other.value.astype(dtype))
    bound = 1 / math.sqrt(3 * 3 * 7)
    largest = np.abs(layer.weight.value).max()
    assert 0.9 * bound < largest <= bound
    other = nn.Conv2d(3, 5, (3, 7), dtype=dtype, rng=1)
    assert not np.array_equal(other.weight.value, layer.weight.value)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv2d(6, 4, 3, groups=4), ValueError, "6 .* 4 .* 4"),
        (lambda: nn.Conv2d(6, 4, (3, 0)), ValueError, "0"),
        (lambda: nn.Conv2d(6, 4, 2.5), TypeError, r"2\.5"),
        (lambda: nn.Conv2d(6, 4, 3, padding="some"), ValueError, "some"),
        (lambda: nn.Conv2d(6, 4, 3, layout="CHW"), ValueError, "CHW"),
        (lambda: nn.Conv2d(6, 4, 3, bias="tied"), ValueError, "tied"),
        (lambda: nn.Conv2d(6, 4, 3, bias="untied"), ValueError, "input_size"),
        (lambda: nn.Conv2d(6, 4, 3, dtype=np.float16), TypeError, "float16"),
        (lambda: nn.Linear(0, 4), ValueError, "0"),
        (lambda: nn.BatchNorm2d(3, layout="CHW"), ValueError, "CHW"),
        (lambda: nn.Dropout(1.5), ValueError, r"1\.5"),
        (lambda: nn.LeakyReLU(-0.5), ValueError, r"-0\.5"),
        (lambda: nn.Reshape((3, -1)), ValueError, "-1"),
        (lambda: nn.Sequential(nn.ReLU), TypeError, "ReLU"),
        (lambda: nn.Linear(3, 4)(np.ones((2, 4))), ValueError, r"3.*\(2, 4\)"),
        (lambda: nn.BatchNorm2d(3)(np.ones((2, 4, 5, 3))), ValueError, "3 channels"),
        (lambda: nn.Residual(nn.Linear(3, 1))(np.ones((2, 3))), ValueError, "shape"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
