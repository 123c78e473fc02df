# SPDX-License-Identifier: MIT
"""Optimizers, against sequences of updates worked out by hand."""

import copy
import math

import numpy as np
import pytest
from tolerance import tolerance

from convnet import nn, optim


def run(make, grads, start=8.0):
    """Return the values after each step of an optimizer on one parameter."""
    parameter = nn.Parameter([[start, -start, start]], "weight")
    optimizer = make([parameter])
    values = []
    for grad in grads:
        optimizer.zero_grad()
        parameter.grad += grad * np.array([[1.0, -1.0, 1.0]])
        optimizer.step()
        values.append(float(parameter.value[0, 0]))
        np.testing.assert_array_equal(
            parameter.value, values[-1] * np.array([[1, -1, 1]])
        )
    return values


# All numbers are exact in binary: g = 4, then 2, then 0.
@pytest.mark.parametrize(
    ("options", "want"),
    [
        # 8 - 4/4; 7 - 2/4
        ({}, [7, 6.5, 6.5]),
        # v = 4; 0.5*4 + 2 = 4; 2
        ({"momentum": 0.5}, [7, 6, 5.5]),
        # g + 0.5*v: 4 + 2; 2 + 2; 0 + 1
        ({"momentum": 0.5, "nesterov": True}, [6.5, 5.5, 5.25]),
        # g + 0.5*value: 4 + 4; 2 + 3; 0 + 2.375
        ({"weight_decay": 0.5}, [6, 4.75, 4.15625]),
        # g: 8, 5, 1.875; v = 8; 4 + 5 = 9; 4.5 + 1.875 = 6.375
        ({"weight_decay": 0.5, "momentum": 0.5}, [6, 3.75, 2.15625]),
    ],
)
def test_sgd(options, want):
    assert run(lambda p: optim.SGD(p, 0.25, **options), [4.0, 2.0, 0.0]) == want


def test_adam():
    # beta1 = 1/2, beta2 = 3/4, gradients 1 and 3:
    # m = 1/2, then 7/4, over 1/2 and 3/4: 1 and 7/3
    # v = 1/4, then 39/16, over 1/4 and 7/16: 1 and 39/7
    values = run(lambda p: optim.Adam(p, 0.5, (0.5, 0.75), eps=0), [1.0, 3.0])
    want = [7.5, 7.5 - 0.5 * (7 / 3) / math.sqrt(39 / 7)]
    np.testing.assert_allclose(values, want, rtol=0, atol=tolerance(np.float64, 2, 8))


def test_adam_with_eps_and_weight_decay():
    # g = 1 + 8/4 = 3: m / (1 - beta1) = 3, v / (1 - beta2) = 9, step 3 / (3 + 1).
    options = {"eps": 1.0, "weight_decay": 0.25}
    values = run(lambda p: optim.Adam(p, 0.5, (0.5, 0.75), **options), [1.0])
    np.testing.assert_allclose(
        values, [8 - 0.5 * 3 / 4], rtol=0, atol=tolerance(np.float64, 1, 8)
    )


def test_adamw_decays_apart_from_the_gradient():
    # 8 * (1 - 0.5*0.25) = 7, and Adam's first step is lr.
    values = run(lambda p: optim.AdamW(p, 0.5, eps=0, weight_decay=0.25), [3.0])
    np.testing.assert_allclose(values, [6.5], rtol=0, atol=tolerance(np.float64, 1, 8))


def test_defaults_are_those_of_torch():
    parameters = [nn.Parameter([1.0, 2.0, 3.0])]
    adam, adamw = optim.Adam(parameters), optim.AdamW(parameters)
    assert (adam.lr, adam.betas, adam.eps) == (1e-3, (0.9, 0.999), 1e-8)
    assert (adam.weight_decay, adamw.weight_decay) == (0, 1e-2)


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, 0.1, 0.9, 0.01, nesterov=True),
    "adam": lambda p: optim.Adam(p, 0.1, weight_decay=0.01),
    "adamw": lambda p: optim.AdamW(p, 0.1),
}


@pytest.fixture(params=OPTIMIZERS)
def make(request):
    return OPTIMIZERS[request.param]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_updates_are_in_place_and_keep_the_precision(make, dtype):
    layer = nn.Linear(5, 3, dtype=dtype, rng=0)
    arrays = [(p.value, p.grad) for p in layer.parameters()]
    optimizer = make(layer.parameters())
    for _ in range(2):
        before = layer.state_dict()
        layer.backward(layer(np.ones((2, 5), dtype)))
        grads = [p.grad.copy() for p in layer.parameters()]
        optimizer.step()
        after = zip(layer.parameters(), arrays, grads, strict=True)
        for parameter, (value, grad), old_grad in after:
            assert parameter.value is value
            assert value.dtype == dtype
            np.testing.assert_array_equal(grad, old_grad)
            assert not np.array_equal(value, before[parameter.name])
    optimizer.zero_grad()
    assert not any(np.any(p.grad) for p in layer.parameters())
    assert all(
        p.grad is g for p, (_, g) in zip(layer.parameters(), arrays, strict=True)
    )


def test_every_optimizer_finds_the_minimum(make):
    parameter = nn.Parameter([5.0, -3.0, 2.0])
    optimizer = make(iter([parameter]))
    target = np.array([1.0, 2.0, 3.0])
    for _ in range(1000):
        optimizer.zero_grad()
        parameter.grad += parameter.value - target
        optimizer.lr *= 0.995
        optimizer.step()
    np.testing.assert_allclose(parameter.value, target, rtol=0, atol=0.05)


def test_a_copy_goes_on_as_the_original(make):
    layer = nn.Linear(5, 3, rng=0)
    optimizer = make(layer.parameters())
    layer.backward(layer(np.ones((2, 5), np.float32)))
    optimizer.step()
    twin, twin_optimizer = copy.deepcopy((layer, optimizer))
    optimizer.step()
    assert not np.array_equal(twin.weight.value, layer.weight.value)
    twin_optimizer.step()
    np.testing.assert_array_equal(twin.weight.value, layer.weight.value)


PARAMETERS = nn.Linear(3, 2).parameters()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.SGD([], 0.1), ValueError, "no parameters"),
        (lambda: optim.SGD([np.ones(3)], 0.1), TypeError, "array"),
        (lambda: optim.SGD(PARAMETERS * 2, 0.1), ValueError, "twice"),
        (lambda: optim.SGD(PARAMETERS, -0.1), ValueError, r"lr .*-0\.1"),
        (lambda: optim.SGD(PARAMETERS, float("nan")), ValueError, "lr .*nan"),
        (lambda: optim.SGD(PARAMETERS, 0.1, -1), ValueError, "momentum .*-1"),
        (lambda: optim.SGD(PARAMETERS, 0.1, nesterov=True), ValueError, "nesterov"),
        (lambda: optim.Adam(PARAMETERS, betas=(0.9, 1)), ValueError, r"0\.9, 1"),
        (lambda: optim.Adam(PARAMETERS, eps=-1), ValueError, "eps .*-1"),
        (lambda: optim.AdamW(PARAMETERS, weight_decay=-1), ValueError, "decay .*-1"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
