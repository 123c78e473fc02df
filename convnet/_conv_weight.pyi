from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]
_Pair = tuple[int, int]

def grad_weight(
    grad_y: _Array,
    x: _Array,
    grad_w: _Array,
    stride: _Pair,
    padding: _Pair,
    dilation: _Pair,
    groups: int,
    num_threads: int,
    plans: list[dict[str, Any]] | None = None,
) -> None: ...
