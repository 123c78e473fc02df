from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]
_Pair = tuple[int, int]
_Pads = tuple[int, int, int, int]

def max_forward(
    x: _Array,
    y: _Array,
    indices: _Array | None,
    kernel: _Pair,
    stride: _Pair,
    padding: _Pair,
    dilation: _Pair,
    num_threads: int,
) -> None: ...
def max_backward(
    grad_y: _Array,
    indices: _Array,
    grad_x: _Array,
    kernel: _Pair,
    stride: _Pair,
    padding: _Pair,
    dilation: _Pair,
    num_threads: int,
) -> bool: ...
def avg_forward(
    x: _Array,
    y: _Array,
    kernel: _Pair,
    stride: _Pair,
    padding: _Pads,
    count_include_pad: bool,
    divisor: int,
    num_threads: int,
) -> None: ...
def avg_backward(
    grad_y: _Array,
    grad_x: _Array,
    kernel: _Pair,
    stride: _Pair,
    padding: _Pads,
    count_include_pad: bool,
    divisor: int,
    num_threads: int,
) -> None: ...
