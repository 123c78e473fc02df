# SPDX-License-Identifier: MIT
"""Float32 convolutions and optimizers treat denormals as zero, until they return."""

import platform
import signal
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import convnet
from convnet import nn, optim
from convnet.signal import correlate2d

pytestmark = [
    pytest.mark.usefixtures("isa"),
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64", "aarch64", "arm64"),
        reason="denormals are not known to be slow",
    ),
]
TINY = np.float32(1e-40)
# Direct products, Winograd, planes of one channel, and images large enough for threads.
LAYERS = {
    "dense": ((2, 17, 31, 37), (29, 17, 3, 2), 1),
    "winograd": ((2, 32, 31, 37), (32, 32, 3, 3), 1),
    "depthwise": ((2, 64, 61, 67), (64, 1, 3, 3), 64),
    "1x1": ((2, 64, 31, 37), (48, 64, 1, 1), 1),
}


def keeps_denormals():
    """Tell whether this thread computes with denormals."""
    return bool(TINY * np.float32(0.5) != 0)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_float32_convolutions_flush(rng, name, threads):
    shape, w_shape, groups = LAYERS[name]
    x = np.full(shape, TINY)
    w = rng.standard_normal(w_shape).astype(np.float32) * 100
    options = {"groups": groups, "num_threads": threads}
    y = convnet.conv2d(x, w, **options)
    assert not y.any()
    gy = np.full_like(y, TINY)
    assert not convnet.conv2d_grad_input(gy, 100 * w, shape, **options).any()
    ones = np.ones_like(gy)
    assert not convnet.conv2d_grad_weight(ones, x, w_shape, **options).any()
    assert not convnet.conv2d_grad_bias(gy, num_threads=threads).any()
    assert keeps_denormals()


@pytest.mark.parametrize("make", [partial(optim.SGD, momentum=0.9), optim.Adam])
@pytest.mark.parametrize("n", [23, 100_003])
def test_what_optimizers_remember_does_not_stay_denormal(make, n):
    # Rounded to nearest, 0.9 times the least denormals is what it was.
    p = nn.Parameter(np.zeros(n, np.float32))
    p.grad += np.float32(1e-35)
    steps = make([p], lr=1e30)
    steps.step()
    assert p.value.all()
    p.grad[...] = 0
    for _ in range(150):
        steps.step()
    p.value[...] = 0
    steps.step()
    assert not p.value.any()
    assert keeps_denormals()


def test_float64_and_signal_keep_them():
    tiny = np.finfo(np.float64).smallest_subnormal
    x = np.full((1, 3, 5, 7), tiny)
    assert_array_equal(convnet.conv2d(x, np.ones((2, 3, 1, 1))), 3 * tiny)
    tiny = np.finfo(np.float32).smallest_subnormal
    x = np.full((5, 7), tiny)
    assert_array_equal(correlate2d(x, np.full((1, 2), 2.0, "f4"), "valid"), 4 * tiny)


def test_workers_keep_them_after_a_convolution(rng):
    x = np.full((16, 64, 28, 28), TINY)
    w = rng.standard_normal((64, 64, 3, 3)).astype(np.float32)
    for _ in range(3):
        convnet.conv2d(x, w, num_threads=2)
        assert_array_equal(convnet.avg_pool2d(x, 1, num_threads=2), x)
        half = convnet.avg_pool2d(x, 1, divisor_override=2, num_threads=2)
        assert_array_equal(half, TINY / np.float32(2))


def test_an_interrupted_convolution_leaves_no_trace():
    def interrupt(*_):
        raise InterruptedError

    x = np.full((1, 64, 200, 200), TINY)
    w = np.ones((256, 64, 5, 5), np.float32)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(InterruptedError):
            convnet.conv2d(x, w, algorithm="direct", num_threads=2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert keeps_denormals()
