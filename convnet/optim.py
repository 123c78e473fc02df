# SPDX-License-Identifier: MIT
"""Optimizers: how gradients change parameters. The rules and defaults are torch's.

Each optimizer holds one tuple of state arrays per parameter and writes in place, so
that everybody who holds a parameter's array sees the new value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np

from convnet.functional.pointwise import adam_step, sgd_step
from convnet.nn import Parameter


class Optimizer(ABC):
    """Base class: `step` updates every parameter from its gradient.

    Attributes
    ----------
    parameters : list of Parameter
    lr : float
        Learning rate. May be changed between steps.
    """

    def __init__(self, params: Iterable[Parameter], lr: float) -> None:
        self.parameters = list(params)
        self.lr = _at_least_zero(lr, "lr")
        if not self.parameters:
            raise ValueError("there are no parameters to optimize")
        for parameter in self.parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"expected a Parameter, got {parameter!r}")
        if len({id(parameter) for parameter in self.parameters}) < len(self.parameters):
            raise ValueError("a parameter is given twice")

    @abstractmethod
    def step(self) -> None:
        """Update all parameters, in place."""

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        for parameter in self.parameters:
            parameter.zero_grad()


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    ::

        g = grad + weight_decay * value
        v = momentum * v + g                   v = 0 at first
        value -= lr * v                        or, with nesterov,
        value -= lr * (g + momentum * v)

    Parameters
    ----------
    params : iterable of Parameter
    lr : float
    momentum, weight_decay : float, default 0
    nesterov : bool, default False
        Needs a momentum.

    Notes
    -----
    I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of
    initialization and momentum in deep learning", ICML 2013.

    Examples
    --------
    >>> p = Parameter([1.0, 2.0, 3.0])
    >>> p.grad += 1
    >>> SGD([p], lr=0.5).step()
    >>> p.value
    array([0.5, 1.5, 2.5])
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float,
        momentum: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.momentum = _at_least_zero(momentum, "momentum")
        self.weight_decay = _at_least_zero(weight_decay, "weight_decay")
        self.nesterov = nesterov
        if nesterov and not momentum:
            raise ValueError("nesterov needs a momentum above 0")
        self._velocity = [
            np.zeros_like(p.value) if momentum else None for p in self.parameters
        ]

    def step(self) -> None:
        """Update all parameters, in place."""
        how = self.lr, self.momentum, self.weight_decay, self.nesterov
        for parameter, velocity in zip(self.parameters, self._velocity, strict=True):
            sgd_step(parameter.value, parameter.grad, velocity, *how)


class Adam(Optimizer):
    """Steps scaled by running averages of the gradient and its square.

    ::

        g = grad + weight_decay * value
        m = beta1 * m + (1 - beta1) * g        m = 0 at first
        v = beta2 * v + (1 - beta2) * g**2     v = 0 at first
        value -= lr * m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps)

    with t = 1 in the first step.

    Parameters
    ----------
    params : iterable of Parameter
    lr : float, default 1e-3
    betas : (float, float), default (0.9, 0.999)
        From 0 to below 1.
    eps : float, default 1e-8
    weight_decay : float, default 0

    Notes
    -----
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> p = Parameter([1.0, 2.0, 3.0])
    >>> p.grad += 7
    >>> Adam([p], lr=0.5).step()
    >>> p.value.round(6)
    array([0.5, 1.5, 2.5])
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        super().__init__(params, lr)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be from 0 to below 1, got {betas}")
        self.betas = betas
        self.eps = _at_least_zero(eps, "eps")
        self.weight_decay = _at_least_zero(weight_decay, "weight_decay")
        self._steps = 0
        self._moments = [
            (np.zeros_like(p.value), np.zeros_like(p.value)) for p in self.parameters
        ]

    def step(self) -> None:
        """Update all parameters, in place."""
        self._move(decay=self.weight_decay)

    def _move(self, decay: float = 0.0, keep: float = 1.0) -> None:
        """Take a step with `decay` in the gradients, and `keep` times the values."""
        self._steps += 1
        beta1, beta2 = self.betas
        factors = {
            "beta1": beta1,
            "beta2": beta2,
            "lr": self.lr / (1 - beta1**self._steps),
            "unbias": (1 - beta2**self._steps) ** -0.5,
            "eps": self.eps,
            "decay": decay,
            "keep": keep,
        }
        for parameter, moments in zip(self.parameters, self._moments, strict=True):
            adam_step(parameter.value, parameter.grad, *moments, factors)


class AdamW(Adam):
    """Adam with a weight decay apart from the gradient.

    ::

        value -= lr * weight_decay * value
        value -= the step of Adam without weight decay

    Parameters
    ----------
    params : iterable of Parameter
    lr : float, default 1e-3
    betas : (float, float), default (0.9, 0.999)
    eps : float, default 1e-8
    weight_decay : float, default 0.01

    Notes
    -----
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> p = Parameter([1.0, 2.0, 3.0])
    >>> AdamW([p], lr=0.5, weight_decay=0.25).step()
    >>> p.value
    array([0.875, 1.75 , 2.625])
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def step(self) -> None:
        """Update all parameters, in place."""
        self._move(keep=1 - self.lr * self.weight_decay)


def _at_least_zero(value: float, name: str) -> float:
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return float(value)
