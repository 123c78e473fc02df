# SPDX-License-Identifier: MIT
"""Mistakes of the user, told apart from mistakes of the program."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["UserError", "blame_user"]


class UserError(Exception):
    """Something the user can put right: a message without traceback, exit code 2."""


@contextmanager
def blame_user(what: str, path: Path) -> Iterator[None]:
    """Turn the errors of reading, writing or checking a file into a `UserError`.

    Parameters
    ----------
    what : str
        What was tried, such as "cannot read".
    path : Path
        With what.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise UserError(f"{what} {path}: {reason.removeprefix(f'{path}: ')}") from error
