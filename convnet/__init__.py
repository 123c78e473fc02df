# SPDX-License-Identifier: MIT
"""Fast convolution on CPUs, forward and backward: NumPy in, NumPy out.

    y[n, oc, oh, ow] = bias + sum of weight[oc, ic, kh, kw] * x[n, ic, ih, iw]

The functions here work on arrays; `convnet.nn`, `convnet.optim` and `convnet.fit` build
networks from them, `convnet.signal` has SciPy's two functions, `convnet.reference` the
plain NumPy definition of everything, and `convnet.testing` checks gradients.
"""

try:
    from convnet._kernels import get_isa, set_isa
except ModuleNotFoundError as error:
    if error.name != "convnet._kernels":
        raise
    raise ImportError(
        "convnet is not compiled here: this is its source tree. Run\n"
        "    pip install -e .\n"
        "in this folder, or `pip install .` and import it from another folder."
    ) from None

from convnet import data, nn, optim, reference, signal, testing
from convnet._config import set_precision, set_result_cache, show_config
from convnet._plan import Plan, explain
from convnet._threads import get_num_threads, set_num_threads
from convnet._version import __version__
from convnet.functional import (
    avg_pool2d,
    avg_pool2d_grad,
    conv2d,
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
    global_avg_pool2d,
    max_pool2d,
    max_pool2d_grad,
)
from convnet.history import History
from convnet.train import fit
from convnet.weights import load_weights, save_weights

__all__ = [
    "History",
    "Plan",
    "__version__",
    "avg_pool2d",
    "avg_pool2d_grad",
    "conv2d",
    "conv2d_grad_bias",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "data",
    "explain",
    "fit",
    "get_isa",
    "get_num_threads",
    "global_avg_pool2d",
    "load_weights",
    "max_pool2d",
    "max_pool2d_grad",
    "nn",
    "optim",
    "reference",
    "save_weights",
    "set_isa",
    "set_num_threads",
    "set_precision",
    "set_result_cache",
    "show_config",
    "signal",
    "testing",
]
