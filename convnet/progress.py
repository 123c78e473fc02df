# SPDX-License-Identifier: MIT
"""What a training shows: a line per epoch, and under the lines a bar."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


class Progress:
    """Lines, and a bar over all steps; a context manager, which removes the bar.

    The bar needs tqdm and a terminal; the lines need nothing.

    Parameters
    ----------
    steps : int
        How many there will be.
    show : bool, default True
        False makes it show nothing.
    """

    def __init__(self, steps: int, show: bool = True) -> None:
        self.steps = steps
        self.show = show
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        """Show the bar, if there can be one."""
        if self.show:
            try:
                from tqdm import tqdm
            except ImportError:
                return self
            # disable=None: no bar where the output is no terminal.
            self._bar = tqdm(total=self.steps, unit="step", leave=False, disable=None)
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def count(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items, and count a step after each."""
        for item in items:
            yield item
            if self._bar is not None:
                self._bar.update()

    def print(self, line: str) -> None:
        """Print a line, above the bar."""
        if self._bar is not None:
            self._bar.write(line)
        elif self.show:
            print(line, flush=True)
