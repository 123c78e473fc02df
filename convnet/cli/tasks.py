# SPDX-License-Identifier: MIT
"""What `convnet train` can learn: two networks, each with the settings that suit it.

All settings were chosen by cross-validation inside the 1,201 training images. The test
images had no say in them, and have none in a run: they are only counted.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convnet import nn, optim
from convnet._check import Array
from convnet.cli.augment import with_variations
from convnet.history import History

__all__ = ["TASKS", "BinaryTask", "DigitsTask", "Outcome", "Task"]

SIDE = 8  # pixels of an image of the digits


class Task(ABC):
    """A network, how it is trained, and what its outputs mean.

    Attributes
    ----------
    name : str
        What the command line and the files of weights call it.
    classes : tuple of int
        The digits it tells apart.
    epochs, batch_size, lr
        Settings of the training where the user does not say otherwise.
    feature_layers : int
        Layers up to the first activation, whose feature maps are drawn.
    """

    name: ClassVar[str]
    classes: ClassVar[tuple[int, ...]]
    epochs: ClassVar[int]
    batch_size: ClassVar[int]
    lr: ClassVar[float]
    feature_layers: ClassVar[int]

    @abstractmethod
    def network(self, rng: np.random.Generator) -> nn.Sequential:
        """Return the untrained network for images of shape (N, 1, 8, 8)."""

    @abstractmethod
    def loss(self) -> nn.Loss:
        """Return the loss of the network's outputs and `targets`."""

    @abstractmethod
    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> optim.Optimizer:
        """Return the rule that changes the parameters."""

    @abstractmethod
    def targets(self, labels: Array) -> Array:
        """Return what the loss compares outputs with."""

    @abstractmethod
    def probabilities(self, outputs: Array) -> Array:
        """Return the probability of each class, (N, classes)."""

    def read(self, outputs: Array) -> tuple[Array, Array]:
        """Return the most probable digit of each image, and how probable it is."""
        probabilities = self.probabilities(outputs)
        digits = np.array(self.classes)[probabilities.argmax(axis=1)]
        return digits, probabilities.max(axis=1)

    def training_data(
        self, x: Array, labels: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Return the images and labels to train with."""
        return x, labels

    def lr_factor(self, progress: float) -> float:
        """Return the learning rate's factor after this share, 0 to 1, of the epochs."""
        return 1.0


@dataclass
class Outcome:
    """What a training has come to: the best weights, and how they read the test images.

    Attributes
    ----------
    model : Sequential
    history : History
    epoch : int or None
        Whose weights these are, counted from 1; None if no epoch was finished.
    images, labels : ndarray
        The test images (N, 1, 8, 8), and what they show (N,).
    read, certainty : ndarray of shape (N,)
        What was read, and the probability that the network gave it.
    seconds : float
    """

    model: nn.Sequential
    history: History
    epoch: int | None
    images: Array
    labels: Array
    read: Array
    certainty: Array
    seconds: float

    @property
    def accuracy(self) -> float:
        """Return the share of test images that were read right."""
        return float(np.mean(self.read == self.labels))


class DigitsTask(Task):
    """Ten digits: three convolutions, varied images, Adam with a falling rate."""

    name = "digits"
    classes = tuple(range(10))
    epochs = 10
    batch_size = 32
    lr = 3e-3
    feature_layers = 3

    def network(self, rng: np.random.Generator) -> nn.Sequential:
        """Return 16, 16 and 32 filters of 3x3 and a linear layer: 8,538 numbers."""
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, rng=rng),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, rng=rng),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, rng=rng),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * (SIDE // 4) ** 2, len(self.classes), rng=rng),
        )

    def loss(self) -> nn.Loss:
        """Return the cross-entropy of logits."""
        return nn.CrossEntropyLoss()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> optim.Optimizer:
        """Return Adam."""
        return optim.Adam(params, lr)

    def targets(self, labels: Array) -> Array:
        """Return the labels themselves."""
        return labels

    def probabilities(self, outputs: Array) -> Array:
        """Return the softmax of the logits."""
        return nn.Softmax()(outputs)

    def training_data(
        self, x: Array, labels: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Return every image six times: as it is, and turned and shifted a little."""
        return with_variations(x, labels, 5, rng)

    def lr_factor(self, progress: float) -> float:
        """Return half a cosine wave, from 1 down to 0."""
        return (1 + math.cos(math.pi * progress)) / 2


class BinaryTask(Task):
    """0 or 1: the smallest convolutional network that can be derived by hand.

    Convolution with a bias per output position, sigmoid, reshape, dense, sigmoid,
    binary cross-entropy, plain gradient descent.
    """

    name = "binary"
    classes = (0, 1)
    epochs = 20
    batch_size = 8
    lr = 0.3
    feature_layers = 2

    def network(self, rng: np.random.Generator) -> nn.Sequential:
        """Return 5 filters of 3x3 and one neuron behind their 6x6 pixels each."""
        features = 5 * (SIDE - 2) ** 2
        return nn.Sequential(
            nn.Conv2d(1, 5, 3, bias="untied", input_size=(SIDE, SIDE), rng=rng),
            nn.Sigmoid(),
            nn.Reshape((features,)),
            nn.Linear(features, 1, rng=rng),
            nn.Sigmoid(),
        )

    def loss(self) -> nn.Loss:
        """Return the binary cross-entropy of probabilities."""
        return nn.BCELoss()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> optim.Optimizer:
        """Return gradient descent without momentum."""
        return optim.SGD(params, lr)

    def targets(self, labels: Array) -> Array:
        """Return the labels as a column of probabilities of a 1."""
        return labels[:, np.newaxis].astype(np.float32)

    def probabilities(self, outputs: Array) -> Array:
        """Return the probabilities of a 0 and of a 1."""
        return np.concatenate([1 - outputs, outputs], axis=1)


TASKS: dict[str, Task] = {task.name: task for task in (DigitsTask(), BinaryTask())}
