# SPDX-License-Identifier: MIT
"""`convnet info`: what this installation is, or what a file of weights holds."""

import argparse
from pathlib import Path

import numpy as np

import convnet
from convnet._check import Array
from convnet.cli.errors import blame_user
from convnet.weights import load_metadata, load_weights

__all__ = ["add_parser", "run"]


def run(args: argparse.Namespace) -> int:
    """Print the configuration, or one file's contents; return the exit code."""
    if args.weights is None:
        convnet.show_config()
    else:
        _print_weights(args.weights)
    return 0


def _print_weights(path: Path) -> None:
    with blame_user("cannot read", path):
        weights, metadata = load_weights(path), load_metadata(path)
    for name, value in metadata.items():
        print(f"{name:14} {value}")
    rows = [("tensor", "shape", "dtype", "min", "max")]
    for name, array in weights.items():
        low, high = (f"{limit:.4g}" for limit in _limits(array))
        rows.append((name, str(array.shape), str(array.dtype), low, high))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{w}}" for cell, w in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    count = sum(array.size for array in weights.values())
    size = sum(array.nbytes for array in weights.values())
    print(f"{len(weights)} tensors, {count} numbers, {size} bytes")


def _limits(array: Array) -> tuple[float, float]:
    """Return the smallest and the largest value; NaN where there is none."""
    return (float(array.min()), float(array.max())) if array.size else (np.nan, np.nan)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "info",
        help="describe this installation, or a file of weights",
        description="Print version, instruction sets, threads and compiler, as a bug "
        "report needs them; or the metadata and tensors of a file of weights.",
    )
    parser.add_argument("weights", nargs="?", type=Path, metavar="WEIGHTS")
    parser.set_defaults(run=run)
