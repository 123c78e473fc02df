from collections.abc import Callable
from typing import Any

import numpy as np

_Arrays = tuple[np.ndarray[Any, Any], ...]

class Answer: ...

class Remembered:
    def __init__(
        self,
        as_floats: Callable[[tuple[Any, ...]], _Arrays],
        check: Callable[..., Any],
    ) -> None: ...
    def __call__(
        self, values: tuple[Any, ...], options: tuple[Any, ...]
    ) -> tuple[_Arrays, Any]: ...

def are_floats(values: tuple[Any, ...]) -> bool: ...
