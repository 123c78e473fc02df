# SPDX-License-Identifier: MIT
"""Losses: one number that tells how far predictions are from targets.

    value = loss(pred, target)     a float
    grad_pred = loss.backward()    its gradient with respect to pred

Means are summed in float64. No loss overflows where its value is finite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike

from convnet._check import Array
from convnet.nn._arrays import as_floats
from convnet.nn.activation import sigmoid
from convnet.nn.module import Memory


class Loss(Memory, ABC):
    """Base class: `forward` keeps the gradient, which `backward` returns."""

    @abstractmethod
    def forward(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return the mean loss and keep its gradient in ``_saved``."""

    def __call__(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return the loss of predictions, and keep what `backward` needs."""
        return self.forward(pred, target)

    def backward(self) -> Array:
        """Return the gradient of the last loss, in the shape of its predictions.

        Raises
        ------
        RuntimeError
            Before any call of the loss.
        """
        grad_pred: Array = self._recall()
        return grad_pred

    def accuracy(self, pred: ArrayLike, target: ArrayLike) -> float | None:
        """Return the share of right predictions, or None where none is right or wrong.

        The base class returns None: distances have no accuracy.
        """
        return None

    def __repr__(self) -> str:
        """Return the class's name."""
        return f"{type(self).__name__}()"


class MSELoss(Loss):
    """Mean squared error: ``mean((pred - target)**2)`` over all elements.

    Examples
    --------
    >>> loss = MSELoss()
    >>> loss(np.array([[1.0, 2.0, 4.0]]), np.array([[1.0, 2.0, 1.0]]))
    3.0
    >>> loss.backward()
    array([[0., 0., 2.]])
    """

    def forward(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return the mean over all elements of two arrays of one shape."""
        pred, target = _alike(pred, target)
        error = pred - target
        self._saved = error * (2 / error.size)
        return _mean(np.square(error))


class BinaryLoss(Loss):
    """Base class of the losses whose targets are probabilities, mostly 0 or 1."""

    # Predictions above this mean 1.
    threshold: float

    def accuracy(self, pred: ArrayLike, target: ArrayLike) -> float | None:
        """Return the share of predictions on the right side, if targets are 0 and 1."""
        pred, target = _binary(pred, target)
        if not ((target == 0) | (target == 1)).all():
            return None
        return float(np.mean((pred > self.threshold) == (target == 1)))


class BCELoss(BinaryLoss):
    """Binary cross-entropy of probabilities, such as a `Sigmoid` gives.

    ``mean(-target * log(pred) - (1 - target) * log(1 - pred))`` over all elements.
    Logarithms count as at least -100, as in torch, so that a wrong certainty costs much
    but not everything.

    Examples
    --------
    >>> loss = BCELoss()
    >>> round(loss(np.array([0.5, 0.9, 0.2]), np.array([1, 1, 0])), 6)
    0.34055
    """

    threshold = 0.5

    def forward(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return the mean over all elements of two arrays of one shape."""
        p, t = _binary(pred, target)
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError(
                f"predictions must be probabilities from 0 to 1, but reach from "
                f"{p.min()} to {p.max()}; for logits use BCEWithLogitsLoss"
            )
        with np.errstate(divide="ignore"):
            log_p = np.maximum(np.log(p), -100)
            log_not_p = np.maximum(np.log1p(-p), -100)
        # Where p is exactly 0 or 1 the gradient stays finite, as torch has it.
        self._saved = (p - t) / (np.maximum(p * (1 - p), 1e-12) * p.size)
        return _mean(-t * log_p - (1 - t) * log_not_p)


class BCEWithLogitsLoss(BinaryLoss):
    """Binary cross-entropy of logits: that of ``sigmoid(pred)``, without its rounding.

    ``mean(max(pred, 0) - pred * target + log(1 + exp(-abs(pred))))``

    Examples
    --------
    >>> loss = BCEWithLogitsLoss()
    >>> loss(np.array([-1000.0, 1000.0, 1000.0]), np.array([0, 1, 1]))
    0.0
    """

    threshold = 0.0

    def forward(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return the mean over all elements of two arrays of one shape."""
        z, t = _binary(pred, target)
        self._saved = (sigmoid(z) - t) / z.size
        return _mean(np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z))))


class CrossEntropyLoss(Loss):
    """Cross-entropy of logits: ``mean(log(sum(exp(pred[n]))) - pred[n, target[n]])``.

    This is the negative logarithm of the right class's softmax, averaged over samples.

    Examples
    --------
    >>> loss = CrossEntropyLoss()
    >>> loss(np.array([[1000.0, 0.0, 0.0], [0.0, 0.0, 1000.0]]), np.array([0, 2]))
    0.0
    >>> loss.backward().shape
    (2, 3)
    """

    def forward(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return the mean over samples.

        Parameters
        ----------
        pred : array_like of shape (N, classes), or (classes,) for one sample
            Logits: any real numbers.
        target : array_like of int of shape (N,), or ()
            The right class of each sample.
        """
        logits, classes = _classified(pred, target)
        right = np.arange(len(classes)), classes
        shifted = logits - logits.max(axis=1, keepdims=True)
        grad = np.exp(shifted)
        total = grad.sum(axis=1, keepdims=True)
        grad /= total
        grad[right] -= 1
        self._saved = (grad / len(grad)).reshape(np.shape(pred))
        return _mean(np.log(total[:, 0]) - shifted[right])

    def accuracy(self, pred: ArrayLike, target: ArrayLike) -> float | None:
        """Return the share of samples whose largest logit is the right one."""
        logits, classes = _classified(pred, target)
        return float(np.mean(logits.argmax(axis=1) == classes))


def _mean(values: Array) -> float:
    return float(values.mean(dtype=np.float64))


def _alike(pred: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Return both as floats of the precision of `pred`, if shapes agree."""
    pred, target = as_floats(pred, "pred"), as_floats(target, "target")
    if pred.shape != target.shape:
        raise ValueError(f"pred has shape {pred.shape}, but target {target.shape}")
    if not pred.size:
        raise ValueError(f"there is no mean over no elements: pred is {pred.shape}")
    return pred, target.astype(pred.dtype, copy=False)


def _binary(pred: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Return both as floats, if all targets are probabilities."""
    pred, target = _alike(pred, target)
    if not ((target >= 0) & (target <= 1)).all():
        raise ValueError(
            f"targets must lie between 0 and 1, but reach from {target.min()} to "
            f"{target.max()}"
        )
    return pred, target


def _classified(pred: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Return logits of shape (N, classes) and the right classes, of shape (N,)."""
    logits, classes = as_floats(pred, "pred"), np.asarray(target)
    if classes.dtype.kind not in "iu":
        raise TypeError(f"targets must be integers, got {classes.dtype}")
    if logits.ndim not in (1, 2) or logits.shape[:-1] != classes.shape:
        raise ValueError(
            f"pred must be (N, classes) and target (N,), but they are {logits.shape} "
            f"and {classes.shape}"
        )
    if not logits.size:
        raise ValueError(f"there is no mean over no elements: pred is {logits.shape}")
    if classes.min() < 0 or classes.max() >= logits.shape[-1]:
        raise ValueError(
            f"targets must be from 0 to {logits.shape[-1] - 1}, but reach from "
            f"{classes.min()} to {classes.max()}"
        )
    return logits.reshape(-1, logits.shape[-1]), classes.reshape(-1)
