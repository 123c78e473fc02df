from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]

def grad_weight(
    grad_y: Array,
    x: Array,
    grad_w: Array,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    num_threads: int,
    plans: list[dict[str, Any]] | None = None,
) -> None: ...
def grad_bias(grad_y: Array, grad_b: Array, num_threads: int) -> None: ...
