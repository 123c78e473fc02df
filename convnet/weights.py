# SPDX-License-Identifier: MIT
"""Save and load weights, as `.npz` or `.safetensors`.

A file is written beside its final name and renamed when it is complete, so that no
crash leaves half a file, or loses the one that was there. Reading runs no code from a
file, and believes no size in it before comparing with the size of the file itself.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from convnet import _npz, _safetensors
from convnet._check import Array
from convnet.nn import Module

Pathlike: TypeAlias = str | os.PathLike[str]


class Format(NamedTuple):
    """What there is to know about one kind of file."""

    write: Callable[[IO[bytes], dict[str, Array], dict[str, str]], None]
    read: Callable[[Path], dict[str, Array]]
    read_metadata: Callable[[Path], dict[str, str]]


FORMATS = {
    ".npz": Format(_npz.write, _npz.read, _npz.read_metadata),
    ".safetensors": Format(
        _safetensors.write, _safetensors.read, _safetensors.read_metadata
    ),
}


def save_weights(
    weights: Module | Mapping[str, ArrayLike],
    path: Pathlike,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Save a module's weights, or any named arrays, to a file.

    Parameters
    ----------
    weights : Module, or mapping of str to array_like
        Floats or integers.
    path : path
        Ends in `.npz`, which ``numpy.load`` reads too, or in `.safetensors`, which
        needs the extra `safetensors`. Equal weights make equal `.npz` files.
    metadata : mapping of str to str, optional
        Kept in the file: for instance what is needed to build the module again.

    Raises
    ------
    ValueError
        If `path` ends otherwise.
    TypeError
        If an array holds no real numbers, or a name or metadata is no string.
    OSError
        If the folder does not exist, or the file cannot be written.
    ImportError
        If the extra is missing.

    See Also
    --------
    load_weights, load_metadata, convnet.nn.Module.load_state_dict

    Examples
    --------
    >>> import tempfile
    >>> from convnet.nn import Linear
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "weights.npz"
    ...     save_weights(Linear(5, 3), path, metadata={"features": "5"})
    ...     weights, metadata = load_weights(path), load_metadata(path)
    >>> {name: array.shape for name, array in weights.items()}
    {'weight': (3, 5), 'bias': (3,)}
    >>> metadata
    {'features': '5'}
    >>> Linear(5, 3).load_state_dict(weights)
    """
    state = weights.state_dict() if isinstance(weights, Module) else weights
    arrays = {name: _real(state[name], name) for name in state}
    notes = dict(metadata or {})
    texts = [*arrays, *notes, *notes.values()]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"names and metadata must be strings, got {texts}")
    path = Path(path)
    kind = _format(path)
    with replacing(path) as file:
        kind.write(file, arrays, notes)


def load_weights(path: Pathlike) -> dict[str, Array]:
    """Return the arrays in a file by name, as `Module.load_state_dict` takes them.

    Parameters
    ----------
    path : path
        A file of `save_weights`, of ``numpy.savez``, or in the safetensors format.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If the file is damaged or holds other things than arrays of real numbers, or if
        `path` ends otherwise.
    ImportError
        If the extra `safetensors` is needed and missing.
    """
    path = Path(path)
    return _format(path).read(path)


def load_metadata(path: Pathlike) -> dict[str, str]:
    """Return the metadata in a file of weights; empty if there is none.

    Parameters
    ----------
    path : path

    Raises
    ------
    OSError, ValueError, ImportError
        As `load_weights`.
    """
    path = Path(path)
    return _format(path).read_metadata(path)


def _format(path: Path) -> Format:
    try:
        return FORMATS[path.suffix]
    except KeyError:
        raise ValueError(
            f"a file of weights must end in {' or '.join(FORMATS)}, got {str(path)!r}"
        ) from None


def _real(value: ArrayLike, name: str) -> Array:
    """Return an array that every format can hold."""
    array = np.asarray(value, order="C")
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must hold floats or integers, got {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of `path` once it is complete.

    If anything goes wrong before, `path` stays as it was.
    """
    if not path.parent.is_dir():  # else the error would name the temporary file
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
    temporary = path.with_name(f".convnet-{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
