# SPDX-License-Identifier: MIT
"""Checks of a call are remembered, and stay as strict as they were the first time."""

import numpy as np
import pytest

import convnet
from convnet import _calls, _check

X = np.ones((2, 3, 11, 7), np.float32)
W = np.ones((5, 3, 3, 2), np.float32)


def recording():
    """Return a check that gives what it is called with, and the list of its calls."""
    calls = []

    @_check.remembered("x", "weight")
    def check(shapes, dtype, *options):
        calls.append((shapes, dtype, options))
        return calls[-1]

    return check, calls


def test_the_same_call_is_checked_once():
    check, calls = recording()
    arrays, answer = check((X, W), (1, "NCHW", None, (2, (True, 3))))
    assert arrays == (X, W)
    assert answer == (
        (X.shape, W.shape),
        np.float32,
        (1, "NCHW", None, (2, (True, 3))),
    )
    _, again = check((X.copy(), W + 1), (1, "".join("NCHW"), None, (2, (True, 3))))
    assert again is answer
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("arrays", "options"),
    [
        ((X, W), (True,)),
        ((X, W), (1.0,)),
        ((X, W), (2,)),
        ((X, W), ((1,),)),
        ((X, W), (1, None)),
        ((X, W), (np.int64(1),)),
        ((X[:, :, 1:], W), (1,)),
        ((X[0], W), (1,)),
        ((X.astype(float), W.astype(float)), (1,)),
    ],
)
def test_what_differs_is_another_call(arrays, options):
    check, calls = recording()
    check((X, W), (1,))
    _, answer = check(arrays, options)
    assert len(calls) == 2
    assert answer[2] == options
    assert list(map(type, answer[2])) == list(map(type, options))
    assert check((X, W), (1,))[1] is not answer


def test_another_instruction_set_is_another_call(isa):
    check, calls = recording()
    check((X, W), (1,))
    before = convnet.get_isa()
    for other in convnet._kernels.available_isas():
        convnet.set_isa(other)
        check((X, W), (1,))
    convnet.set_isa(before)
    assert len(calls) == len(convnet._kernels.available_isas())


def test_options_that_may_change_are_checked_each_time():
    check, calls = recording()
    stride = [1, 2]
    assert check((X, W), (stride,))[1][2] == ([1, 2],)
    stride[0] = 3
    assert check((X, W), (stride,))[1][2] == ([3, 2],)
    assert len(calls) == 2


def test_many_kinds_of_calls_leave_no_more_behind_than_the_table_holds():
    check, calls = recording()
    for option in range(3000):
        assert check((X, W), (option,))[1][2] == (option,)
    assert len(calls) == 3000
    check((X, W), (2999,))
    assert len(calls) == 3000


def test_errors_are_not_remembered():
    for _ in range(2):
        with pytest.raises(ValueError, match="stride"):
            convnet.conv2d(X, W, stride=0)
    assert convnet.conv2d(X, W, stride=1).shape == (2, 5, 9, 6)
    for wrong in True, 1.0, (1, True):
        with pytest.raises(TypeError, match="stride"):
            convnet.conv2d(X, W, stride=wrong)
    with pytest.raises(TypeError, match="x must hold"):
        convnet.conv2d(X.astype(np.float16), W)


def test_the_policy_counts_in_calls_that_do_not_name_one(monkeypatch):
    chosen = []
    real = convnet._conv_call.choose

    def choose(*call):
        chosen.append(call[4])
        return real(*call)

    monkeypatch.setattr(convnet._conv_call, "choose", choose)
    x, w = np.ones((1, 3, 13, 17), np.float32), np.ones((7, 3, 3, 3), np.float32)
    try:
        for policy in "strict", "default", "strict", "default":
            convnet.set_precision(policy)
            convnet.conv2d(x, w)
        convnet.conv2d(x, w, precision="strict")
    finally:
        convnet.set_precision("default")
    assert chosen == ["strict", "default", "strict"]


def test_only_plain_arrays_of_one_float_type_are_ready():
    swapped = X.astype(">f4")
    assert _calls.are_floats((X, W))
    for other in W.astype(float), swapped, [1.0], None, W.astype(int):
        assert not _calls.are_floats((X, other))
