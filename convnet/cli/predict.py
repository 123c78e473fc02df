# SPDX-License-Identifier: MIT
"""`convnet predict`: read digits with weights that `convnet train` has saved."""

import argparse
from pathlib import Path

import numpy as np

from convnet._check import Array
from convnet.cli.errors import UserError, blame_user
from convnet.cli.images import read_digits
from convnet.cli.tasks import TASKS, Task
from convnet.data import load_digits
from convnet.nn import Prepared
from convnet.weights import load_metadata, load_weights

__all__ = ["add_parser", "run"]

SHADES = " .:-=+*#%@"  # from paper to ink
SHOWN = 3  # test images to show where the user names no image
BAR = 30  # characters of a bar for certainty


def run(args: argparse.Namespace) -> int:
    """Read the images, or some test images; return the exit code."""
    task, network = _load(args.weights)
    if not args.images:
        _show_examples(task, network)
    for path in args.images:
        with blame_user("cannot read", path):
            images = read_digits(path)
        probabilities = task.probabilities(network(images))
        for i, row in enumerate(probabilities):
            name = f"{path}[{i}]" if len(images) > 1 else str(path)
            print(f"{name}: {_describe(row, task)}")
    return 0


def _load(path: Path) -> tuple[Task, Prepared]:
    """Build the network that a file of weights belongs to."""
    with blame_user("cannot read", path):
        weights, metadata = load_weights(path), load_metadata(path)
    task = TASKS.get(metadata.get("task", ""))
    if task is None:
        raise UserError(
            f"{path} does not say which network its weights are for; "
            "predict needs a file that convnet train has saved"
        )
    network = task.network(np.random.default_rng(0))
    with blame_user(f"no weights for the task {task.name}:", path):
        network.load_state_dict(weights)
    return task, network.prepare()


def _describe(probabilities: Array, task: Task) -> str:
    """Return the likeliest digit, its certainty, and what else it may be."""
    first, second = probabilities.argsort()[::-1][:2]
    text = f"{task.classes[first]}  ({100 * probabilities[first]:.1f} %"
    if probabilities[second] >= 0.01:
        text += f"; or {task.classes[second]}: {100 * probabilities[second]:.1f} %"
    return f"{text})"


def _show_examples(task: Task, network: Prepared) -> None:
    """Print the first test images, each beside the probabilities of its readings."""
    images, labels = load_digits(task.classes).test
    probabilities = task.probabilities(network(images[:SHOWN]))
    for image, label, row in zip(images, labels, probabilities, strict=False):
        print(f"a {label} of the test images, read as {_describe(row, task)}\n")
        right = [
            f"{digit}  {'#' * round(BAR * p):{BAR}} {100 * p:5.1f} %"
            for digit, p in zip(task.classes, row, strict=True)
        ]
        left = _drawing(image[0])
        for i in range(max(len(left), len(right))):
            cells = [side[i] if i < len(side) else "" for side in (left, right)]
            print(f"    {cells[0]:16}    {cells[1]}".rstrip())
        print()


def _drawing(image: Array) -> list[str]:
    """Return an image of inks from 0 to 1 in characters, two per pixel."""
    levels = (image * (len(SHADES) - 1)).round().astype(int)
    return ["".join(2 * SHADES[level] for level in row) for row in levels]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "predict",
        help="read digits with trained weights",
        description="Read handwritten digits with weights that convnet train has "
        "saved. Images may be of any size, dark on light or light on dark, with one "
        "digit each: .npy, .npz, .csv, .pgm and IDX (MNIST) files, and with "
        "matplotlib .png and others. Without images, some test images are shown.",
    )
    parser.add_argument(
        "weights",
        type=Path,
        metavar="WEIGHTS",
        help="of convnet train, such as convnet-digits/weights.npz",
    )
    parser.add_argument(
        "images",
        nargs="*",
        default=[],  # without, argparse says that images are required
        type=Path,
        metavar="IMAGE",
        help="a file with a picture of one digit, or arrays of several",
    )
    parser.set_defaults(run=run)
