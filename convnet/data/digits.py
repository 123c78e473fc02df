# SPDX-License-Identifier: MIT
"""The UCI handwritten digits, with a split that is the same for everybody."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DigitsSplit", "load_digits"]

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]

FILE = Path(__file__).with_name("digits.npz")
DARKEST = 16  # the grey level of full ink in the file


class DigitsSplit(NamedTuple):
    """Training and test part of the digits, each as ``(images, labels)``.

    Attributes
    ----------
    train, test : tuple of (ndarray, ndarray)
        Images of shape (N, 1, 8, 8), float32 from 0 (paper) to 1 (ink), and labels of
        shape (N,), int64.
    """

    train: Samples
    test: Samples


def load_digits(classes: Collection[int] = range(10)) -> DigitsSplit:
    """Load the UCI handwritten digits, one third held back for testing.

    Within each digit, in the order of the file, every third image is a test image: the
    3rd, the 6th, and so on. The rule needs no random numbers, so the split is the same
    everywhere and for ever: 1,201 training and 596 test images.

    Parameters
    ----------
    classes : collection of int, optional
        The digits wanted; the others are left out of both parts. All ten by default.

    Returns
    -------
    DigitsSplit
        ``(train, test)``, each a pair ``(x, y)``: x of shape (N, 1, 8, 8), float32 in
        multiples of 1/16 from 0 to 1; y of shape (N,), int64. New arrays on each call.

    Raises
    ------
    ValueError
        If `classes` is empty or names something other than the digits 0 to 9.

    Notes
    -----
    E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI
    Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0.

    Examples
    --------
    >>> train, test = load_digits()
    >>> train[0].shape, test[0].shape
    ((1201, 1, 8, 8), (596, 1, 8, 8))
    >>> (x, y), _ = load_digits(classes=(0, 1))
    >>> x.shape, sorted(set(y.tolist()))
    ((241, 1, 8, 8), [0, 1])
    """
    _check_classes(classes)
    images, labels = _read()
    wanted = np.isin(labels, sorted(classes))
    held_back = _every_third(labels)
    train, test = wanted & ~held_back, wanted & held_back
    return DigitsSplit((images[train], labels[train]), (images[test], labels[test]))


def _check_classes(classes: Collection[Any]) -> None:
    wrong = [c for c in classes if c not in range(10)]
    if wrong or len(classes) == 0:
        raise ValueError(f"classes expects digits from 0 to 9, but got {classes!r}")


def _read() -> Samples:
    """Return all images, (1797, 1, 8, 8), and labels, (1797,), in the file's order."""
    with np.load(FILE, allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]
    return images[:, np.newaxis].astype(np.float32) / DARKEST, labels.astype(np.int64)


def _every_third(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark every third sample of each class, in the order given."""
    marked = np.zeros(labels.shape, dtype=np.bool_)
    for label in np.unique(labels):
        marked[np.flatnonzero(labels == label)[2::3]] = True
    return marked
