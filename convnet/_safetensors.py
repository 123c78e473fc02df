# SPDX-License-Identifier: MIT
"""The `.safetensors` format, through the package of that name (an extra).

Its reader is written in Rust and checks all sizes against the file's by itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from convnet._check import Array


def write(file: IO[bytes], arrays: dict[str, Array], metadata: dict[str, str]) -> None:
    """Write arrays and metadata."""
    try:
        from safetensors.numpy import save
    except ImportError:
        raise _missing("saving to") from None
    file.write(save(arrays, metadata or None))


def read(path: Path) -> dict[str, Array]:
    """Return all arrays of a file."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file, if it has any."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file; say which one is damaged or has numbers that NumPy lacks."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise _missing("loading from") from None
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of weights: {error}") from error


def _missing(doing: str) -> ImportError:
    return ImportError(
        f'{doing} .safetensors needs the extra: pip install "convnet-cpu[safetensors]"'
    )
