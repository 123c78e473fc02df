from typing import Any

import numpy as np

from convnet._operands import Steps

_Array = np.ndarray[Any, Any]

def is_whole(x: _Array, steps: Steps) -> bool: ...
def average(x: _Array, y: _Array, divisor: int, num_threads: int) -> None: ...
def spread(grad_y: _Array, grad_x: _Array, divisor: int, num_threads: int) -> None: ...
