from typing import Any

import numpy as np

from convnet._operands import Steps

_Array = np.ndarray[Any, Any]

def max_forward(
    x: _Array,
    y: _Array,
    indices: _Array | None,
    steps: Steps,
    num_threads: int,
) -> None: ...
def max_backward(
    grad_y: _Array,
    indices: _Array,
    grad_x: _Array,
    steps: Steps,
    num_threads: int,
) -> bool: ...
def avg_forward(
    x: _Array,
    y: _Array,
    steps: Steps,
    count_include_pad: bool,
    divisor: int,
    num_threads: int,
) -> None: ...
def avg_backward(
    grad_y: _Array,
    grad_x: _Array,
    steps: Steps,
    count_include_pad: bool,
    divisor: int,
    num_threads: int,
) -> None: ...
