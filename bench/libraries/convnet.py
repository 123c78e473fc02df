# SPDX-License-Identifier: MIT
"""convnet as a user calls it, in NCHW; and its plain reference, which is the judge."""

from typing import Any

import numpy as np

import convnet
from bench.cases import Array, Conv, Pool
from bench.libraries import Library, Run
from bench.training import LEARNING_RATE, MOMENTUM, Training, build
from convnet import nn, optim, reference


class Functions(Library):
    """The public functions, of convnet or of a module with the same ones."""

    functions: Any = convnet

    def __init__(self, threads: int) -> None:
        convnet.set_num_threads(threads)
        self.threads = convnet.get_num_threads()
        self.version = f"{convnet.__version__} {convnet.get_isa()}"

    def fwd(self, case: Conv, weight: Array, bias: Array) -> Run:
        """Add the bias to conv(x, weight)."""
        conv2d = self.functions.conv2d
        return lambda x: conv2d(x, weight, bias, *case.window)

    def gx(self, case: Conv, weight: Array) -> Run:
        """Gradient to the input."""
        grad, shape = self.functions.conv2d_grad_input, case.x_shape
        return lambda grad_y: grad(grad_y, weight, shape, *case.window)

    def gw(self, case: Conv) -> Run:
        """Gradient to the weights."""
        grad, shape = self.functions.conv2d_grad_weight, case.w_shape
        return lambda grad_y, x: grad(grad_y, x, shape, *case.window)

    def max(self, case: Pool) -> Run:
        """Largest of each window."""
        pool = self.functions.max_pool2d
        return lambda x: pool(x, case.K, case.S, case.P)

    def avg(self, case: Pool) -> Run:
        """Mean of each window."""
        pool = self.functions.avg_pool2d
        return lambda x: pool(x, case.K, case.S, case.P)

    def maxg(self, case: Pool) -> Run:
        """Gradient of max pooling."""
        grad, shape = self.functions.max_pool2d_grad, case.x_shape
        return lambda grad_y, indices: grad(
            grad_y, indices, shape, case.K, case.S, case.P
        )

    def avgg(self, case: Pool) -> Run:
        """Gradient of average pooling."""
        grad, shape = self.functions.avg_pool2d_grad, case.x_shape
        return lambda grad_y: grad(grad_y, shape, case.K, case.S, case.P)


class Layers(Functions):
    """convnet's functions and layers."""

    def step(self, case: Training, *parameters: Array) -> Run:
        """Train, and return the losses."""
        net = build(nn, nn.GlobalAvgPool2d, case.layers, dtype=parameters[0].dtype)
        loss = nn.CrossEntropyLoss()

        def train(x: Array, target: Array) -> Array:
            for parameter, start in zip(net.parameters(), parameters, strict=True):
                parameter.value = start
            sgd = optim.SGD(net.parameters(), LEARNING_RATE, MOMENTUM)
            losses = []
            for _ in range(case.work):
                losses.append(loss(net(x), target))
                sgd.zero_grad()
                net.accumulate(loss.backward())
                sgd.step()
            return np.array(losses)

        return train


class Convnet(Layers):
    """The same; forward as a prepared layer, as the peers' models are."""

    def fwd(self, case: Conv, weight: Array, bias: Array) -> Run:
        """Add the bias to conv(x, weight)."""
        layer = convnet.nn.Conv2d(case.IC, case.OC, case.K, *case.window)
        layer.weight.value, layer.bias.value = weight, bias
        return layer.prepare()


class Reference(Layers):
    """The same functions in plain NumPy; training with the layers, in any precision."""

    functions = reference
