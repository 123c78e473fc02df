from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]
_Pair = tuple[int, int]

def grad_weight(
    grad_y: _Array,
    x: _Array,
    grad_w: _Array,
    padding: _Pair,
    groups: int,
    num_threads: int,
    m: int,
    plans: list[dict[str, Any]] | None = None,
) -> None: ...
