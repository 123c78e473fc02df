# SPDX-License-Identifier: MIT
"""ONNX Runtime on a model of one node, inputs and outputs without copies."""

from typing import Any

import numpy as np
import onnxruntime

from bench.cases import Array, Case
from bench.libraries import Library, Run
from bench.libraries.onnx_model import onnx_model


class OnnxRuntime(Library):
    """The CPU provider; weights are packed when the session is made."""

    version = onnxruntime.__version__

    def __init__(self, threads: int) -> None:
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.threads = self.options.intra_op_num_threads

    def load(self, array: Array) -> Any:
        """Return ONNX Runtime's handle on the array."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    def store(self, result: Any) -> Array:
        """Return the values of the only output."""
        return np.asarray(result[0].numpy())

    def fwd(self, case: Case, *fixed: Array) -> Run:
        """Run the model of this case."""
        session = onnxruntime.InferenceSession(
            onnx_model(case, fixed), self.options, providers=["CPUExecutionProvider"]
        )
        return lambda x: session.run_with_ort_values(["y"], {"x": x})

    max = avg = fwd
