# SPDX-License-Identifier: MIT
"""Fast inference from a snapshot: `Module.prepare`.

A snapshot has its own, read-only weights, so it can be simplified once and for all:

    conv(x) * scale + shift == conv'(x)    batch normalization goes into the weights
    max(conv(x) + shortcut, 0)             is computed before the sums leave registers
    max(y, 0, out=y)                       ReLU overwrites an array nobody else has
    dropout(x) == x

and its layers keep their weights as the algorithms want them.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from convnet._check import Array
from convnet.functional.conv import Extras
from convnet.functional.pointwise import relu
from convnet.nn.activation import ReLU
from convnet.nn.container import Residual, Sequential
from convnet.nn.conv import Conv2d
from convnet.nn.dropout import Dropout
from convnet.nn.linear import Linear
from convnet.nn.module import Module, Parameter, unusual
from convnet.nn.normalization import BatchNorm2d

if TYPE_CHECKING:
    from typing_extensions import Self

# Layers whose output is an array that nobody else has.
FRESH = BatchNorm2d, Residual


class Prepared:
    """An immutable copy of a network that computes its outputs and nothing else.

    ``prepared(x)`` is what the module's eval mode gives for `x`, up to rounding. Later
    changes of the module do not reach it. It may be called from many threads at once,
    copied and pickled.

    Parameters
    ----------
    module : Module
        Usually called as ``module.prepare()``.

    Examples
    --------
    >>> from convnet.nn import BatchNorm2d, Conv2d, ReLU, Sequential
    >>> net = Sequential(Conv2d(3, 5, (3, 2), rng=0), BatchNorm2d(5), ReLU())
    >>> prepared = net.prepare()
    >>> prepared(np.ones((2, 3, 11, 7), np.float32)).shape
    (2, 5, 9, 6)
    """

    __slots__ = ("_network",)
    _network: Module

    def __init__(self, module: Module) -> None:
        network = _fold(_snapshot(module))
        for array in network._state().values():
            array.flags.writeable = False
        object.__setattr__(self, "_network", network)

    def __call__(self, x: ArrayLike) -> Array:
        """Return the network's output for `x`."""
        return self._network.infer(x)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse."""
        raise AttributeError(f"a Prepared cannot be changed: {name}")

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return how to rebuild a copy: from the network, read-only again."""
        return Prepared, (self._network,)

    def __repr__(self) -> str:
        """Return the simplified network."""
        return f"Prepared({self._network!r})"


class Packed(Module):
    """Base class of layers whose weights stay packed, with what follows on them.

    Such a layer is one with parameters as well, which multiplies inputs by them.
    """

    _extras: Extras

    @classmethod
    def of(cls, layer: Module) -> Self:
        """Return a layer that infers the same; it shares the parameters of `layer`."""
        packed = cls.__new__(cls)
        vars(packed).update(vars(layer))
        clip = layer.clip if isinstance(layer, Packed) else None
        packed._extras = Extras(packings={}, clip=clip)
        return packed

    @property
    def clip(self) -> tuple[float, float] | None:
        """The smallest and the largest output, if there are any."""
        return self._extras.clip

    def rectify(self) -> None:
        """Compute ``max(output, 0)`` from now on."""
        self._extras = self._extras._replace(clip=(0.0, math.inf))

    def infer(self, x: ArrayLike, residual: Array | None = None) -> Array:
        """Return what the layer does to `x`, plus a residual, clipped."""
        if residual is None:
            return self._multiply(x, self._extras)
        return self._multiply(x, self._extras._replace(residual=residual))

    @abstractmethod
    def _multiply(self, x: ArrayLike, extras: Extras) -> Array:
        """Return the product with the weights."""

    def __getstate__(self) -> dict[str, Any]:
        """Return all attributes; a copy packs its weights anew."""
        return super().__getstate__() | {"_extras": self._extras._replace(packings={})}

    def _describe(self) -> str:
        return super()._describe() + unusual(clip=(self.clip, None))


class PreparedConv2d(Packed, Conv2d):
    """A convolution with its weights packed."""

    _multiply = Conv2d._multiply

    @property
    def untied(self) -> bool:
        """Whether there is one bias per position."""
        return self.bias is not None and self.bias.value.ndim == 3


class PreparedLinear(Packed, Linear):
    """A fully connected layer with its weights packed."""

    _multiply = Linear._multiply


class FusedResidual(Residual):
    """A path around a Sequential; the convolution at its end adds what comes around."""

    body: Sequential

    @property
    def last(self) -> PreparedConv2d:
        """The body's last layer."""
        return self.body.layers[-1]  # type: ignore[return-value]

    def infer(self, x: ArrayLike) -> Array:
        """Return the sum of both paths, clipped as the last layer says."""
        x = np.asarray(x)
        around = x if self.shortcut is None else self.shortcut.infer(x)
        for layer in self.body.layers[:-1]:
            x = layer.infer(x)
        return self.last.infer(x, around)


class OverwritingReLU(ReLU):
    """A ReLU behind one of the layers in `FRESH`."""

    def _output(self, x: Array) -> Array:
        return relu(x, out=x)


def _snapshot(module: Module) -> Module:
    """Return a copy in eval mode, without the memory for gradients."""
    nothing = {
        id(p.grad): np.broadcast_to(p.grad.dtype.type(0), p.grad.shape)
        for p in module.parameters()
    }
    return copy.deepcopy(module, nothing).eval()


def _fold(module: Module) -> Module:
    """Return a module that infers the same with less work."""
    if _infers_as(module, Sequential):
        layers: list[Module] = []
        for layer in _flat(module):
            _append(layers, _fold(layer))
        return Sequential(*layers)
    if _infers_as(module, Residual):
        paths = {name: _fold(path) for name, path in module.children().items()}
        return _residual(**paths)
    if isinstance(module, Conv2d) and _infers_as(module, Conv2d):
        return PreparedConv2d.of(module)
    if isinstance(module, Linear) and _infers_as(module, Linear):
        return PreparedLinear.of(module)
    return module


def _residual(body: Module, shortcut: Module | None = None) -> Residual:
    """Return a Residual, of the faster kind where its body ends in a convolution."""
    layers = list(_flat(Sequential(body)))
    last = layers[-1] if layers else None
    if isinstance(last, PreparedConv2d) and last.clip is None and not last.untied:
        return FusedResidual(Sequential(*layers), shortcut)
    return Residual(body, shortcut)


def _infers_as(module: Module | None, *kinds: type[Module]) -> bool:
    """Tell whether a module, perhaps of the user's own, does what one of ours does."""
    return any(
        isinstance(module, kind) and type(module).infer is kind.infer for kind in kinds
    )


def _flat(module: Module) -> Iterator[Module]:
    """Yield the layers of nested Sequentials, without those that do nothing."""
    for layer in module.children().values():
        if _infers_as(layer, Sequential):
            yield from _flat(layer)
        elif not _infers_as(layer, Dropout):
            yield layer


def _append(layers: list[Module], layer: Module) -> None:
    """Add a layer to a sequence, merged into the one before where that is possible."""
    last = layers[-1] if layers else None
    packed = last.last if isinstance(last, FusedResidual) else last
    if isinstance(last, PreparedConv2d) and isinstance(layer, BatchNorm2d):
        merged = _merged(last, layer)
        layers[-1:] = [last, layer] if merged is None else [merged]
    elif _infers_as(layer, ReLU) and isinstance(packed, Packed):
        packed.rectify()
    elif _infers_as(layer, ReLU) and _infers_as(last, *FRESH):
        layers.append(OverwritingReLU())
    else:
        layers.append(layer)


def _merged(conv: PreparedConv2d, norm: BatchNorm2d) -> PreparedConv2d | None:
    """Return one convolution that does the work of both, if there is one."""
    if conv.clip is not None or not _infers_as(norm, BatchNorm2d):
        return None
    if conv.layout != norm.layout or conv.out_channels != norm.num_features:
        return None
    scale, shift = norm.affine()
    folded = PreparedConv2d.of(conv)
    weight = conv.weight.value
    folded.weight = Parameter(
        (weight * scale[:, None, None, None]).astype(weight.dtype), "weight"
    )
    if conv.bias is not None:
        bias = conv.bias.value
        channels_first = conv.untied and conv.layout == "NCHW"
        per_filter = (slice(None), None, None) if channels_first else slice(None)
        shift = bias * scale[per_filter] + shift[per_filter]
    folded.bias = Parameter(shift.astype(weight.dtype), "bias")
    return folded
