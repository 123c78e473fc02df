# SPDX-License-Identifier: MIT
"""Where the windows of a kernel lie on an image, in plain integers.

    row of the image under tap kh of window oh = oh*SH + kh*DH - PT

Everything here is a Python int, so nothing overflows, whatever a caller asks for.
`conv_window` and `pool_window` turn what users may write into one `Window`, or say what
is wrong with it. Arrays are none of this module's business.
"""

import operator
import reprlib
from collections.abc import Sequence
from math import gcd
from typing import NamedTuple, SupportsIndex, TypeAlias

Pair: TypeAlias = tuple[int, int]
Pads: TypeAlias = tuple[int, int, int, int]  # PT, PL, PB, PR
IntOrPair: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
Padding: TypeAlias = IntOrPair | str | Sequence[Sequence[SupportsIndex]]

# The drivers count in 64 bits: sums and products of two parameters stay inside.
LARGEST = 2**31 - 1

_REPR = reprlib.Repr()
_REPR.maxother = 100  # instead of 30 characters, too few for most objects


class Window(NamedTuple):
    """A kernel's windows on an image; pairs are (height, width)."""

    kernel: Pair
    stride: Pair
    pads: Pads
    dilation: Pair
    output: Pair


def conv_window(
    image: Pair,
    kernel: Pair,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
) -> Window:
    """Return the windows of a convolution of `image` with `kernel` pixels.

    ``OH = (IH + PT + PB - DH*(KH - 1) - 1) // SH + 1``, and `OW` alike.
    """
    SH, SW = stride = as_pair(stride, "stride")
    DH, DW = dilation = as_pair(dilation, "dilation")
    PT, PL, PB, PR = pads = _pads(padding, image, kernel, stride, dilation)
    (IH, IW), (KH, KW) = image, kernel
    OH = (IH + PT + PB - DH * (KH - 1) - 1) // SH + 1
    OW = (IW + PL + PR - DW * (KW - 1) - 1) // SW + 1
    window = Window(kernel, stride, pads, dilation, (OH, OW))
    if OH < 1 or OW < 1 or KH < 1 or KW < 1:
        raise _too_small(image, window)
    return window


def pool_window(
    image: Pair,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
) -> Window:
    """Return the windows of a pooling over `image`; `stride` None means `kernel_size`.

    As `conv_window`, but ceil mode rounds the output size up, where the last window
    still begins inside the image or its leading padding; and each window must have at
    least one pixel of the image to pool.
    """
    KH, KW = kernel = as_pair(kernel_size, "kernel_size")
    SH, SW = stride = kernel if stride is None else as_pair(stride, "stride")
    DH, DW = dilation = as_pair(dilation, "dilation")
    PT, PL, PB, PR = pads = _pads(padding, image, kernel, stride, dilation)
    IH, IW = image
    OH = _pool_count(IH, KH, SH, DH, (PT, PB), ceil_mode)
    OW = _pool_count(IW, KW, SW, DW, (PL, PR), ceil_mode)
    window = Window(kernel, stride, pads, dilation, (OH, OW))
    if OH < 1 or OW < 1:
        raise _too_small(image, window)
    if _misses(IH, OH, SH, DH, PT) or _misses(IW, OW, SW, DW, PL):
        raise ValueError(
            f"a pooling window lies wholly in the padding: image {image}, {window}"
        )
    return window


def as_pair(value: object, name: str, least: int = 1) -> Pair:
    """Return `value`, one integer or two, as (height, width)."""
    if type(value) is int and least <= value <= LARGEST:
        return value, value
    form = "an integer or a pair of integers"
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ValueError(f"{name} must be {form}, got {shown(value)}")
        return as_int(value[0], name, least), as_int(value[1], name, least)
    number = as_int(value, name, least, form)
    return number, number


def as_int(value: object, name: str, least: int = 1, form: str = "an integer") -> int:
    """Return `value` as an int of at least `least`; neither bool nor float is one."""
    if type(value) is not int:
        try:
            if isinstance(value, bool):
                raise TypeError
            value = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(f"{name} must be {form}, got {shown(value)}") from None
    if not least <= value <= LARGEST:
        raise ValueError(f"{name} must be between {least} and {LARGEST}, got {value}")
    return value


def shown(value: object) -> str:
    """Return a wrong value for a message: short, even if it is a batch of images."""
    if getattr(value, "ndim", 0):
        return f"{type(value).__name__} of shape {value.shape}"  # type: ignore[attr-defined]
    text = _REPR.repr(value)
    return text if len(text) < 100 else f"{text[:100]}..."


def _pads(
    padding: object, image: Pair, kernel: Pair, stride: Pair, dilation: Pair
) -> Pads:
    """Return the pixels on each side for every form that `padding` may have."""
    if isinstance(padding, str):
        axes = zip(image, kernel, stride, dilation, strict=True)
        (PT, PB), (PL, PR) = (_named_pads(padding, *axis) for axis in axes)
    elif (
        isinstance(padding, tuple | list)
        and len(padding) == 2
        and all(isinstance(side, tuple | list) for side in padding)
    ):
        (PT, PB), (PL, PR) = (as_pair(side, "padding", 0) for side in padding)
    else:
        PT, PL = PB, PR = as_pair(padding, "padding", 0)
    return PT, PL, PB, PR


def _named_pads(name: str, I: int, K: int, S: int, D: int) -> Pair:  # noqa: E741
    """Return the pixels before and after one axis."""
    reach = D * (K - 1)
    if reach > LARGEST:
        raise ValueError(f"dilation * (kernel_size - 1) = {reach} is above {LARGEST}")
    if name == "valid":
        return 0, 0
    if name == "full":
        return reach, reach
    if name not in ("same", "same_lower"):
        raise ValueError(
            f"padding must be 'valid', 'same', 'same_lower', 'full' or integers, "
            f"got {name!r}"
        )
    # Enough for ceil(I / S) windows; an odd pixel goes to the end, or the start.
    total = max(0, (-(-I // S) - 1) * S + reach + 1 - I)
    small, large = total // 2, total - total // 2
    return (small, large) if name == "same" else (large, small)


def _pool_count(
    I: int,  # noqa: E741
    K: int,
    S: int,
    D: int,
    sides: Pair,
    ceil_mode: bool,
) -> int:
    """Return the number of pooling windows along one axis."""
    (before, after), reach = sides, D * (K - 1)
    if before > reach or after > reach:
        raise ValueError(
            f"padding of a pooling can be at most dilation * (kernel_size - 1) = "
            f"{reach} pixels on each side, got {before} and {after}"
        )
    room = I + before + after - reach - 1
    count = room // S + 1
    if ceil_mode and room % S and count * S < I + before:
        count += 1
    return count


def _misses(I: int, O: int, S: int, D: int, before: int) -> bool:  # noqa: E741
    """Tell whether a window along one axis has no tap inside the image.

    Padding is no wider than a window's reach and no window starts behind the image, so
    each window touches it, unless a dilated one steps over it. Such a one starts before
    pixel 0; its first tap from there on is ``start % D``, which repeats.
    """
    if D <= I:
        return False
    early = min(O, -(-before // S), D // gcd(S, D))
    return any((oh * S - before) % D >= I for oh in range(early))


def _too_small(image: Pair, window: Window) -> ValueError:
    """Return the error for a kernel that fits nowhere."""
    (KH, KW), _, pads, (DH, DW), _ = window
    return ValueError(
        f"the kernel does not fit into the image: it covers "
        f"{(DH * (KH - 1) + 1, DW * (KW - 1) + 1)} pixels with kernel {window.kernel} "
        f"and dilation {window.dilation}, but the image has {image} and padding "
        f"(top, left, bottom, right) {pads}"
    )
