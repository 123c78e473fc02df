from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]

def max_forward(
    x: Array,
    y: Array,
    indices: Array | None,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    num_threads: int,
) -> None: ...
def max_backward(
    grad_y: Array,
    indices: Array,
    grad_x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    num_threads: int,
) -> bool: ...
def avg_forward(
    x: Array,
    y: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pads,
    count_include_pad: bool,
    divisor: int,
    num_threads: int,
) -> None: ...
def avg_backward(
    grad_y: Array,
    grad_x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pads,
    count_include_pad: bool,
    divisor: int,
    num_threads: int,
) -> None: ...
