from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]
_Doubles = np.ndarray[Any, np.dtype[np.float64]]

def sums(
    a: _Array,
    b: _Array,
    C: int,
    pixels: int,
    center: _Doubles,
    total: _Doubles,
    norm: _Array | None,
    num_threads: int,
) -> None: ...
def normalize(
    x: _Array,
    y: _Array,
    C: int,
    pixels: int,
    norm: _Array,
    clip: bool,
    num_threads: int,
) -> None: ...
def normalize_grad(
    grad_y: _Array,
    x: _Array,
    grad_x: _Array,
    C: int,
    pixels: int,
    norm: _Array,
    clip: bool,
    num_threads: int,
) -> None: ...
def normalize_batch(
    x: _Array,
    y: _Array,
    C: int,
    pixels: int,
    affine: _Doubles,
    eps: float,
    moments: _Doubles,
    clip: bool,
    num_threads: int,
) -> None: ...
def normalize_batch_grad(
    grad_y: _Array,
    x: _Array,
    grad_x: _Array,
    C: int,
    pixels: int,
    norm: _Array,
    affine: _Doubles,
    total: _Doubles,
    clip: bool,
    num_threads: int,
) -> None: ...
