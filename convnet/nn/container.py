# SPDX-License-Identifier: MIT
"""Modules made of modules: one after another, and side by side with a sum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from convnet._check import Array
from convnet.nn.activation import ReLU
from convnet.nn.conv import Conv2d
from convnet.nn.linear import Linear
from convnet.nn.module import Module
from convnet.nn.normalization import BatchNorm2d
from convnet.nn.pool import MaxPool2d

# Layers that can rectify their output before they write it. Not subclasses: their
# `forward` may be another.
RECTIFYING = Conv2d, Linear, BatchNorm2d


class Sequential(Module):
    """Run modules one after another; `backward` runs them in reverse.

    Parameters
    ----------
    *modules : Module
        Each may stand in a network only once, because it keeps one forward call.

    Examples
    --------
    >>> from convnet.nn import Conv2d, Flatten, Linear, ReLU
    >>> net = Sequential(Conv2d(1, 3, (3, 2)), ReLU(), Flatten(), Linear(3 * 5 * 4, 2))
    >>> net(np.ones((11, 1, 7, 5), np.float32)).shape
    (11, 2)
    >>> sorted(net.state_dict())
    ['0.bias', '0.weight', '3.bias', '3.weight']
    >>> net[0].weight.value.shape
    (3, 1, 3, 2)
    """

    def __init__(self, *modules: Module) -> None:
        self.layers = modules
        _check_distinct(*modules)

    def forward(self, x: ArrayLike) -> Array:
        """Return the output of the last module."""
        layers = list(reversed(self.layers))
        while layers:
            layer = layers.pop()
            following = layers[-1] if layers else None
            if type(following) is ReLU and type(layer) in RECTIFYING:
                x = layers.pop()._saved = layer.rectified(x)  # type: ignore[attr-defined]
            else:
                x = layer.forward(x)
        return np.asarray(x)

    def backward(self, grad_y: ArrayLike) -> Array:
        """Return the gradient of the first module's input."""
        return np.asarray(self._backward_to(0, grad_y))

    def accumulate(self, grad_y: ArrayLike) -> None:
        """Run backward only as far as there is something to learn."""
        for i, layer in enumerate(self.layers):
            if layer.parameters():
                grad_y = self._backward_to(i + 1, grad_y)
                if self._is_centered(i):
                    layer.accumulate(grad_y, centered=True)  # type: ignore[call-arg]
                else:
                    layer.accumulate(grad_y)
                return

    def _backward_to(self, first: int, grad_y: ArrayLike) -> ArrayLike:
        """Return the gradient of the input of layer `first`, as backward computes it.

        A ReLU's own pass is left out where another can do its work: that of the batch
        normalization before it, or that of the maxima after it, which come from fewer
        pixels: those above 0 come from pixels above 0.
        """
        layers = list(self.layers[first:])
        while layers:
            layer = layers.pop()
            before = layers[-1] if layers else None
            if type(before) is ReLU and type(layer) is MaxPool2d:
                layers.pop()
                grad_y = layer.backward_rectified(grad_y)
            elif type(before) is BatchNorm2d and type(layer) is ReLU:
                layers.pop()
                grad_y = before.backward_rectified(grad_y)
            elif self._is_centered(first + len(layers)):
                grad_y = layer.backward(grad_y, centered=True)  # type: ignore[call-arg]
            else:
                grad_y = layer.backward(grad_y)
        return grad_y

    def _is_centered(self, i: int) -> bool:
        """Whether layer `i` is a convolution whose mean the next one subtracts."""
        layer = self.layers[i]
        if type(layer) is not Conv2d or i + 1 == len(self.layers):
            return False
        following = self.layers[i + 1]
        return type(following) is BatchNorm2d and following.centers(layer.layout)

    def infer(self, x: ArrayLike) -> Array:
        """Return the output of the last module, and keep nothing."""
        for layer in self.layers:
            x = layer.infer(x)
        return np.asarray(x)

    def children(self) -> dict[str, Module]:
        """Return the modules by their position: "0", "1", ..."""
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        """Iterate over the modules in order."""
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        """Return one module, or a part of the network that shares its modules."""
        if isinstance(index, slice):
            return Sequential(*self.layers[index])
        return self.layers[index]


class Residual(Module):
    """Add a path around a module: ``y = body(x) + shortcut(x)``.

    Parameters
    ----------
    body : Module
    shortcut : Module, optional
        Without it ``y = body(x) + x``.

    Examples
    --------
    >>> from convnet.nn import Conv2d
    >>> block = Residual(Conv2d(3, 3, (3, 5), padding=(1, 2)))
    >>> block(np.ones((2, 3, 11, 7), np.float32)).shape
    (2, 3, 11, 7)
    """

    def __init__(self, body: Module, shortcut: Module | None = None) -> None:
        self.body = body
        self.shortcut = shortcut
        _check_distinct(*self.children().values())

    def forward(self, x: ArrayLike) -> Array:
        """Return the sum of both paths."""
        y = self.body.forward(x)
        return _add(y, x if self.shortcut is None else self.shortcut.forward(x))

    def backward(self, grad_y: ArrayLike) -> Array:
        """Return the sum of both paths' gradients."""
        grad_x = self.body.backward(grad_y)
        around = grad_y if self.shortcut is None else self.shortcut.backward(grad_y)
        return _add(grad_x, around)

    def accumulate(self, grad_y: ArrayLike) -> None:
        """Add to the gradients of the parameters alone."""
        for path in self.children().values():
            path.accumulate(grad_y)

    def infer(self, x: ArrayLike) -> Array:
        """Return the sum of both paths, and keep nothing."""
        y = self.body.infer(x)
        return _add(y, x if self.shortcut is None else self.shortcut.infer(x))


def _check_distinct(*modules: Module) -> None:
    """Refuse what is no module, and a module that stands in two places."""
    seen: set[int] = set()
    for module in modules:
        if not isinstance(module, Module):
            raise TypeError(f"expected a Module, got {module!r}")
        inner = {id(part) for part in module.modules()}
        if seen & inner:
            raise ValueError(f"a module stands in two places: {module!r}")
        seen |= inner


def _add(body: Array, around: ArrayLike) -> Array:
    """Return the sum of what two paths give, which must not broadcast."""
    around = np.asarray(around)
    if body.shape != around.shape:
        raise ValueError(
            f"the body gives shape {body.shape}, but the shortcut {around.shape}"
        )
    total: Array = body + around
    return total
