# SPDX-License-Identifier: MIT
"""The public functions in plain NumPy: the definition of what is correct.

Each function has the name, the signature and the meaning of its fast twin in
`convnet.functional`, where the documentation is. The loops run over the taps (kh, kw)
of the kernel; under one tap the pixels of all windows form a regular grid, so that a
slice of the padded image holds them, and each operation reads as its formula.
`num_threads`, `algorithm` and `precision` are accepted for the sake of equal signatures
and mean nothing here.
"""

from convnet.reference.conv import (
    conv2d,
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
)
from convnet.reference.pool import (
    avg_pool2d,
    avg_pool2d_grad,
    global_avg_pool2d,
    max_pool2d,
    max_pool2d_grad,
)

__all__ = [
    "avg_pool2d",
    "avg_pool2d_grad",
    "conv2d",
    "conv2d_grad_bias",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "global_avg_pool2d",
    "max_pool2d",
    "max_pool2d_grad",
]
