# SPDX-License-Identifier: MIT
"""The training loop.

    for each epoch, for each batch of a new random order:
        loss of forward -> backward -> optimizer.step

Results depend on the data, the start weights and `rng`, and on nothing else: neither
on the number of threads nor on whether anybody watches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from convnet._check import Array
from convnet._geometry import as_int, shown
from convnet.history import History, KeepBest, Measured
from convnet.nn import Loss, Module
from convnet.optim import Optimizer
from convnet.progress import Progress

__all__ = ["History", "KeepBest", "evaluate", "fit"]

Data: TypeAlias = tuple[ArrayLike, ArrayLike]
Callback: TypeAlias = Callable[[Module, History], Any]


def fit(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    data: Data,
    epochs: int = 10,
    batch_size: int = 32,
    *,
    validation: Data | None = None,
    progress: bool | str = True,
    callbacks: Iterable[Callback] = (),
    rng: int | np.random.Generator | None = None,
) -> History:
    """Train a model, and leave it in eval mode.

    Parameters
    ----------
    model : Module
    loss : Loss
        Called as ``loss(model(x), y)``.
    optimizer : Optimizer
        Of the model's parameters.
    data : (x, y)
        Arrays of one length: inputs and targets.
    epochs : int, default 10
        How often to go through the data.
    batch_size : int, default 32
        Samples per step; the last step of an epoch takes what is left.
    validation : (x, y), optional
        Data to measure after each epoch, in eval mode.
    progress : bool or str, default True
        Print a line per epoch, and on a terminal a bar if tqdm is installed. A string
        is what to call the validation data, such as "test".
    callbacks : iterable of callables
        Each is called as ``callback(model, history)`` after each epoch. If one returns
        True, the training ends. To change the learning rate, set ``optimizer.lr``.
    rng : int or numpy.random.Generator, optional
        Source of the order of samples.

    Returns
    -------
    History
        Losses, accuracies and times. After Ctrl-C it ends with the last whole epoch,
        and ``history.interrupted`` is True; the model has the weights of that moment,
        and can be used, saved or trained on. `KeepBest` keeps better ones.

    Raises
    ------
    ValueError
        If x and y differ in length or are empty, a number is below 1, or the optimizer
        holds a parameter that is not the model's.
    TypeError
        If an argument is of another kind than it says here.

    See Also
    --------
    evaluate, KeepBest

    Examples
    --------
    >>> from convnet import nn, optim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((67, 1, 5, 3)).astype(np.float32)
    >>> y = (x.mean(axis=(1, 2, 3)) > 0).astype(int)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(15, 2, rng=rng))
    >>> adam = optim.Adam(model.parameters(), lr=0.1)
    >>> history = fit(
    ...     model, nn.CrossEntropyLoss(), adam, (x, y), epochs=7, progress=False, rng=0
    ... )
    >>> len(history), history.loss[-1] < history.loss[0]
    (7, True)
    """
    _belong_together(model, loss, optimizer)
    x, y = _arrays(data, "data")
    held_back = None if validation is None else _arrays(validation, "validation")
    epochs, batch_size = as_int(epochs, "epochs"), as_int(batch_size, "batch_size")
    rng = np.random.default_rng(rng)
    callbacks = _functions(callbacks)
    name = progress if isinstance(progress, str) else "validation"
    history = History()
    with Progress(epochs * -(-len(x) // batch_size), bool(progress)) as shown:
        try:
            while len(history) < epochs:
                start = time.perf_counter()
                batches = _batches(rng.permutation(len(x)), batch_size)
                steps = shown.count(batches)
                trained = _train_epoch(model, loss, optimizer, x, y, steps)
                tested = evaluate(model, loss, held_back) if held_back else None
                history.append(time.perf_counter() - start, trained, tested)
                number = f"{len(history):{len(str(epochs))}}/{epochs}"
                shown.print(f"epoch {number}   {history.summary(name)}")
                answers = [callback(model, history) for callback in callbacks]
                if any(isinstance(a, bool | np.bool_) and a for a in answers):
                    break
        except KeyboardInterrupt:
            history.interrupted = True
        finally:
            model.eval()
    return history


def evaluate(model: Module, loss: Loss, data: Data, batch_size: int = 256) -> Measured:
    """Return the mean loss and the accuracy of a model in eval mode.

    Parameters
    ----------
    model : Module
        Its mode is afterwards what it was.
    loss : Loss
    data : (x, y)
        Arrays of one length: inputs and targets.
    batch_size : int, default 256
        Bounds the memory; the result depends on it by rounding alone.

    Returns
    -------
    loss : float
    accuracy : float or None
        None where the loss knows no accuracy; see `nn.Loss.accuracy`.
    """
    x, y = _arrays(data, "data")
    means = _Means()
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for batch in _batches(np.arange(len(x)), as_int(batch_size, "batch_size")):
            pred = model(x[batch])
            means.add(len(batch), loss(pred, y[batch]), loss.accuracy(pred, y[batch]))
    finally:
        for module, training in modes:
            module.training = training
    return means.result()


def _train_epoch(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    x: Array,
    y: Array,
    batches: Iterable[Array],
) -> Measured:
    """Take one step per batch; return the mean loss and accuracy on the way."""
    means = _Means()
    model.train()
    for batch in batches:
        pred, target = model(x[batch]), y[batch]
        value = loss(pred, target)
        optimizer.zero_grad()
        model.accumulate(loss.backward())
        optimizer.step()
        means.add(len(batch), value, loss.accuracy(pred, target))
    return means.result()


class _Means:
    """Means over samples of what is known per batch."""

    def __init__(self) -> None:
        self.count = 0
        self.loss = 0.0
        self.accuracy: float | None = 0.0

    def add(self, count: int, loss: float, accuracy: float | None) -> None:
        self.count += count
        self.loss += count * loss
        if accuracy is None or self.accuracy is None:
            self.accuracy = None
        else:
            self.accuracy += count * accuracy

    def result(self) -> Measured:
        accuracy = None if self.accuracy is None else self.accuracy / self.count
        return self.loss / self.count, accuracy


def _belong_together(model: Module, loss: Loss, optimizer: Optimizer) -> None:
    """Raise unless these are what they should be, and the optimizer is the model's."""
    for name, value, kind in (
        ("model", model, Module),
        ("loss", loss, Loss),
        ("optimizer", optimizer, Optimizer),
    ):
        if not isinstance(value, kind):
            raise TypeError(
                f"{name} must be an instance of {kind.__name__}, got {shown(value)}"
            )
    own = {id(parameter) for parameter in model.parameters()}
    for parameter in optimizer.parameters:
        if id(parameter) not in own:
            raise ValueError(f"optimizer holds {parameter}, which model does not have")


def _functions(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks, if all of them can be called."""
    if isinstance(callbacks, Iterable):
        functions = tuple(callbacks)
        if all(map(callable, functions)):
            return functions
    raise TypeError(f"callbacks must be a list of functions, got {shown(callbacks)}")


def _arrays(data: Data, name: str) -> tuple[Array, Array]:
    """Return inputs and targets as arrays, if they are of one length."""
    x, y = (np.asarray(part) for part in data)
    if not (x.ndim and y.ndim) or len(x) != len(y) or not len(x):
        raise ValueError(
            f"{name} must be (x, y) of one length above 0, but the shapes are "
            f"{x.shape} and {y.shape}"
        )
    return x, y


def _batches(order: Array, batch_size: int) -> list[Array]:
    """Return the order in pieces of `batch_size`; the last may be smaller."""
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
