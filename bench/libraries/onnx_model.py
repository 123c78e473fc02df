# SPDX-License-Identifier: MIT
"""ONNX models of a single operation, for the libraries that run nothing else."""

from typing import Any

from onnx import TensorProto, helper, numpy_helper

from bench.cases import Array, Case, Conv

# Old enough for every runtime, new enough for every attribute used here.
OPSET, IR_VERSION = 17, 8
OPERATORS = {"fwd": "Conv", "max": "MaxPool", "avg": "AveragePool"}


def onnx_model(case: Case, fixed: tuple[Array, ...] = ()) -> bytes:
    """Return the serialised model y = operation(x), its weights inside."""
    constants = [numpy_helper.from_array(a, f"c{i}") for i, a in enumerate(fixed)]
    attributes: dict[str, Any] = {"strides": [case.S] * 2}
    if isinstance(case, Conv):
        attributes |= {"kernel_shape": case.K, "pads": case.P * 2}
        attributes |= {"dilations": [case.D] * 2, "group": case.G}
    else:
        attributes |= {"kernel_shape": [case.K] * 2, "pads": [case.P] * 4}
    if case.op == "avg":
        attributes["count_include_pad"] = 1
    node = helper.make_node(
        OPERATORS[case.op],
        ["x", *(constant.name for constant in constants)],
        ["y"],
        **attributes,
    )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", case.x_shape), ("y", case.y_shape))
    ]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], constants)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())
