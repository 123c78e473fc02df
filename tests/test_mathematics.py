# SPDX-License-Identifier: MIT
"""The worked examples and the formulas of docs/mathematics.md.

Formulas are written out entry by entry as on paper. All numbers are whole, so that the
answers are exact and are compared with `assert_array_equal`. The worked examples are
square because their sources are; where shapes are free, no two sizes are equal.
"""

import math

import numpy as np
import pytest
from exact import central_difference, complex_step, whole
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal as scipy_signal
from tolerance import tolerance

import convnet as cn
from convnet import nn, optim, signal

X = np.array([[1.0, 6.0, 2.0], [5.0, 3.0, 1.0], [7.0, 0.0, 4.0]])
K = np.array([[1.0, 2.0], [-1.0, 0.0]])
A = np.array(
    [
        [5.0, 2.0, 7.0, 4.0],
        [6.0, 3.0, 2.0, 1.0],
        [8.0, 6.0, 5.0, 9.0],
        [1.0, 3.0, 6.0, 1.0],
    ]
)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


# Correlation and convolution of the 3x3 matrix with the 2x2 kernel


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("valid", [[8, 7], [4, 5]]),
        ("full", [[0, -1, -6, -2], [2, 8, 7, 1], [10, 4, 5, -3], [14, 7, 8, 4]]),
        ("same", [[8, 7, 1], [4, 5, -3], [7, 8, 4]]),
        ("same_lower", [[0, -1, -6], [2, 8, 7], [10, 4, 5]]),
    ],
)
def test_correlation_of_3x3_with_2x2(padding, expected):
    assert_array_equal(cn.conv2d(X[None], K[None, None], padding=padding)[0], expected)
    if padding != "same_lower":  # a mode of its own
        assert_array_equal(signal.correlate2d(X, K, mode=padding), expected)
        assert_array_equal(scipy_signal.correlate2d(X, K, mode=padding), expected)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("valid", [[7, 5], [11, 3]]),
        ("full", [[1, 8, 14, 4], [4, 7, 5, 2], [2, 11, 3, 8], [-7, 0, -4, 0]]),
    ],
)
def test_true_convolution_of_3x3_with_2x2(mode, expected):
    assert_array_equal(signal.convolve2d(X, K, mode=mode), expected)
    assert_array_equal(signal.correlate2d(X, np.rot90(K, 2), mode=mode), expected)
    assert_array_equal(scipy_signal.convolve2d(X, K, mode=mode), expected)


# Formulas that the sources write out entry by entry; "g" is the gradient of the output

FORWARD_3x3_2x2 = """
k11 x11 + k12 x12 + k21 x21 + k22 x22 | k11 x12 + k12 x13 + k21 x22 + k22 x23
k11 x21 + k12 x22 + k21 x31 + k22 x32 | k11 x22 + k12 x23 + k21 x32 + k22 x33
"""
GRAD_KERNEL = """
g11 x11 + g12 x12 + g21 x21 + g22 x22 | g11 x12 + g12 x13 + g21 x22 + g22 x23
g11 x21 + g12 x22 + g21 x31 + g22 x32 | g11 x22 + g12 x23 + g21 x32 + g22 x33
"""
GRAD_INPUT = """
g11 k11           | g11 k12 + g12 k11                     | g12 k12
g11 k21 + g21 k11 | g11 k22 + g12 k21 + g21 k12 + g22 k11 | g12 k22 + g22 k12
g21 k21           | g21 k22 + g22 k21                     | g22 k22
"""
# The article's roles: the 2x2 matrix x slides over the 3x3 matrix w.
FORWARD_W_X = """
w11 x11 + w12 x12 + w21 x21 + w22 x22 | w12 x11 + w13 x12 + w22 x21 + w23 x22
w21 x11 + w22 x12 + w31 x21 + w32 x22 | w22 x11 + w23 x12 + w32 x21 + w33 x22
"""
GRAD_X = """
g11 w11 + g12 w12 + g21 w21 + g22 w22 | g11 w12 + g12 w13 + g21 w22 + g22 w23
g11 w21 + g12 w22 + g21 w31 + g22 w32 | g11 w22 + g12 w23 + g21 w32 + g22 w33
"""
GRAD_W = """
g11 x11           | g11 x12 + g12 x11                     | g12 x12
g11 x21 + g21 x11 | g11 x22 + g12 x21 + g21 x12 + g22 x11 | g12 x22 + g22 x12
g21 x21           | g21 x22 + g22 x21                     | g22 x22
"""


def on_paper(formulas, **matrices):
    """Return the matrix of `formulas`, as floats; ``x12`` is row 1, column 2 of x."""

    def factor(name):
        return matrices[name[0]][int(name[1]) - 1, int(name[2]) - 1]

    def entry(formula):
        return sum(math.prod(map(factor, f.split())) for f in formula.split("+"))

    return [[*map(entry, row.split("|"))] for row in formulas.strip().splitlines()]


def test_3x3_and_2x2_forward_and_gradients_entry_by_entry(rng):
    x, k, b, g = whole(rng, 3, 3), whole(rng, 2, 2), whole(rng, 2, 2), whole(rng, 2, 2)
    y = cn.conv2d(x[None], k[None, None], b[None])[0]
    assert_array_equal(y, b + on_paper(FORWARD_3x3_2x2, k=k, x=x))

    grad_w = cn.conv2d_grad_weight(g[None], x[None], (1, 1, 2, 2))[0, 0]
    assert_array_equal(grad_w, on_paper(GRAD_KERNEL, g=g, x=x))
    assert_array_equal(grad_w, scipy_signal.correlate2d(x, g, mode="valid"))

    grad_x = cn.conv2d_grad_input(g[None], k[None, None], (1, 3, 3))[0]
    assert_array_equal(grad_x, on_paper(GRAD_INPUT, g=g, k=k))
    assert_array_equal(grad_x, scipy_signal.convolve2d(g, k, mode="full"))

    assert_array_equal(cn.conv2d_grad_bias(g[None], untied=True)[0], g)


def test_3x3_kernel_over_2x2_entry_by_entry(rng):
    w, x, g = whole(rng, 3, 3), whole(rng, 2, 2), whole(rng, 2, 2)
    y = signal.correlate2d(w, x, mode="valid")
    assert_array_equal(y, on_paper(FORWARD_W_X, w=w, x=x))
    # In the layer's terms w is the image and x the kernel.
    assert_array_equal(cn.conv2d(w[None], x[None, None])[0], y)

    grad_x = on_paper(GRAD_X, g=g, w=w)
    assert_array_equal(signal.correlate2d(w, g, mode="valid"), grad_x)
    grad_as_kernel = cn.conv2d_grad_weight(g[None], w[None], (1, 1, 2, 2))
    assert_array_equal(grad_as_kernel[0, 0], grad_x)

    grad_w = on_paper(GRAD_W, g=g, x=x)
    padded, flipped = np.pad(g, 1), x[::-1, ::-1]
    assert_array_equal(signal.correlate2d(padded, flipped, mode="valid"), grad_w)
    grad_as_image = cn.conv2d_grad_input(g[None], x[None, None], (1, 3, 3))
    assert_array_equal(grad_as_image[0], grad_w)


# The layer: channels, batch, bias


def test_layer_is_the_loop_of_correlations(rng):
    x, weight, bias = whole(rng, 2, 7, 5), whole(rng, 3, 2, 4, 2), whole(rng, 3, 4, 4)
    y = bias.copy()
    for i, j in np.ndindex(3, 2):
        y[i] += scipy_signal.correlate2d(x[j], weight[i, j], mode="valid")
    assert_array_equal(cn.conv2d(x, weight, bias), y)


@pytest.mark.parametrize("untied", [True, False])
def test_layer_gradients_are_differences(rng, untied):
    x, weight = whole(rng, 3, 2, 7, 5), whole(rng, 4, 2, 3, 2)
    bias = whole(rng, 4, 5, 4) if untied else whole(rng, 4)
    g = whole(rng, 3, 4, 5, 4)

    def loss(x, weight, bias):
        return (cn.conv2d(x, weight, bias) * g).sum()

    by_x = central_difference(lambda x: loss(x, weight, bias), x)
    by_weight = central_difference(lambda weight: loss(x, weight, bias), weight)
    by_bias = central_difference(lambda bias: loss(x, weight, bias), bias)
    assert_array_equal(cn.conv2d_grad_input(g, weight, x.shape), by_x)
    assert_array_equal(cn.conv2d_grad_weight(g, x, weight.shape), by_weight)
    assert_array_equal(cn.conv2d_grad_bias(g, untied=untied), by_bias)


# Pooling


def test_max_of_a_vector():
    x = np.array([[[5.0, 9.0, 7.0, 6.0]]])
    y, indices = cn.max_pool2d(x, (1, 4), return_indices=True)
    assert_array_equal(y, [[[9]]])
    grad_x = cn.max_pool2d_grad(np.ones_like(y), indices, x.shape, (1, 4))
    assert_array_equal(grad_x, [[[0, 1, 0, 0]]])


def test_max_pool_of_4x4():
    y, indices = cn.max_pool2d(A[None], 2, return_indices=True)
    assert_array_equal(y[0], [[6, 7], [8, 9]])
    g = np.array([[[11.0, 12.0], [21.0, 22.0]]])
    grad_x = cn.max_pool2d_grad(g, indices, (1, 4, 4), 2)[0]
    expected = [[0, 0, 12, 0], [11, 0, 0, 0], [21, 0, 0, 22], [0, 0, 0, 0]]
    assert_array_equal(grad_x, expected)
    # Values of one window differ by 1 or more, so a step of 1/4 changes no winner.
    by_x = central_difference(lambda a: (cn.max_pool2d(a[None], 2) * g).sum(), A, 0.25)
    assert_array_equal(grad_x, by_x)


def test_average_pool_gradient_is_a_difference(rng):
    x, g = 4 * whole(rng, 2, 6, 10), whole(rng, 2, 3, 5)
    y = cn.avg_pool2d(x, 2)
    assert_array_equal(y, x.reshape(2, 3, 2, 5, 2).mean(axis=(2, 4)))
    by_x = central_difference(lambda x: (cn.avg_pool2d(x, 2) * g).sum(), x)
    assert_array_equal(cn.avg_pool2d_grad(g, x.shape, 2), by_x)


# Layers and losses, against derivatives of the formulas on paper


def test_flatten_and_reshape_move_gradients_back(rng):
    x, g = whole(rng, 2, 3, 5, 7), whole(rng, 2, 105)
    for layer in (nn.Flatten(), nn.Reshape((105,))):
        assert_array_equal(layer(x), x.reshape(2, 105))
        assert_array_equal(layer.backward(g), g.reshape(x.shape))


def test_linear_in_columns_and_in_rows(rng):
    layer = nn.Linear(5, 3, dtype=np.float64)
    layer.weight.value[...], layer.bias.value[...] = whole(rng, 3, 5), whole(rng, 3)
    weight, bias = layer.weight.value, layer.bias.value
    rows, g = whole(rng, 7, 5), whole(rng, 7, 3)
    columns = [weight @ a + bias for a in rows]
    assert_array_equal(layer(rows), columns)
    assert_array_equal(layer.backward(g), [weight.T @ c for c in g])
    outer = [np.outer(c, a) for a, c in zip(rows, g, strict=True)]
    assert_array_equal(layer.weight.grad, sum(outer))
    assert_array_equal(layer.bias.grad, sum(g))


ACTIVATIONS = [
    (nn.Sigmoid(), lambda z: 1 / (1 + np.exp(-z))),
    (nn.Tanh(), lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z))),
    (nn.ReLU(), lambda z: np.where(z.real > 0, z, 0)),
    (nn.Softmax(), lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)),
]


@pytest.mark.parametrize(
    ("layer", "formula"), ACTIVATIONS, ids=[repr(layer) for layer, _ in ACTIVATIONS]
)
def test_activation_and_its_derivative(rng, layer, formula):
    z, g = rng.standard_normal((3, 5)), rng.standard_normal((3, 5))
    atol = tolerance(np.float64, 5, 5)
    assert_allclose(layer(z), formula(z), rtol=0, atol=atol)
    by_z = complex_step(lambda z: (formula(z) * g).sum(), z)
    assert_allclose(layer.backward(g), by_z, rtol=0, atol=atol)


def bce(y, target):
    return -np.mean(target * np.log(y) + (1 - target) * np.log(1 - y))


def cross_entropy(z, classes):
    chosen = z[np.arange(len(z)), classes]
    return -np.mean(np.log(np.exp(chosen) / np.exp(z).sum(axis=1)))


LOSSES = [
    (nn.MSELoss(), lambda y, target: np.mean((y - target) ** 2)),
    (nn.BCELoss(), bce),
    (nn.BCEWithLogitsLoss(), lambda z, target: bce(1 / (1 + np.exp(-z)), target)),
    (nn.CrossEntropyLoss(), lambda z, target: cross_entropy(z, target[:, 0])),
]


@pytest.mark.parametrize(
    ("loss", "formula"), LOSSES, ids=[type(loss).__name__ for loss, _ in LOSSES]
)
def test_loss_and_its_derivative(rng, loss, formula):
    y, target = rng.uniform(0.1, 0.9, (7, 2)), rng.integers(0, 2, (7, 2))
    classes = isinstance(loss, nn.CrossEntropyLoss)
    value = loss(y, target[:, 0] if classes else target.astype(float))
    atol = tolerance(np.float64, y.size, 10)  # 1/y reaches 10
    assert value == pytest.approx(formula(y, target), rel=0, abs=atol)
    by_y = complex_step(lambda y: formula(y, target), y)
    assert_allclose(loss.backward(), by_y, rtol=0, atol=atol)


def test_gradient_descent_with_and_without_momentum():
    plain, heavy = nn.Parameter([3.0, -2.0]), nn.Parameter([3.0, -2.0])
    velocity, by_hand = np.zeros(2), np.array([3.0, -2.0])
    steps = optim.SGD([plain], lr=0.5), optim.SGD([heavy], lr=0.5, momentum=0.25)
    for grad in np.array([[1.0, 4.0], [-2.0, 8.0]]):
        plain.grad[...] = heavy.grad[...] = grad
        velocity = 0.25 * velocity + grad
        by_hand -= 0.5 * velocity
        for optimizer in steps:
            optimizer.step()
    assert_array_equal(plain.value, [3 - 0.5 * (1 - 2), -2 - 0.5 * (4 + 8)])
    assert_array_equal(heavy.value, by_hand)
