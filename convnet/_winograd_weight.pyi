from typing import Any

import numpy as np

from convnet._operands import Steps
from convnet._tiling import Tiling

_Array = np.ndarray[Any, Any]

def grad_weight(
    grad_y: _Array,
    x: _Array,
    grad_w: _Array,
    tiling: Tiling,
    steps: Steps,
    groups: int,
    num_threads: int,
    plans: list[dict[str, Any]] | None = None,
) -> None: ...
