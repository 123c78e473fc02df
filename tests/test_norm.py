# SPDX-License-Identifier: MIT
"""Batch normalization, rectifiers and steps of optimizers, by their formulas."""

import numpy as np
import pytest
from cases import LAYOUTS, from_layout, to_layout
from numpy.testing import assert_allclose, assert_array_equal
from tolerance import tolerance

import convnet
from convnet import nn, optim
from convnet.functional import norm, pointwise

# Batches, channels and pixels that end vectors of all widths, pieces and parts.
SHAPES = [
    (3, 5, 11, 7),
    (11, 17, 1, 1),
    (67, 19, 1, 1),
    (1, 3, 181, 203),
    (5, 33, 8, 9),
]
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
AXES = (0, 2, 3)


def spread(values):
    """Return one value per channel in a shape that goes with NCHW."""
    return values[:, None, None]


def exact_batch_norm(x, weight, bias, grad_y, eps=1e-5):
    """Return y, grad_x, grad_w and grad_b in doubles, each from its definition."""
    x, grad_y = x.astype(float), grad_y.astype(float)
    count = x.size // x.shape[1]
    mean = x.mean(AXES)
    scale = 1 / np.sqrt(x.var(AXES) + eps)
    normal = (x - spread(mean)) * spread(scale)
    grad_w, grad_b = (grad_y * normal).sum(AXES), grad_y.sum(AXES)
    grad_x = grad_y - spread(grad_b / count) - normal * spread(grad_w / count)
    y = normal * spread(weight) + spread(bias)
    return y, grad_x * spread(weight * scale), grad_w, grad_b


@every_shape
@every_layout
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rectified", [False, True])
def test_batch_norm(shape, layout, dtype, rectified, isa, rng):
    x = rng.standard_normal(shape).astype(dtype) * 3 + 5
    grad_y = rng.standard_normal(shape).astype(dtype)
    layer = nn.BatchNorm2d(shape[1], layout=layout, dtype=dtype)
    layer.weight.value = rng.uniform(0.5, 2, shape[1]).astype(dtype)
    layer.bias.value = rng.standard_normal(shape[1]).astype(dtype)
    values = layer.weight.value, layer.bias.value
    y = exact_batch_norm(x, *values, grad_y)[0]
    dead = rectified & (y <= 0)
    y, grad_x, grad_w, grad_b = exact_batch_norm(x, *values, np.where(dead, 0, grad_y))
    forward = layer.rectified if rectified else layer.forward
    backward = layer.backward_rectified if rectified else layer.backward
    result = from_layout(forward(to_layout(x, layout)), layout)
    grad = from_layout(backward(to_layout(grad_y, layout)), layout)
    # What is shifted and scaled is about 8 at most, and scaled by less than 2.
    assert_allclose(result, np.where(dead, 0, y), 0, tolerance(dtype, 16, 4))
    assert_allclose(grad, grad_x, 0, tolerance(dtype, 16, np.abs(grad_x).max() + 4))
    terms = x.size // shape[1]
    for found, right in (layer.weight, grad_w), (layer.bias, grad_b):
        assert_allclose(found.grad, right, 0, tolerance(dtype, terms, 4))


@every_layout
def test_variance_of_values_far_from_zero(layout, isa, rng):
    noise = rng.standard_normal((7, 19, 13, 11))
    x = to_layout(noise + 1e6, layout)
    how = np.ones(19), np.zeros(19), 1e-5, layout == "NHWC"
    for mean, var in (
        norm.mean_and_variance(x, layout == "NHWC"),
        norm.normalize_batch(x, *how)[1:],
    ):
        assert_allclose(mean, 1e6 + noise.mean(AXES), 1e-12)
        assert_allclose(var, noise.var(AXES), 1e-7)
    constant = to_layout(np.full((3, 5, 2, 7), 0.1, np.float32), layout)
    assert not norm.mean_and_variance(constant, layout == "NHWC")[1].any()


@every_layout
def test_any_number_of_threads_gives_the_same_bits(layout, rng):
    x = to_layout(rng.standard_normal((9, 37, 61, 43)).astype(np.float32), layout)
    grad_y = rng.standard_normal(x.shape).astype(np.float32)
    results = []
    before = convnet.get_num_threads()
    try:
        for threads in 1, 2, 5:
            convnet.set_num_threads(threads)
            layer = nn.BatchNorm2d(37, layout=layout)
            y, grad_x = layer.rectified(x), layer.backward_rectified(grad_y)
            grads = layer.weight.grad, layer.bias.grad, layer.running_var
            relu = pointwise.relu_grad(grad_y, pointwise.relu(x))
            results.append((y, grad_x, *grads, relu))
    finally:
        convnet.set_num_threads(before)
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            assert_array_equal(one, other)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 37, 32768, 100_003])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rectifiers(n, dtype, isa, rng):
    x = rng.standard_normal(n).astype(dtype)
    x[3::7] = np.nan
    x[2::11] = 0
    x[5::13] = np.inf
    y = pointwise.relu(x)
    assert_array_equal(y, np.maximum(x, 0))
    grad_y = rng.standard_normal(n).astype(dtype)
    grad_y[4::9] = np.inf
    assert_array_equal(pointwise.relu_grad(grad_y, y), np.where(y > 0, grad_y, 0))
    assert pointwise.relu(x, out=x) is x
    assert_array_equal(x, y)
    strided = np.repeat(y, 2)[::-2]
    assert_array_equal(pointwise.relu(strided), strided)


@pytest.mark.parametrize("n", [1, 17, 70_001])
def test_optimizers_step_in_pieces_as_in_one(n, isa, rng):
    value, grad = rng.standard_normal((2, n)).astype(np.float32)
    close = {"rtol": 0, "atol": tolerance(np.float32, 4, 4)}
    for nesterov, decay in (True, 0.1), (False, 0.0):
        p = nn.Parameter(value)
        sgd = optim.SGD([p], 0.1, 0.9, decay, nesterov)
        want, velocity = value.astype(float), np.zeros(n)
        for _ in range(3):
            p.grad = grad
            sgd.step()
            g = grad + decay * want
            velocity = 0.9 * velocity + g
            want = want - 0.1 * (g + 0.9 * velocity if nesterov else velocity)
        assert_allclose(p.value, want, **close)
    p = nn.Parameter(value)
    adam = optim.AdamW([p], 0.1, (0.8, 0.9), weight_decay=0.2)
    want, m, v = value.astype(float), np.zeros(n), np.zeros(n)
    for t in range(1, 4):
        p.grad = grad
        adam.step()
        m, v = 0.8 * m + 0.2 * grad, 0.9 * v + 0.1 * grad.astype(float) ** 2
        step = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
        want = want * (1 - 0.1 * 0.2) - 0.1 * step
    assert_allclose(p.value, want, **close)


def test_an_infinite_value_without_decay_stays(isa):
    for make in lambda p: optim.SGD(p, 0.1), optim.Adam, lambda p: optim.SGD(p, 1, 0.5):
        p = nn.Parameter(np.array([np.inf, 1.0, -np.inf] * 7, np.float32))
        p.grad = np.ones(21, np.float32)
        make([p]).step()
        assert_array_equal(np.isinf(p.value), [True, False, True] * 7)
