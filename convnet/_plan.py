# SPDX-License-Identifier: MIT
"""What a convolution call would do, and why: `explain`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike

from convnet import _check as check
from convnet import _conv, _conv_weight, _threads
from convnet._geometry import IntOrPair, Padding, Window, conv_window

KINDS = ("forward", "grad_input", "grad_weight")


@dataclass(frozen=True)
class Candidate:
    """One way to compute a call.

    Attributes
    ----------
    algorithm : str
        Its name, as ``algorithm=`` takes it.
    flops : int
        Floating-point operations that it does.
    scratch_bytes : int
        Memory beside the inputs and the result, for the current number of threads.
    error_bound : float
        Bound of ``|computed - exact| / sum(|products|)`` for each element, to first
        order: the roundings on the longest path through the sum, times half an eps.
    reason : str
        How it would go about it.
    """

    algorithm: str
    flops: int
    scratch_bytes: int
    error_bound: float
    reason: str


@dataclass(frozen=True)
class Plan:
    """What `explain` found: the call, the candidates, and the first of them chosen.

    Attributes
    ----------
    kind : {"forward", "grad_input", "grad_weight"}
    shape : str
        The call in words.
    useful_flops : int
        ``2 * N * OC * IC / groups * KH * KW * OH * OW``, by which rates are compared.
    candidates : tuple of Candidate
    """

    kind: str
    shape: str
    useful_flops: int
    candidates: tuple[Candidate, ...]

    @property
    def algorithm(self) -> str:
        """Name of the chosen algorithm."""
        return self.candidates[0].algorithm

    @property
    def flops(self) -> int:
        """Operations of the chosen algorithm."""
        return self.candidates[0].flops

    @property
    def scratch_bytes(self) -> int:
        """Scratch memory of the chosen algorithm, in bytes."""
        return self.candidates[0].scratch_bytes

    @property
    def error_bound(self) -> float:
        """Error bound of the chosen algorithm, relative to the sum of |products|."""
        return self.candidates[0].error_bound

    def __str__(self) -> str:
        """Return a table of the candidates, the chosen one marked."""
        lines = [
            f"{self.kind} of {self.shape}",
            f"  {'algorithm':<12}{'MFLOP':>12}{'scratch KB':>12}{'error':>10}  why",
        ]
        for candidate in self.candidates:
            mark = "*" if candidate is self.candidates[0] else " "
            lines.append(
                f"{mark} {candidate.algorithm:<12}{candidate.flops / 1e6:>12.2f}"
                f"{candidate.scratch_bytes / 1024:>12.1f}"
                f"{candidate.error_bound:>10.1e}  {candidate.reason}"
            )
        return "\n".join(lines)


def explain(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    kind: str = "forward",
    layout: str = "NCHW",
    dtype: DTypeLike = np.float32,
) -> Plan:
    """Tell how a convolution would be computed, without computing it.

    Parameters
    ----------
    x_shape : (int, int, int, int) or (int, int, int)
        Shape of the images, in the order that `layout` gives.
    weight_shape : (int, int, int, int)
        ``(OC, IC // groups, KH, KW)``.
    stride, padding, dilation, groups
        As for `conv2d`.
    kind : {"forward", "grad_input", "grad_weight"}
        Which of the three passes.
    layout : {"NCHW", "NHWC"}
    dtype : float32 or float64

    Returns
    -------
    Plan
        With ``algorithm``, ``flops``, ``scratch_bytes``, ``error_bound`` and all
        ``candidates``; ``print`` shows it as a table.

    Raises
    ------
    TypeError, ValueError
        As `conv2d` does for arrays of these shapes.

    Examples
    --------
    >>> plan = explain((1, 64, 56, 40), (32, 64, 3, 5), padding=(1, 2))
    >>> plan.algorithm, plan.flops
    ('direct', 137625600)
    """
    check.choice(kind, "kind", KINDS)
    channels_last = check.choice(layout, "layout", ("NCHW", "NHWC")) == "NHWC"
    element = np.dtype(dtype)
    if element not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {element}")
    _, (N, IC, IH, IW) = check.as_image_shape(x_shape, "x_shape", channels_last)
    weights = check.as_shape(weight_shape, "weight_shape")
    groups = check.weight_fits(weights, IC, groups)
    window = conv_window((IH, IW), weights[2:], stride, padding, dilation)  # type: ignore[arg-type]
    OC, channels, KH, KW = weights
    OH, OW = window.output
    flops = 2 * N * OC * channels * KH * KW * OH * OW
    outlines: list[dict[str, Any]] = []
    if flops:
        images = _imagine((N, IC, IH, IW), element, channels_last)
        result = _imagine((N, OC, OH, OW), element, channels_last)
        weight = _imagine(weights, element, False)
        outlines = _outlines(kind, images, weight, result, window, groups)
    length = {
        "forward": channels * KH * KW,
        "grad_input": OC // groups * KH * KW,
        "grad_weight": N * OH * OW,
    }[kind]
    image = f"{IH}x{IW}x{IC}" if channels_last else f"{IC}x{IH}x{IW}"
    return Plan(
        kind,
        f"{N} x {image} {element} ({layout}), weight "
        f"{'x'.join(map(str, weights))}, {groups} groups",
        flops,
        (_direct(kind, flops, length, element, outlines),),
    )


def _imagine(
    shape: tuple[int, ...], dtype: np.dtype[Any], channels_last: bool
) -> check.Array:
    """Return an array of this NCHW shape, strided as if new, without its memory."""
    order = (0, 2, 3, 1) if channels_last else range(len(shape))
    strides, step = [0] * len(shape), dtype.itemsize
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return as_strided(np.empty(1, dtype), shape, strides)


def _outlines(
    kind: str,
    x: check.Array,
    weight: check.Array,
    y: check.Array,
    window: Window,
    groups: int,
) -> list[dict[str, Any]]:
    """Ask the driver of a pass for the products that it would run."""
    outlines: list[dict[str, Any]] = []
    how = (*window.steps, groups, _threads.get_num_threads(), outlines)
    if kind == "forward":
        _conv.forward(x, weight, None, y, *how)
    elif kind == "grad_input":
        _conv.grad_input(y, weight, x, *how)
    else:
        _conv_weight.grad_weight(y, x, weight, *how)
    return outlines


def _direct(
    kind: str,
    flops: int,
    length: int,
    dtype: np.dtype[Any],
    outlines: list[dict[str, Any]],
) -> Candidate:
    """Describe the direct algorithm: implicit GEMM over blocks of pixels."""
    if not outlines:
        return Candidate("direct", 0, 0, 0.0, "nothing to compute")
    most = max(outlines, key=lambda outline: outline["scratch_bytes"])
    rows, columns = most["block"]
    # Chunks of the sum run in registers, and are then added to the result one by one.
    chunk = max(outline["chunk"] for outline in outlines)
    if kind == "grad_weight":
        chunk = rows * columns  # its sum runs over pixels, block by block
    chunk = min(max(chunk, 1), length)
    roundings = chunk + -(-length // chunk) + 1
    reason = (
        f"{len(outlines)} product{'s' if len(outlines) > 1 else ''} of "
        f"{most['blocks']} blocks of {rows} x {columns} pixels, "
        f"{most['chunks']} chunks of {most['chunk']} terms, "
        + ("x read in place" if most["in_place"] else "x copied to padded slabs")
    )
    return Candidate(
        "direct",
        flops,
        most["scratch_bytes"],
        roundings * float(np.finfo(dtype).eps) / 2,
        reason,
    )
