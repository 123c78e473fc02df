# SPDX-License-Identifier: MIT
"""Layers, losses and networks of them.

A `Module` computes ``forward`` and ``backward``; its `Parameter` objects hold what is
learned. `Module.prepare` returns a `Prepared` network for fast inference.
"""

from convnet.nn import init
from convnet.nn.activation import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from convnet.nn.container import Residual, Sequential
from convnet.nn.conv import Conv2d
from convnet.nn.dropout import Dropout
from convnet.nn.linear import Linear
from convnet.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    Loss,
    MSELoss,
)
from convnet.nn.module import Module, Parameter
from convnet.nn.normalization import BatchNorm2d
from convnet.nn.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from convnet.nn.prepared import Prepared
from convnet.nn.separable import SeparableConv2d
from convnet.nn.shape import Flatten, Reshape

__all__ = [
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "Parameter",
    "Prepared",
    "ReLU",
    "Reshape",
    "Residual",
    "SeparableConv2d",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "init",
]
