# SPDX-License-Identifier: MIT
"""What can be timed: a case knows its shapes, its operands and its amount of work.

Operands are standard normal float32 arrays. The fixed ones belong to the layer, as its
weights do, and may be prepared outside the clock; the rotating ones come with a call.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.tolerance import tolerance

Array: TypeAlias = NDArray[Any]
Pair: TypeAlias = tuple[int, int]
Shape: TypeAlias = tuple[int, int, int, int]

TITLES = {
    "fwd": "convolution, forward",
    "gx": "convolution, gradient to the input",
    "gw": "convolution, gradient to the weights",
    "max": "max pooling, forward",
    "avg": "average pooling, forward",
    "maxg": "max pooling, gradient",
    "avgg": "average pooling, gradient",
    "step": "training from forward to update",
}


class Operands(NamedTuple):
    """The arrays that go into a call."""

    fixed: tuple[Array, ...]
    rotating: tuple[Array, ...]


class Case(Protocol):
    """What the bench asks of a case; a rate is work / seconds / scale in its unit."""

    name: str
    op: str
    N: int
    section: str
    unit: str
    scale: float
    work: float

    def operands(self, rng: np.random.Generator) -> Operands:
        """Return the operands: the same for the same state of `rng`."""

    def tolerance(self, right: Array) -> float:
        """Return how far a result may be from the one in float64."""


@dataclass(frozen=True)
class Conv:
    """One pass (`op` is fwd, gx or gw) of a convolution.

    The kernel `K` and the padding `P`, the same on opposite sides, are pairs (rows,
    columns): networks split large kernels into 1x7 and 7x1. Stride `S` and dilation `D`
    are one number for both, as in every network timed here. `section` tells the tables
    of the same pass apart.
    """

    unit: ClassVar[str] = "GFLOP/s"
    scale: ClassVar[float] = 1e9

    name: str
    op: str
    N: int
    IC: int
    IH: int
    IW: int
    OC: int
    K: Pair
    S: int = 1
    P: Pair = (0, 0)
    D: int = 1
    G: int = 1
    section: str = ""

    @property
    def x_shape(self) -> Shape:
        """The input's shape."""
        return self.N, self.IC, self.IH, self.IW

    @property
    def y_shape(self) -> Shape:
        """The output's shape."""
        image, S, D = self.x_shape[2:], self.S, self.D
        axes = zip(image, self.K, self.P, strict=True)
        OH, OW = ((size + 2 * P - (K - 1) * D - 1) // S + 1 for size, K, P in axes)
        return self.N, self.OC, OH, OW

    @property
    def w_shape(self) -> Shape:
        """The weight's shape."""
        return self.OC, self.IC // self.G, *self.K

    @property
    def window(self) -> tuple[int, Pair, int, int]:
        """Stride, padding, dilation and groups, in the order of everybody's conv2d."""
        return self.S, self.P, self.D, self.G

    @property
    def flops(self) -> int:
        """Useful FLOPs: a multiplication and an addition per tap, padding included."""
        return 2 * int(np.prod(self.w_shape)) * self.N * int(np.prod(self.y_shape[2:]))

    @property
    def work(self) -> int:
        """What a rate counts."""
        return self.flops

    @property
    def intensity(self) -> float:
        """FLOPs per byte, each array being read or written once."""
        arrays = self.x_shape, self.w_shape, self.y_shape
        return self.flops / sum(4 * int(np.prod(shape)) for shape in arrays)

    @property
    def terms(self) -> int:
        """How many products make one element of the result, at most."""
        if self.op == "gw":
            return self.N * int(np.prod(self.y_shape[2:]))
        channels = self.IC if self.op == "fwd" else self.OC
        return channels // self.G * int(np.prod(self.K))

    def operands(self, rng: np.random.Generator) -> Operands:
        """Return the inputs of this pass."""
        if self.op == "fwd":
            fixed = _normal(rng, self.w_shape), _normal(rng, (self.OC,))
            return Operands(fixed, (_normal(rng, self.x_shape),))
        grad_y = _normal(rng, self.y_shape)
        if self.op == "gx":
            return Operands((_normal(rng, self.w_shape),), (grad_y,))
        return Operands((), (grad_y, _normal(rng, self.x_shape)))

    def tolerance(self, right: Array) -> float:
        """Return how far a result may be from the one in float64."""
        return tolerance(np.float32, self.terms, _rms(right))

    def __str__(self) -> str:
        """Return the shape in words."""
        (KH, KW), (PH, PW) = self.K, self.P
        return (
            f"{self.IC} {self.IH}x{self.IW} -> {self.OC}, {KH}x{KW} "
            f"s{self.S} p{PH}x{PW} d{self.D} g{self.G}"
        )


@dataclass(frozen=True)
class Tiny(Conv):
    """A convolution of so little work that a call costs more: calls are counted."""

    unit: ClassVar[str] = "calls/ms"
    scale: ClassVar[float] = 1e3

    @property
    def work(self) -> int:
        """What a rate counts."""
        return 1


@dataclass(frozen=True)
class Pool:
    """Pooling (`op` is max, avg, maxg or avgg) with a K x K window."""

    unit: ClassVar[str] = "GB/s"
    scale: ClassVar[float] = 1e9

    name: str
    op: str
    N: int
    C: int
    H: int
    W: int
    K: int
    S: int
    P: int
    section: str = ""

    @property
    def x_shape(self) -> Shape:
        """The input's shape."""
        return self.N, self.C, self.H, self.W

    @property
    def y_shape(self) -> Shape:
        """The output's shape."""
        image = self.x_shape[2:]
        OH, OW = ((size + 2 * self.P - self.K) // self.S + 1 for size in image)
        return self.N, self.C, OH, OW

    @property
    def work(self) -> int:
        """Bytes read and written once; the max gradient reads int64 indices too."""
        pixel = 4 + 8 * (self.op == "maxg")
        return 4 * int(np.prod(self.x_shape)) + pixel * int(np.prod(self.y_shape))

    @property
    def terms(self) -> int:
        """How many pixels make one element of the result, at most."""
        return self.K * self.K

    def operands(self, rng: np.random.Generator) -> Operands:
        """Return the inputs of this operation."""
        if self.op == "avgg":
            return Operands((), (_normal(rng, self.y_shape),))
        x = _normal(rng, self.x_shape)
        if self.op != "maxg":
            return Operands((), (x,))
        # Late: this module is also loaded where a peer runs, and convnet must not be.
        from convnet import reference

        y, indices = reference.max_pool2d(
            x, self.K, self.S, self.P, return_indices=True
        )
        return Operands((), (y, indices))

    def tolerance(self, right: Array) -> float:
        """Return how far a result may be from the one in float64."""
        # A gradient of maxima is zero, but for a few pixels that many windows give to.
        scale = float(np.max(np.abs(right))) if self.op == "maxg" else _rms(right)
        return tolerance(np.float32, self.terms, scale)

    def __str__(self) -> str:
        """Return the shape in words."""
        return (
            f"{self.N} x {self.C} {self.H}x{self.W}, {self.K}x{self.K} "
            f"s{self.S} p{self.P}"
        )


def title(case: Case, threads: int) -> str:
    """Return what the cases of one table have in common."""
    batch = f"N={case.N}, " if isinstance(case, Conv) else ""
    section = f"{case.section}, " if case.section else ""
    return f"{TITLES[case.op]}, {section}{batch}threads={threads}, {case.unit}"


def _rms(array: Array) -> float:
    return math.sqrt(np.mean(np.square(array)))


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)
