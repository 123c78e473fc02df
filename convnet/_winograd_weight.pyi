from typing import Any

import numpy as np

from convnet._operands import Steps

_Array = np.ndarray[Any, Any]

def grad_weight(
    grad_y: _Array,
    x: _Array,
    grad_w: _Array,
    points: int,
    steps: Steps,
    groups: int,
    num_threads: int,
    plans: list[dict[str, Any]] | None = None,
) -> None: ...
