# SPDX-License-Identifier: MIT
"""Output sizes and padding against windows that are counted one by one."""

import itertools

import numpy as np
import pytest

from convnet._geometry import LARGEST, conv_window, pool_window


def counted(I, K, S, D, before, after):  # noqa: E741
    """Count the windows along one axis that lie within the padded image."""
    starts = range(-before, I + after, S)
    return sum(start + D * (K - 1) < I + after for start in starts)


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_conv_output_counts_windows(stride, dilation):
    pads = (0, 0), (1, 0), (0, 2), (3, 1)
    for I, K, sides in itertools.product(range(1, 9), range(1, 6), pads):  # noqa: E741
        expected = counted(I, K, stride, dilation, *sides)
        arguments = (I, 40), (K, 1), (stride, 1), (sides, (0, 0)), (dilation, 1)
        if expected:
            assert conv_window(*arguments).output == (expected, 40)
        else:
            with pytest.raises(ValueError, match="does not fit"):
                conv_window(*arguments)


@pytest.mark.parametrize(
    ("padding", "pads"),
    [
        (2, (2, 2, 2, 2)),
        ((2, 3), (2, 3, 2, 3)),
        ([2, 3], (2, 3, 2, 3)),
        (((1, 2), (3, 4)), (1, 3, 2, 4)),
        ([[1, 2], [3, 4]], (1, 3, 2, 4)),
        (np.int8(2), (2, 2, 2, 2)),
        ("valid", (0, 0, 0, 0)),
        # Rows: 11 pixels, stride 2 -> 6 windows -> 2*5 + 4 - 11 = 3 pixels.
        # Columns: 7 pixels, stride 3 -> 3 windows -> 3*2 + 5 - 7 = 4 pixels.
        ("same", (1, 2, 2, 2)),
        ("same_lower", (2, 2, 1, 2)),
        ("full", (3, 4, 3, 4)),
    ],
)
def test_padding_forms(padding, pads):
    window = conv_window((11, 7), (4, 3), (2, 3), padding, (1, 2))
    assert window.pads == pads


@pytest.mark.parametrize("name", ["same", "same_lower"])
def test_same_gives_as_many_windows_as_strides(name):
    for I, K, S in itertools.product(range(1, 12), range(1, 6), range(1, 5)):  # noqa: E741
        window = conv_window((I, 3), (K, 1), (S, 1), name)
        assert window.output == (-(-I // S), 3)
        short, long = window.pads[0], window.pads[2]
        if name == "same_lower":
            short, long = long, short
        assert long - short in (0, 1)


@pytest.mark.parametrize(
    ("I", "K", "S", "P", "D", "floor", "ceil"),
    [
        # As torch.nn.MaxPool2d gives them.
        (7, 2, 2, 0, 1, 3, 4),
        (6, 3, 2, 1, 1, 3, 4),
        (5, 2, 2, 1, 1, 3, 3),
        (5, 2, 3, 1, 1, 2, 2),
        (3, 1, 2, 0, 1, 2, 2),
        (4, 1, 3, 0, 1, 2, 2),
        (10, 3, 2, 0, 2, 3, 4),
        (2, 3, 2, 0, 1, 0, 1),
        (5, 1, 7, 0, 1, 1, 1),
    ],
)
def test_ceil_mode_starts_inside_the_image(I, K, S, P, D, floor, ceil):  # noqa: E741
    arguments = (31, I), (2, K), (3, S), (0, P), (1, D)
    assert pool_window(*arguments, ceil_mode=True).output == (11, ceil)
    if floor:
        assert pool_window(*arguments).output == (10, floor)
    else:
        with pytest.raises(ValueError, match="does not fit"):
            pool_window(*arguments)


def test_ceil_mode_last_window_touches_the_image():
    ranges = range(1, 9), range(1, 5), range(1, 6), range(4), range(4)
    for I, K, S, before, after in itertools.product(*ranges):  # noqa: E741
        if max(before, after) >= K or I + before + after < K:
            continue
        sides = (0, 0), (before, after)
        _, floor = pool_window((1, I), (1, K), S, sides).output
        _, count = pool_window((1, I), (1, K), S, sides, ceil_mode=True).output
        last = S * (count - 1) - before
        assert count in (floor, floor + 1)
        assert last < I
        # One window more would start too late, or there is nothing left to cover.
        assert last + S >= I or last + K >= I + after


def test_pool_stride_is_the_kernel_by_default():
    window = pool_window((11, 7), (3, 2))
    assert window.stride == (3, 2)
    assert window.output == (3, 3)


def test_pool_window_wholly_in_padding_is_refused():
    ranges = range(1, 6), range(1, 5), range(1, 4), range(1, 6)
    for I, K, S, D in itertools.product(*ranges):  # noqa: E741
        for before, after in itertools.product(range(D * (K - 1) + 1), repeat=2):
            count = counted(I, K, S, D, before, after)
            taps = [
                [oh * S + kh * D - before for kh in range(K)] for oh in range(count)
            ]
            fine = all(any(0 <= tap < I for tap in window) for window in taps)
            arguments = (I, 3), (K, 1), (S, 1), ((before, after), (0, 0)), (D, 1)
            if count and fine:
                assert pool_window(*arguments).output == (count, 3)
            else:
                with pytest.raises(ValueError, match=r"wholly|does not fit"):
                    pool_window(*arguments)


@pytest.mark.parametrize("padding", [(3, 0), ((0, 0), (0, 2)), ((0, 4), (0, 0))])
def test_pool_padding_beyond_the_kernel_is_refused(padding):
    with pytest.raises(ValueError, match="at most dilation"):
        pool_window((11, 7), (3, 2), 1, padding)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("stride", 0, ValueError),
        ("stride", -1, ValueError),
        ("stride", (1, 0), ValueError),
        ("stride", (1, 2, 3), ValueError),
        ("stride", (), ValueError),
        ("stride", True, TypeError),
        ("stride", (True, 1), TypeError),
        ("stride", 1.0, TypeError),
        ("stride", float("nan"), TypeError),
        ("dilation", None, TypeError),
        ("stride", "2", TypeError),
        ("stride", np.array([1, 2]), TypeError),
        ("stride", LARGEST + 1, ValueError),
        ("stride", 10**30, ValueError),
        ("dilation", 0, ValueError),
        ("dilation", (2, None), TypeError),
        ("padding", -1, ValueError),
        ("padding", (1, -1), ValueError),
        ("padding", (1, 2, 3, 4), ValueError),
        ("padding", ((1, 2), 3), TypeError),
        ("padding", ((1, 2), (3, 4), (5, 6)), ValueError),
        ("padding", ((1, 2), (3, 4, 5)), ValueError),
        ("padding", "SAME", ValueError),
        ("padding", None, TypeError),
        ("padding", 0.5, TypeError),
        ("padding", {1, 2}, TypeError),
    ],
)
def test_nonsense_is_refused(name, value, error):
    for window in conv_window, pool_window:
        with pytest.raises(error, match=name):
            window((11, 7), (3, 2), **{name: value})


def test_conv_needs_a_stride():
    with pytest.raises(TypeError, match="stride"):
        conv_window((11, 7), (3, 2), None)


def test_kernels_without_pixels_are_refused():
    for kernel in (0, 3), (3, 0):
        with pytest.raises(ValueError, match="does not fit"):
            conv_window((11, 7), kernel)
        with pytest.raises(ValueError, match="kernel_size"):
            pool_window((11, 7), kernel)


def test_huge_numbers_do_not_overflow():
    big = LARGEST
    assert conv_window((3, 5), (2, 1), 1, big).output == (2 * big + 2, 2 * big + 5)
    assert conv_window((3, 5), (3, 1), big, big, big).output == (1, 3)
    with pytest.raises(ValueError, match="does not fit"):
        conv_window((3, 5), (big, big), 1, 0, big)
    with pytest.raises(ValueError, match="dilation"):
        conv_window((3, 5), (big, big), 1, "full", big)
    # The three windows each have their middle tap in the image.
    assert pool_window((3, 5), (3, 1), 1, (big, 0), (big, 1)).output == (3, 5)
    with pytest.raises(ValueError, match="wholly"):
        pool_window((3, 5), (4, 1), 1, (big // 3 * 3, 0), (big // 3, 1))
