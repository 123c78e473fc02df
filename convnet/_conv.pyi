from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]
_Pair = tuple[int, int]

def forward(
    x: _Array,
    weight: _Array,
    bias: _Array | None,
    y: _Array,
    stride: _Pair,
    padding: _Pair,
    dilation: _Pair,
    groups: int,
    num_threads: int,
    plans: list[dict[str, Any]] | None = None,
    packings: dict[Any, Any] | None = None,
    residual: _Array | None = None,
    clip: tuple[float, float] | None = None,
    keep_denormals: bool = False,
) -> None: ...
def grad_input(
    grad_y: _Array,
    weight: _Array,
    grad_x: _Array,
    stride: _Pair,
    padding: _Pair,
    dilation: _Pair,
    groups: int,
    num_threads: int,
    plans: list[dict[str, Any]] | None = None,
) -> None: ...
