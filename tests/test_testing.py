# SPDX-License-Identifier: MIT
"""The checks themselves: right gradients pass, wrong ones are caught and named."""

import numpy as np
import pytest

from convnet import conv2d, conv2d_grad_input, nn
from convnet.testing import adjoint_check, gradcheck

X = np.random.default_rng(0).standard_normal((2, 3, 5, 7))


class WrongWeight(nn.Conv2d):
    """A convolution with one entry of one gradient wrong."""

    def accumulate(self, grad_y):
        """Add to the gradients, and a little more."""
        super().accumulate(grad_y)
        self.weight.grad[1, 2, 0, 1] += 1e-3

    def backward(self, grad_y):
        """Return grad_x, as it should be."""
        grad_x = super().backward(grad_y)
        self.weight.grad[1, 2, 0, 1] += 1e-3
        return grad_x


def test_a_wrong_parameter_gradient_is_caught_and_named():
    report = gradcheck(WrongWeight(3, 2, (3, 2), rng=0), X)
    assert not report.ok
    assert not report
    worst = report.worst[0]
    assert (worst.name, worst.index) == ("weight", (1, 2, 0, 1))
    assert abs(worst.analytic - worst.numeric - 1e-3) < 1e-6
    assert str(report).startswith("gradcheck FAILED")
    assert "weight[1, 2, 0, 1]: analytic" in str(report).splitlines()[1]


@pytest.mark.parametrize("wrong", [0.001, np.nan, np.inf])
def test_a_wrong_input_gradient_is_caught_and_named(wrong):
    def backward(grad_y):
        grad_x = grad_y * np.cos(X)
        grad_x[1, 0, 4, 6] += wrong
        return grad_x

    report = gradcheck(np.sin, X, backward)
    assert not report.ok
    assert report.worst[0].index == (1, 0, 4, 6)


def test_right_gradients_pass():
    report = gradcheck(nn.Conv2d(3, 2, (3, 2), rng=0), X)
    assert report.ok
    assert report
    assert report.count == X.size + 2 * 3 * 3 * 2 + 2
    assert {entry.name for entry in report.worst} == {"x", "weight", "bias"}
    assert str(report).startswith("gradcheck passed")
    assert gradcheck(np.sin, X, lambda grad_y: grad_y * np.cos(X))


def test_inputs_outside_the_window_have_no_gradient():
    # Stride 3 skips pixels; the differences there are exactly 0.
    assert gradcheck(nn.Conv2d(3, 2, (1, 2), stride=3, rng=0), X)


def test_the_module_and_the_input_stay_as_they_are():
    net = nn.Sequential(nn.Conv2d(3, 2, (3, 2), rng=0), nn.BatchNorm2d(2))
    before, x = net.state_dict(), X.copy()
    assert gradcheck(net, x)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
        assert array.dtype == np.float32
    assert not any(np.any(p.grad) for p in net.parameters())
    np.testing.assert_array_equal(x, X)


def test_dropout_meets_the_same_mask_each_time():
    assert gradcheck(nn.Sequential(nn.Dropout(0.5, rng=0), nn.Tanh()), X)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.ReLU(), np.where(np.arange(30).reshape(2, 3, 5) == 17, 0.0, 0.5)),
        (nn.MaxPool2d((1, 2)), np.ones((1, 1, 3, 2))),
    ],
    ids=["zero", "ties"],
)
def test_a_kink_is_told_from_a_mistake(layer, x):
    report = gradcheck(layer, x)
    assert not report.ok
    below, above = report.worst[0].kink
    assert min(abs(below), abs(above)) < 1e-6 < max(abs(below), abs(above))
    assert "a kink, with slope" in str(report)
    assert "try another x" in str(report)


def test_a_mistake_is_no_kink():
    # Neither in a smooth place, however curved, nor beyond both slopes of a kink.
    steep = gradcheck(lambda x: 50 * x**2, X, lambda grad_y: 101 * X * grad_y)
    beyond = gradcheck(np.abs, np.zeros(3), lambda grad_y: 2 * grad_y)
    for report in steep, beyond:
        assert not report.ok
        assert report.worst[0].kink is None
        assert "kink" not in str(report)


def test_a_gradient_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 7, 5\).*\(2, 3, 5, 7\)"):
        gradcheck(np.sin, X, lambda grad_y: np.zeros((2, 3, 7, 5)))


def test_a_function_needs_its_backward():
    with pytest.raises(TypeError, match="backward"):
        gradcheck(np.sin, X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stride", [1, (2, 3)])
def test_adjoint_check(dtype, stride):
    x = X.astype(dtype)
    w = np.random.default_rng(1).standard_normal((4, 3, 3, 2)).astype(dtype)

    def forward(x):
        return conv2d(x, w, stride=stride)

    def backward(grad_y):
        return conv2d_grad_input(grad_y, w, x.shape, stride=stride)

    def wrong(grad_y):
        grad_x = backward(grad_y)
        grad_x[1, 2, 0, 1] += 0.5
        return grad_x

    report = adjoint_check(forward, backward, x)
    assert report.ok
    assert report
    assert report.left == pytest.approx(report.right)
    assert not adjoint_check(forward, wrong, x)
    with pytest.raises(ValueError, match="shape"):
        adjoint_check(forward, lambda y: y, x)
