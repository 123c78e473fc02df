# SPDX-License-Identifier: MIT
"""Data sets: the handwritten digits that ship with convnet, and MNIST's IDX files."""

from convnet.data.digits import DigitsSplit, load_digits
from convnet.data.idx import read_idx

__all__ = ["DigitsSplit", "load_digits", "read_idx"]
