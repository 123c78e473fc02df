# SPDX-License-Identifier: MIT
"""OpenVINO on a model of one node, in float32, inputs and outputs without copies."""

from itertools import cycle
from typing import Any

import numpy as np
import openvino

from bench.cases import Array, Case
from bench.libraries import ALIVE, Library, Run
from bench.libraries.onnx_model import onnx_model


class OpenVino(Library):
    """The CPU plugin with one stream; weights are packed by the compilation."""

    version = openvino.__version__

    def __init__(self, threads: int) -> None:
        self.core = openvino.Core()
        self.core.set_property(
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        self.threads = self.core.get_property("CPU", "INFERENCE_NUM_THREADS")

    def load(self, array: Array) -> Any:
        """Return a tensor that shares the array's memory."""
        return openvino.Tensor(array, shared_memory=True)

    def store(self, result: Any) -> Array:
        """Return a tensor's values."""
        return np.array(result.data)

    def fwd(self, case: Case, *fixed: Array) -> Run:
        """Run the model of this case."""
        model = self.core.read_model(model=onnx_model(case, fixed))
        compiled = self.core.compile_model(model, "CPU")
        # A request writes each result over its last one: several take turns.
        requests = cycle([compiled.create_infer_request() for _ in range(ALIVE + 1)])

        def run(x: Any) -> Any:
            request = next(requests)
            request.set_input_tensor(x)
            request.infer()
            return request.get_output_tensor()

        return run

    max = avg = fwd
