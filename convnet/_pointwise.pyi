from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]

def rectify(x: _Array, y: _Array, num_threads: int) -> None: ...
def rectify_grad(
    grad_y: _Array, y: _Array, grad_x: _Array, num_threads: int
) -> None: ...
def sgd_step(
    value: _Array,
    grad: _Array,
    velocity: _Array | None,
    lr: float,
    momentum: float,
    decay: float,
    nesterov: bool,
    num_threads: int,
) -> None: ...
def adam_step(
    value: _Array,
    grad: _Array,
    mean: _Array,
    square: _Array,
    factors: dict[str, float],
    num_threads: int,
) -> None: ...
