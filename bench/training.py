# SPDX-License-Identifier: MIT
"""Training small networks: some steps of gradient descent from the same start.

A run begins with the same weights each time and takes `STEPS` steps on one batch:
forward, cross-entropy, backward, SGD with momentum. Its result is the loss of each
step, which must agree with a training in float64.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bench.cases import Array, Operands

STEPS, CLASSES = 20, 10
LEARNING_RATE, MOMENTUM = 0.01, 0.9

# Name, batch and image, then the layers: conv(channels, kernel, stride, padding),
# depthwise(kernel, stride, padding), linear(features), norm(alization), relu, max
# pooling of 2x2, the mean of each channel, flatten.
NETWORKS = """
train.lenet 64x1x28x28 conv(6,5,1,2) relu max conv(16,5,1,0) relu max
    flatten linear(120) relu linear(84) relu linear(10)
train.lenet.1 1x1x28x28 conv(6,5,1,2) relu max conv(16,5,1,0) relu max
    flatten linear(120) relu linear(84) relu linear(10)
train.vgg 64x3x32x32 conv(32,3,1,1) relu conv(32,3,1,1) relu max conv(64,3,1,1) relu
    conv(64,3,1,1) relu max conv(128,3,1,1) relu max flatten linear(10)
train.separable 32x3x48x48 conv(16,3,1,1) norm relu
    depthwise(3,1,1) norm relu conv(32,1,1,0) norm relu
    depthwise(3,2,1) norm relu conv(64,1,1,0) norm relu
    depthwise(3,1,1) norm relu conv(64,1,1,0) norm relu
    depthwise(3,2,1) norm relu conv(128,1,1,0) norm relu mean flatten linear(10)
"""


class Layer(NamedTuple):
    """A layer: what goes in and comes out, kernel, stride, padding and groups."""

    kind: str
    IC: int
    OC: int
    K: int = 1
    S: int = 1
    P: int = 0
    G: int = 1
    pixels: int = 1  # of its result

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of its parameters: weight and bias."""
        if self.kind == "conv":
            return [(self.OC, self.IC // self.G, self.K, self.K), (self.OC,)]
        if self.kind == "linear":
            return [(self.OC, self.IC), (self.OC,)]
        return [(self.OC,), (self.OC,)] if self.kind == "norm" else []


@dataclass(frozen=True)
class Training:
    """Steps of training a network (`op` is step)."""

    unit: ClassVar[str] = "steps/s"
    scale: ClassVar[float] = 1.0

    name: str
    op: str
    N: int
    C: int
    H: int
    W: int
    network: str
    section: str = ""

    @property
    def work(self) -> int:
        """Steps of a run."""
        return STEPS

    @property
    def layers(self) -> list[Layer]:
        """The layers in order."""
        return list(_layers(self.network.split(), self.C, self.H, self.W))

    @property
    def flops(self) -> int:
        """Useful FLOPs of the products of all steps, in three passes each."""
        sizes = [
            math.prod(layer.shapes[0]) * layer.pixels
            for layer in self.layers
            if layer.kind in ("conv", "linear")
        ]
        return STEPS * 6 * self.N * sum(sizes)

    def operands(self, rng: np.random.Generator) -> Operands:
        """Return the parameters at the start, and a batch of images and classes."""
        parameters: list[Array] = []
        for layer in self.layers:
            for shape in layer.shapes:
                # As both libraries would draw them, but from a normal distribution.
                scale = math.sqrt(1 / (3 * max(9, math.prod(shape[1:]))))
                value = scale * rng.standard_normal(shape, np.float32)
                parameters.append(value + float(layer.kind == "norm"))
        x = rng.standard_normal((self.N, self.C, self.H, self.W), np.float32)
        return Operands(tuple(parameters), (x, rng.integers(CLASSES, size=self.N)))

    def tolerance(self, right: Array) -> float:
        """Return how far a loss may be from the one of a training in float64."""
        return 1e-4 * float(np.max(right))

    def __str__(self) -> str:
        """Return the network in words."""
        return f"{self.N} x {self.C}x{self.H}x{self.W}, {self.network}"


def _layers(words: Sequence[str], C: int, H: int, W: int) -> Iterator[Layer]:
    """Yield the layers of a network, told in words, for images of this size."""
    for word in words:
        kind, _, rest = word.rstrip(")").partition("(")
        numbers = [int(number) for number in rest.split(",") if number]
        if kind in ("conv", "depthwise"):
            OC, G = (numbers.pop(0), 1) if kind == "conv" else (C, C)
            K, S, P = numbers
            H, W = ((side + 2 * P - K) // S + 1 for side in (H, W))
            yield Layer("conv", C, OC, K, S, P, G, H * W)
            C = OC
            continue
        OC = {"flatten": C * H * W, "linear": sum(numbers)}.get(kind, C)
        yield Layer(kind, C, OC)
        C = OC
        if kind == "max":
            H, W = H // 2, W // 2
        elif kind in ("mean", "flatten"):
            H = W = 1


def build(nn: Any, mean: Any, layers: Sequence[Layer], **options: Any) -> Any:
    """Return a network of a library's layers, which are called as torch's are.

    The options are for layers with parameters.
    """
    modules = {
        "conv": lambda a: nn.Conv2d(a.IC, a.OC, a.K, a.S, a.P, 1, a.G, **options),
        "linear": lambda a: nn.Linear(a.IC, a.OC, **options),
        "norm": lambda a: nn.BatchNorm2d(a.OC, **options),
        "relu": lambda a: nn.ReLU(),
        "max": lambda a: nn.MaxPool2d(2),
        "mean": lambda a: mean(),
        "flatten": lambda a: nn.Flatten(),
    }
    return nn.Sequential(*(modules[layer.kind](layer) for layer in layers))


def names() -> list[str]:
    """Return the names of all trainings."""
    return [case.name for case in _all()]


def trainings(chosen: Sequence[str]) -> Iterator[Training]:
    """Yield the trainings with one of these names."""
    return (case for case in _all() if case.name in chosen)


def _all() -> Iterator[Training]:
    for text in NETWORKS.replace("\n    ", " ").strip().split("\n"):
        name, sizes, network = text.split(maxsplit=2)
        N, C, H, W = map(int, sizes.split("x"))
        yield Training(name, "step", N, C, H, W, network)
