# SPDX-License-Identifier: MIT
"""More training images out of few: copies that are turned and shifted a little."""

import numpy as np

from convnet._check import Array

__all__ = ["vary", "with_variations"]

ANGLE = 15.0  # degrees, to either side
SHIFT = 0.5  # pixels, in each direction


def with_variations(
    x: Array, labels: Array, copies: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return all images as they are, followed by `copies` variations of each.

    Parameters
    ----------
    x : ndarray of shape (N, 1, H, W)
    labels : ndarray of shape (N,)
    copies : int
    rng : numpy.random.Generator

    Returns
    -------
    x : ndarray of shape ((copies + 1) * N, 1, H, W), same dtype as `x`
    labels : ndarray of shape ((copies + 1) * N,)

    Examples
    --------
    >>> x = np.ones((7, 1, 5, 3), np.float32)
    >>> varied, labels = with_variations(x, np.arange(7), 2, np.random.default_rng(0))
    >>> varied.shape, labels.shape
    ((21, 1, 5, 3), (21,))
    """
    varied = [x, *(vary(x, rng) for _ in range(copies))]
    return np.concatenate(varied), np.tile(labels, copies + 1)


def vary(x: Array, rng: np.random.Generator) -> Array:
    """Return a copy of each image (N, 1, H, W), turned and shifted at random.

    Up to 15 degrees about the centre and half a pixel in each direction. Pixels are
    interpolated linearly; outside the image there is 0, paper.
    """
    N, _, H, W = x.shape
    angle = np.radians(rng.uniform(-ANGLE, ANGLE, N))
    down, right = rng.uniform(-SHIFT, SHIFT, (2, N, 1, 1))
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    row = np.arange(H)[:, None] - (H - 1) / 2
    column = np.arange(W) - (W - 1) / 2
    # Where each pixel of the copy comes from.
    rows = cos * row - sin * column + down + (H - 1) / 2
    columns = sin * row + cos * column + right + (W - 1) / 2
    return _interpolate(x[:, 0], rows, columns)[:, None].astype(x.dtype)


def _interpolate(images: Array, rows: Array, columns: Array) -> Array:
    """Return the values of images (N, H, W) between pixels, at (N, H, W) places."""
    N, H, W = images.shape
    framed = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    # Further outside than the frame there is nothing else than in the frame.
    rows, columns = np.clip(rows, -1, H) + 1, np.clip(columns, -1, W) + 1
    top, left = rows.astype(int), columns.astype(int)
    n = np.arange(N)[:, None, None]
    lower, right = rows - top, columns - left
    above = framed[n, top, left] * (1 - right) + framed[n, top, left + 1] * right
    below = (
        framed[n, top + 1, left] * (1 - right) + framed[n, top + 1, left + 1] * right
    )
    values: Array = above * (1 - lower) + below * lower
    return values
