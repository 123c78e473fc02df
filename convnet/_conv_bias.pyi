from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]

def grad_bias(grad_y: _Array, grad_b: _Array, num_threads: int) -> None: ...
