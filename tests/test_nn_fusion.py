# SPDX-License-Identifier: MIT
"""A Sequential that leaves out passes of its ReLUs computes what they would."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tolerance import tolerance

from convnet import nn

NETS = {
    "conv, relu": lambda: (nn.Conv2d(3, 5, (3, 2), rng=0), nn.ReLU()),
    "conv, relu, pool": lambda: (
        nn.Conv2d(3, 5, 3, padding=1, rng=0),
        nn.ReLU(),
        nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0)),
    ),
    "untied, relu, pool": lambda: (
        nn.Conv2d(3, 5, 3, bias="untied", input_size=(11, 7), rng=0),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ),
    "norm, relu, pool": lambda: (
        nn.Conv2d(3, 5, 2, rng=0),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    ),
    "untied, norm": lambda: (
        nn.Conv2d(3, 5, 2, bias="untied", input_size=(11, 7), rng=0),
        nn.BatchNorm2d(5),
    ),
    "norm of other axes": lambda: (
        nn.Conv2d(3, 6, 2, rng=0),
        nn.BatchNorm2d(6, layout="NHWC"),
    ),
    "norm, relu, conv": lambda: (
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 2, 2, rng=0),
    ),
    "linear, relu, relu": lambda: (
        nn.Flatten(),
        nn.Linear(3 * 11 * 7, 13, rng=0),
        nn.ReLU(),
        nn.ReLU(),
        nn.Linear(13, 4, rng=1),
    ),
    "relu first, pool last": lambda: (nn.ReLU(), nn.MaxPool2d(2)),
    "average": lambda: (nn.Conv2d(3, 5, 2, rng=0), nn.ReLU(), nn.AvgPool2d(2)),
}
every_net = pytest.mark.parametrize("name", NETS)


def layer_by_layer(layers, x, grad_y=None):
    """Return the output, and with its gradient that of the input."""
    for layer in layers:
        x = layer.forward(x)
    if grad_y is None:
        return x
    for layer in reversed(layers):
        grad_y = layer.backward(grad_y)
    return x, grad_y


def assert_equal_gradients(net, plain):
    """Check for equal bits; biases that a batch's own mean takes away again learn 0."""
    following = (*net.layers[1:], None)
    centered = [
        layer.bias
        for layer, after in zip(net.layers, following, strict=True)
        if isinstance(layer, nn.Conv2d)
        and isinstance(after, nn.BatchNorm2d)
        and after.training
        and layer.layout == after.layout
        and layer.bias.value.ndim == 1
    ]
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        if ours in centered:
            assert not ours.grad.any()
            # What layer by layer is left of sums of 4 x 10 x 6 gradients of about 1.
            assert abs(theirs.grad).max() < tolerance(np.float32, 4 * 10 * 6)
        else:
            assert_array_equal(ours.grad, theirs.grad)


def networks(name, training):
    """Return two equal networks, and a batch for them."""
    one = nn.Sequential(*NETS[name]()).train(training)
    x = np.random.default_rng(3).standard_normal((4, 3, 11, 7)).astype(np.float32)
    return one, copy.deepcopy(one), x


@every_net
@pytest.mark.parametrize("training", [True, False])
def test_the_same_bits_as_layer_by_layer(name, training, isa):
    fused, plain, x = networks(name, training)
    y = fused(x)
    grad_y = np.random.default_rng(5).standard_normal(y.shape).astype(np.float32)
    want, want_grad_x = layer_by_layer(plain.layers, x, grad_y)
    assert_array_equal(y, want)
    assert_array_equal(fused.backward(grad_y), want_grad_x)
    assert_equal_gradients(fused, plain)


@every_net
def test_backward_by_hand_after_a_forward_of_the_whole(name):
    fused, plain, x = networks(name, True)
    grad_y = np.ones_like(fused(x))
    _, want = layer_by_layer(plain.layers, x, grad_y)
    for layer in reversed(fused.layers):
        grad_y = layer.backward(grad_y)
    assert_array_equal(grad_y, want)


@every_net
def test_accumulate_gives_the_same_gradients_of_parameters(name):
    one, other, x = networks(name, True)
    grad_y = np.ones_like(one(x))
    other(x)
    one.accumulate(grad_y)
    layer_by_layer(other.layers, x, grad_y)
    assert_equal_gradients(one, other)


def test_nan_and_what_is_below_zero_stop_no_gradient_of_others():
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    x = np.array([[[1.0, np.nan, -3.0, -2.0], [0.5, 2.0, -1.0, -4.0]]])
    y = net(x)
    assert_array_equal(y, [[[np.nan, 0.0]]])
    assert_array_equal(net.backward(np.ones_like(y)), np.zeros_like(x))
    x[0, 0, 1] = 7.0
    net(x)
    assert_array_equal(net.backward(np.ones_like(y)), x == 7.0)


def test_layers_of_ones_own_are_called_themselves():
    class Doubling(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

        def backward(self, grad_y):
            return super().backward(2 * grad_y)

    class Leaking(nn.ReLU):
        def forward(self, x):
            return super().forward(x) - 1

    for layers in (
        (Doubling(3, 2, 2, rng=0), nn.ReLU()),
        (nn.Conv2d(3, 2, 2, rng=0), Leaking()),
        (Leaking(), nn.MaxPool2d(2)),
    ):
        net = nn.Sequential(*layers)
        x = np.random.default_rng(1).standard_normal((2, 3, 5, 7))
        other = copy.deepcopy(net)
        grad_y = np.ones_like(net(x))
        y, want = layer_by_layer(other.layers, x, grad_y)
        assert_array_equal(net(x), y)
        assert_array_equal(net.backward(grad_y), want)
