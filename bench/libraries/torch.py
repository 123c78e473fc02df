# SPDX-License-Identifier: MIT
"""PyTorch, eager: in NCHW, in channels_last, and with packed oneDNN tensors."""

from typing import Any

import torch
from torch.nn import functional

from bench.cases import Array, Case, Conv, Pool
from bench.libraries import Library, Run
from bench.training import LEARNING_RATE, MOMENTUM, Training, build

aten = torch.ops.aten


class Eager(Library):
    """What all ways of calling torch share."""

    version = torch.__version__

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.threads = torch.get_num_threads()


class Torch(Eager):
    """Plain tensors; gradients through the operators that autograd calls."""

    memory_format = torch.contiguous_format

    def load(self, array: Array) -> Any:
        """Return a tensor in this memory format."""
        tensor = torch.from_numpy(array)
        if tensor.ndim == 4:
            return tensor.contiguous(memory_format=self.memory_format)
        return tensor

    def store(self, result: Any) -> Array:
        """Return a tensor's values."""
        return result.contiguous().numpy()

    def fwd(self, case: Conv, weight: Array, bias: Array) -> Run:
        """Add the bias to conv(x, weight)."""
        w, b = self.load(weight), self.load(bias)
        return lambda x: functional.conv2d(x, w, b, *case.window)

    def gx(self, case: Conv, weight: Array) -> Run:
        """Gradient to the input."""
        x, w = self._empty(case), self.load(weight)
        settings = _backward(case, [True, False, False])
        return lambda grad_y: aten.convolution_backward(grad_y, x, w, *settings)[0]

    def gw(self, case: Conv) -> Run:
        """Gradient to the weights."""
        w = torch.empty(case.w_shape).contiguous(memory_format=self.memory_format)
        settings = _backward(case, [False, True, False])
        return lambda grad_y, x: aten.convolution_backward(grad_y, x, w, *settings)[1]

    def max(self, case: Pool) -> Run:
        """Largest of each window."""
        K, S, P = case.K, case.S, case.P
        return lambda x: functional.max_pool2d(x, K, S, P)

    def avg(self, case: Pool) -> Run:
        """Mean of each window."""
        K, S, P = case.K, case.S, case.P
        return lambda x: functional.avg_pool2d(x, K, S, P)

    def maxg(self, case: Pool) -> Run:
        """Gradient of max pooling."""
        grad, x = aten.max_pool2d_with_indices_backward, self._empty(case)
        K, S, P = [case.K] * 2, [case.S] * 2, [case.P] * 2
        return lambda grad_y, indices: grad(grad_y, x, K, S, P, [1, 1], False, indices)

    def avgg(self, case: Pool) -> Run:
        """Gradient of average pooling."""
        grad, x = aten.avg_pool2d_backward, self._empty(case)
        K, S, P = [case.K] * 2, [case.S] * 2, [case.P] * 2
        return lambda grad_y: grad(grad_y, x, K, S, P, False, True, None)

    def step(self, case: Training, *parameters: Array) -> Run:
        """Train, and return the losses."""
        net = build(torch.nn, lambda: torch.nn.AdaptiveAvgPool2d(1), case.layers)
        net = net.to(memory_format=self.memory_format)
        starts, loss = (
            [torch.from_numpy(p) for p in parameters],
            torch.nn.CrossEntropyLoss(),
        )

        def train(x: Any, target: Any) -> Any:
            for parameter, start in zip(net.parameters(), starts, strict=True):
                parameter.copy_(start)
            sgd = torch.optim.SGD(net.parameters(), LEARNING_RATE, MOMENTUM)
            losses = []
            for _ in range(case.work):
                with torch.enable_grad():
                    value = loss(net(x), target)
                    sgd.zero_grad()
                    value.backward()
                sgd.step()
                losses.append(value.item())
            return torch.tensor(losses, dtype=torch.float64)

        return train

    def _empty(self, case: Case) -> Any:
        """Return a tensor that stands for the input where only its shape matters."""
        return torch.zeros(case.x_shape).contiguous(memory_format=self.memory_format)


class ChannelsLast(Torch):
    """The same, with all images and weights in memory as NHWC."""

    memory_format = torch.channels_last


class Packed(Eager):
    """oneDNN's own blocked tensors in and out, and weights reordered beforehand."""

    def load(self, array: Array) -> Any:
        """Return a oneDNN tensor."""
        return torch.from_numpy(array).to_mkldnn()

    def store(self, result: Any) -> Array:
        """Return a oneDNN tensor's values."""
        return result.to_dense().numpy()

    def fwd(self, case: Conv, weight: Array, bias: Array) -> Run:
        """Add the bias to conv(x, weight)."""
        S, P, D, G = (case.S, case.S), case.P, (case.D, case.D), case.G
        w = torch._C._nn.mkldnn_reorder_conv2d_weight(
            self.load(weight), P, S, D, G, case.x_shape
        )
        b = self.load(bias)
        return lambda x: functional.conv2d(x, w, b, S, P, D, G)


def _backward(case: Conv, wanted: list[bool]) -> tuple[Any, ...]:
    """Return the last arguments of `convolution_backward`."""
    S, D = [case.S] * 2, [case.D] * 2
    return None, S, list(case.P), D, False, [0, 0], case.G, wanted
