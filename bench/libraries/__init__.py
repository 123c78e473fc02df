# SPDX-License-Identifier: MIT
"""The libraries that can be timed, one file each.

A library is a class with one method per operation it can do, named as the passes are
(fwd, gx, gw, max, avg, maxg, avgg). The method gets the case and its fixed operands and
returns the function that the clock sees; that function gets the rotating operands, in
the library's own form, and returns the result in the library's own form. Conversions,
compilation and the preparation of weights thus stay outside the clock.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np

from bench.cases import Array, Case

Run: TypeAlias = Callable[..., Any]

# How many results the clock keeps alive; a library that writes its results into memory
# of its own must have one place more.
ALIVE = 3

# Name: (where the class is, which packages it needs).
LIBRARIES = {
    "convnet": ("bench.libraries.convnet:Convnet", ()),
    "torch": ("bench.libraries.torch:Torch", ("torch",)),
    "torch-cl": ("bench.libraries.torch:ChannelsLast", ("torch",)),
    "torch-packed": ("bench.libraries.torch:Packed", ("torch",)),
    "ort": ("bench.libraries.onnxruntime:OnnxRuntime", ("onnxruntime", "onnx")),
    "ov": ("bench.libraries.openvino:OpenVino", ("openvino", "onnx")),
    "ncnn": ("bench.libraries.ncnn:Ncnn", ("ncnn",)),
    "numpy": ("bench.libraries.numpy:Windows", ()),
    "scipy": ("bench.libraries.scipy:Loop", ("scipy",)),
}


class Library:
    """What most libraries share: they convert nothing and are never slow."""

    version: str

    def __init__(self, threads: int) -> None:
        self.threads = threads  # or what the library itself reports, if it does

    def supports(self, case: Case) -> bool:
        """Return whether the library has this operation for this case."""
        return hasattr(self, case.op)

    def estimate(self, case: Case) -> float:
        """Return about how many seconds a call takes; only slow libraries know."""
        return 0.0

    def load(self, array: Array) -> Any:
        """Return an operand in the library's own form."""
        return array

    def store(self, result: Any) -> Array:
        """Return a result as a NumPy array in NCHW."""
        return np.asarray(result)


def installed() -> list[str]:
    """Return the names of the peers whose packages can be imported."""
    return [
        name
        for name, (_, packages) in LIBRARIES.items()
        if name != "convnet" and all(map(find_spec, packages))
    ]


def load_class(name: str) -> type[Library]:
    """Return the class of a library in the table, or of any other as module:Class."""
    module, _, attribute = LIBRARIES.get(name, (name,))[0].partition(":")
    found: type[Library] = getattr(import_module(module), attribute)
    return found
