# SPDX-License-Identifier: MIT
"""Corrections 17 to 24 of docs/mathematics.md: neurons, losses and updates.

A test computes what the source wrote and what the page puts in its place, and lets
derivatives decide that are taken without any of the formulas.
"""

import numpy as np
import pytest
from exact import central_difference, complex_step, whole
from numpy.testing import assert_allclose, assert_array_equal
from tolerance import tolerance

import convnet as cn
from convnet import nn, optim


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def neurons(rng):
    """Return z, W (input, output) and b of ``z -> a = tanh(z) -> y = a W + b``."""
    return rng.standard_normal(5), rng.standard_normal((5, 3)), rng.standard_normal(3)


def squares(z, W, b):
    """Return E, the sum of the squares of y; dE/dy is 2 y."""
    return np.sum((np.tanh(z) @ W + b) ** 2)


def through_layers(z, W, b):
    """Return dE/dz and the gradients of W and b as layers compute them."""
    activation, linear = nn.Tanh(), nn.Linear(5, 3, dtype=np.float64)
    linear.load_state_dict({"weight": W.T, "bias": b})
    y = linear(activation(z[None]))
    gamma = activation.backward(linear.backward(2 * y))
    return gamma[0], linear.weight.grad.T, linear.bias.grad


NEURONS_ATOL = tolerance(np.float64, 5 * 3, 50)  # the gradients stay below 50


def assert_near(actual, expected):
    assert_allclose(actual, expected, rtol=0, atol=NEURONS_ATOL)


def test_correction_17_gamma_has_one_index(rng):
    z, W, b = neurons(rng)
    gamma_next = 2 * (np.tanh(z) @ W + b)
    slope = 1 - np.tanh(z) ** 2
    terms = [[slope[j] * gamma_next[k] * W[j, k] for k in range(3)] for j in range(5)]
    by_z = complex_step(lambda z: squares(z, W, b), z)
    assert_near(np.sum(terms, axis=1), by_z)
    assert_near(through_layers(z, W, b)[0], by_z)


def test_correction_18_before_and_after_the_activation(rng):
    z, W, b = neurons(rng)
    a = np.tanh(z)
    gamma_next = 2 * (a @ W + b)
    by_z = complex_step(lambda z: squares(z, W, b), z)
    by_W = complex_step(lambda W: squares(z, W, b), W)
    slope_before, slope_after = 1 - np.tanh(z) ** 2, 1 - np.tanh(a) ** 2
    assert_near(slope_before * (W @ gamma_next), by_z)
    assert_near(np.outer(a, gamma_next), by_W)
    assert_near(through_layers(z, W, b)[1], by_W)
    assert not np.allclose(slope_after * (W @ gamma_next), by_z)
    assert not np.allclose(np.outer(z, gamma_next), by_W)


def test_correction_19_a_sigmoid_reaches_0_and_1():
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        1 / (1 + np.exp(np.float64(710)))
    assert 1 / (1 + np.exp(np.float64(-37))) == 1
    with np.errstate(all="raise", under="ignore"):
        y = nn.Sigmoid()(np.array([-1000.0, 37.0, 1000.0]))
        loss = nn.BCEWithLogitsLoss()
        value = loss(np.array([-1000.0, 37.0]), np.array([1.0, 0.0]))
    assert_array_equal(y, [0, 1, 1])
    assert value == (1000 + 37) / 2


def test_correction_20_brackets_in_the_loss(rng):
    y, target = rng.uniform(0.1, 0.9, 7), rng.integers(0, 2, 7).astype(float)
    first, second = target * np.log(y), (1 - target) * np.log(1 - y)
    by_hand = -sum(first[i] + second[i] for i in range(7)) / 7
    loss = nn.BCELoss()
    atol = tolerance(np.float64, 7, 10)  # 1/y reaches 10
    assert loss(y, target) == pytest.approx(by_hand, rel=0, abs=atol)
    as_it_stands = [-sum(first) / 7 + second[i] for i in range(7)]
    assert not np.any(np.isclose(as_it_stands, by_hand))


def test_correction_21_one_learning_rate(rng):
    z, W, b = neurons(rng)
    grad_W = complex_step(lambda W: squares(z, W, b), W)
    parameter = nn.Parameter(W)
    parameter.grad[...] = grad_W
    optim.SGD([parameter], lr=0.25).step()
    assert_near(parameter.value, W - 0.25 * grad_W)

    def parallel(step):
        lengths = np.linalg.norm(step) * np.linalg.norm(grad_W)
        return np.isclose(abs(np.vdot(step, grad_W)), lengths)

    assert parallel(parameter.value - W)
    assert not parallel(grad_W * [0.1, 0.2, 0.4])  # a rate L_j for each neuron


def test_correction_22_the_gradient_is_subtracted(rng):
    z, W, b = neurons(rng)
    before, eta = squares(z, W, b), 1e-3
    step = eta * np.outer(np.tanh(z), 2 * (np.tanh(z) @ W + b))
    assert squares(z, W + step, b) > before > squares(z, W - step, b)
    parameter = nn.Parameter(W)
    parameter.grad[...] = through_layers(z, W, b)[1]
    optim.SGD([parameter], lr=eta).step()
    assert_near(parameter.value, W - step)


def test_correction_23_the_bias_has_an_update_of_its_own(rng):
    z, W, b = neurons(rng)
    gamma = 2 * (np.tanh(z) @ W + b)
    assert_near(gamma, complex_step(lambda b: squares(z, W, b), b))
    assert_near(through_layers(z, W, b)[2], gamma)


def test_correction_24_a_shared_weight_sums_over_all_places(rng):
    x, weight, g = whole(rng, 2, 7, 5), whole(rng, 3, 2, 4, 2), whole(rng, 3, 4, 4)
    places = list(np.ndindex(4, 4))
    terms = [
        np.multiply.outer(g[:, i, j], x[:, i : i + 4, j : j + 2]) for i, j in places
    ]
    by_weight = central_difference(lambda w: (cn.conv2d(x, w) * g).sum(), weight)
    assert_array_equal(sum(terms), by_weight)
    assert_array_equal(cn.conv2d_grad_weight(g, x, weight.shape), by_weight)
    assert not any(np.array_equal(term, by_weight) for term in terms)
    assert_array_equal(cn.conv2d_grad_bias(g), sum(g[:, i, j] for i, j in places))
