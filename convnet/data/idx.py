# SPDX-License-Identifier: MIT
"""IDX files, the format of MNIST: a header with the sizes, then the plain numbers.

``00 00 <dtype code> <number of axes>``, then each axis as a big-endian uint32, then the
items in C order, big-endian.
"""

import gzip
import io
import math
import os
import sys
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_idx"]

File: TypeAlias = io.BufferedReader | gzip.GzipFile

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_AXES = 32  # the most that every NumPy from 1.x on can hold
GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20  # bytes


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an array from an IDX file, the format of MNIST.

    The length of the data is compared with the sizes in the header before the array is
    allocated. A gzip-compressed file is recognized by its content, whatever its name;
    it is unpacked twice, the first time only to count its bytes.

    Parameters
    ----------
    path : str or path-like
        The file, plain or gzip-compressed.

    Returns
    -------
    ndarray
        A new array in native byte order: uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    ValueError
        If the file is no IDX file, or its length disagrees with its header.
    OSError
        If the file cannot be opened or read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "labels-idx1-ubyte")
    ...     _ = Path(path).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    try:
        with _open(path) as file:
            dtype, shape = _read_header(file, path)
            start = file.tell()
            _check_length(file, path, math.prod(shape) * dtype.itemsize)
            file.seek(start)
            return _read_items(file, path, dtype, shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged gzip data ({error})") from error


def _open(path: Path) -> File:
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _read_header(file: File, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES:
        raise ValueError(
            f"{path}: not an IDX file; it begins with {magic.hex(' ') or 'nothing'}, "
            "expected 00 00, a dtype code from 08 to 0e, and the number of axes"
        )
    dtype, axes = np.dtype(DTYPES[magic[2]]), magic[3]
    if not 1 <= axes <= MAX_AXES:
        raise ValueError(f"{path}: {axes} axes, expected 1 to {MAX_AXES}")
    sizes = file.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise ValueError(
            f"{path}: the header ends after {4 + len(sizes)} bytes, "
            f"but {axes} axes take {4 + 4 * axes}"
        )
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > sys.maxsize:
        raise ValueError(f"{path}: shape {shape} is larger than the address space")
    return dtype, shape


def _check_length(file: File, path: Path, wanted: int) -> None:
    """Compare the bytes left in `file` with `wanted`, in a memory of one chunk."""
    found = 0
    while found <= wanted and (chunk := file.read(CHUNK)):
        found += len(chunk)
    if found != wanted:
        have = f"{found}" if found < wanted else "more"
        raise ValueError(
            f"{path}: the header promises {wanted} bytes of data, the file has {have}"
        )


def _read_items(
    file: File, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    items = np.empty(shape, dtype)
    target = items.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(target) and (count := file.readinto(target[done:])):
        done += count
    if done < len(target):
        raise ValueError(f"{path}: the file shrank while it was read")
    return items.astype(dtype.newbyteorder("="), copy=False)
