# SPDX-License-Identifier: MIT
"""NumPy's `.npz` format, a zip archive of `.npy` files, read with distrust.

NumPy's reader takes the memory that a header asks for before it looks whether the file
has so many bytes, and evaluates the header as Python. Here a header has to match one
pattern, and its shape the size of its entry, which in turn the archive must be able to
hold. Object arrays, which would need unpickling, do not match.
"""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from convnet._check import Array

METADATA = "__metadata__"
# How far deflate can compress at most; see "Maximum Compression Factor" at zlib.net.
DEFLATE_FACTOR = 1032
HEADER = re.compile(
    rb"\{\s*'descr':\s*'([<>|=](?:f[248]|[iu][1248]))',"
    rb"\s*'fortran_order':\s*(True|False),"
    rb"\s*'shape':\s*\(([\d, ]*)\),?\s*\}\s*"
)
LONGEST_HEADER = 10_000
# RuntimeError is for encrypted entries, and for what zipfile does not know.
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)


def write(file: IO[bytes], arrays: dict[str, Array], metadata: dict[str, str]) -> None:
    """Write arrays, and metadata as an array of JSON's bytes."""
    if METADATA in arrays:
        raise ValueError(f"an array cannot be called {METADATA}")
    if metadata:
        text = json.dumps(metadata).encode()
        arrays = {**arrays, METADATA: np.frombuffer(text, np.uint8)}
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            # A ZipInfo of its own has no time of day in it: equal weights, equal files.
            info = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(info, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def read(path: Path) -> dict[str, Array]:
    """Return all arrays of a file but the metadata."""
    with _opened(path) as archive:
        return {
            info.filename.removesuffix(".npy"): _read_entry(archive, info)
            for info in archive.infolist()
            if info.filename != f"{METADATA}.npy"
        }


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file, if it has any."""
    with _opened(path) as archive:
        name = f"{METADATA}.npy"
        if name not in archive.namelist():
            return {}
        text = _read_entry(archive, archive.getinfo(name)).tobytes()
        metadata = json.loads(text)
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError(f"{path} has metadata that are not strings by name")
    return metadata


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose entries may fit into it; say which file is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            size, entries = path.stat().st_size, archive.infolist()
            stored = sum(info.compress_size for info in entries)
            if stored > size:
                raise ValueError(f"its entries claim {stored} of {size} bytes")
            if not all(0 <= info.header_offset < size for info in entries):
                raise ValueError("an entry lies outside the file")
            yield archive
    except UNREADABLE as error:
        raise ValueError(f"{path} is no file of weights: {error}") from error


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Return one array, after checking that its sizes can be true."""
    factor = DEFLATE_FACTOR if info.compress_type == zipfile.ZIP_DEFLATED else 1
    if info.file_size > info.compress_size * factor:
        raise ValueError(f"{info.filename} cannot hold {info.file_size} bytes")
    with archive.open(info) as entry:
        dtype, shape, fortran = _read_header(entry, info.filename)
        size = math.prod(shape) * dtype.itemsize
        if size != info.file_size - entry.tell():
            raise ValueError(
                f"{info.filename} has shape {shape} and dtype {dtype}, but not "
                f"{size} bytes of data"
            )
        values = np.frombuffer(entry.read(size), dtype)
    native = values.astype(dtype.newbyteorder("="))
    if fortran:
        return native.reshape(shape[::-1]).T.copy()
    return native.reshape(shape)


def _read_header(
    entry: IO[bytes], name: str
) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Return dtype, shape, and whether the first index runs fastest."""
    magic, version = entry.read(6), entry.read(2)
    length = int.from_bytes(entry.read(2 if version[:1] == b"\1" else 4), "little")
    match = HEADER.fullmatch(entry.read(min(length, LONGEST_HEADER)))
    if magic != b"\x93NUMPY" or match is None:
        raise ValueError(f"{name} is no array of floats or integers")
    descr, fortran, sizes = match.groups()
    shape = tuple(int(size) for size in sizes.replace(b",", b" ").split())
    return np.dtype(descr.decode()), shape, fortran == b"True"
