from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]

def forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    num_threads: int,
    plans: list[dict[str, Any]] | None = None,
) -> None: ...
def grad_input(
    grad_y: Array,
    weight: Array,
    grad_x: Array,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    num_threads: int,
    plans: list[dict[str, Any]] | None = None,
) -> None: ...
