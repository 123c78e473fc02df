# SPDX-License-Identifier: MIT
"""Every wrong argument ends in a Python exception that shows the offending values."""

import re

import numpy as np
import pytest

from convnet import _check, functional

X = np.ones((2, 6, 11, 7), np.float32)
W = np.ones((9, 2, 3, 4), np.float32)
GY = np.ones((2, 9, 9, 4), np.float32)
Y = np.ones((2, 6, 3, 3), np.float32)
INDICES = np.zeros((2, 6, 3, 3), np.int64)
# Right arguments for each function, all by name.
RIGHT = {
    "conv2d": {"x": X, "weight": W, "bias": np.ones(9, np.float32), "groups": 3},
    "conv2d_grad_input": {
        "grad_y": GY,
        "weight": W,
        "x_shape": X.shape,
        "groups": 3,
    },
    "conv2d_grad_weight": {
        "grad_y": GY,
        "x": X,
        "weight_shape": W.shape,
        "groups": 3,
    },
    "conv2d_grad_bias": {"grad_y": GY},
    "max_pool2d": {"x": X, "kernel_size": (3, 2)},
    "max_pool2d_grad": {
        "grad_y": Y,
        "indices": INDICES + 14 * 3 // 2 * np.arange(3)[:, None] + 2 * np.arange(3),
        "x_shape": X.shape,
        "kernel_size": (3, 2),
    },
    "avg_pool2d": {"x": X, "kernel_size": (3, 2)},
    "avg_pool2d_grad": {"grad_y": Y, "x_shape": X.shape, "kernel_size": (3, 2)},
    "global_avg_pool2d": {"x": X},
}
CONVS = "conv2d", "conv2d_grad_input", "conv2d_grad_weight"
WINDOWED = tuple(name for name in RIGHT if "bias" not in name and "global" not in name)
POOLS = "max_pool2d", "max_pool2d_grad", "avg_pool2d", "avg_pool2d_grad"
GRADIENTS_OF_X = "conv2d_grad_input", "max_pool2d_grad", "avg_pool2d_grad"
EVERY = tuple(RIGHT)


def call(name, **changes):
    return getattr(functional, name)(**{**RIGHT[name], **changes})


def refused(names, error, message, **changes):
    """Return a test case for each function: a change that must be refused."""
    what = ", ".join(f"{key}={_shown(value)}" for key, value in changes.items())
    return [
        pytest.param(name, error, message, changes, id=f"{name}({what})")
        for name in names
    ]


def _shown(value):
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}"
    return "object" if type(value) is object else repr(value)[:40]


@pytest.mark.parametrize("name", EVERY)
def test_right_arguments_are_accepted(name):
    call(name)


WRONG = [
    # Options.
    *refused(EVERY, ValueError, "layout must be one of", layout="HWCN"),
    *refused(EVERY, TypeError, "layout must be one of", layout=None),
    *refused(EVERY, TypeError, "layout must be one of", layout=["NCHW"]),
    *refused(EVERY, ValueError, "num_threads", num_threads=0),
    *refused(EVERY, ValueError, "num_threads", num_threads=-3),
    *refused(EVERY, TypeError, "num_threads", num_threads=1.5),
    *refused(EVERY, TypeError, "num_threads", num_threads=True),
    *refused(EVERY, TypeError, "num_threads", num_threads="2"),
    *refused(CONVS, ValueError, "algorithm .* 'fft'", algorithm="fft"),
    *refused(CONVS, TypeError, "algorithm .* None", algorithm=None),
    *refused(CONVS, ValueError, "precision .* 'high'", precision="high"),
    *refused(
        CONVS[:2],
        ValueError,
        "'strict' does not allow algorithm 'winograd4'",
        precision="strict",
        algorithm="winograd4",
    ),
    *refused(CONVS, TypeError, "precision .* 1", precision=1),
    # Windows.
    *refused(WINDOWED, ValueError, "stride .* 0", stride=0),
    *refused(WINDOWED, ValueError, "stride .* -2", stride=(1, -2)),
    *refused(WINDOWED, TypeError, "stride .* 1.0", stride=1.0),
    *refused(WINDOWED, TypeError, "stride .* True", stride=True),
    *refused(WINDOWED, TypeError, "integer or a pair of integers, got 1.5", stride=1.5),
    *refused(WINDOWED, TypeError, r"stride .* got ndarray of shape \(2, 6", stride=X),
    *refused(WINDOWED, ValueError, "padding .* -1", padding=-1),
    *refused(WINDOWED, ValueError, "padding .* 'some'", padding="some"),
    *refused(WINDOWED, TypeError, "padding .* nan", padding=float("nan")),
    *refused(WINDOWED, TypeError, "padding .* None", padding=None),
    *refused(CONVS, ValueError, r"does not fit .* \(11, 7\)", dilation=6),
    *refused(CONVS, TypeError, "dilation .* '1'", dilation="1"),
    *refused(POOLS, ValueError, "kernel_size .* 0", kernel_size=0),
    *refused(POOLS, ValueError, r"kernel_size .* \(3, 2, 1\)", kernel_size=(3, 2, 1)),
    *refused(POOLS, TypeError, "kernel_size .* None", kernel_size=None),
    *refused(POOLS, ValueError, r"does not fit .* \(11, 7\)", kernel_size=(3, 8)),
    *refused(POOLS, ValueError, "padding .* at most", padding=2),
    *refused(POOLS, TypeError, "ceil_mode .* 1", ceil_mode=1),
    *refused(POOLS[2:], TypeError, "count_include_pad", count_include_pad=None),
    *refused(POOLS[2:], ValueError, "divisor_override .* 0", divisor_override=0),
    *refused(POOLS[2:], TypeError, "divisor_override", divisor_override=2.0),
    *refused(["max_pool2d"], TypeError, "return_indices", return_indices="yes"),
    *refused(["conv2d_grad_bias"], TypeError, "untied must be", untied=1),
    # Groups and channels.
    *refused(CONVS, ValueError, "weight expects 8 input channels .* 6", groups=4),
    *refused(CONVS, ValueError, "groups .* 0", groups=0),
    *refused(CONVS, TypeError, "groups .* 3.0", groups=3.0),
    *refused(CONVS, TypeError, "groups .* True", groups=True),
    *refused(
        ["conv2d"], ValueError, "8 output channels .* 3 groups", weight=W[:8], bias=None
    ),
    *refused(["conv2d"], ValueError, r"weight must .* \(2, 3, 4\)", weight=W[0]),
    *refused(["conv2d"], ValueError, "does not fit", weight=W[:, :, :0]),
    *refused(["conv2d"], ValueError, r"bias must .* \(8,\)", bias=np.ones(8)),
    *refused(["conv2d"], ValueError, r"bias must .* \(\)", bias=3.0),
    *refused(
        ["conv2d"], ValueError, r"bias must .* \(9, 4, 9\)", bias=np.ones((9, 4, 9))
    ),
    *refused(
        ["conv2d"], ValueError, r"bias must .* \(1, 9, 1\)", bias=np.ones((1, 9, 1))
    ),
    # Shapes of images.
    *refused(["conv2d", "max_pool2d"], ValueError, r"x must .* \(11, 7\)", x=X[0, 0]),
    *refused(["conv2d", "avg_pool2d"], ValueError, r"x must .* \(1, ", x=X[None]),
    *refused(["conv2d", "global_avg_pool2d"], ValueError, r"x must .* \(\)", x=3.0),
    *refused(GRADIENTS_OF_X, ValueError, r"grad_y must .* \(2, ", x_shape=X.shape[1:]),
    *refused(GRADIENTS_OF_X, ValueError, r"x_shape .* \(11, 7\)", x_shape=(11, 7)),
    *refused(GRADIENTS_OF_X, ValueError, "x_shape .* -2", x_shape=(-2, 6, 11, 7)),
    *refused(GRADIENTS_OF_X, TypeError, "x_shape .* 2.0", x_shape=(2.0, 6, 11, 7)),
    *refused(GRADIENTS_OF_X, TypeError, "x_shape .* 3", x_shape=3),
    *refused(GRADIENTS_OF_X, TypeError, "x_shape must be a tuple", x_shape=X),
    *refused(GRADIENTS_OF_X, TypeError, "x_shape must be an int", x_shape=X.tolist()),
    *refused(GRADIENTS_OF_X, ValueError, "x_shape .* 4 num", x_shape=INDICES.ravel()),
    *refused(GRADIENTS_OF_X, ValueError, "grad_y must", grad_y=GY[:, :, :-1]),
    *refused(["conv2d_grad_weight"], ValueError, "grad_y must", grad_y=GY[:1]),
    *refused(["conv2d_grad_weight"], ValueError, "grad_y must", grad_y=GY[0]),
    *refused(["conv2d_grad_weight"], TypeError, "weight_shape", weight_shape=9),
    *refused(["conv2d_grad_weight"], ValueError, r"\(9, 2\)", weight_shape=(9, 2)),
    *refused(["global_avg_pool2d"], ValueError, "kernel_size", x=X[:, :, :0]),
    *refused(["max_pool2d_grad"], ValueError, "indices must .* sh", indices=INDICES[0]),
    *refused(["max_pool2d_grad"], ValueError, "int32", indices=INDICES.astype("i4")),
    *refused(["max_pool2d_grad"], ValueError, "uint64", indices=INDICES.astype("u8")),
    *refused(["max_pool2d_grad"], ValueError, "float32", indices=Y),
    *refused(["max_pool2d_grad"], ValueError, "windows", indices=INDICES),
    # Dtypes.
    *(
        case
        for dtype in ("float16", "complex64", "longdouble", "object", "U3", "M8[s]")
        for names, argument in (
            (["conv2d", "max_pool2d", "avg_pool2d", "global_avg_pool2d"], "x"),
            (["conv2d_grad_bias", *GRADIENTS_OF_X], "grad_y"),
            (["conv2d", "conv2d_grad_input"], "weight"),
            (["conv2d"], "bias"),
        )
        for case in refused(
            names,
            TypeError,
            f"{argument} must hold .* {re.escape(str(np.dtype(dtype)))}",
            **{argument: np.ones((2, 6, 11, 7)).astype(dtype)},
        )
    ),
    *refused(["conv2d", "max_pool2d"], TypeError, "x must hold", x=None),
    *refused(["conv2d"], TypeError, "x must hold", x="images"),
    *refused(["conv2d"], TypeError, "weight must hold", weight=object()),
    # Memory.
    *refused(["conv2d"], MemoryError, "does not fit into memory", padding=2**30),
    *refused(["conv2d"], MemoryError, "float32", padding=((0, 2**31 - 1), (2**30, 0))),
]


@pytest.mark.parametrize(("name", "error", "message", "changes"), WRONG)
def test_wrong_argument_is_refused(name, error, message, changes):
    with pytest.raises(error, match=re.compile(message, re.DOTALL)) as caught:
        call(name, **changes)
    # Whoever passes a whole array must not have to scroll past it.
    assert len(str(caught.value)) < 300


def test_result_beyond_memory_is_a_memory_error():
    # A small gradient of a huge image, every billionth pixel of which counts.
    grad_y = np.ones((1, 1, 2, 2))
    shape, stride = (1, 1, 2**30 + 1, 2**30 + 1), 2**30
    with pytest.raises(MemoryError, match=re.escape(str(shape))):
        functional.conv2d_grad_input(grad_y, np.ones((1, 1, 1, 1)), shape, stride)
    with pytest.raises(MemoryError, match=re.escape(str(shape))):
        functional.avg_pool2d_grad(grad_y, shape, 1, stride)


def test_numpy_integers_and_booleans_count_as_such():
    options = {"stride": np.int64(2), "padding": (np.uint8(1), np.int16(0))}
    y = functional.conv2d(X, W, groups=np.int32(3), **options)
    assert y.shape == (2, 9, 6, 2)
    y = functional.avg_pool2d(X, np.array(3), 2, ceil_mode=np.True_)
    assert y.shape == (2, 6, 5, 3)


def test_drivers_get_ready_arrays():
    # Some processors stop at an unaligned number; this one may be more patient.
    memory = np.zeros(4 * 6 + 1, np.uint8)[1:].view(np.float32)
    swapped = np.ones(3, ">f4")
    for values in (memory, X), (X, memory), (memory, GY.astype(float)), (swapped, X):
        for array in _check.as_floats(("x", "weight"), values):
            assert array.flags.aligned
            assert array.dtype.isnative
    assert _check.as_floats(("x",), (X,))[0] is X


def test_out_that_may_overlap_is_refused_without_a_long_search():
    # Whether such strides ever meet is a problem that grows exponentially.
    shape, memory = (5, 3, 7, 11), np.zeros(24_000)
    as_strided = np.lib.stride_tricks.as_strided
    out = as_strided(memory, shape, [8 * step for step in (1009, 1013, 1019, 1021)])
    x = as_strided(memory[1:], shape, [8 * step for step in (997, 991, 983, 977)])
    with pytest.raises(np.exceptions.TooHardError):
        np.shares_memory(x, out, max_work=_check._OVERLAP_WORK)
    with pytest.raises(ValueError, match="share memory"):
        functional.max_pool2d(x, 1, out=out)
