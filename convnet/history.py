# SPDX-License-Identifier: MIT
"""What a training run leaves behind: its course, and its best weights."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from convnet._check import Array
from convnet.nn import Module

# Mean loss, and the accuracy where the loss knows one.
Measured: TypeAlias = tuple[float, float | None]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass
class History:
    """The course of a training, one number per epoch in each list.

    Attributes
    ----------
    loss : list of float
        Mean over the training samples, each with the weights of its turn.
    accuracy : list of float
        Share of right answers, likewise; empty where the loss knows no accuracy.
    val_loss, val_accuracy : list of float
        On the validation data after each epoch; empty without such data.
    seconds : list of float
        Duration of each epoch.
    interrupted : bool
        Whether Ctrl-C ended the training. The unfinished epoch is not in the lists.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    interrupted: bool = False

    def __len__(self) -> int:
        """Return the number of finished epochs."""
        return len(self.loss)

    def append(
        self, seconds: float, trained: Measured, tested: Measured | None
    ) -> None:
        """Add one epoch: the loss and accuracy in training, and on validation data."""
        self.seconds.append(seconds)
        self.loss.append(trained[0])
        if trained[1] is not None:
            self.accuracy.append(trained[1])
        if tested is not None:
            self.val_loss.append(tested[0])
            if tested[1] is not None:
                self.val_accuracy.append(tested[1])

    def best_epoch(self, monitor: str | None = None) -> int:
        """Return the number of the best epoch, counted from 1; the first of equals.

        Parameters
        ----------
        monitor : {"loss", "accuracy", "val_loss", "val_accuracy"}, optional
            What to judge by: the smallest loss or the largest accuracy. By default
            `val_loss` where there is one, else `loss`.

        Raises
        ------
        ValueError
            If no epoch was measured so.

        Examples
        --------
        >>> history = History(loss=[0.7, 0.3, 0.2], val_loss=[0.8, 0.4, 0.5])
        >>> history.best_epoch(), history.best_epoch("loss")
        (2, 3)
        """
        monitor = monitor or ("val_loss" if self.val_loss else "loss")
        if monitor not in ("loss", "accuracy", "val_loss", "val_accuracy"):
            raise ValueError(f"there is nothing called {monitor!r} to judge epochs by")
        values = getattr(self, monitor)
        if not values:
            raise ValueError(f"no epoch has a {monitor} to judge it by")
        sign = -1 if monitor.endswith("accuracy") else 1
        # NaN, the loss of a training that diverged, is worse than everything.
        ranks = [math.inf if math.isnan(value) else sign * value for value in values]
        return ranks.index(min(ranks)) + 1

    def summary(self, held_back: str = "validation") -> str:
        """Return the last epoch's numbers in one line.

        Parameters
        ----------
        held_back : str, default "validation"
            What to call the data that were not trained on.

        Examples
        --------
        >>> History(loss=[0.7], accuracy=[0.9], val_loss=[0.8], seconds=[3]).summary()
        'loss 0.7000   accuracy  90.00 %   validation loss 0.8000   3.0 s'
        """
        parts = [f"loss {self.loss[-1]:.4f}"]
        if self.accuracy:
            parts.append(f"accuracy {100 * self.accuracy[-1]:6.2f} %")
        if self.val_loss:
            parts.append(f"{held_back} loss {self.val_loss[-1]:.4f}")
        if self.val_accuracy:
            parts.append(f"{held_back} accuracy {100 * self.val_accuracy[-1]:6.2f} %")
        return "   ".join([*parts, f"{self.seconds[-1]:.1f} s"])

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the losses, and beside them the accuracies if there are any.

        Parameters
        ----------
        path : path, optional
            Where to save the picture; its ending chooses the format. Without it, call
            ``matplotlib.pyplot.show()`` to see the figure.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib, part of the extra `train`, is not installed.
        """
        try:
            from matplotlib import pyplot
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError(
                'plotting needs the extra: pip install "convnet-cpu[train]"'
            ) from None
        panels = 2 if self.accuracy or self.val_accuracy else 1
        size = (5.5 * panels, 4)
        # A figure of pyplot's would stay open behind a file that is all one wants.
        figure = Figure(size) if path else pyplot.figure(figsize=size)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        self.draw(axes[0], "loss")
        if panels == 2:
            self.draw(axes[1], "accuracy")
        figure.tight_layout()
        if path:
            figure.savefig(path)
        return figure

    def draw(self, axes: Axes, kind: str) -> None:
        """Draw one kind of curve, "loss" or "accuracy", on axes of matplotlib's."""
        from matplotlib.ticker import MaxNLocator

        for name, label in ((kind, "training"), (f"val_{kind}", "validation")):
            values = getattr(self, name)
            if values:
                axes.plot(range(1, len(values) + 1), values, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(kind)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(self):
            axes.axvline(self.best_epoch(), color="0.8", zorder=0, label="best epoch")
            axes.legend()


class KeepBest:
    """A callback of `fit` that keeps the weights of the best epoch.

    Parameters
    ----------
    monitor : str, optional
        What to judge by, as in `History.best_epoch`.

    Attributes
    ----------
    state : dict of str to ndarray, or None
        The best `Module.state_dict` so far; None before the first epoch has ended.
    epoch : int or None
        Whose weights they are, counted from 1.

    Examples
    --------
    After an end by Ctrl-C, too, the model gets its best weights back::

        best = KeepBest()
        history = fit(model, loss, optimizer, data, callbacks=[best])
        best.restore(model)
    """

    def __init__(self, monitor: str | None = None) -> None:
        self.monitor = monitor
        self.state: dict[str, Array] | None = None
        self.epoch: int | None = None

    def __call__(self, model: Module, history: History) -> None:
        """Copy the weights if the epoch that just ended is the best."""
        if history.best_epoch(self.monitor) == len(history):
            self.state, self.epoch = model.state_dict(), len(history)

    def restore(self, model: Module) -> None:
        """Put the best weights back; without any, leave the model as it is."""
        if self.state is not None:
            model.load_state_dict(self.state)
