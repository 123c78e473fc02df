# SPDX-License-Identifier: MIT
"""What every layer is: a `Module` maps forward and backward, a `Parameter` is learned.

    y = forward(x)               keeps what backward needs
    grad_x = backward(grad_y)    adds dE/d(parameter) into each Parameter.grad
    y = infer(x)                 what forward gives in eval mode, keeping nothing

A module finds its parameters and the modules inside it among its own attributes. Arrays
of parameters are written in place and never replaced, so that optimizers and users may
hold on to them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from convnet._check import Array
from convnet.nn._arrays import as_floats, fitting, in_memory, overwrite

if TYPE_CHECKING:
    from typing_extensions import Self

    from convnet.nn.prepared import Prepared


class Parameter:
    """An array to learn and its gradient.

    Assigning to `value` or `grad` copies into the array that is there: neither array
    is ever replaced by another.

    Parameters
    ----------
    value : array_like, float32 or float64
        Copied. Integers become floats.
    name : str, default "parameter"
        What messages call it.

    Attributes
    ----------
    name : str
    value : ndarray, C-contiguous
    grad : ndarray, as `value`
        Zeros at first. `Module.backward` adds to it.

    Examples
    --------
    >>> p = Parameter([[1.0, 2.0, 3.0]], "weight")
    >>> p.grad += 1
    >>> p.value -= 0.5 * p.grad
    >>> p.value
    array([[0.5, 1.5, 2.5]])
    """

    def __init__(self, value: ArrayLike, name: str = "parameter") -> None:
        self.name = name
        self._value = np.array(as_floats(value, name), order="C")
        self._grad = np.zeros_like(self._value)

    @property
    def value(self) -> Array:
        """The values; assigning copies into this array."""
        return self._value

    @value.setter
    def value(self, new: ArrayLike) -> None:
        overwrite(self._value, new, f"{self.name}.value")

    @property
    def grad(self) -> Array:
        """The gradient; assigning copies into this array."""
        return self._grad

    @grad.setter
    def grad(self, new: ArrayLike) -> None:
        overwrite(self._grad, new, f"{self.name}.grad")

    def zero_grad(self) -> None:
        """Set the gradient to zero, in place."""
        self._grad.fill(0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy or a pickle."""
        vars(self).update(in_memory(state))

    def __repr__(self) -> str:
        """Return name, shape and dtype."""
        shape, dtype = self._value.shape, self._value.dtype
        return f"Parameter({self.name}, shape={shape}, dtype={dtype})"


class Memory:
    """Keep what `backward` needs from the last forward call; copies forget it."""

    _saved: Any = None

    def _recall(self) -> Any:
        if self._saved is None:
            raise RuntimeError(
                f"{type(self).__name__}: backward needs a forward call before it"
            )
        return self._saved

    def __getstate__(self) -> dict[str, Any]:
        """Return all attributes but the memory of the last forward call."""
        return {key: value for key, value in vars(self).items() if key != "_saved"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy or a pickle."""
        vars(self).update(in_memory(state))


class Module(Memory, ABC):
    """Base class of all layers and networks.

    A layer of your own defines `forward` and `backward`, keeps its parameters and inner
    modules as attributes, and calls ``backward`` of the inner ones itself. A module
    keeps one forward call for `backward`, so in training it belongs to one thread.

    Attributes
    ----------
    training : bool
        True at first; see `train` and `eval`.

    See Also
    --------
    convnet.testing.gradcheck : checks that `backward` belongs to `forward`.

    Examples
    --------
    >>> class Scale(Module):
    ...     def __init__(self):
    ...         self.factor = Parameter([2.0], "factor")
    ...     def forward(self, x):
    ...         self._saved = x
    ...         return x * self.factor.value
    ...     def backward(self, grad_y):
    ...         x = self._recall()
    ...         self.factor.grad += (grad_y * x).sum()
    ...         return grad_y * self.factor.value
    >>> layer = Scale()
    >>> layer(np.array([1.0, 2.0, 3.0]))
    array([2., 4., 6.])
    >>> layer.backward(np.array([1.0, 0.0, 1.0]))
    array([2., 0., 2.])
    >>> layer.factor.grad
    array([4.])
    """

    training: bool = True
    # Names of the arrays that are state, but not learned by gradients.
    _buffers: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Reset shortcuts that would not know of a subclass's new definition.

        For the same reason a layer's `forward` calls ``Layer.infer(self, x)``: the
        `infer` of a subclass may well call that `forward`.
        """
        for method, shortcut in (("forward", "infer"), ("backward", "accumulate")):
            if method in vars(cls) and shortcut not in vars(cls):
                setattr(cls, shortcut, getattr(Module, shortcut))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; an array must not take the place of a `Parameter`.

        The optimizer would go on with the one that is gone.
        """
        there = vars(self).get(name)
        if isinstance(there, Parameter) and not isinstance(value, Parameter | None):
            raise TypeError(
                f"{name} of {type(self).__name__} is a Parameter, not "
                f"{type(value).__name__}: to set its values, write .{name}.value = ..."
            )
        super().__setattr__(name, value)

    @abstractmethod
    def forward(self, x: ArrayLike) -> Array:
        """Return the output for `x` and keep what `backward` needs."""

    @abstractmethod
    def backward(self, grad_y: ArrayLike) -> Array:
        """Return grad_x for the last `forward`; add to the gradients of parameters.

        Parameters
        ----------
        grad_y : array_like of the shape of the last output
            Gradient of the loss with respect to that output.

        Returns
        -------
        ndarray of the shape of the last input

        Raises
        ------
        RuntimeError
            Before any `forward`.
        """

    def __call__(self, x: ArrayLike) -> Array:
        """Return ``forward(x)``."""
        return self.forward(x)

    def infer(self, x: ArrayLike) -> Array:
        """Return what `forward` gives in eval mode, and keep nothing.

        Safe to call from many threads. This general form runs on a copy of the whole
        module; layers define a faster one.
        """
        return copy.deepcopy(self).eval().forward(x)

    def accumulate(self, grad_y: ArrayLike) -> None:
        """Do what `backward` does, but leave out the gradient of the input.

        Training needs no gradient of the images; the first layer saves a third of its
        work.
        """
        self.backward(grad_y)

    def prepare(self) -> Prepared:
        """Return an immutable snapshot of this module for fast inference.

        See Also
        --------
        convnet.nn.Prepared
        """
        from convnet.nn.prepared import Prepared

        return Prepared(self)

    def children(self) -> dict[str, Module]:
        """Return the modules directly inside this one, by name."""
        attributes = vars(self).items()
        return {name: value for name, value in attributes if isinstance(value, Module)}

    def named_modules(self, name: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this module and all inside it, each with its dotted name."""
        yield name, self
        for key, child in self.children().items():
            yield from child.named_modules(_dotted(name, key))

    def modules(self) -> Iterator[Module]:
        """Yield this module and all inside it."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> dict[str, Parameter]:
        """Return all parameters by dotted name, such as ``"0.weight"``."""
        return {
            _dotted(path, name): value
            for path, module in self.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, Parameter)
        }

    def parameters(self) -> list[Parameter]:
        """Return all parameters, each once."""
        return list({id(p): p for p in self.named_parameters().values()}.values())

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def train(self, mode: bool = True) -> Self:
        """Switch this module and all inside it to training, or to eval; return self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch dropout off and batch normalization to its averages; return self.

        `backward` works in this mode too.
        """
        return self.train(False)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and averages by dotted name."""
        return {name: array.copy() for name, array in self._state().items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Copy arrays into the parameters and averages, in place.

        Nothing is written unless everything fits.

        Parameters
        ----------
        state : mapping of str to array_like
            Floats, cast to this module's precision. The names must be exactly those of
            `state_dict`.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape differs.
        TypeError
            If an array is not of floats.
        """
        own = self._state()
        if own.keys() != state.keys():
            raise ValueError(
                f"state_dict lacks {sorted(own.keys() - state.keys())} and has "
                f"unknown {sorted(state.keys() - own.keys())}"
            )
        new = {name: fitting(state[name], own[name], name) for name in own}
        for name, array in own.items():
            array[...] = new[name]

    def _state(self) -> dict[str, Array]:
        """Return the arrays themselves: parameters, and buffers such as averages."""
        arrays = {name: p.value for name, p in self.named_parameters().items()}
        for path, module in self.named_modules():
            for name in module._buffers:
                arrays[_dotted(path, name)] = getattr(module, name)
        return arrays

    def __repr__(self) -> str:
        """Return the class's name and its main arguments, or the modules inside."""
        return f"{type(self).__name__}({self._describe()})"

    def _describe(self) -> str:
        lines = [f"\n({name}): {child!r}" for name, child in self.children().items()]
        return "".join(lines).replace("\n", "\n  ") + "\n" * bool(lines)


def unusual(**options: tuple[object, object]) -> str:
    """Return ``, name=value`` for each (value, default) that is not the default."""
    return "".join(
        f", {name}={value!r}"
        for name, (value, default) in options.items()
        if value != default
    )


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
