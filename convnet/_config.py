# SPDX-License-Identifier: MIT
"""What a bug report needs to know about an installation."""

import platform

import numpy as np

from convnet import _kernels, _threads
from convnet._version import __version__


def show_config() -> None:
    """Print versions, instruction sets, threads and compiler.

    Examples
    --------
    >>> import convnet
    >>> convnet.show_config()  # doctest: +ELLIPSIS
    convnet   ...
    """
    rows, columns, _ = _kernels.tile_shape(4)
    print(f"convnet   {__version__}")
    print(f"isa       {_kernels.get_isa()} of {', '.join(_kernels.available_isas())}")
    print(f"tile      {rows} x {columns} float32")
    print(f"threads   {_threads.get_num_threads()}")
    print(f"compiler  {_kernels.compiler()}")
    print(f"numpy     {np.__version__}")
    print(f"python    {platform.python_version()} on {platform.platform()}")
