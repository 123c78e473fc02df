from typing import Any

import numpy as np

from convnet._operands import Steps
from convnet._tiling import Tiling

_Array = np.ndarray[Any, Any]

def forward(
    x: _Array,
    weight: _Array,
    bias: _Array | None,
    y: _Array,
    tiling: Tiling,
    steps: Steps,
    groups: int,
    num_threads: int,
    packings: dict[Any, Any] | None = None,
    residual: _Array | None = None,
    clip: tuple[float, float] | None = None,
    plans: list[dict[str, Any]] | None = None,
) -> None: ...
def grad_input(
    grad_y: _Array,
    weight: _Array,
    grad_x: _Array,
    tiling: Tiling,
    steps: Steps,
    groups: int,
    num_threads: int,
    plans: list[dict[str, Any]] | None = None,
) -> None: ...
