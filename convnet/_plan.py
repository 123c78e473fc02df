# SPDX-License-Identifier: MIT
"""What a convolution call would do, and why: `explain`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike

from convnet import _check as check
from convnet import _conv, _conv_weight, _threads, _winograd, _winograd_weight
from convnet._algorithm import Product, choose, estimates
from convnet._geometry import IntOrPair, Padding, Pair, Window, conv_window

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
    OC = weights[0]
    call = _Call(kind, element, channels_last, N, IC, OC, groups, (IH, IW), window)
    image = f"{IH}x{IW}x{IC}" if channels_last else f"{IC}x{IH}x{IW}"
    return Plan(
        kind,
        f"{N} x {image} {element} ({layout}), weight "
        f"{'x'.join(map(str, weights))}, {groups} groups",
        call.flops,
        _candidates(call),
    )


@dataclass(frozen=True)
class _Call:
    """A checked call of one of the three passes."""

    kind: str
    dtype: np.dtype[Any]
    channels_last: bool
    N: int
    IC: int
    OC: int
    groups: int
    image: Pair
    window: Window

    @property
    def flops(self) -> int:
        """Operations of the definition: the same for all passes and algorithms."""
        (KH, KW), (OH, OW) = self.window.kernel, self.window.output
        return 2 * self.N * self.OC * self.IC // self.groups * KH * KW * OH * OW

    @property
    def product(self) -> Product:
        """The blocked product that the pass is; its rows go to the result."""
        rows, channels = self.OC // self.groups, self.IC // self.groups
        if self.kind == "grad_input" and self.window.stride == (1, 1):
            return Product(self.groups, channels, rows, self.N, *self.image)
        return Product(self.groups, rows, channels, self.N, *self.window.output)

    def outlines(self, algorithm: str) -> list[dict[str, Any]]:
        """Ask the driver of the pass for the products that it would run."""
        x = _imagine((self.N, self.IC, *self.image), self.dtype, self.channels_last)
        shape = (self.N, self.OC, *self.window.output)
        y = _imagine(shape, self.dtype, self.channels_last)
        shape = (self.OC, self.IC // self.groups, *self.window.kernel)
        weight = _imagine(shape, self.dtype, False)
        outlines: list[dict[str, Any]] = []
        threads = _threads.get_num_threads()
        how = (*self.window.steps, self.groups, threads, outlines)
        tiles = (self.window.pads[:2], self.groups, threads)
        if self.kind == "grad_weight" and algorithm == "direct":
            _conv_weight.grad_weight(y, x, weight, *how)
        elif self.kind == "grad_weight":
            m = int(algorithm[-1])
            _winograd_weight.grad_weight(y, x, weight, *tiles, m, outlines)
        elif algorithm == "direct" and self.kind == "forward":
            _conv.forward(x, weight, None, y, *how)
        elif algorithm == "direct":
            _conv.grad_input(y, weight, x, *how)
        elif self.kind == "forward":
            _winograd.forward(x, weight, None, y, *tiles, int(algorithm[-1]), outlines)
        else:
            _winograd.grad_input(y, weight, x, *tiles, int(algorithm[-1]), outlines)
        return outlines


def _candidates(call: _Call) -> tuple[Candidate, ...]:
    """Describe all algorithms, the chosen one first, then by estimated time."""
    if not call.flops:
        return (Candidate("direct", 0.0, 0, 0, 0.0, "nothing to compute"),)
    gradient = call.kind == "grad_weight"
    costs = estimates(call.product, call.window, gradient=gradient)
    if call.dtype.itemsize != 4:
        costs = {"direct": costs["direct"]}
    chosen = choose(
        call.product, call.window, call.dtype, "auto", None, gradient=gradient
    )
    order = sorted(costs, key=lambda name: (name != chosen, costs[name]))
    return tuple(
        (_direct if name == "direct" else _winograd_tiles)(call, name, costs[name])
        for name in order
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


def _direct(call: _Call, algorithm: str, cycles: float) -> Candidate:
    """Describe the direct algorithm: implicit GEMM over blocks of pixels."""
    outlines = call.outlines(algorithm)
    if not outlines:
        return Candidate(algorithm, 0.0, call.flops, 0, 0.0, "no window meets a pixel")
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
    return Candidate(algorithm, cycles, call.flops, scratch, error, reason)


# The most that F(m, 3), or F(3, m) of the weight gradient, may enlarge an error on both
# axes: the square of the largest sum over the points of |A^T| * max |G| * sum |B^T|,
# with the matrices of csrc/kernels/winograd.inc.
_ENLARGED = {2: 16.0, 4: 209.0}


def _winograd_tiles(call: _Call, algorithm: str, cycles: float) -> Candidate:
    """Describe Winograd's algorithm: (m + 2)^2 products over tiles of m x m pixels."""
    (outline,) = call.outlines(algorithm)
    m = int(algorithm[-1])
    G, R, C, N, H, W = call.product
    tiles = N * -(-H // m) * -(-W // m)
    flops = 2 * G * R * C * tiles * (m + 2) ** 2
    terms = tiles if call.kind == "grad_weight" else C
    # A chain of so many products, and about four roundings in each transform and axis.
    error = _ENLARGED[m] * (terms + 24) * float(np.finfo(call.dtype).eps) / 2
    points = (m + 2) ** 2
    reason = f"{tiles} tiles of {m} x {m} pixels, {points} products of {terms} terms"
    return Candidate(algorithm, cycles, flops, outline["scratch_bytes"], error, reason)
