# SPDX-License-Identifier: MIT
"""What a convolution call would do, and why: `explain`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike

from convnet import _check as check
from convnet import _conv, _conv_weight, _winograd, _winograd_weight
from convnet._algorithm import by_tiles, estimates, get_policy
from convnet._conv_call import ConvCall, check_conv
from convnet._geometry import IntOrPair, Padding
from convnet._threads import get_num_threads

KINDS = ("forward", "grad_input", "grad_weight")


@dataclass(frozen=True)
class Candidate:
    """One way to compute a call.

    Attributes
    ----------
    algorithm : str
        Its name, as ``algorithm=`` takes it.
    cycles : float
        Estimated time on one core.
    flops : int
        Floating-point operations of its products; Winograd's transforms come on top.
    scratch_bytes : int
        Memory beside the inputs and the result, for the current number of threads.
    error_bound : float
        Bound of ``|computed - exact| / (sum(|weight|) * max(|x|))`` for each element,
        to first order, the sum over one filter (for the weight gradient, `grad_y`
        stands for `weight`): the roundings on the longest path, times half an eps,
        times what the transforms may enlarge.
    reason : str
        How it would go about it.
    """

    algorithm: str
    cycles: float
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
        """Error bound of the chosen algorithm; see `Candidate`."""
        return self.candidates[0].error_bound

    def __str__(self) -> str:
        """Return a table of the candidates, the chosen one marked."""
        lines = [
            f"{self.kind} of {self.shape}",
            f"  {'algorithm':<12}{'Mcycles':>10}{'MFLOP':>12}{'scratch KB':>12}"
            f"{'error':>10}  why",
        ]
        for candidate in self.candidates:
            mark = "*" if candidate is self.candidates[0] else " "
            lines.append(
                f"{mark} {candidate.algorithm:<12}{candidate.cycles / 1e6:>10.2f}"
                f"{candidate.flops / 1e6:>12.2f}"
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
    ('winograd4', 41287680)
    """
    check.choice(kind, "kind", KINDS)
    element = np.dtype(dtype)
    if element not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {element}")
    x = check.as_image_shape(x_shape, "x_shape")
    weight = check.as_shape(weight_shape, "weight_shape")
    steps = stride, padding, dilation, groups
    call = check_conv(kind, x, weight, element, steps, layout, policy=get_policy())
    IH, IW = call.image
    image = f"{IH}x{IW}x{call.IC}" if call.channels_last else f"{call.IC}x{IH}x{IW}"
    return Plan(
        kind,
        f"{call.N} x {image} {element} ({layout}), weight "
        f"{'x'.join(map(str, call.w_shape))}, {call.groups} groups",
        call.flops,
        _candidates(call),
    )


def _outlines(call: ConvCall) -> list[dict[str, Any]]:
    """Ask the driver of the pass for the products that it would run."""
    x = _imagine((call.N, call.IC, *call.image), call)
    y = _imagine((call.N, call.OC, *call.window.output), call)
    weight = np.broadcast_to(call.dtype.type(0), call.w_shape)
    outlines: list[dict[str, Any]] = []
    how = call.steps, call.groups, get_num_threads()
    tiling = call.tiling
    if call.kind == "grad_weight":
        if tiling:
            _winograd_weight.grad_weight(y, x, weight, tiling, *how, plans=outlines)
        else:
            _conv_weight.grad_weight(y, x, weight, *how, plans=outlines)
    elif call.kind == "forward":
        if tiling:
            _winograd.forward(x, weight, None, y, tiling, *how, plans=outlines)
        else:
            _conv.forward(x, weight, None, y, *how, plans=outlines)
    elif tiling:
        _winograd.grad_input(y, weight, x, tiling, *how, plans=outlines)
    else:
        _conv.grad_input(y, weight, x, *how, plans=outlines)
    return outlines


def _candidates(call: ConvCall) -> tuple[Candidate, ...]:
    """Describe all algorithms, the chosen one first, then by estimated time."""
    if not call.flops:
        return (Candidate("direct", 0.0, 0, 0, 0.0, "nothing to compute"),)
    costs = estimates(call.product, call.window, kind=call.kind)
    if call.dtype.itemsize != 4:
        costs = {"direct": costs["direct"]}
    order = sorted(costs, key=lambda name: (name != call.algorithm, costs[name]))
    calls = (replace(call, algorithm=name) for name in order)
    return tuple(
        (_winograd_tiles if c.tiling else _direct)(c, costs[c.algorithm]) for c in calls
    )


def _imagine(shape: tuple[int, ...], call: ConvCall) -> check.Array:
    """Return an array of this NCHW shape, strided as if new, without its memory."""
    strides, step = [0] * 4, call.dtype.itemsize
    for axis in (1, 3, 2, 0) if call.channels_last else (3, 2, 1, 0):
        strides[axis] = step
        step *= shape[axis]
    return as_strided(np.empty(1, call.dtype), shape, strides)


def _direct(call: ConvCall, cycles: float) -> Candidate:
    """Describe the direct algorithm: implicit GEMM over blocks of pixels."""
    outlines = _outlines(call)
    if not outlines:
        return Candidate("direct", 0.0, call.flops, 0, 0.0, "no window meets a pixel")
    most = max(outlines, key=lambda outline: outline["scratch_bytes"])
    rows, columns = most["block"]
    KH, KW = call.window.kernel
    OH, OW = call.window.output
    length = {
        "forward": call.IC // call.groups * KH * KW,
        "grad_input": call.OC // call.groups * KH * KW,
        "grad_weight": call.N * OH * OW,
    }[call.kind]
    # Chunks of the sum run in registers, and are then added to the result one by one.
    chunk = max(outline["chunk"] for outline in outlines)
    chunks = -(-length // max(chunk, 1))
    if call.kind == "grad_weight":
        # Its sum runs over pixels, block by block.
        chunk, chunks = rows * columns, most["blocks"]
    roundings = most.get("roundings", min(chunk, length) + chunks + 1)
    reason = (
        f"{len(outlines)} product{'s' if len(outlines) > 1 else ''} of "
        f"{most['blocks']} blocks of {rows} x {columns} pixels, "
        f"{most['chunks']} chunks of {most['chunk']} terms, "
        + ("x read in place" if most["in_place"] else "x copied to padded slabs")
    )
    error = roundings * float(np.finfo(call.dtype).eps) / 2
    scratch = most["scratch_bytes"]
    return Candidate("direct", cycles, call.flops, scratch, error, reason)


# The most that F(m, r) may enlarge an error on both axes, by points and r: the square
# of the largest sum over the points of |A^T| * max |G| * sum |B^T|, with the matrices
# of csrc/kernels/winograd_points.inc. Gradients of weights are F(r, m).
_ENLARGED = {(4, 3): 16, (4, 2): 16, (6, 2): 164, (6, 3): 181, (6, 4): 209, (6, 5): 255}


def _winograd_tiles(call: ConvCall, cycles: float) -> Candidate:
    """Describe Winograd's algorithm: products of tiles at all points."""
    # Pieces of a kernel have gradients of their own.
    scratch = max(o["scratch_bytes"] for o in _outlines(call))
    tiling = call.tiling
    assert tiling is not None
    n, r, m = tiling.points, tiling.taps, tiling.size
    G, R, C, N, H, W = by_tiles(call.product, tiling, call.window, call.kind)
    tiles = N * -(-H // m) * -(-W // m)
    flops = 2 * G * R * C * tiles * n**2
    gradient = call.kind == "grad_weight"
    terms, taps = (tiles, m) if gradient else (C, r)
    # A chain of so many products, and about four roundings in each transform and axis.
    error = _ENLARGED[n, taps] * (terms + 24) * float(np.finfo(call.dtype).eps) / 2
    reason = f"{tiles} tiles of {m} x {m} pixels, {n**2} products of {terms} terms"
    return Candidate(call.algorithm, cycles, flops, scratch, error, reason)
