# SPDX-License-Identifier: MIT
"""From a user's image file to what the digit networks were trained on.

A digit of the training set is 8x8 pixels, ink 1 on paper 0, and touches the upper and
the lower edge. Arrays of that size are only scaled to 0..1. Everything else is brought
into this form: grey levels, ink against the colour of the border, cropped to a square
around the ink, averaged over 8x8 equal blocks.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from convnet._check import Array
from convnet.cli.tasks import SIDE
from convnet.data import read_idx
from convnet.weights import load_weights

__all__ = ["read_digits"]

INK = 0.25  # share of full contrast that counts as ink when cropping
LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green, blue: ITU-R BT.601
PGM_HEADER = re.compile(rb"P[25]" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")


def read_digits(path: Path) -> Array:
    """Read every image in a file, in the form of the training images.

    Parameters
    ----------
    path : Path
        .npy, .npz, .csv, .pgm, IDX, or (with matplotlib) .png and other pictures, with
        one image (H, W), several (N, H, W) or (N, 1, H, W), or colours (..., 3 or 4).

    Returns
    -------
    ndarray of shape (N, 1, 8, 8), float32
        Ink from 0 to 1.

    Raises
    ------
    ValueError, OSError, ImportError
        If the file cannot be read, or holds something else than images.
    """
    found = _reader(path)(path)
    images = found
    if images.ndim > 2 and images.shape[-1] in (3, 4):
        images = _grey(images)
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.ndim == 2:
        images = images[np.newaxis]
    if images.ndim != 3 or 0 in images.shape or images.dtype.kind not in "buif":
        raise ValueError(
            "expected one image (H, W) or several (N, H, W) of real numbers, but found "
            f"{found.dtype} of shape {found.shape}"
        )
    digits = [_like_training(image, f"image {i}") for i, image in enumerate(images)]
    return np.stack(digits)[:, np.newaxis]


def _grey(colours: Array) -> Array:
    """Return brightness (..., H, W) of RGB or RGBA; what is transparent is white."""
    levels = 255 if colours.dtype.kind in "iu" else 1
    grey = colours[..., :3] @ LUMINANCE / levels
    if colours.shape[-1] == 4:
        alpha = colours[..., 3] / levels
        grey = grey * alpha + (1 - alpha)
    return np.asarray(grey)


def _like_training(image: Array, name: str) -> Array:
    """Turn one image (H, W) into (8, 8) with ink from 0 to 1."""
    grey = image.astype(np.float64)
    if not np.isfinite(grey).all():
        raise ValueError(f"{name} has NaN or infinite pixels")
    if grey.min() == grey.max():
        raise ValueError(f"{name} is blank")
    if grey.shape == (SIDE, SIDE):
        return _scale_small(grey).astype(np.float32)
    border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    ink = np.abs(grey - np.median(border))
    small = _shrink(_crop_square(ink / ink.max()))
    return np.asarray(small / small.max(), dtype=np.float32)


def _scale_small(grey: Array) -> Array:
    """Scale an image of 8x8, keeping every pixel in its place."""
    levels = next((n for n in (1, 16, 255) if grey.max() <= n), grey.max())
    ink = np.clip(grey / levels, 0, 1)
    paper = np.median(ink[:, [0, -1]])  # digits are taller than wide
    return 1 - ink if paper > 0.5 else ink


def _crop_square(ink: Array) -> Array:
    """Cut out the ink and centre it on a square of paper."""
    rows, columns = (np.flatnonzero((ink > INK).any(axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    H, W = cut.shape
    side = max(H, W)
    square = np.zeros((side, side))
    top, left = (side - H) // 2, (side - W) // 2
    square[top : top + H, left : left + W] = cut
    return square


def _shrink(square: Array) -> Array:
    """Average an image over SIDE x SIDE equal blocks, whatever its size."""
    size = len(square)
    edges = np.linspace(0, size, SIDE + 1)[:, np.newaxis]
    pixels = np.arange(size)
    # Row i holds the length that block i shares with each pixel, in block lengths.
    shared = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    weights = np.maximum(shared, 0) * (SIDE / size)
    return np.asarray(weights @ square @ weights.T)


def _reader(path: Path) -> Callable[[Path], Array]:
    if "idx" in path.name.lower():  # such as t10k-images-idx3-ubyte.gz
        return read_idx
    readers = {
        ".npy": _read_npy,
        ".npz": _read_npz,
        ".csv": _read_csv,
        ".pgm": _read_pgm,
    }
    return readers.get(path.suffix.lower(), _read_picture)


def _read_npy(path: Path) -> Array:
    # Mapped, not read: the sizes in the header are checked against the file.
    return np.lib.format.open_memmap(path, mode="r")


def _read_npz(path: Path) -> Array:
    """Read the array called "images", or "x", or the only one there is."""
    arrays = load_weights(path)
    for name in ("images", "x", *arrays) if len(arrays) == 1 else ("images", "x"):
        if name in arrays:
            return arrays[name]
    raise ValueError(
        f'expected one array, or one called "images" or "x", but found {list(arrays)}'
    )


def _read_csv(path: Path) -> Array:
    """Read one image, or one of 8x8 per line, with or without its label at the end."""
    lines = path.read_text("utf-8").split()
    if not lines:
        raise ValueError("the file is empty")
    table = np.array([line.split(",") for line in lines], dtype=np.float64)
    if table.shape[1] in (SIDE * SIDE, SIDE * SIDE + 1):
        return table[:, : SIDE * SIDE].reshape(-1, SIDE, SIDE)
    return table


def _read_pgm(path: Path) -> Array:
    """Read a portable grey map with one image, as text (P2) or as bytes (P5)."""
    content = path.read_bytes()
    header = PGM_HEADER.match(content)
    if header is None:
        raise ValueError(f"not a PGM file; it begins with {content[:12]!r}")
    W, H, brightest = (int(number) for number in header.groups())
    body = content[header.end() :]
    if content.startswith(b"P2"):
        pixels = np.array(body.split(), dtype=np.int64)
    else:
        dtype = np.dtype(">u2" if brightest > 255 else "u1")
        pixels = np.frombuffer(body[: W * H * dtype.itemsize], dtype)
    if pixels.size != W * H:
        raise ValueError(f"{W}x{H} pixels announced, {pixels.size} found")
    return pixels.reshape(H, W)


def _read_picture(path: Path) -> Array:
    """Read a picture with matplotlib."""
    try:
        from matplotlib.image import imread
    except ImportError:
        raise ImportError(
            f'reading {path.suffix} needs the extra: pip install "convnet-cpu[train]"; '
            "without it, use .npy, .npz, .csv, .pgm or IDX files"
        ) from None
    try:
        return np.asarray(imread(path))
    except OSError:
        raise
    except Exception as error:  # even SyntaxError, for what is no PNG
        raise ValueError(f"not a picture: {error}") from error
