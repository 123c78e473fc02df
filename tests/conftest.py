# SPDX-License-Identifier: MIT
"""Fixtures for all tests: a seeded generator, and every instruction set in turn."""

import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from convnet import _kernels

# Shells start background jobs with Ctrl-C ignored, which the processes that tests
# interrupt would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test asserts a time. Setting an instruction set twice does no harm, so that it may
# serve all examples of a test.
settings.register_profile(
    "convnet",
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("convnet")


@pytest.fixture
def rng():
    """Return random numbers that are the same in every run."""
    return np.random.default_rng(20_231)


@pytest.fixture(params=_kernels.available_isas())
def isa(request):
    """Run the test with the kernels of each instruction set that this machine has."""
    before = _kernels.get_isa()
    _kernels.set_isa(request.param)
    yield request.param
    _kernels.set_isa(before)
