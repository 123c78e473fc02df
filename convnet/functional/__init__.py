# SPDX-License-Identifier: MIT
"""The public array functions: check, allocate, drive, return.

Each function turns its arguments into windows (`_geometry`) and views (`_check`),
allocates the result and hands both to a compiled driver. `convnet.reference` has the
same functions, slow and readable, as the definition of what is correct.
"""

from convnet.functional.avg_pool import avg_pool2d, avg_pool2d_grad, global_avg_pool2d
from convnet.functional.conv import conv2d
from convnet.functional.conv_grad import (
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
)
from convnet.functional.max_pool import max_pool2d, max_pool2d_grad

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
